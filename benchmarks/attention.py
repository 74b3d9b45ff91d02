"""Times attention at growing lengths: zoo's core and layer, keras' layer and torch's fused function, in one process.

8 heads of width 64, float32, always 8,192 tokens: a batch of 64 at T = 128, of 1 at T = 8,192. Every Keras side is one
XLA program. "both" is forward and backward, to queries, keys and values (for layers, to x and all weights).

    attend        zoo's attend()                     layer         zoo's MultiHeadAttention
    blockwise     zoo's blockwise_attend()           keras layer   keras.layers.MultiHeadAttention
    local         zoo's local_attend(window=256)
    linear        zoo's linear_attend()              torch         scaled_dot_product_attention, eager

--memory measures instead, each in a process of its own, by how much a forward and backward pass at the longest length
raises the peak of resident memory.

    .venv-peers/bin/python benchmarks/attention.py [--json FILE] [--memory]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import alternate, describe_ratio, machine, ratio, seconds_each, write_json

HEADS, WIDTH, TOKENS, WINDOW = 8, 64, 8192, 256
LENGTHS = (128, 512, 2048, 8192)
PACKAGES = ("tensorflow", "keras", "torch", "numpy")
FUNCTIONS = ("attend", "blockwise", "local", "linear")
FIGURES = (
    ("attend", "torch"),
    ("layer", "keras layer"),
    ("blockwise", "attend"),
    ("blockwise", "torch"),
    ("attend", "local"),
)


def function_side(name: str, length: int, backward: bool) -> Callable[[], object]:
    """Compiles one of zoo's functions over queries, keys and values."""
    import tensorflow as tf

    from zoo.attention import attend, blockwise_attend, linear_attend, local_attend

    function = {
        "attend": attend,
        "blockwise": blockwise_attend,
        "local": partial(local_attend, window=WINDOW),
        "linear": linear_attend,
    }[name]
    tensors = [tf.random.stateless_normal((TOKENS // length, length, HEADS, WIDTH), (0, i)) for i in range(4)]

    @tf.function(jit_compile=True)
    def run(query, key, value, weight):
        if not backward:
            return function(query, key, value)
        with tf.GradientTape() as tape:
            tape.watch([query, key, value])
            loss = tf.reduce_sum(function(query, key, value) * weight)
        return tape.gradient(loss, [query, key, value])

    return lambda: [x.numpy()[0, 0, 0, 0] for x in tf.nest.flatten(run(*tensors))]


def layer_side(name: str, length: int, backward: bool) -> Callable[[], object]:
    """Compiles a whole layer, projections included, over a sequence of width heads * head width."""
    import keras
    import tensorflow as tf

    from zoo.attention import MultiHeadAttention

    x, weight = (tf.random.stateless_normal((TOKENS // length, length, HEADS * WIDTH), (0, i)) for i in range(2))
    if name == "layer":
        layer = MultiHeadAttention(HEADS, WIDTH)
        layer.build(x.shape)
        call = layer
    else:
        layer = keras.layers.MultiHeadAttention(HEADS, WIDTH)
        layer.build(x.shape, x.shape)

        def call(x):
            return layer(x, x)

    variables = [variable.value for variable in layer.trainable_variables]

    @tf.function(jit_compile=True)
    def run(x, weight):
        if not backward:
            return call(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(call(x) * weight)
        return tape.gradient(loss, [x, *variables])

    return lambda: [tf.reshape(y, -1)[0].numpy() for y in tf.nest.flatten(run(x, weight))]


def torch_side(length: int, backward: bool) -> Callable[[], object]:
    """Runs torch's function, which picks its own CPU kernel."""
    import torch

    torch.set_num_threads(os.cpu_count())
    shape = (TOKENS // length, HEADS, length, WIDTH)
    query, key, value = (torch.randn(shape).requires_grad_(backward) for _ in range(3))
    weight = torch.randn(shape)

    def run():
        y = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return torch.autograd.grad((y * weight).sum(), (query, key, value)) if backward else y

    return run


def make_sides(length: int, backward: bool) -> dict[str, Callable[[], object]]:
    """Makes everything that takes turns at one length."""
    sides = {name: function_side(name, length, backward) for name in FUNCTIONS}
    if not (backward and length > 4096):  # together they need more than 24 GB
        sides |= {name: layer_side(name, length, backward) for name in ("layer", "keras layer")}
    return sides | {"torch": torch_side(length, backward)}


def turn(side: Callable[[], object]) -> Callable[[], float]:
    """Warms a side up and makes its turn: as many calls as take about 0.3 s."""
    repeats = max(1, int(0.3 / seconds_each(side, 1)[0]))
    return lambda: seconds_each(side, repeats)[0]


def measure(lengths: list[int], rounds: int) -> dict:
    """Times all sides at all lengths, forward alone and both ways."""
    figures = {}
    for backward in (False, True):
        for length in lengths:
            sides = make_sides(length, backward)
            seconds = alternate({name: turn(side) for name, side in sides.items()}, rounds)
            title = f"T = {length:,}, {'both' if backward else 'forward'}"
            print(f"\n{title}\n" + "\n".join(f"  {n:<12} {statistics.median(s):.4f} s" for n, s in seconds.items()))
            ratios = {f"{a} / {b}": ratio(seconds[a], seconds[b]) for a, b in FIGURES if {a, b} <= set(seconds)}
            for name, found in ratios.items():
                print("  " + describe_ratio(name, found, "seconds"), flush=True)
            figures[title] = {"length": length, "backward": backward, "seconds": seconds, "ratios": ratios}
    return figures


# === Memory ===


def peak_megabytes(name: str, length: int) -> float:
    """Measures, in this process, by how much one pass raises the peak of resident memory."""

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    function_side(name, 128, backward=True)()  # the compiler's own memory is there already
    before = peak()
    function_side(name, length, backward=True)()
    return peak() - before


def measure_memory(length: int) -> dict[str, float]:
    """Measures every function in a fresh process."""
    figures = {}
    for name in FUNCTIONS:
        command = [sys.executable, __file__, "--peak", name, "--lengths", str(length)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures[name] = float(output.split()[-1])
        print(f"{name:<12} {figures[name]:>8,.0f} MB at T = {length:,}", flush=True)
    print(f"blockwise / attend {figures['blockwise'] / figures['attend']:.3f}")
    return figures


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description="Time attention at growing lengths.")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--peak", choices=FUNCTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_megabytes(options.peak, options.lengths[-1]))
        return
    figures = {"benchmark": "attention", "machine": machine(PACKAGES)}
    print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    if options.memory:
        figures["megabytes"] = measure_memory(options.lengths[-1])
    else:
        figures["turns"] = measure(list(options.lengths), options.rounds)
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
