"""Masks: boolean tensors that broadcast to (B, N, T, S), True where a query may look; they combine with &."""

import numpy as np
from keras import KerasTensor, ops


def padding(ids: KerasTensor, pad_id: int = 0) -> KerasTensor:
    """Hides padding keys from every query.

    Args:
        ids: Integer token ids of the keys, (B, S).
        pad_id: The id that fills unused places.

    Returns:
        Boolean (B, 1, 1, S).
    """
    return ops.not_equal(ids, pad_id)[:, None, None, :]


def causal(query_length: int, key_length: int | None = None, offset: int | KerasTensor = 0) -> KerasTensor:
    """Hides the future: the query at place t sees the keys at places 0 to t.

    Args:
        query_length: T.
        key_length: S; T where None.
        offset: Place of the first query among the keys, a number or a scalar tensor (keys already in a cache).

    Returns:
        Boolean (1, 1, T, S).

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    query, key = _places(query_length, key_length, offset)
    return (key <= query)[None, None]


def sliding_window(
    query_length: int, window: int, key_length: int | None = None, offset: int | KerasTensor = 0
) -> KerasTensor:
    """Hides what is far away: a query sees the keys less than `window` places before or behind it.

    With causal() the query at place t sees itself and the window - 1 keys before it.

    Args:
        query_length: T.
        window: How far a query sees, its own place included.
        key_length, offset: As in causal().

    Returns:
        Boolean (1, 1, T, S).

    Source: Beltagy et al. 2020, section 3.1; Child et al. 2019.
    """
    query, key = _places(query_length, key_length, offset)
    return (ops.abs(query - key) < window)[None, None]


def block(query_length: int, size: int, key_length: int | None = None, offset: int | KerasTensor = 0) -> KerasTensor:
    """Cuts the places into blocks, and lets each query see its own block only.

    Args:
        query_length: T.
        size: Places in a block.
        key_length, offset: As in causal().

    Returns:
        Boolean (1, 1, T, S).

    Raises:
        ValueError: If size is not positive.
    """
    if size < 1:
        raise ValueError(f"size: {size} places; it is at least 1")
    query, key = _places(query_length, key_length, offset)
    return ops.equal(query // size, key // size)[None, None]


def segment(query_segments: KerasTensor, key_segments: KerasTensor) -> KerasTensor:
    """Lets each query see its own segment only, so that several documents can share a row.

    Args:
        query_segments: Integer segment numbers, (B, T).
        key_segments: Integer segment numbers, (B, S); a key of segment 0 is padding and hidden from all.

    Returns:
        Boolean (B, 1, T, S).
    """
    same = ops.equal(query_segments[:, :, None], key_segments[:, None, :])
    return (same & (key_segments > 0)[:, None, :])[:, None]


def packed(segments: KerasTensor) -> KerasTensor:
    """Lets each token see itself and what comes before it in its own document.

    Args:
        segments: Integer segment numbers, (B, T); 0 is padding.

    Returns:
        Boolean (B, 1, T, T).

    Source: Raffel et al. 2020, section 3.1.1 (packing); masked as in Krell et al. 2021.
    """
    return segment(segments, segments) & causal(ops.shape(segments)[1])


def global_tokens(is_global: KerasTensor) -> KerasTensor:
    """Lets some tokens see all others, and all others see them; it is joined to a local mask by "or".

    Args:
        is_global: Boolean, (B, T).

    Returns:
        Boolean (B, 1, T, T).

    Source: Beltagy et al. 2020, section 3.1; Zaheer et al. 2020, section 2.
    """
    return (is_global[:, :, None] | is_global[:, None, :])[:, None]


def random_blocks(length: int, size: int, count: int, seed: int = 0) -> KerasTensor:
    """Lets each block of queries see a few blocks of keys, drawn once; it is joined to a local mask by "or".

    Args:
        length: T, which is S too.
        size: Places in a block.
        count: Blocks drawn for each block of queries, none twice.
        seed: Of the draw.

    Returns:
        Boolean (1, 1, T, T).

    Raises:
        ValueError: If there are fewer blocks than `count`.

    Source: Zaheer et al. 2020, section 2.
    """
    blocks = -(-length // size)
    if not 0 <= count <= blocks:
        raise ValueError(f"count: {count} random blocks; {length} places make {blocks} blocks of {size}")
    random = np.random.default_rng(seed)
    seen = np.zeros((blocks, blocks), bool)
    for row in seen:
        row[random.choice(blocks, count, replace=False)] = True
    seen = seen.repeat(size, axis=0).repeat(size, axis=1)[:length, :length]
    return ops.convert_to_tensor(seen[None, None])


def big_bird(length: int, size: int, num_random: int = 3, num_global: int = 1, seed: int = 0) -> KerasTensor:
    """Joins three neighbouring blocks, the first tokens that see and are seen by all, and random blocks.

    Args:
        length: T, which is S too.
        size: Places in a block.
        num_random: Random blocks for each block of queries.
        num_global: Blocks at the beginning whose tokens are global.
        seed: Of the random blocks.

    Returns:
        Boolean (1, 1, T, T).

    Source: Zaheer et al. 2020, section 2 and appendix D (BigBird-ITC).
    """
    query, key = _places(length, None, 0)
    neighbours = (ops.abs(query // size - key // size) <= 1)[None, None]
    is_global = (ops.arange(length, dtype="int32") < num_global * size)[None]
    return neighbours | global_tokens(is_global) | random_blocks(length, size, num_random, seed)


def _places(query_length: int, key_length: int | None, offset: int | KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """Numbers the queries, as a column, and the keys, as a row."""
    key_length = query_length if key_length is None else key_length
    queries = ops.arange(query_length, dtype="int32") + offset
    return queries[:, None], ops.arange(key_length, dtype="int32")[None, :]
