"""MultiHeadAttention: project, attend in every head, project back."""

from typing import Any

import keras
from keras import KerasTensor, ops

from zoo.attention.cache import KVCache
from zoo.attention.capture import recorded_as
from zoo.attention.core import attend
from zoo.attention.dropout import Dropout
from zoo.attention.positions import Rotary
from zoo.attention.scores import build_score, get_part, get_score, part_config, score_config


@keras.saving.register_keras_serializable("zoo")
class MultiHeadAttention(keras.layers.Layer):
    """Attends from x to a memory, or to x itself, in several heads at once.

    >>> layer = MultiHeadAttention(8, 64)  # Vaswani et al. 2017
    >>> layer = MultiHeadAttention(1, 512)  # one head: global self-attention
    >>> layer = MultiHeadAttention(8, 64, num_kv_heads=2, rotary=Rotary())  # Llama; num_kv_heads=1: multi-query
    >>> layer = MultiHeadAttention(8, 64, score="dot", bias=RelativeBias(8))  # T5
    >>> layer = MultiHeadAttention(8, 64, score=SoftCap(50.0), normalize=True)  # Gemma 2 and 3

    Args:
        num_heads: N.
        head_dim: H, the width of a query and key head.
        value_dim: Hv, the width of a value head; H where None.
        num_kv_heads: K, which divides N; N where None.
        score: A name - "scaled_dot", "dot", "general", "additive" - or a layer such as SoftCap(50.0).
        rotary: Turns queries and keys by their positions.
        bias: A layer from query and key positions to what is added to the logits: RelativeBias, ALiBi.
        normalize: Whether each query and key head is divided by its root mean square and scaled by learned numbers.
        gate: Whether each head's output is multiplied by sigmoid(x W), element by element.
        dropout: Share of attention weights dropped while training.
        use_bias: Whether the projections add a bias.

    Call args:
        x: (B, T, D). With a frozen cache of B / r rows, r neighbouring rows of x (the beams of one source) share
            a row of the cache, which is neither copied nor reordered.
        memory: (B, S, any width); x where None.
        attention_mask: Boolean, broadcastable to (B, N, T, S) - over the cache's places where a cache is given;
            True where a query may look.
        positions: Of x, integer (T,) or (B, T), for rotary and bias; where None they count from 0, or from the
            cache's length. A memory's and a cache's places always count from 0.
        cache: A KVCache, which is updated in place while tracing; a frozen one stands for the memory.

    Returns:
        (B, T, D).

    Raises:
        ValueError: If num_heads is not a multiple of num_kv_heads, or a mask is not boolean.

    Source: Vaswani et al. 2017, section 3.2.2; shared key/value heads: Shazeer 2019, Ainslie et al. 2023;
        normalize: Dehghani et al. 2023, section 2; gate: Qiu et al. 2025.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        num_kv_heads: int | None = None,
        score: Any = "scaled_dot",
        rotary: Rotary | None = None,
        bias: keras.layers.Layer | None = None,
        normalize: bool = False,
        gate: bool = False,
        dropout: float = 0.0,
        use_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.value_dim = value_dim or head_dim
        self.num_kv_heads = num_kv_heads or num_heads
        self.use_bias = use_bias
        if num_heads < 1:
            raise ValueError(f"num_heads: {num_heads}; it is at least 1")
        if num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads: {num_kv_heads} does not divide num_heads {num_heads}")

        # Dense and a reshape, not EinsumDense: the same numbers, faster under XLA on the CPU.
        self.query = self._projection(num_heads * head_dim, "query")
        self.key = self._projection(self.num_kv_heads * self.head_dim, "key")
        self.value = self._projection(self.num_kv_heads * self.value_dim, "value")
        self.gate = self._projection(num_heads * self.value_dim, "gate") if gate else None
        self.query_norm = self._norm("query_norm") if normalize else None
        self.key_norm = self._norm("key_norm") if normalize else None
        self.score = get_score(score, dtype=self.dtype_policy)
        self.rotary = get_part(rotary)
        self.bias = get_part(bias)
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def _projection(self, width: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(width, use_bias=self.use_bias, name=name, dtype=self.dtype_policy)

    def _norm(self, name: str) -> keras.layers.RMSNormalization:
        return keras.layers.RMSNormalization(name=name, dtype=self.dtype_policy)

    def build(self, x_shape, memory_shape=None):
        memory_shape = memory_shape or x_shape
        self.query.build(x_shape)
        self.key.build(memory_shape)
        self.value.build(memory_shape)
        if self.gate is not None:
            self.gate.build(x_shape)
        query_shape = (*x_shape[:2], self.num_heads, self.head_dim)
        key_shape = (*memory_shape[:2], self.num_kv_heads, self.head_dim)
        if self.query_norm is not None and self.key_norm is not None:
            self.query_norm.build(query_shape)
            self.key_norm.build(key_shape)
        build_score(self.score, query_shape, key_shape)
        if self.bias is not None and not self.bias.built:
            self.bias.build()
        self.output_projection = self._projection(x_shape[-1], "output")
        self.output_projection.build((*x_shape[:-1], self.num_heads * self.value_dim))

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        attention_mask: KerasTensor | None = None,
        positions: KerasTensor | None = None,
        *,
        cache: KVCache | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        batch, length = ops.shape(x)[:2]
        if positions is None:
            start = 0 if cache is None or cache.frozen else cache.length
            positions = start + ops.arange(length, dtype="int32")
        key_positions = positions if memory is None and cache is None else None  # of its own: counted from 0
        if cache is not None and cache.frozen:
            key, value = cache.tensors
        elif memory is None:
            key, value = self.project_memory(x, positions)
        else:
            key, value = self.project_memory(memory)
        if cache is not None and not cache.frozen:
            key, value = cache.update(key, value)

        # Beams that share a memory stand side by side as queries, so the memory is read once for all of them.
        rows = key.shape[0] if cache is not None else batch
        query = ops.reshape(self.project_query(x, positions), (rows, -1, self.num_heads, self.head_dim))
        with recorded_as(self.path):
            y = self.attend(
                query,
                key,
                value,
                mask=attention_mask,
                bias=self._bias(positions, key_positions, key),
                training=training,
            )
        return self.project_output(x, y)

    def attend(
        self,
        query: KerasTensor,
        key: KerasTensor,
        value: KerasTensor,
        *,
        mask: KerasTensor | None,
        bias: KerasTensor | None,
        training: bool | None,
    ) -> KerasTensor:
        """Mixes the heads' values; what kinds of attention for long sequences replace."""
        return attend(query, key, value, score=self.score, bias=bias, mask=mask, dropout=self._dropout(training))

    def project_query(self, x: KerasTensor, positions: KerasTensor) -> KerasTensor:
        """Projects x (B, T, D) to queries (B, T, N, H)."""
        return self._heads(self.query(x), self.num_heads, self.query_norm, positions)

    def project_memory(
        self, memory: KerasTensor, positions: KerasTensor | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """Projects a memory (B, S, any width) to keys (B, S, K, H) and values (B, S, K, Hv)."""
        if positions is None:
            positions = ops.arange(ops.shape(memory)[1], dtype="int32")
        key = self._heads(self.key(memory), self.num_kv_heads, self.key_norm, positions)
        return key, _split(self.value(memory), self.num_kv_heads)

    def project_output(self, x: KerasTensor, y: KerasTensor) -> KerasTensor:
        """Joins the heads of y (B, T, N, Hv), gated by x, and projects them to (B, T, D)."""
        y = ops.reshape(y, (*ops.shape(x)[:2], self.num_heads * self.value_dim))
        if self.gate is not None:
            y = y * ops.sigmoid(self.gate(x))
        return self.output_projection(y)

    def _heads(self, x: KerasTensor, num_heads: int, norm, positions: KerasTensor) -> KerasTensor:
        """Splits projected queries or keys into heads, normalizes and turns them."""
        x = _split(x, num_heads)
        x = x if norm is None else norm(x)
        return x if self.rotary is None else self.rotary(x, positions)

    def _bias(self, positions: KerasTensor, key_positions: KerasTensor | None, key: KerasTensor) -> KerasTensor | None:
        if self.bias is None:
            return None
        if key_positions is None:
            key_positions = ops.arange(ops.shape(key)[1], dtype="int32")
        return self.bias(positions, key_positions)

    def empty_cache(self, batch: int, max_length: int) -> KVCache:
        """Makes the cache for decoding up to `max_length` tokens in `batch` rows."""
        return KVCache.empty(batch, max_length, self.num_kv_heads, self.head_dim, self.value_dim, self.compute_dtype)

    def memory_cache(self, memory: KerasTensor) -> KVCache:
        """Projects a memory once, for all the steps that will attend to it."""
        return KVCache(*self.project_memory(memory))

    def _dropout(self, training: bool | None):
        if not training or self.dropout.rate == 0:
            return None
        return lambda weights: self.dropout(weights, training=training)

    def compute_output_spec(self, x, *args, **kwargs):
        return KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "value_dim": self.value_dim,
            "num_kv_heads": self.num_kv_heads,
            "score": score_config(self.score),
            "rotary": part_config(self.rotary),
            "bias": part_config(self.bias),
            "normalize": self.query_norm is not None,
            "gate": self.gate is not None,
            "dropout": self.dropout.rate,
            "use_bias": self.use_bias,
        }


def _split(x: KerasTensor, num_heads: int) -> KerasTensor:
    """Splits the last axis into heads."""
    return ops.reshape(x, (*ops.shape(x)[:2], num_heads, x.shape[-1] // num_heads))
