"""Measures the loss over a large vocabulary and its gradients, with logits block by block next to logits held at once.

    .venv/bin/python benchmarks/vocabulary_loss.py [--rounds 3] [--json FILE]

8,192 tokens, width 512, vocabulary 32,000. Memory is XLA's own count of each compiled program, arguments and results
included. The aims: at most a quarter of the memory, in at most 1.2 times the time.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import alternate, describe_ratio, machine, ratio, seconds_each, write_json

WHOLE, BLOCKS = "logits at once", "block by block"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measure the loss over a vocabulary, fused and not.")
    for name, value in {"tokens": 8192, "width": 512, "vocabulary": 32000, "rounds": 3, "repeats": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    sizes = parser.parse_args()
    figures = {"settings": vars(sizes), "machine": machine(("tensorflow", "keras", "numpy"))}
    dump = tempfile.TemporaryDirectory()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["XLA_FLAGS"] = f"--xla_dump_to={dump.name} {os.environ.get('XLA_FLAGS', '')}"
    import keras
    import numpy as np
    import tensorflow as tf

    from zoo.training import cross_entropy, linear_cross_entropy

    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(1, sizes.tokens, sizes.width)), tf.float32)
    table = tf.constant(rng.normal(size=(sizes.vocabulary, sizes.width)) * sizes.width**-0.5, tf.float32)
    labels = tf.constant(rng.integers(0, sizes.vocabulary, (1, sizes.tokens)), tf.int32)
    losses = {
        WHOLE: lambda x, table: keras.ops.sum(cross_entropy(x @ keras.ops.transpose(table), labels, 0.1)),
        BLOCKS: lambda x, table: linear_cross_entropy(x, table, labels, tf.ones_like(x[..., 0]), 0.1),
    }

    def program(loss):
        @tf.function(jit_compile=True)
        def value_and_gradients(x, table):
            with tf.GradientTape() as tape:
                tape.watch([x, table])
                value = loss(x, table)
            return value, tape.gradient(value, [x, table])

        return value_and_gradients

    programs, memory = {}, {}
    for name, loss in losses.items():
        programs[name] = program(loss)
        before = set(Path(dump.name).glob("*memory-usage-report.txt"))
        programs[name](x, table)
        reports = set(Path(dump.name).glob("*memory-usage-report.txt")) - before
        totals = [re.findall(r"Total bytes used: (\d+)", report.read_text()) for report in reports]
        memory[name] = max(int(size) for found in totals for size in found) / 2**20
    with dump:
        turns = {
            name: lambda one=one: seconds_each(lambda: float(one(x, table)[0]), sizes.repeats)[0]
            for name, one in programs.items()
        }
        seconds = alternate(turns, sizes.rounds)
    figures |= {"memory_mb": memory, "seconds": seconds, "ratio": ratio(seconds[BLOCKS], seconds[WHOLE])}
    for name, found in seconds.items():
        print(f"{name:<20} {memory[name]:>8,.0f} MB  {statistics.median(found):.2f} s")
    print(f"memory: {memory[BLOCKS] / memory[WHOLE]:.2f}")
    print(describe_ratio("seconds, block by block / at once", figures["ratio"], "below 1.2 is the aim"))
    write_json(sizes.json, figures)


if __name__ == "__main__":
    main()
