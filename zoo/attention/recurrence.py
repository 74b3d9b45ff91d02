"""Transformer-XL: relative positions that look at the content, and a memory carried from segment to segment."""

import math

import keras
from keras import KerasTensor, ops

from zoo.attention.capture import recorded_as
from zoo.attention.core import attend
from zoo.attention.dropout import Dropout
from zoo.attention.positions import sinusoidal


def carry(memory: KerasTensor | None, x: KerasTensor, length: int) -> KerasTensor:
    """Makes the memory for the next segment: the last `length` places of what was there and what came.

    Args:
        memory: (B, M, D), the memory so far, or None.
        x: (B, T, D), this segment's input to the layer that will attend to the memory.
        length: Places to keep.

    Returns:
        (B, at most `length`, D), through which no gradient flows.

    Source: Dai et al. 2019, section 3.2.
    """
    joined = x if memory is None else ops.concatenate([memory, x], axis=1)
    return ops.stop_gradient(joined[:, max(0, joined.shape[1] - length) :])


def relative_logits(query: KerasTensor, encoded: KerasTensor) -> KerasTensor:
    """Scores each query against the distance to each key, from one product a distance instead of one a pair.

    Args:
        query: (B, T, N, H).
        encoded: (T + S - 1, N, H), the distances S - 1, S - 2, ... 1 - T of a key before its query. The last query
            stands at the last key.

    Returns:
        (B, N, T, S).

    Source: Dai et al. 2019, appendix B.
    """
    batch, length, num_heads = ops.shape(query)[:3]
    count = ops.shape(encoded)[0]
    logits = ops.einsum("btnh,lnh->bntl", query, encoded)
    # Row t is wanted from column T - 1 - t on: written one behind the other with a gap, rows shift by themselves.
    flat = ops.reshape(ops.pad(logits, [(0, 0), (0, 0), (0, 0), (0, 1)]), (batch, num_heads, length * (count + 1)))
    flat = flat[:, :, length - 1 : length - 1 + length * count]
    return ops.reshape(flat, (batch, num_heads, length, count))[..., : count - length + 1]


@keras.saving.register_keras_serializable("zoo")
class RelativeAttention(keras.layers.Layer):
    """Multi-head self-attention over a segment and a memory of earlier ones, with Transformer-XL's positions.

        y = layer(x, memory, mask)
        memory = carry(memory, x, 512)

    Args:
        num_heads: N.
        head_dim: H.
        dropout: Share of attention weights dropped while training.

    Call args:
        x: (B, T, D), a segment.
        memory: (B, M, D), what carry() kept of earlier segments, or None; no gradient flows into it.
        attention_mask: Boolean, broadcastable to (B, N, T, M + T); masks.causal(T, M + T, offset=M) for a
            language model.

    Returns:
        (B, T, D).

    Source: Dai et al. 2019, section 3.3.
    """

    def __init__(self, num_heads: int, head_dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.query, self.key, self.value, self.position = (
            keras.layers.Dense(num_heads * head_dim, use_bias=False, name=name, dtype=self.dtype_policy)
            for name in ("query", "key", "value", "position")
        )
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, x_shape, memory_shape=None):
        for layer in (self.query, self.key, self.value, self.position):
            layer.build(x_shape)
        self.output_projection = keras.layers.Dense(x_shape[-1], use_bias=False, name="output", dtype=self.dtype_policy)
        self.output_projection.build((*x_shape[:-1], self.num_heads * self.head_dim))
        heads = (self.num_heads, self.head_dim)
        self.content_bias = self.add_weight(heads, "zeros", name="content_bias")
        self.position_bias = self.add_weight(heads, "zeros", name="position_bias")

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        attention_mask: KerasTensor | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        batch, length, width = ops.shape(x)
        context = x if memory is None else ops.concatenate([ops.stop_gradient(memory), x], axis=1)
        keys = ops.shape(context)[1]
        heads = (batch, -1, self.num_heads, self.head_dim)
        query = ops.reshape(self.query(x), heads)
        key, value = (ops.reshape(project(context), heads) for project in (self.key, self.value))

        distances = ops.arange(keys - 1, -length, -1, dtype="int32")
        encoded = self.position(ops.cast(sinusoidal(distances, width), self.compute_dtype))
        encoded = ops.reshape(encoded, (length + keys - 1, self.num_heads, self.head_dim))
        bias = relative_logits(query + self.position_bias, encoded) * (1 / math.sqrt(self.head_dim))
        drop = None
        if training and self.dropout.rate > 0:

            def drop(weights):
                return self.dropout(weights, training=True)

        with recorded_as(self.path):
            y = attend(query + self.content_bias, key, value, bias=bias, mask=attention_mask, dropout=drop)
        return self.output_projection(ops.reshape(y, (batch, length, self.num_heads * self.head_dim)))

    def compute_output_spec(self, x, *args, **kwargs):
        return KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "dropout": self.dropout.rate,
        }
