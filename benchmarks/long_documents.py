"""Times the encoder of an encoder_decoder at growing lengths of one source, and measures the memory that it takes.

4 layers, width 256, 4 heads, feed-forward 1,024, vocabulary 8,000, float32, one source, one XLA program a length.

    full        every token sees all of the source
    local       a window of 128 and one global token
    recurrent   chunks of 256, each of which remembers the one before it

Each side, length and round has a process of its own. Memory is by how much a call raises the peak of resident memory
(VmHWM, set back before it) above what was resident before the length was compiled. --backward times the gradient of
all weights too; full attention is left out above 4,096 tokens then.

    .venv/bin/python benchmarks/long_documents.py [--json FILE] [--backward] [--lengths 512 8192] [--sides local]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import describe_ratio, machine, ratio, seconds_each, write_json

SIDES: dict[str, dict] = {
    "full": {},
    "local": {"window": 128, "global_tokens": 1},
    "recurrent": {"chunk": 256},
}
LENGTHS = (512, 1024, 2048, 4096, 8192)
MOST_FULL_BACKWARD = 4096
PACKAGES = ("tensorflow", "keras", "numpy")
VOCABULARY, END = 8000, 2


# === In a process of its own ===


def resident(name: str) -> float:
    """Reads VmRSS, or its peak VmHWM, in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024


def encode(side: str, backward: bool) -> Callable[[int], Callable[[], object]]:
    """Builds a model; returns what makes a call for a length."""
    import numpy as np
    import tensorflow as tf

    from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder

    model = encoder_decoder(
        EncoderDecoderConfig(
            vocabulary_size=VOCABULARY,
            width=256,
            num_heads=4,
            feedforward_dim=1024,
            max_length=LENGTHS[-1],
            **SIDES[side],
        )
    )
    used = ("embedding/", "encoder/")
    variables = [weight.value for weight in model.trainable_weights if weight.path.startswith(used)]

    @tf.function(jit_compile=True, autograph=False)
    def run(source):
        if not backward:
            return tf.reduce_sum(model.encode(source, training=False)[0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.encode(source, training=True)[0] ** 2)
        return sum(tf.reduce_sum(tf.convert_to_tensor(gradient)) for gradient in tape.gradient(loss, variables))

    def call(length: int) -> Callable[[], object]:
        source = np.random.default_rng(0).integers(4, VOCABULARY, (1, length)).astype("int32")
        source[:, -1] = END
        source = tf.constant(source)
        return lambda: run(source).numpy()

    return call


def measure(side: str, length: int, backward: bool) -> dict[str, float]:
    """Times a call, and measures its peak of memory."""
    make = encode(side, backward)
    make(128)()
    before = resident("VmRSS")
    call = make(length)
    call()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    call()
    megabytes = resident("VmHWM") - before
    return {"seconds": seconds_each(call, max(1, 4096 // length))[0], "megabytes": megabytes}


# === All of them ===


def measure_all(options: argparse.Namespace) -> dict:
    """Measures every side at every length, round by round."""
    found: dict = {}
    for length in options.lengths:
        sides = [s for s in options.sides if not (s == "full" and options.backward and length > MOST_FULL_BACKWARD)]
        turns: dict[str, list[dict]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side in sides:
                command = [sys.executable, __file__, "--one", side, "--lengths", str(length)]
                command += ["--backward"] if options.backward else []
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                turns[side].append(json.loads(output.splitlines()[-1]))
        print(f"\n{length:,} tokens")
        for side, figures in turns.items():
            seconds, megabytes = (statistics.median(f[name] for f in figures) for name in ("seconds", "megabytes"))
            print(
                f"  {side:<10} {seconds:8.3f} s {1e6 * seconds / length:8.1f} us/token "
                f"{megabytes:8,.0f} MB {1024 * megabytes / length:8.1f} KB/token",
                flush=True,
            )
        found[length] = turns
        for side in sides[1:]:
            ours, theirs = ([f["seconds"] for f in turns[name]] for name in (sides[0], side))
            print("  " + describe_ratio(f"{sides[0]} / {side}", ratio(ours, theirs), "seconds"), flush=True)
    return found


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description="Time encoders of long documents.")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="default: %(default)s")
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=list(SIDES), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side; default: %(default)s")
    parser.add_argument("--backward", action="store_true", help="forward and backward instead of forward alone")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.lengths[0], options.backward)))
        return
    figures = {"benchmark": "long_documents", "machine": machine(PACKAGES), "backward": options.backward}
    print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    write_json(options.json, {**figures, "turns": measure_all(options)})


if __name__ == "__main__":
    main()
