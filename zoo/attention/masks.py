"""Masks: boolean tensors that broadcast to (B, N, T, S), True where a query may look; they combine with &."""

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
    """Hides the future: the query at place t sees the keys at places 0 ... t.

    Args:
        query_length: T.
        key_length: S; T where None.
        offset: Place of the first query among the keys, a number or a scalar tensor (keys already in a cache).

    Returns:
        Boolean (1, 1, T, S).

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    key_length = query_length if key_length is None else key_length
    places = ops.arange(query_length, dtype="int32") + offset
    return (ops.arange(key_length, dtype="int32")[None, :] <= places[:, None])[None, None]


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
