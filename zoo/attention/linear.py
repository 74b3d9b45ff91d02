"""Linear attention: a kernel instead of the softmax, so that all earlier tokens fit into one matrix a head."""

import keras
from keras import KerasTensor, ops

from zoo.attention.core import check
from zoo.attention.multi_head import MultiHeadAttention


class LinearState:
    """What a causal linear attention keeps of all earlier tokens: its size does not depend on how many there were.

    Like KVCache, the object lives while a step is traced; `tensors` is what a compiled loop carries.

    Args:
        products: Sum of the outer products of keys and values, float32 (B, N, H, Hv).
        keys: Sum of the keys, float32 (B, N, H).
    """

    def __init__(self, products: KerasTensor, keys: KerasTensor):
        self.products = products
        self.keys = keys

    @classmethod
    def empty(cls, batch: int, num_heads: int, head_dim: int, value_dim: int) -> "LinearState":
        """Makes the state before the first token."""
        return cls(ops.zeros((batch, num_heads, head_dim, value_dim)), ops.zeros((batch, num_heads, head_dim)))

    @property
    def tensors(self) -> tuple[KerasTensor, KerasTensor]:
        return self.products, self.keys

    def reorder(self, rows: KerasTensor) -> None:
        """Makes row i continue what row `rows[i]` held."""
        self.products, self.keys = (ops.take(x, rows, axis=0) for x in self.tensors)


def linear_attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    *,
    causal: bool = False,
    mask: KerasTensor | None = None,
    state: LinearState | None = None,
    block: int = 64,
) -> KerasTensor:
    """Mixes values by the products of elu(x) + 1 of queries and keys, at a cost that is linear in T and S.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H); K divides N.
        value: (B, S, K, Hv).
        causal: Whether a query sees only what stands up to its own place; S is T then.
        mask: Boolean (B, S), True for keys that are seen at all.
        state: What came before the first query; updated in place while tracing. Causal only.
        block: Causal attention goes through blocks of this length: inside one it computes all pairs.

    Returns:
        (B, T, N, Hv), in value's dtype. A row that may look nowhere is zero.

    Raises:
        ValueError: If shapes do not fit together.

    Source: Katharopoulos et al. 2020, sections 3.2 to 3.4; in blocks as in Hua et al. 2022, section 3.
    """
    check(query, key, value)
    if causal and query.shape[1] != key.shape[1]:
        raise ValueError(f"key: {key.shape[1]} places for {query.shape[1]} queries; causal attention is to itself")
    if state is not None and not causal:
        raise ValueError("state: only causal attention has one; set causal=True")
    groups = query.shape[2] // key.shape[2]
    dtype = value.dtype
    query, key = (ops.elu(ops.cast(x, "float32")) + 1 for x in (query, key))
    key, value = (ops.repeat(ops.cast(x, "float32"), groups, axis=2) for x in (key, value))
    if mask is not None:
        key = key * ops.cast(mask, "float32")[:, :, None, None]
    if causal:
        mixed, total = _causal(query, key, value, state, block)
    else:
        mixed = ops.einsum("btnh,bnhv->btnv", query, ops.einsum("bsnh,bsnv->bnhv", key, value))
        total = ops.einsum("btnh,bnh->btn", query, ops.sum(key, axis=1))
    seen = total > 0
    return ops.cast(ops.where(seen[..., None], mixed / ops.where(seen, total, 1.0)[..., None], 0.0), dtype)


def _causal(query, key, value, state: LinearState | None, block: int) -> tuple[KerasTensor, KerasTensor]:
    """Returns the unnormalized outputs and what they are to be divided by."""
    batch, length, num_heads, width = ops.shape(query)
    size = min(block, length) if isinstance(length, int) else block  # a traced length is no int
    count = -(-length // size)

    def cut(x):
        x = ops.pad(x, [(0, 0), (0, count * size - length), (0, 0), (0, 0)])
        return ops.reshape(x, (batch, count, size, num_heads, x.shape[-1]))

    def before(sums, first):
        """Sums what stands before each block; the last is the new state."""
        sums = ops.cumsum(ops.concatenate([first[:, None], sums], axis=1), axis=1)
        return sums[:, :-1], sums[:, -1]

    query, key, value = cut(query), cut(key), cut(value)
    if state is None:
        state = LinearState.empty(batch, num_heads, width, value.shape[-1])
    products, state.products = before(ops.einsum("bcsnh,bcsnv->bcnhv", key, value), state.products)
    keys, state.keys = before(ops.sum(key, axis=2), state.keys)
    pairs = ops.einsum("bctnh,bcsnh->bcnts", query, key) * ops.tril(ops.ones((size, size)))
    mixed = ops.einsum("bcnts,bcsnv->bctnv", pairs, value) + ops.einsum("bctnh,bcnhv->bctnv", query, products)
    total = ops.transpose(ops.sum(pairs, axis=-1), (0, 1, 3, 2)) + ops.einsum("bctnh,bcnh->bctn", query, keys)
    mixed = ops.reshape(mixed, (batch, count * size, num_heads, value.shape[-1]))
    return mixed[:, :length], ops.reshape(total, (batch, count * size, num_heads))[:, :length]


@keras.saving.register_keras_serializable("zoo")
class LinearAttention(MultiHeadAttention):
    """Multi-head linear attention: linear in T, and with a state of constant size for generation.

    Args:
        num_heads: N.
        head_dim: H.
        causal: Whether a place sees only what comes before it.
        **kwargs: MultiHeadAttention's, without score, bias and dropout: there are no weights.

    Call args:
        x: (B, T, D).
        memory: (B, S, any width); x where None.
        key_mask: Boolean (B, S), True for places that are seen at all.
        positions: As in MultiHeadAttention.
        cache: A LinearState, as empty_cache() gives it, updated in place while tracing.

    Returns:
        (B, T, D).

    Source: Katharopoulos et al. 2020.
    """

    def __init__(self, num_heads: int, head_dim: int, causal: bool = False, **kwargs):
        for name, plain in (("score", "scaled_dot"), ("bias", None), ("dropout", 0.0)):
            if kwargs.get(name, plain) != plain:
                raise ValueError(f"{name}: {kwargs[name]!r}; linear attention has no logits and no weights")
        super().__init__(num_heads, head_dim, **kwargs)
        self.causal = causal

    def build(self, x_shape, memory_shape=None):
        super().build(x_shape, memory_shape)

    def call(  # type: ignore[override]
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        key_mask: KerasTensor | None = None,
        positions: KerasTensor | None = None,
        *,
        cache: LinearState | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        if positions is None:
            if cache is not None and self.rotary is not None:
                raise ValueError("positions: None; the state does not count tokens, so rotary positions must be given")
            positions = ops.arange(ops.shape(x)[1], dtype="int32")
        query = self.project_query(x, positions)
        key, value = self.project_memory(x, positions) if memory is None else self.project_memory(memory)
        y = linear_attend(query, key, value, causal=self.causal, mask=key_mask, state=cache)
        return self.project_output(x, y)

    def empty_cache(self, batch: int, max_length: int | None = None) -> LinearState:  # type: ignore[override]
        """Makes the state before the first token; there is no longest length."""
        return LinearState.empty(batch, self.num_heads, self.head_dim, self.value_dim)

    def get_config(self) -> dict:
        return {**super().get_config(), "causal": self.causal}
