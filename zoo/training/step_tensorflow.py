"""What a training step is made of on TensorFlow: tapes, loops and functions over variables that change in place."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import KerasTensor

from zoo.config import BFLOAT16_FLAGS


def gradients(
    objective: Callable[[], tuple[KerasTensor, Any]],
    variables: Sequence[keras.Variable],
    state: Sequence[keras.Variable],
) -> tuple[Any, list[KerasTensor]]:
    """Differentiates what a function makes of variables: see step_jax.gradients()."""
    with tf.GradientTape() as tape:
        value, others = objective()
    found = tape.gradient(value, [variable.value for variable in variables])
    return others, [tf.convert_to_tensor(gradient) for gradient in found]


def sum_of_parts(part: Callable[[KerasTensor], Any], count: int, state: Sequence[keras.Variable]) -> Any:
    """Adds up what a function makes of 0 ... count - 1: see step_jax.sum_of_parts()."""
    # A loop and no list: in a row, XLA might work on several parts at once.
    outline = tf.function(part).get_concrete_function(0).structured_outputs
    zeros = tf.nest.map_structure(lambda x: tf.zeros(x.shape, x.dtype), outline)
    _, total = tf.while_loop(
        lambda i, _: i < count, lambda i, total: (i + 1, tf.nest.map_structure(tf.add, total, part(i))), (0, zeros)
    )
    return total


def update(
    optimizer: keras.optimizers.Optimizer, found: Sequence[KerasTensor], variables: Sequence[keras.Variable]
) -> None:
    """Lets an optimizer move variables."""
    optimizer.apply(found, variables)


def compiled(
    step: Callable[[dict], dict[str, KerasTensor]],
    state: Sequence[keras.Variable],
    jit: bool,
    matmul: Literal["float32", "bfloat16"],
) -> tf.types.experimental.PolymorphicFunction:
    """Compiles a step; one trace for each bucket: with every shape known, XLA gets the simplest program."""
    if matmul == "bfloat16":
        _use_bfloat16_units()
        jit = False
    return tf.function(step, jit_compile=jit)


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
