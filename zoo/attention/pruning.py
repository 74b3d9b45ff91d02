"""Pruning: heads taken out for good, so that weights get smaller and a model faster."""

import contextlib
from collections.abc import Sequence

import keras
import numpy as np

from zoo.attention.multi_head import MultiHeadAttention


def prune_heads(attention: MultiHeadAttention, keep: Sequence[int]) -> None:
    """Takes heads out of a built layer, in place; those that stay compute what they computed.

    The layer's variables become new, smaller ones under the same paths. Functions that were compiled before, and
    optimizers, still know the old ones: compile them again.

    Args:
        attention: The layer.
        keep: Numbers of the query heads that stay, ascending. Where heads share keys and values, all heads of a
            group stay or go together.

    Raises:
        ValueError: If a number is out of range or twice there, no head stays, a group is torn apart, or the score
            has weights, which belong to all heads.

    Source: Michel et al. 2019, section 4.
    """
    heads, num_heads = list(keep), attention.num_heads
    if not heads or heads != sorted(set(heads)) or heads[0] < 0 or heads[-1] >= num_heads:
        raise ValueError(f"keep: {heads}; it takes ascending numbers from 0 to {num_heads - 1}, at least one")
    if isinstance(attention.score, keras.layers.Layer) and attention.score.weights:
        raise ValueError(f"attention: its score {type(attention.score).__name__} has weights that span the heads")
    if attention.bias is not None:
        raise ValueError(f"attention: its bias {type(attention.bias).__name__} counts on {num_heads} heads")
    group = num_heads // attention.num_kv_heads
    groups = sorted({head // group for head in heads})
    if len(groups) * group != len(heads):
        raise ValueError(f"keep: {heads}; {group} neighbouring heads share keys and values and stay or go together")

    attention._tracker.unlock()  # as Keras' own enable_lora() does
    for name, kept, of, axis in (
        ("query", heads, num_heads, 1),
        ("key", groups, attention.num_kv_heads, 1),
        ("value", groups, attention.num_kv_heads, 1),
        ("gate", heads, num_heads, 1),
        ("output_projection", heads, num_heads, 0),
    ):
        dense = getattr(attention, name)
        if dense is not None:
            place = attention._layers.index(dense)
            attention._tracker.untrack(dense)  # delattr() alone would leave its variables among the weights
            delattr(attention, name)
            setattr(attention, name, _narrowed(attention, dense, kept, of, axis))
            attention._layers.insert(place, attention._layers.pop())
    attention._tracker.lock()
    attention.num_heads, attention.num_kv_heads = len(heads), len(groups)


def _narrowed(
    attention: MultiHeadAttention, dense: keras.layers.Dense, heads: list[int], of: int, axis: int
) -> keras.layers.Dense:
    """Makes the projection anew with some of its heads, which lie along `axis` of the kernel."""
    kernel, *bias = dense.get_weights()
    columns = np.arange(kernel.shape[axis]).reshape(of, -1)[heads].ravel()
    kernel = kernel.take(columns, axis=axis)
    if axis == 1:
        bias = [vector[columns] for vector in bias]
    narrow = keras.layers.Dense(kernel.shape[1], use_bias=dense.use_bias, name=dense.name, dtype=dense.dtype_policy)
    with contextlib.ExitStack() as scopes:
        for name in attention.path.split("/"):
            scopes.enter_context(keras.name_scope(name))
        narrow.build((None, None, kernel.shape[0]))
    narrow.set_weights([kernel, *bias])
    return narrow
