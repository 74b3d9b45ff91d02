"""Scores: from queries and keys to attention logits. Pure functions first, then layers for those that learn weights.

Every score takes a query (B, T, N, H) and a key (B, S, K, H) and gives logits (B, N, T, S). K divides N, and each
key head serves N / K neighbouring query heads (Ainslie et al. 2023).
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import KerasTensor, ops

from zoo.config import nearest

Score = Callable[[KerasTensor, KerasTensor], KerasTensor]


def dot(query: KerasTensor, key: KerasTensor) -> KerasTensor:
    """Scores by the dot product.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H).

    Returns:
        (B, N, T, S).

    Source: Luong et al. 2015, section 3.1.
    """
    num_heads, head_dim = query.shape[2:]
    num_kv_heads = key.shape[2]
    if num_kv_heads == num_heads:
        return ops.einsum("btnh,bsnh->bnts", query, key)
    batch, length = ops.shape(query)[:2]
    query = ops.reshape(query, (batch, length, num_kv_heads, num_heads // num_kv_heads, head_dim))
    logits = ops.einsum("btkgh,bskh->bkgts", query, key)
    return ops.reshape(logits, (batch, num_heads, length, ops.shape(key)[1]))


def scaled_dot(query: KerasTensor, key: KerasTensor) -> KerasTensor:
    """Scores by the dot product, divided by the square root of the head width.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H).

    Returns:
        (B, N, T, S).

    Source: Vaswani et al. 2017, section 3.2.1.
    """
    return dot(query * (1 / math.sqrt(query.shape[3])), key)


def general(query: KerasTensor, key: KerasTensor, weight: KerasTensor) -> KerasTensor:
    """Scores by a learned bilinear form, one for each head.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H').
        weight: (N, H, H').

    Returns:
        (B, N, T, S).

    Source: Luong et al. 2015, section 3.1.
    """
    return dot(ops.einsum("btnh,nhi->btni", query, weight), key)


def additive(query: KerasTensor, key: KerasTensor, vector: KerasTensor) -> KerasTensor:
    """Scores by a small network: a vector times tanh(query + key). It holds (B, T, S, N, H) numbers at once.

    Args:
        query: (B, T, N, H), projected by a matrix of its own.
        key: (B, S, K, H), the same.
        vector: (N, H).

    Returns:
        (B, N, T, S).

    Source: Bahdanau et al. 2015, section A.1.2.
    """
    key = ops.repeat(key, query.shape[2] // key.shape[2], axis=2)
    return ops.einsum("btsnh,nh->bnts", ops.tanh(query[:, :, None] + key[:, None]), vector)


def soft_capped(logits: KerasTensor, cap: float) -> KerasTensor:
    """Bends logits smoothly so that all stay between -cap and cap.

    Source: Gemma 2 (Riviere et al. 2024), section 2.
    """
    return cap * ops.tanh(logits / cap)


@keras.saving.register_keras_serializable("zoo")
class General(keras.layers.Layer):
    """The score general() with its weights; it starts as the scaled dot product."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, query_shape, key_shape):
        num_heads, head_dim = query_shape[2:]

        def scaled_identity(shape, dtype):
            return ops.broadcast_to(ops.eye(*shape[1:], dtype=dtype) / math.sqrt(head_dim), shape)

        self.weight = self.add_weight((num_heads, head_dim, key_shape[3]), scaled_identity, name="weight")

    def call(self, query: KerasTensor, key: KerasTensor) -> KerasTensor:
        return general(query, key, ops.cast(self.weight, query.dtype))

    def get_config(self) -> dict:
        return super().get_config()


@keras.saving.register_keras_serializable("zoo")
class Additive(keras.layers.Layer):
    """The score additive() with its vector. In MultiHeadAttention query and key have projections of their own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, query_shape, key_shape):
        self.vector = self.add_weight(tuple(query_shape[2:]), "glorot_uniform", name="vector")

    def call(self, query: KerasTensor, key: KerasTensor) -> KerasTensor:
        return additive(query, key, ops.cast(self.vector, query.dtype))

    def get_config(self) -> dict:
        return super().get_config()


@keras.saving.register_keras_serializable("zoo")
class SoftCap(keras.layers.Layer):
    """A score whose logits stay between -cap and cap.

    Args:
        cap: The limit.
        score: What is capped: a name of SCORES, or a layer.

    Raises:
        ValueError: If cap is not positive.
    """

    def __init__(self, cap: float, score: Any = "scaled_dot", **kwargs):
        super().__init__(**kwargs)
        if cap <= 0:
            raise ValueError(f"cap: {cap}; it is positive")
        self.cap = cap
        self.score = get_score(score)

    def build(self, query_shape, key_shape):
        build_score(self.score, query_shape, key_shape)

    def call(self, query: KerasTensor, key: KerasTensor) -> KerasTensor:
        return soft_capped(self.score(query, key), self.cap)

    def get_config(self) -> dict:
        return {**super().get_config(), "cap": self.cap, "score": score_config(self.score)}


SCORES: dict[str, Any] = {"scaled_dot": scaled_dot, "dot": dot, "general": General, "additive": Additive}


def get_score(score: Any, **kwargs: Any) -> Score:
    """Finds a score.

    Args:
        score: A name of SCORES, a layer or its configuration, or a function.
        **kwargs: For the layer that a name stands for.

    Raises:
        ValueError: For an unknown name; it names the nearest.
    """
    if isinstance(score, dict):
        return keras.saving.deserialize_keras_object(score)
    if not isinstance(score, str):
        return score
    if score not in SCORES:
        raise ValueError(f"score: {score!r}; {nearest(score, SCORES)}")
    found = SCORES[score]
    return found(name="score", **kwargs) if isinstance(found, type) else found


def build_score(score: Score, query_shape: tuple, key_shape: tuple) -> None:
    """Makes a score's weights, where it has any."""
    if isinstance(score, keras.layers.Layer) and not score.built:
        score.build(query_shape, key_shape)


def score_config(score: Score) -> Any:
    """Turns a score into what get_score() takes and JSON can hold."""
    for name, found in SCORES.items():
        if score is found:
            return name
    return part_config(score)


def part_config(part: Any) -> Any:
    """Configures a part of a layer, without the shapes it was built for: its layer builds it, under its own path."""
    config = keras.saving.serialize_keras_object(part)
    if isinstance(config, dict):
        config.pop("build_config", None)
    return config


def get_part(part: Any) -> Any:
    """Makes a part of a layer of its configuration."""
    return keras.saving.deserialize_keras_object(part) if isinstance(part, dict) else part
