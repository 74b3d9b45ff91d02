"""A translator's run of twenty steps, as a module for the tests and as a program for the other backend.

python toy_run.py FOLDER CHECKPOINT OUTPUT
"""

import json
import shutil
import sys
from pathlib import Path

import keras

from zoo.data import toy
from zoo.data.pipeline import BatchingConfig
from zoo.generation import GenerationConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.tasks.task import CHECKPOINT
from zoo.tasks.translation import Translation, TranslationRecipe
from zoo.training import OptimizerConfig, TrainingConfig, loop

STEPS = 20
PAIRS = toy.numbers("en-de", 32)
RECIPE = TranslationRecipe(
    model=EncoderDecoderConfig(
        vocabulary_size=0,
        width=16,
        num_heads=2,
        feedforward_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        max_length=32,
        dropout=0.1,
    ),
    batching=BatchingConfig(buckets=((32, 32),), batch_tokens=128),
    training=TrainingConfig(
        steps=STEPS,
        evaluate_every=STEPS,
        save_every=STEPS // 2,
        log_every=1,
        average_decay=0.9,
        optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=5),
    ),
    generation=GenerationConfig(beams=1),
)


def begin(folder):
    """Makes an untrained translator, and a folder of it."""
    task = Translation.from_examples(RECIPE, PAIRS)
    task.save(folder)
    return task


def train(task, out, seen=None):
    """Trains; returns what the run said.

    Args:
        task: The translator.
        out: Folder of the run.
        seen: Called with each step's number.
    """
    said = []

    class Listening(loop.Report):
        def scalars(self, run, step, values):
            said.append({"run": run, "step": step, **values})
            if seen is not None and run == "train":
                seen(step)

    loop.Report, report = Listening, loop.Report
    try:
        task.fit(PAIRS, PAIRS[:4], out=out)
    finally:
        loop.Report = report
    return said


def show(task):
    """Returns what a translator does, and where it looks."""
    maps = task.attention_maps(PAIRS[0]["source"], PAIRS[0]["target"])
    shown = {path: weights.tolist() for path, weights in maps.maps.items()}
    return {"texts": task([pair["source"] for pair in PAIRS[:4]]), "maps": shown}


def main():
    folder, checkpoint, output = map(Path, sys.argv[1:])
    task, unfinished, rest = Translation.load(folder), Translation.load(folder), output.with_suffix(".rest")
    found = {"backend": keras.backend.backend(), "whole": train(task, output.with_suffix(".run")), **show(task)}
    rest.mkdir()
    shutil.copy(checkpoint, rest / CHECKPOINT)
    unfinished.score_while_training = lambda examples: {"bleu": 0.0}
    output.write_text(json.dumps({**found, "rest": train(unfinished, rest)}))


if __name__ == "__main__":
    main()
