"""What attention maps tell: rollout through blocks, maps weighted by gradients, importance of heads.

maps, gradients = weight_gradients(lambda: loss(model(inputs)))
relevance = gradient_weighted(maps[path], gradients[path])
importance = head_importance(maps[path], gradients[path])
"""

from collections.abc import Callable, Mapping, Sequence

import keras
from keras import KerasTensor, ops

from zoo.attention.capture import capture


def rollout(maps: Sequence[KerasTensor], residual: float = 0.5) -> KerasTensor:
    """Follows attention through a stack of self-attending blocks, residual connections included.

    Args:
        maps: One (B, N, T, T) a block, first block first.
        residual: Share of a block's output that comes from its residual connection.

    Returns:
        (B, T, T): how much each place of the input takes part in each place of the output. Rows sum to 1.

    Raises:
        ValueError: If there is no map, or one is not square.

    Source: Abnar & Zuidema 2020, section 3.
    """
    if not maps or any(x.shape[-1] != x.shape[-2] for x in maps):
        raise ValueError(f"maps: shapes {[tuple(x.shape) for x in maps]}; it takes one or more (B, N, T, T)")
    identity = ops.eye(maps[0].shape[-1])
    total = identity[None]
    for weights in maps:
        step = (1 - residual) * ops.mean(weights, axis=1) + residual * identity
        total = ops.matmul(step / ops.sum(step, axis=-1, keepdims=True), total)
    return total


def weight_gradients(
    loss: Callable[[], KerasTensor],
) -> tuple[dict[str, KerasTensor], dict[str, KerasTensor]]:
    """Differentiates a loss by every attention weight that takes part in it.

    Args:
        loss: Runs a model and returns a scalar; it is called twice, outside compiled code. Where examples must
            not mix, as for head_importance(), it sums over them.

    Returns:
        The maps and their gradients, each layer path -> (B, N, T, S).

    Raises:
        RuntimeError: On another backend than TensorFlow and JAX.
    """
    with capture() as maps:
        loss()

    def shifted(added: Mapping[str, KerasTensor]) -> KerasTensor:
        with capture(added):
            return loss()

    zeros = {name: ops.zeros_like(weights) for name, weights in maps.items()}
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(zeros)
            value = shifted(zeros)
        return dict(maps), tape.gradient(value, zeros, unconnected_gradients="zero")
    if backend == "jax":
        import jax

        return dict(maps), jax.grad(shifted)(zeros)
    raise RuntimeError(f"backend {backend!r}: gradients of weights are there on tensorflow and jax")


def gradient_weighted(weights: KerasTensor, gradients: KerasTensor) -> KerasTensor:
    """Weights a map by how much each of its entries raises what was differentiated, and averages the heads.

    Args:
        weights: (B, N, T, S).
        gradients: The same shape, of the score (not the loss) that is to be explained.

    Returns:
        (B, T, S), not negative.

    Source: Chefer et al. 2021, section 3.1.
    """
    return ops.mean(ops.relu(weights * gradients), axis=1)


def head_importance(weights: KerasTensor, gradients: KerasTensor) -> KerasTensor:
    """Estimates by how much the loss would change if a head fell silent, to first order.

    Args:
        weights: (B, N, T, S).
        gradients: The same shape, of a loss that sums over the examples of the batch.

    Returns:
        (N,), the mean over the examples of the absolute value of the sum of weight times gradient.

    Source: Michel et al. 2019, section 4.1.
    """
    return ops.mean(ops.abs(ops.sum(weights * gradients, axis=(2, 3))), axis=0)
