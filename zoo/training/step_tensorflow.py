"""What a training step is made of on TensorFlow: tapes, loops and functions over variables that change in place."""

import os
from collections.abc import Callable, Sequence
from functools import partial
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
    outline = tf.function(part, autograph=False).get_concrete_function(0).structured_outputs
    zeros = tf.nest.map_structure(lambda x: tf.zeros(x.shape, x.dtype), outline)
    _, total = tf.while_loop(
        lambda i, _: i < count, lambda i, total: (i + 1, tf.nest.map_structure(tf.add, total, part(i))), (0, zeros)
    )
    return total


def update(
    optimizer: keras.optimizers.Optimizer, found: Sequence[KerasTensor], variables: Sequence[keras.Variable]
) -> None:
    """Lets an optimizer move variables; under a strategy each replica's copy, by what it knows itself."""
    if tf.distribute.has_strategy():
        for each in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
            _keep_to_itself(each)
    optimizer.apply(found, variables)


def _keep_to_itself(optimizer: keras.optimizers.Optimizer) -> None:
    """Keeps an optimizer from summing gradients, which were summed before they were clipped.

    TensorFlow's form of Keras' optimizers also meets other replicas at every variable, where XLA cannot follow.
    """
    meeting, alone = keras.optimizers.Optimizer.__bases__
    for name in ("_backend_update_step", "_apply_weight_decay"):
        if getattr(type(optimizer), name) is getattr(meeting, name):
            setattr(optimizer, name, partial(getattr(alone, name), optimizer))
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer._tf_apply = optimizer._common_apply


def compiled(
    step: Callable[[dict], dict[str, KerasTensor]],
    state: Sequence[keras.Variable],
    jit: bool,
    matmul: Literal["float32", "bfloat16"],
) -> tf.types.experimental.PolymorphicFunction:
    """Compiles a step; one trace for each bucket: with every shape known, XLA gets the simplest program."""
    return tf.function(step, jit_compile=use_matmul(matmul, jit), autograph=False)


def use_matmul(matmul: Literal["float32", "bfloat16"], jit: bool) -> bool:
    """Sets what matrices are multiplied in.

    Returns:
        Whether XLA compiles a step as a whole, where it was to.
    """
    if matmul == "bfloat16":
        _use_bfloat16_units()
        return False
    return jit


def _use_bfloat16_units() -> None:
    """Makes TensorFlow multiply matrices in bfloat16 by oneDNN, and fuse everything else by XLA.

    XLA's own products on a CPU know no matrix units. TensorFlow reads the flags once, while it is imported.
    """
    if BFLOAT16_FLAGS not in os.environ.get("TF_XLA_FLAGS", ""):
        raise RuntimeError(
            f'training.matmul: "bfloat16" needs TF_XLA_FLAGS="{BFLOAT16_FLAGS}" before TensorFlow is imported, '
            "as `zoo train --bfloat16` sets it; 'float32' needs nothing"
        )
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
