"""The training step: forward, backward, clip, update, average, as one XLA program."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import KerasTensor, ops

from zoo.config import BFLOAT16_FLAGS
from zoo.layers.recompute import recomputing
from zoo.training.precision import Precision, computing_in
from zoo.training.ranks import RankAllocator

# Maps a batch to the loss and to other numbers worth logging; called with training=True inside the step.
LossFunction = Callable[..., tuple[KerasTensor, dict[str, KerasTensor]]]


class MovingAverage:
    """An exponential moving average of a model's trainable variables.

    Args:
        model: The model that is trained.
        decay: Share of the old average kept at each step. Early on it is (1 + t) / (10 + t), so that the first
            steps do not linger.

    Source: Polyak & Juditsky 1992; the warm-up is TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, model: keras.Model, decay: float):
        self.decay = decay
        self.sources = model.trainable_variables
        self.variables = [
            keras.Variable(source, trainable=False, name=f"average/{source.path}".replace("/", ":"))
            for source in self.sources
        ]

    @property
    def copies(self) -> dict[str, keras.Variable]:
        """The averages by the paths of what they follow."""
        return {source.path: average for source, average in zip(self.sources, self.variables, strict=True)}

    def update(self, step: KerasTensor) -> None:
        """Moves the average after optimizer step number `step`."""
        step = ops.cast(step, "float32")
        decay = ops.minimum(self.decay, (1 + step) / (10 + step))
        for average, source in zip(self.variables, self.sources, strict=True):
            average.assign(average + (1 - decay) * (source - average))

    def swap(self) -> None:
        """Exchanges the average and the model's variables; called again, it undoes itself."""
        for average, source in zip(self.variables, self.sources, strict=True):
            held = ops.copy(source.value)
            source.assign(average)
            average.assign(held)


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: LossFunction,
    *,
    clip_norm: float,
    average: MovingAverage | None = None,
    learning_rates: Mapping[str, float] | None = None,
    loss_variables: Sequence[keras.Variable] = (),
    ranks: RankAllocator | None = None,
    jit: bool = True,
    matmul: Literal["float32", "bfloat16"] = "float32",
    precision: Precision = "float32",
    accumulate: int = 1,
    remat: bool = False,
) -> Callable[[dict], dict[str, KerasTensor]]:
    """Compiles one optimizer step.

    Args:
        model: What to train.
        optimizer: Updates the trainable variables.
        loss: Called as loss(model, batch, training=True). Where batches are cut up, one also holds "whole", what it
            was cut from: means are then divided as share() says, and counts are those of the whole batch.
        clip_norm: The longest gradient, over all variables together.
        average: Follows the variables.
        learning_rates: Variable path -> share of the learning rate; 1 where it is not named.
        loss_variables: The loss' own, which are trained beside the model's.
        ranks: Takes ranks away from low-rank additions.
        jit: Whether XLA compiles the step; one program for each shape of a batch.
        matmul, precision, accumulate, remat: See TrainingConfig; matmul "bfloat16" takes the place of jit.

    Returns:
        A function from a batch to scalars: "loss", "learning_rate", "gradient_norm" and whatever `loss` adds. Where
        the loss is scaled "loss_scale" too; a step that was left out, since gradients overflowed, has no gradient_norm.

    Raises:
        RuntimeError: On another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(f"backend {keras.backend.backend()!r}: training runs on tensorflow; set KERAS_BACKEND")
    variables = [*model.trainable_variables, *loss_variables]
    optimizer.build(variables)
    shares = learning_rates or {}

    def differentiate(batch):
        # The tape is read in here too: that is when blocks are computed again.
        with computing_in(precision, model), recomputing(remat):
            with tf.GradientTape() as tape:
                value, metrics = loss(model, batch, training=True)
                value = value + sum(ops.cast(x, "float32") for x in model.losses)  # what weights cost by themselves
                scaled = optimizer.scale_loss(value)
            gradients = tape.gradient(scaled, [variable.value for variable in variables])
        return {"loss": value, **metrics}, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def step(batch):
        metrics, gradients = _mean_over_parts(differentiate, batch, accumulate)
        loss_scale = optimizer.scale_loss(1.0)
        norm = tf.linalg.global_norm(gradients) / loss_scale
        scale = ops.minimum(1.0, clip_norm / ops.maximum(norm, 1e-12))
        learning_rate = optimizer.learning_rate
        paced = [(v, ops.copy(v.value), shares[v.path]) for v in variables if shares.get(v.path, 1.0) != 1.0]
        if ranks is not None:
            unscaled = [ops.where(ops.isfinite(norm), gradient / loss_scale, 0.0) for gradient in gradients]
            ranks.observe({v.path: g for v, g in zip(variables, unscaled)}, optimizer.iterations + 1)
        optimizer.apply([gradient * scale for gradient in gradients], variables)
        for variable, before, share in paced:
            variable.assign(before + share * (variable - before))
        if average is not None:
            average.update(optimizer.iterations)
        if ranks is not None:
            metrics = {**metrics, **ranks.prune(optimizer.iterations, {} if average is None else average.copies)}
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            metrics = {**metrics, "loss_scale": loss_scale}
            # What is no number without any scale either is a mistake, for the loop to find.
            norm = ops.where(ops.isfinite(norm) | (loss_scale < 1), norm, 0.0)
        return {"learning_rate": learning_rate, "gradient_norm": norm, **metrics}

    if matmul == "bfloat16":
        _use_bfloat16_units()
        jit = False
    # One trace for each bucket: with every shape known, XLA gets the simplest program.
    return tf.function(step, jit_compile=jit)


def _mean_over_parts(function: Callable[[dict], Any], batch: dict, least: int) -> Any:
    """Cuts a batch into equal parts, and averages what a function makes of them, one after the other.

    Args:
        function: From a batch to nested float32 tensors; a part holds the batch that it was cut from as "whole".
        batch: Arrays whose rows are divided up, and numbers that are not.
        least: As few parts as this many, as far as there are rows; more where it does not divide their number.
    """
    if least == 1:
        return function(batch)
    batch = {name: tf.convert_to_tensor(value) for name, value in batch.items()}
    rows = next(value.shape[0] for value in batch.values() if value.shape.rank)
    parts = next(count for count in range(min(least, rows), rows + 1) if rows % count == 0)

    def part(i):
        cut = {name: tf.reshape(x, (parts, -1, *x.shape[1:]))[i] for name, x in batch.items() if x.shape.rank}
        return function({**batch, **cut, "whole": batch})

    # A loop and no list: in a row, XLA might work on several parts at once.
    outline = tf.function(part).get_concrete_function(0).structured_outputs
    zeros = tf.nest.map_structure(lambda x: tf.zeros(x.shape, x.dtype), outline)
    _, total = tf.while_loop(
        lambda i, _: i < parts, lambda i, total: (i + 1, tf.nest.map_structure(tf.add, total, part(i))), (0, zeros)
    )
    return tf.nest.map_structure(lambda x: x / parts, total)


def _use_bfloat16_units() -> None:
    """Makes TensorFlow multiply matrices in bfloat16 by oneDNN, and fuse everything else by XLA.

    XLA's own products on a CPU know no matrix units. TensorFlow reads the flags once, while it is imported.
    """
    if BFLOAT16_FLAGS not in os.environ.get("TF_XLA_FLAGS", ""):
        raise RuntimeError(
            f'training.matmul: "bfloat16" needs TF_XLA_FLAGS="{BFLOAT16_FLAGS}" before TensorFlow is imported; '
            "`zoo train --bfloat16` sets it"
        )
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
