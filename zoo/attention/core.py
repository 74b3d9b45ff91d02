"""attend(): the one softmax over keys in the zoo."""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from zoo.attention.capture import record
from zoo.attention.scores import scaled_dot

# Low enough that exp() of it is exactly 0 in float32, finite so that no gradient is NaN.
HIDDEN = -1e30


def attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    *,
    score: Callable[[KerasTensor, KerasTensor], KerasTensor] = scaled_dot,
    bias: KerasTensor | None = None,
    mask: KerasTensor | None = None,
    dropout: Callable[[KerasTensor], KerasTensor] | None = None,
) -> KerasTensor:
    """Mixes values by how well each query matches each key.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H); K divides N.
        value: (B, S, K, Hv).
        score: Maps query and key to logits (B, N, T, S).
        bias: Broadcastable to (B, N, T, S), added to the logits.
        mask: Boolean, broadcastable to (B, N, T, S); True where a query may look.
        dropout: Applied to the weights.

    Returns:
        (B, T, N, Hv), in value's dtype. A row that may look nowhere is zero.

    Raises:
        ValueError: If N is not a multiple of K, or `mask` is not boolean of rank 4.

    Source: Vaswani et al. 2017, section 3.2.1.
    """
    _check(query, key, value, mask)
    logits = ops.cast(score(query, key), "float32")
    if bias is not None:
        logits = logits + ops.cast(bias, "float32")
    weights = _softmax(logits, mask)
    record(weights)
    if dropout is not None:
        weights = dropout(weights)
    return _mix(ops.cast(weights, value.dtype), value)


def _softmax(logits: KerasTensor, mask: KerasTensor | None) -> KerasTensor:
    """Softmax over the keys that `mask` shows; zeros where it shows none."""
    if mask is None:
        return ops.softmax(logits, axis=-1)
    weights = ops.softmax(ops.where(mask, logits, HIDDEN), axis=-1)
    return ops.where(ops.any(mask, axis=-1, keepdims=True), weights, 0.0)


def _mix(weights: KerasTensor, value: KerasTensor) -> KerasTensor:
    """Sums values (B, S, K, Hv) by weights (B, N, T, S) into (B, T, N, Hv)."""
    num_heads, num_kv_heads = weights.shape[1], value.shape[2]
    if num_kv_heads == num_heads:
        return ops.einsum("bnts,bsnh->btnh", weights, value)
    batch, _, length, keys = ops.shape(weights)
    weights = ops.reshape(weights, (batch, num_kv_heads, num_heads // num_kv_heads, length, keys))
    mixed = ops.einsum("bkgts,bskh->btkgh", weights, value)
    return ops.reshape(mixed, (batch, length, num_heads, value.shape[3]))


def _check(query: KerasTensor, key: KerasTensor, value: KerasTensor, mask: KerasTensor | None) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if len(tensor.shape) != 4:
            raise ValueError(f"{name}: shape {tuple(tensor.shape)}; attend() takes (batch, length, heads, width)")
    num_heads, num_kv_heads = query.shape[2], key.shape[2]
    if num_heads % num_kv_heads or value.shape[2] != num_kv_heads:
        raise ValueError(
            f"key and value: {num_kv_heads} and {value.shape[2]} heads for {num_heads} query heads; "
            "both take one number, and it divides the query heads"
        )
    if mask is None:
        return
    if keras.backend.standardize_dtype(mask.dtype) != "bool" or len(mask.shape) != 4:
        raise ValueError(
            f"mask: {mask.dtype} of shape {tuple(mask.shape)}; it takes booleans, True where a query may look, "
            "that broadcast to (batch, heads, queries, keys)"
        )
