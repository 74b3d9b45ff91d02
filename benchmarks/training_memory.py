"""Measures how much memory an optimizer step takes, and how long it takes, in each of the ways to save some.

Every way trains the same encoder-decoder on the same batch, in a process of its own:

    plain       logits held at once, every block remembered, float32
    fused       training.fused_loss: logits block by block
    remat       training.remat: blocks computed again on the way back
    accumulate  training.accumulate: the batch in parts
    all         these three together
    bfloat16    training.precision "mixed_bfloat16"
    float16     training.precision "mixed_float16", the loss scaled
    adafactor, lion, muon   other optimizers than AdamW
    packed      as many tokens in rows four times as long, each of four texts that do not see each other

Memory is told three times: what weights and optimizer hold from step to step; what the compiled step uses beside
them by XLA, which is exact and does not depend on what else the machine does; and what the process held at its peak by
the system, compiler and all.

    .venv/bin/python benchmarks/training_memory.py [--ways plain fused ...] [--steps 0] [--json FILE]

With --steps 0 nothing is timed or run: the step is only compiled.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import machine, write_json

PACKED = 4  # texts in a row
PARTS = {"fused": {"fused_loss": True}, "remat": {"remat": True}, "accumulate": {"accumulate": 4}}
WAYS = {
    "plain": {},
    **PARTS,
    "all": {name: value for part in PARTS.values() for name, value in part.items()},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
    **{name: {"optimizer": {"name": name}} for name in ("adafactor", "lion", "muon")},
    "packed": {},
}


def measure(way: str, sizes: argparse.Namespace) -> dict:
    """Compiles and times one way in this process; the compiler must not have been started before."""
    dump = tempfile.TemporaryDirectory()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["XLA_FLAGS"] = f"--xla_dump_to={dump.name} {os.environ.get('XLA_FLAGS', '')}"
    import keras
    import numpy as np
    import tensorflow as tf

    from zoo.models.encoder_decoder import END, START, EncoderDecoderConfig, encoder_decoder
    from zoo.training import TrainingConfig, make_optimizer, make_train_step, vocabulary_loss
    from zoo.training.losses import share, token_counts

    keras.utils.set_random_seed(0)
    model = encoder_decoder(
        EncoderDecoderConfig(
            vocabulary_size=sizes.vocabulary,
            width=sizes.width,
            num_heads=sizes.heads,
            feedforward_dim=sizes.feedforward,
            num_encoder_layers=sizes.layers,
            num_decoder_layers=sizes.layers,
        )
    )
    config = TrainingConfig.from_dict({"fused_loss": False, **WAYS[way]})
    optimizer = make_optimizer(config.optimizer, config.steps, config.precision)

    def loss(model, batch, training):
        counts, whole = (token_counts(part["labels"]) for part in (batch, batch.get("whole", batch)))
        inputs = {name: batch[name] for name in ("source", "target")}
        labels, fused = batch["labels"], config.fused_loss
        total = vocabulary_loss(model, inputs, labels, counts, 0.1, fused=fused, training=training)
        return total / share(counts, whole), {}

    step = make_train_step(
        model,
        optimizer,
        loss,
        clip_norm=1.0,
        precision=config.precision,
        accumulate=config.accumulate,
        remat=config.remat,
    )
    texts = np.random.default_rng(0).integers(4, sizes.vocabulary, (2, sizes.batch, sizes.length), dtype=np.int32)
    texts[:, :, -1] = END
    target = np.roll(texts[1], 1, axis=1)
    target[:, 0] = START
    in_a_row = PACKED if way == "packed" else 1
    batch = {
        name: tf.constant(x.reshape(sizes.batch // in_a_row, -1))
        for name, x in {"source": texts[0], "target": target, "labels": texts[1]}.items()
    }

    began = time.perf_counter()
    if sizes.steps:
        step(batch)
    else:
        step.experimental_get_compiler_ir(batch)(stage="optimized_hlo")
    figures: dict = {"first_step_seconds": time.perf_counter() - began, "seconds": []}
    for _ in range(sizes.steps):
        began = time.perf_counter()
        float(step(batch)["loss"])
        figures["seconds"].append(time.perf_counter() - began)
    with dump:
        reports = [path.read_text() for path in Path(dump.name).glob("*memory-usage-report.txt")]
    # The step is by far the largest program: it holds its temporaries in one piece.
    temporary = [re.findall(r"allocation \d+: size ([\d.]+)(\w+), preallocated-temp", report) for report in reports]
    unit = {"B": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 2**10}
    figures["xla_mb"] = max(float(size) * unit[name] for found in temporary for size, name in found)
    held = [keras.ops.convert_to_numpy(x) for x in (*model.variables, *optimizer.variables)]
    figures["held_mb"] = sum(x.nbytes for x in held) / 2**20
    figures["process_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["parameters"] = model.count_params()
    return figures


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Measure the memory of one training step, each way.")
    sizes = {"width": 512, "feedforward": 2048, "heads": 8, "layers": 4, "vocabulary": 32000, "batch": 64}
    for name, value in {**sizes, "length": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; default: %(default)s")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all of them")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--inside", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Starts a process for each way, and reports."""
    options = parse()
    if options.inside:
        print(json.dumps(measure(options.inside, options)))
        return
    figures = {
        "benchmark": "training_memory",
        "settings": vars(options),
        "machine": machine(("tensorflow", "keras", "numpy")),
        "ways": {},
    }
    print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    print(f"{'':<12}{'held MB':>10}{'XLA MB':>10}{'of plain':>10}{'process MB':>12}{'s/step':>10}{'first step s':>14}")
    for way in options.ways:
        command = [sys.executable, *sys.argv, "--inside", way]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = figures["ways"][way] = json.loads(output.splitlines()[-1])
        first = next(iter(figures["ways"].values()))
        seconds = f"{statistics.median(found['seconds']):.3f}" if found["seconds"] else "-"
        print(
            f"{way:<12}{found['held_mb']:>10,.0f}{found['xla_mb']:>10,.0f}{found['xla_mb'] / first['xla_mb']:>10.2f}"
            f"{found['process_mb']:>12,.0f}{seconds:>10}{found['first_step_seconds']:>14.1f}",
            flush=True,
        )
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
