"""A training run of seconds, as a module for the tests and as a program that can be killed.

python small_run.py CHECKPOINT --kill-before STEP | --kill-while-saving NUMBER
"""

import argparse
import os
import signal
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy
from keras import ops

from zoo.attention import Dropout
from zoo.training import OptimizerConfig, Run, TrainingConfig, cross_entropy

CLASSES = 5
BATCHES = 5  # in an epoch
SETTINGS = {
    "steps": 17,
    "save_every": 3,
    "evaluate_every": 100,
    "log_every": 4,
    "average_decay": 0.9,
    "monitor": "score",
    "jit": False,
    "optimizer": OptimizerConfig(learning_rate=0.05, warmup_steps=4),
}


class Batches:
    """Five random batches an epoch; `before(step)` is called before each, with the number of the step it is for."""

    def __init__(self, before=lambda step: None):
        self.before = before

    def epoch(self, epoch, start=0):
        rng = np.random.default_rng(epoch)
        batches = [
            {"x": rng.normal(size=(8, 6)), "labels": rng.integers(0, CLASSES, 8), "scale": np.ones(())}
            for _ in range(BATCHES)
        ]
        for number, batch in list(enumerate(batches, 1))[start:]:
            changes = self.before(BATCHES * epoch + number) or {}
            yield {
                name: ops.convert_to_tensor(value, "int32" if name == "labels" else "float32")
                for name, value in {**batch, **changes}.items()
            }


def build(width=8):
    """A classifier with dropout, from the same seed every time."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(width, activation="relu", name="hidden")(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = Dropout(0.3, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="classes")(x))


def loss(model, batch, training):
    """Cross-entropy, and a length whose gradient is not a number where the batch's scale is 0."""
    value = ops.mean(cross_entropy(model(batch["x"], training=training), batch["labels"]))
    kernel = model.get_layer("classes").kernel
    return value + 0.01 * ops.sqrt(batch["scale"] * ops.sum(ops.square(kernel))), {}


def make_run(
    checkpoint=None,
    *,
    width=8,
    before=lambda step: None,
    evaluate=None,
    keep_best=None,
    board=None,
    products=None,
    **settings,
):
    """Makes a run with a freshly built model."""
    return Run(
        build(width),
        loss,
        Batches(before),
        TrainingConfig(**{**SETTINGS, **settings}),
        evaluate=evaluate or (lambda: {"score": 1.0}),
        keep_best=keep_best or (lambda: None),
        checkpoint=checkpoint,
        board=board,
        products=products,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kill-before", type=int)
    parser.add_argument("--kill-while-saving", type=int)
    options = parser.parse_args()
    saves = 0
    save_file = safetensors.numpy.save_file

    def killed_while_saving(arrays, path, metadata):
        nonlocal saves
        saves += 1
        save_file(arrays, path, metadata)
        if saves == options.kill_while_saving:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def kill_before(step):
        if step == options.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.numpy.save_file = killed_while_saving
    make_run(options.checkpoint, before=kill_before).train()


if __name__ == "__main__":
    main()
