"""Measures what a second worker on a second core brings: `zoo train --strategy multi-worker` on one machine.

Each worker has a core of its own (taskset) and as many rows of each batch as the one that works alone, which has no
strategy. They sum their gradients over the loopback device.

    .venv/bin/python benchmarks/workers.py [--rounds 5] [--steps 10] [--cores 0 1] [--json FILE]

The aim is 1.5 times the tokens a second of one worker. Linux alone has taskset.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import alternate, describe_ratio, machine, ratio, write_json

PLACES = 32


def work(strategy: str | None, workers: int, sizes: argparse.Namespace) -> None:
    """Is one worker: for each line of standard input it takes a turn, and writes how long a step took."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from zoo.training import OptimizerConfig, make_optimizer, make_train_step, open_strategy, vocabulary_loss
    from zoo.training.losses import share, token_counts

    distribution = open_strategy(strategy)
    import keras
    import numpy as np

    from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder

    keras.utils.set_random_seed(0)
    model = encoder_decoder(
        EncoderDecoderConfig(
            vocabulary_size=sizes.vocabulary,
            width=sizes.width,
            num_heads=sizes.heads,
            feedforward_dim=4 * sizes.width,
            num_encoder_layers=sizes.layers,
            num_decoder_layers=sizes.layers,
        )
    )

    def loss(model, batch, training):
        counts, whole = (token_counts(part["labels"]) for part in (batch, batch.get("whole", batch)))
        inputs = {name: batch[name] for name in ("source", "target")}
        total = vocabulary_loss(model, inputs, batch["labels"], counts, 0.1, training=training)
        return total / share(counts, whole), {}

    optimizer = make_optimizer(OptimizerConfig(), 1000)
    step = make_train_step(model, optimizer, loss, clip_norm=1.0, distribution=distribution)
    ids = np.random.default_rng(0).integers(4, sizes.vocabulary, (3, workers * sizes.rows, PLACES), dtype=np.int32)
    batch = dict(zip(("source", "target", "labels"), ids))

    def steps(number: int) -> None:
        for _ in range(number):
            metrics = step(batch)
        float(metrics["loss"])

    steps(2)
    print("ready", flush=True)
    for line in sys.stdin:
        steps(1)
        began = time.perf_counter()
        steps(int(line))
        print((time.perf_counter() - began) / int(line), flush=True)


class Workers:
    """Processes that work on the same batches, each on its own core."""

    def __init__(self, cores: list[int], arguments: list[str], tokens: int):
        self.tokens = tokens * len(cores)
        addresses = []
        with socket.socket() as first, socket.socket() as second:
            for free in (first, second):
                free.bind(("127.0.0.1", 0))
                addresses.append(f"127.0.0.1:{free.getsockname()[1]}")
        self.processes = []
        for index, core in enumerate(cores):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, **({"TF_CONFIG": json.dumps(task)} if len(cores) > 1 else {})}
            role = ["--work", "multi-worker" if len(cores) > 1 else "alone"]
            command = ["taskset", "-c", str(core), sys.executable, __file__, *arguments, *role]
            self.processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in self.processes:
            while (line := process.stdout.readline()) != "ready\n":
                if not line:
                    raise RuntimeError(f"a worker ended with status {process.wait()}")

    def turn(self, steps: int) -> float:
        """Returns tokens a second over some steps."""
        for process in self.processes:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        return self.tokens / max(float(process.stdout.readline()) for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="timed steps in a turn")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1])
    parser.add_argument("--rows", type=int, default=32, help="of each worker in a batch")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--work", choices=("alone", "multi-worker"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        several = options.work == "multi-worker"
        work("multi-worker" if several else None, 2 if several else 1, options)
        return
    figures = {"machine": machine(["tensorflow", "keras"])}
    print(figures["machine"])
    sizes = [f"--{name}={getattr(options, name)}" for name in ("rows", "layers", "width", "heads", "vocabulary")]
    tokens = options.rows * PLACES
    one, two = Workers(options.cores[:1], sizes, tokens), Workers(options.cores, sizes, tokens)
    measured = alternate(
        {"one": lambda: one.turn(options.steps), "two": lambda: two.turn(options.steps)}, options.rounds
    )
    one.close()
    two.close()
    for name, turns in measured.items():
        print(f"{name:<6} {statistics.median(turns):10.0f} target tokens/s, best {max(turns):.0f}")
    figures |= {"tokens_per_second": measured, "ratio": ratio(measured["two"], measured["one"])}
    print(describe_ratio("two workers / one", figures["ratio"], "above 1.5 is the aim"))
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
