"""MultiHeadAttention: project, attend in every head, project back."""

import keras
from keras import KerasTensor, ops

from zoo.attention.cache import KVCache
from zoo.attention.capture import recorded_as
from zoo.attention.core import attend
from zoo.attention.dropout import Dropout


@keras.saving.register_keras_serializable("zoo")
class MultiHeadAttention(keras.layers.Layer):
    """Attends from x to a memory, or to x itself, in several heads at once.

    Args:
        num_heads: N.
        head_dim: H, the width of a query and key head.
        value_dim: Hv, the width of a value head; H where None.
        num_kv_heads: K, which divides N; N where None.
        dropout: Share of attention weights dropped while training.
        use_bias: Whether the projections add a bias.

    Call args:
        x: (B, T, D). With a frozen cache of B / r rows, r neighbouring rows of x (the beams of one source) share
            a row of the cache, which is neither copied nor reordered.
        memory: (B, S, any width); x where None.
        attention_mask: Boolean, broadcastable to (B, N, T, S) - over the cache's places where a cache is given;
            True where a query may look.
        cache: A KVCache, which is updated in place while tracing; a frozen one stands for the memory.

    Returns:
        (B, T, D).

    Raises:
        ValueError: If num_heads is not a multiple of num_kv_heads, or a mask is not boolean.

    Source: Vaswani et al. 2017, section 3.2.2; shared key/value heads: Shazeer 2019, Ainslie et al. 2023.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        num_kv_heads: int | None = None,
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
        if num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads: {num_kv_heads} does not divide num_heads {num_heads}")

        # Dense and a reshape, not EinsumDense: the same numbers, faster under XLA on the CPU.
        self.query = self._projection(num_heads * head_dim, "query")
        self.key = self._projection(self.num_kv_heads * self.head_dim, "key")
        self.value = self._projection(self.num_kv_heads * self.value_dim, "value")
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def _projection(self, width: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(width, use_bias=self.use_bias, name=name, dtype=self.dtype_policy)

    def build(self, x_shape, memory_shape=None):
        memory_shape = memory_shape or x_shape
        self.query.build(x_shape)
        self.key.build(memory_shape)
        self.value.build(memory_shape)
        self.output_projection = self._projection(x_shape[-1], "output")
        self.output_projection.build((*x_shape[:-1], self.num_heads * self.value_dim))

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        attention_mask: KerasTensor | None = None,
        *,
        cache: KVCache | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        batch, length = ops.shape(x)[:2]
        if cache is None:
            key, value = self.project_memory(x if memory is None else memory)
        elif cache.frozen:
            key, value = cache.tensors
        else:
            key, value = cache.update(*self.project_memory(x if memory is None else memory))

        # Beams that share a memory stand side by side as queries, so the memory is read once for all of them.
        rows = key.shape[0] if cache is not None else batch
        query = ops.reshape(self.query(x), (rows, -1, self.num_heads, self.head_dim))
        with recorded_as(self.path):
            y = attend(query, key, value, mask=attention_mask, dropout=self._dropout(training))
        return self.output_projection(ops.reshape(y, (batch, length, self.num_heads * self.value_dim)))

    def project_memory(self, memory: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Projects a memory (B, S, any width) to keys (B, S, K, H) and values (B, S, K, Hv)."""
        batch, length = ops.shape(memory)[:2]
        return (
            ops.reshape(self.key(memory), (batch, length, self.num_kv_heads, self.head_dim)),
            ops.reshape(self.value(memory), (batch, length, self.num_kv_heads, self.value_dim)),
        )

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
            "dropout": self.dropout.rate,
            "use_bias": self.use_bias,
        }
