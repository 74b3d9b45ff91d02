"""Scores: pure functions from queries and keys to attention logits."""

import math

from keras import KerasTensor, ops


def scaled_dot(query: KerasTensor, key: KerasTensor) -> KerasTensor:
    """Scores by the dot product, divided by the square root of the head width.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H); K divides N, and each key head serves N / K neighbouring query heads.

    Returns:
        (B, N, T, S).

    Source: Vaswani et al. 2017, section 3.2.1; grouped heads: Ainslie et al. 2023.
    """
    num_heads, head_dim = query.shape[2:]
    num_kv_heads = key.shape[2]
    query = query * (1 / math.sqrt(head_dim))
    if num_kv_heads == num_heads:
        return ops.einsum("btnh,bsnh->bnts", query, key)
    batch, length = ops.shape(query)[:2]
    query = ops.reshape(query, (batch, length, num_kv_heads, num_heads // num_kv_heads, head_dim))
    logits = ops.einsum("btkgh,bskh->bkgts", query, key)
    return ops.reshape(logits, (batch, num_heads, length, ops.shape(key)[1]))
