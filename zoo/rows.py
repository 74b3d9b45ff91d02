"""Gathers and sums for which each row of a batch has numbers of its own.

On JAX they are batched operations: devices that share the rows of a batch then need nothing of each other's rows.
TensorFlow has no such operations: there the rows are laid one behind the other, and their numbers counted through.
"""

import keras
from keras import KerasTensor, ops


def take_in_rows(x: KerasTensor, places: KerasTensor) -> KerasTensor:
    """Takes of each row what stands at its own places.

    Args:
        x: (B, T, ...).
        places: Integer (B, P), from 0 to T - 1.

    Returns:
        (B, P, ...).
    """
    if _batched():
        return ops.vectorized_map(lambda row: ops.take(row[0], row[1], axis=0), (x, places))
    batch, length, *rest = ops.shape(x)
    return ops.take(ops.reshape(x, (batch * length, *rest)), _counted_through(places, batch, length), axis=0)


def sum_in_rows(x: KerasTensor, groups: KerasTensor, count: int) -> KerasTensor:
    """Adds up what belongs together in each row.

    Args:
        x: (B, T, ...).
        groups: Integer (B, T), from 0 to `count` - 1.
        count: How many groups a row has at most.

    Returns:
        (B, count, ...).
    """
    return _reduced(ops.segment_sum, x, groups, count)


def max_in_rows(x: KerasTensor, groups: KerasTensor, count: int) -> KerasTensor:
    """Finds the largest of what belongs together in each row: see sum_in_rows()."""
    return _reduced(ops.segment_max, x, groups, count)


def _reduced(reduce, x: KerasTensor, groups: KerasTensor, count: int) -> KerasTensor:
    if _batched():
        return ops.vectorized_map(lambda row: reduce(row[0], row[1], count), (x, groups))
    batch, length, *rest = ops.shape(x)
    numbers = ops.reshape(_counted_through(groups, batch, count), (-1,))
    found = reduce(ops.reshape(x, (batch * length, *rest)), numbers, batch * count)
    return ops.reshape(found, (batch, count, *rest))


def _counted_through(numbers: KerasTensor, batch: int, count: int) -> KerasTensor:
    return ops.cast(numbers, "int32") + count * ops.arange(batch, dtype="int32")[:, None]


def _batched() -> bool:
    return keras.backend.backend() == "jax"
