"""attend(): the one softmax over keys in the zoo."""

import math
from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from zoo.attention.capture import record, recording
from zoo.attention.scores import Score, scaled_dot

# Low enough that exp() of it is exactly 0 in float32, finite so that no gradient is NaN.
HIDDEN = -1e30


def attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    *,
    score: Score = scaled_dot,
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
        ValueError: If N is not a multiple of K, `mask` is not boolean, or shapes do not fit together.

    Source: Vaswani et al. 2017, section 3.2.1.
    """
    check(query, key, value, bias, mask)
    if score is scaled_dot and dropout is None and not recording() and _has_fused_kernel(query, value):
        return _fused(query, key, value, bias, mask)
    logits = ops.cast(score(query, key), "float32")
    if bias is not None:
        logits = logits + ops.cast(bias, "float32")
    weights = record(softmax(logits, mask))
    if dropout is not None:
        weights = dropout(weights)
    return mix(ops.cast(weights, value.dtype), value)


def softmax(logits: KerasTensor, mask: KerasTensor | None) -> KerasTensor:
    """Softmax over the keys that `mask` shows; zeros where it shows none."""
    if mask is None:
        return ops.softmax(logits, axis=-1)
    weights = ops.softmax(ops.where(mask, logits, HIDDEN), axis=-1)
    return ops.where(ops.any(mask, axis=-1, keepdims=True), weights, 0.0)


def mix(weights: KerasTensor, value: KerasTensor) -> KerasTensor:
    """Sums values (B, S, K, Hv) by weights (B, N, T, S) into (B, T, N, Hv)."""
    num_heads, num_kv_heads = weights.shape[1], value.shape[2]
    if num_kv_heads == num_heads:
        return ops.einsum("bnts,bsnh->btnh", weights, value)
    batch, _, length, keys = ops.shape(weights)
    weights = ops.reshape(weights, (batch, num_kv_heads, num_heads // num_kv_heads, length, keys))
    mixed = ops.einsum("bkgts,bskh->btkgh", weights, value)
    return ops.reshape(mixed, (batch, length, num_heads, value.shape[3]))


# === The fused kernel ===


def _has_fused_kernel(query: KerasTensor, value: KerasTensor) -> bool:
    """Tells whether JAX has a kernel that never writes the weights down: half precision on an NVIDIA GPU."""
    if keras.backend.backend() != "jax" or keras.backend.standardize_dtype(query.dtype) == "float32":
        return False
    import jax

    widths = query.shape[3], value.shape[3]
    return jax.default_backend() == "gpu" and widths[0] == widths[1] and widths[0] % 8 == 0 and widths[0] <= 128


def _fused(query: KerasTensor, key: KerasTensor, value: KerasTensor, bias, mask, implementation: str = "cudnn"):
    """Calls JAX's kernel, and sets right what it does for a query that may look nowhere: it gives the values' mean.

    Keras' own flag flash_attention is not used: its TPU kernel reads the mask of the first row only.
    """
    import jax

    if mask is not None:
        mask = ops.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    y = jax.nn.dot_product_attention(  # type: ignore[call-overload]
        query,
        key,
        value,
        None if bias is None else ops.cast(bias, query.dtype),
        mask,
        scale=1 / math.sqrt(query.shape[3]),
        implementation=implementation,
    )
    if mask is None:
        return y
    return ops.where(ops.transpose(ops.any(mask, axis=-1, keepdims=True), (0, 2, 1, 3)), y, ops.zeros((), y.dtype))


# === Bad input ===


def check(query: KerasTensor, key: KerasTensor, value: KerasTensor, bias=None, mask=None) -> None:
    """Refuses tensors that do not fit together, by name."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if len(tensor.shape) != 4:
            raise ValueError(f"{name}: shape {tuple(tensor.shape)}; attend() takes (batch, length, heads, width)")
    num_heads, num_kv_heads = query.shape[2], key.shape[2]
    if num_heads % num_kv_heads or value.shape[2] != num_kv_heads:
        raise ValueError(
            f"key and value: {num_kv_heads} and {value.shape[2]} heads for {num_heads} query heads; "
            "both take one number, and it divides the query heads"
        )
    if not _agree(key.shape[1], value.shape[1]):
        raise ValueError(f"value: {value.shape[1]} places for {key.shape[1]} keys; each key has one value")
    logits_shape = (query.shape[0], num_heads, query.shape[1], key.shape[1])
    if mask is not None and (keras.backend.standardize_dtype(mask.dtype) != "bool" or len(mask.shape) != 4):
        raise ValueError(
            f"mask: {mask.dtype} of shape {tuple(mask.shape)}; it takes booleans, True where a query may look, "
            "that broadcast to (batch, heads, queries, keys)"
        )
    for name, tensor in (("bias", bias), ("mask", mask)):
        if tensor is None:
            continue
        shape = (*[1] * (4 - len(tensor.shape)), *tensor.shape)
        if not all(size == 1 or _agree(size, full) for size, full in zip(shape, logits_shape, strict=True)):
            raise ValueError(
                f"{name}: shape {tuple(tensor.shape)} does not broadcast to {logits_shape}, "
                "which is (batch, heads, queries, keys)"
            )


def _agree(size: int | None, other: int | None) -> bool:
    """Tells whether two sizes are equal as far as is known while tracing."""
    return size is None or other is None or size == other
