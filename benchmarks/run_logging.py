"""Measures what TensorBoard adds to a run: the same training without and with logdir=, in turns.

Both sides train a translator on generated pairs for as many steps, evaluations among them, each in a process of its
own. What is timed is fit(), from its beginning to its end: compiling, evaluating and writing are in it. A round is one
run of each side. Beside it stands the time that went into showing and writing itself, which a machine's moods do not
hide; the norms of layers, which the compiled step makes where somebody looks, are not in that.

    .venv/bin/python benchmarks/run_logging.py [--steps 300] [--rounds 3] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import alternate, describe_ratio, machine, ratio, write_json

WITHOUT, WITH = "without", "with"
PACKAGES = ("tensorflow", "keras", "tensorboard", "numpy")


def train(sizes: argparse.Namespace) -> tuple[float, float]:
    """Trains one translator in this process; returns the seconds of fit(), and those of showing and writing in it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from zoo.data import toy
    from zoo.data.pipeline import BatchingConfig
    from zoo.models.encoder_decoder import EncoderDecoderConfig
    from zoo.tasks import task
    from zoo.tasks.translation import Translation, TranslationRecipe
    from zoo.training import OptimizerConfig, TrainingConfig, window
    from zoo.training.board import Board

    writing = 0.0

    def timed(owner: Any, name: str) -> None:
        """Lets a function count into `writing`."""
        function = getattr(owner, name)

        def counting(*arguments: Any, **settings: Any) -> Any:
            nonlocal writing
            began = time.perf_counter()
            result = function(*arguments, **settings)
            writing += time.perf_counter() - began
            return result

        setattr(owner, name, counting)

    # All of them are called one after the other, none within another.
    for owner, name in ((task, "show"), (window, "memory"), (window, "product_rate")):
        timed(owner, name)
    for name in ("begin", "scalars", "close"):
        timed(Board, name)
    pairs = toy.numbers("en-de", sizes.pairs + sizes.dev)
    recipe = TranslationRecipe(
        model=EncoderDecoderConfig(
            vocabulary_size=400,
            width=sizes.width,
            num_heads=4,
            feedforward_dim=4 * sizes.width,
            num_encoder_layers=sizes.layers,
            num_decoder_layers=sizes.layers,
        ),
        batching=BatchingConfig(buckets=((32, 32),), batch_tokens=sizes.batch_tokens),
        training=TrainingConfig(
            steps=sizes.steps,
            evaluate_every=max(1, sizes.steps // 3),
            log_every=max(1, sizes.steps // 6),
            save_every=sizes.steps,
            optimizer=OptimizerConfig(warmup_steps=100),
        ),
    )
    translator = Translation.from_examples(recipe, pairs)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        translator.fit(pairs[sizes.dev :], pairs[: sizes.dev], logdir=folder if sizes.side == WITH else None)
        return time.perf_counter() - began, writing


def turn(side: str, arguments: list[str]) -> tuple[float, float]:
    """Trains in a new process: see train()."""
    command = [sys.executable, __file__, *arguments, "--side", side]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Measure what TensorBoard adds to a training run.")
    sizes = {"steps": 300, "pairs": 4000, "dev": 500, "width": 256, "layers": 2, "batch_tokens": 1024}
    for name, value in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--side", choices=(WITHOUT, WITH), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    sizes = parse(arguments)
    if sizes.side:
        print(json.dumps(train(sizes)))
        return
    figures: dict = {"machine": machine(PACKAGES), "sizes": {k: v for k, v in vars(sizes).items() if k != "json"}}
    measured = alternate({side: lambda side=side: turn(side, arguments) for side in (WITHOUT, WITH)}, sizes.rounds)
    seconds_of = {side: [seconds for seconds, _ in turns] for side, turns in measured.items()}
    shares = [writing / seconds for seconds, writing in measured[WITH]]
    figures |= {"seconds": seconds_of, "ratio": ratio(seconds_of[WITH], seconds_of[WITHOUT]), "writing": shares}
    for side, seconds in seconds_of.items():
        print(f"{side:<40} {statistics.median(seconds):.1f} s  ({min(seconds):.1f} to {max(seconds):.1f})")
    print(describe_ratio("with / without", figures["ratio"], "1 is no cost"))
    print(f"showing and writing: {statistics.median(shares):.1%}  (below 3 % is the aim)")
    write_json(sizes.json, figures)


if __name__ == "__main__":
    main(sys.argv[1:])
