"""Runs on several devices and in several processes, as a program: the backend has to be set up before each.

python distributed_run.py devices FOLDER STRATEGY ...     the same run on one device, and by each strategy
python distributed_run.py worker FOLDER [--kill-before STEP]     one of the workers that TF_CONFIG names
"""

import argparse
import json
import os
import signal
from pathlib import Path

import keras
import numpy as np
from keras import ops

from zoo.attention import Dropout
from zoo.data import toy
from zoo.data.pipeline import BatchingConfig
from zoo.layers.adapters import RankedDense
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.tasks.translation import Translation, TranslationRecipe
from zoo.training import MovingAverage, OptimizerConfig, TrainingConfig, make_optimizer, make_train_step, open_strategy
from zoo.training.ranks import RankAllocator, RankConfig

ON_JAX = keras.backend.backend() == "jax"
STEPS = 6
PAIRS = toy.numbers("en-de", 60)
RECIPE = TranslationRecipe(
    model=EncoderDecoderConfig(
        vocabulary_size=0,
        width=16,
        num_heads=2,
        feedforward_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        max_length=32,
        # On JAX the same elements drop out wherever the work is done; TensorFlow's replicas have masks of their own.
        dropout=0.1 if ON_JAX else 0.0,
    ),
    batching=BatchingConfig(buckets=((32, 32),), batch_tokens=128),
    training=TrainingConfig(
        steps=STEPS,
        evaluate_every=STEPS // 2,
        save_every=STEPS // 2,
        log_every=STEPS // 2,
        average_decay=0.9,
        monitor="loss",
        # A key's bias moves no loss: a tiny epsilon would make steps of its gradient, which is rounding alone.
        optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=3, clip_norm=0.5, epsilon=1e-5),
    ),
)


def train(out, strategy=None, before=lambda step: None):
    """Trains a translator; its checkpoint holds everything that there is to compare."""
    task = Translation.from_examples(RECIPE, PAIRS)
    batches = task.batches

    class Watched:
        def __init__(self, *arguments):
            self.batches = batches(*arguments)

        def epoch(self, epoch, start=0):
            for number, batch in enumerate(self.batches.epoch(epoch, start), start):
                before(epoch * len(self.batches.plan(epoch)) + number + 1)
                yield batch

    task.batches = Watched
    # Without the search, whose program would take longer than everything else.
    task.score_while_training = lambda examples: {"loss": task.dev_loss(task.pairs(examples))}
    task.fit(PAIRS, PAIRS[:4], out=out, strategy=strategy)
    return task


def step_with_everything(strategy):
    """Makes steps in which all takes part that a translator's run has not; returns all variables.

    Ranks that are given out, a loss' own variable, learning rates by variable, parts of a batch, a scaled loss.
    """
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(6, name="low")(inputs)
    x = x + keras.layers.Dense(6, name="high")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    layers = [model.get_layer("low"), model.get_layer("high")]
    for layer in layers:
        RankedDense.add_ranks(layer, 4, 4.0, 0.01)
    scale = keras.Variable(0.5, name="log_variance")
    config = OptimizerConfig(learning_rate=0.05, warmup_steps=1, epsilon=1e-5)
    optimizer = make_optimizer(config, 20, "mixed_float16")
    average = MovingAverage(model, 0.9)
    ranks = RankAllocator(layers, 1, RankConfig(warmup=0.1, final=0.3, every=2), 8)

    def loss(model, batch, training):
        errors = ops.square(model(batch["x"], training=training) - batch["y"])
        return ops.exp(-scale) * ops.mean(errors) + scale / 2, {}

    distribution = open_strategy(strategy)
    step = make_train_step(
        model,
        optimizer,
        loss,
        clip_norm=0.5,
        average=average,
        learning_rates={model.get_layer("head").kernel.path: 0.1},
        loss_variables=[scale],
        ranks=ranks,
        accumulate=2,
        distribution=distribution,
    )
    random = np.random.default_rng(0)
    for _ in range(6):
        batch = {"x": random.normal(size=(16, 6)), "y": random.normal(size=(16, 2))}
        metrics = step({name: x.astype("float32") for name, x in batch.items()})
    followers = [*optimizer.variables, *average.variables, *ranks.variables]
    found = [ops.convert_to_numpy(variable) for variable in followers]
    distribution.end()
    found += [ops.convert_to_numpy(variable) for variable in [*model.variables, scale]]
    return {
        **{f"variable_{i}": x for i, x in enumerate(found)},
        **{f"metric_{n}": np.array(x) for n, x in metrics.items()},
    }


def masks(strategy):
    """Makes a step in which every row drops elements out; returns how much of each place was left on the average."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32,))
    model = keras.Model(inputs, keras.layers.Dense(1)(Dropout(0.5, name="dropout")(inputs)))

    def loss(model, batch, training):
        left = model.get_layer("dropout")(batch["x"], training=True)
        return ops.mean(model(batch["x"], training=True)), {f"{i:02}": ops.mean(left[:, i]) for i in range(32)}

    optimizer, distribution = make_optimizer(OptimizerConfig(), 10), open_strategy(strategy)
    step = make_train_step(model, optimizer, loss, clip_norm=1.0, jit=False, distribution=distribution)
    metrics = step({"x": np.ones((2, 32), "float32")})
    return [float(metrics[f"{i:02}"]) for i in range(32)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("devices", "worker"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("strategies", nargs="*")
    parser.add_argument("--kill-before", type=int)
    options = parser.parse_args()

    def kill_before(step):
        if step == options.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    if options.kind == "worker":
        strategy = open_strategy("multi-worker")
        options.folder.mkdir(parents=True, exist_ok=True)
        task = train(options.folder, strategy, kill_before)
        np.savez(options.folder / "model.npz", *[ops.convert_to_numpy(weight) for weight in task.model.weights])
        return
    for strategy in (None, *options.strategies):
        folder = options.folder / (strategy or "one")
        task = train(folder, strategy)
        np.savez(folder / "everything.npz", **step_with_everything(strategy))
        (folder / "after.json").write_text(json.dumps({"loss": task.dev_loss(task.pairs(PAIRS[:4]))}))
        if not ON_JAX:
            (folder / "masks.json").write_text(json.dumps(masks(strategy)))


if __name__ == "__main__":
    if not ON_JAX and os.environ.get("CPUS"):
        import tensorflow as tf

        cpus = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["CPUS"])
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    main()
