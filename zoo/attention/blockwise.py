"""The memory-efficient form of attend(): the same numbers, without ever holding all the weights."""

import copy
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import KerasTensor, ops

from zoo.attention.cache import KVCache
from zoo.attention.core import HIDDEN, check
from zoo.attention.multi_head import MultiHeadAttention

# From the places of queries (T, 1) and keys (1, S) to booleans that broadcast to (B, N, T, S).
MaskRule = Callable[[KerasTensor, KerasTensor], KerasTensor]


def blockwise_attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    *,
    mask: KerasTensor | MaskRule | None = None,
    block: int = 512,
) -> KerasTensor:
    """Computes attend() with scaled dot products, one block of keys after the other.

    Each block's logits are mixed into a running sum as soon as they are there; the running maximum keeps exp() in
    range. The backward pass computes them again instead of keeping them. So memory grows with T, not with T * S, in
    both directions. There are no weights to capture or to drop.

    Args:
        query: (B, T, N, H).
        key: (B, S, K, H); K divides N.
        value: (B, S, K, Hv).
        mask: Boolean, broadcastable to (B, N, T, S); or, since a whole (T, S) mask is just what this function
            avoids, a rule such as `lambda query, key: key <= query`, called with the places of each block.
        block: Keys in a block.

    Returns:
        (B, T, N, Hv), in value's dtype. A row that may look nowhere is zero.

    Raises:
        ValueError: If shapes do not fit together, or block is not positive.

    Source: Milakov & Gimelshein 2018; Rabe & Staats 2021; the backward pass: Dao et al. 2022, appendix B.
    """
    check(query, key, value, mask=None if callable(mask) else mask)
    if block < 1:
        raise ValueError(f"block: {block} keys; it is at least 1")
    blocks = _Blocks(ops.shape(query)[1], ops.shape(key)[1], block, mask)
    groups = query.shape[2] // key.shape[2]

    # JAX' transformations want whatever is traced as an argument; a rule's own closure has to stay as it is.
    whole_mask = [] if mask is None or callable(mask) else [ops.convert_to_tensor(blocks.mask)]

    @ops.custom_gradient
    def mix(query, key, value, *whole_mask):
        inside = blocks.with_mask(*whole_mask)
        y, log_sum = _forward(query, key, value, inside)

        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            return *_backward(query, key, value, y, log_sum, upstream, inside), *(None for _ in whole_mask)

        return y, gradient

    # Heads first; the query heads that share a key head stand side by side as its queries.
    batch, length, num_heads, width = ops.shape(query)
    query_rows = ops.reshape(query, (batch, length, num_heads // groups, groups, width))
    query_rows = ops.reshape(ops.transpose(query_rows, (0, 2, 3, 1, 4)), (batch, num_heads // groups, -1, width))
    key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (key, value))
    y = mix(query_rows * (1 / math.sqrt(query.shape[3])), blocks.pad(key), blocks.pad(value), *whole_mask)
    y = ops.transpose(ops.reshape(y, (batch, num_heads, length, value.shape[3])), (0, 2, 1, 3))
    return ops.cast(y, value.dtype)


class _Blocks:
    """Cuts keys into blocks and tells which logits of a block are seen."""

    def __init__(self, queries: int, keys: int, size: int, mask: KerasTensor | MaskRule | None):
        self.queries = queries
        self.keys = keys
        self.size = min(size, keys) if isinstance(keys, int) else size  # a traced length is no int
        self.count = -(-keys // self.size)
        self.missing = self.count * self.size - keys
        self.full = isinstance(keys, int) and self.missing == 0
        self.mask = mask
        if mask is not None and not callable(mask) and mask.shape[3] != 1:
            self.mask = self.pad(mask, axis=3)

    def with_mask(self, *mask: KerasTensor) -> "_Blocks":
        """Puts another mask, if one is given, in the place of the whole one."""
        blocks = copy.copy(self)
        if mask:
            (blocks.mask,) = mask
        return blocks

    def pad(self, x: KerasTensor, axis: int = 2) -> KerasTensor:
        """Fills the last block up."""
        return x if self.full else ops.pad(x, [(0, self.missing if i == axis else 0) for i in range(4)])

    def take(self, x: KerasTensor, number: KerasTensor, axis: int = 2) -> KerasTensor:
        """Cuts one block out."""
        start = [number * self.size if i == axis else 0 for i in range(4)]
        return ops.slice(x, start, [self.size if i == axis else n for i, n in enumerate(ops.shape(x))])

    def put(self, x: KerasTensor, number: KerasTensor, part: KerasTensor) -> KerasTensor:
        """Writes one block."""
        return ops.slice_update(x, (0, 0, number * self.size, 0), part)

    def logits(self, query: KerasTensor, key: KerasTensor, number: KerasTensor) -> KerasTensor:
        """Scores all queries against one block of keys, float32 (B, K, N / K * T, block)."""
        logits = ops.cast(ops.einsum("bkth,bksh->bkts", query, key), "float32")
        seen = self._seen(number)
        if seen is None:
            return logits
        batch, num_kv_heads, rows, size = ops.shape(logits)
        shape = (batch, num_kv_heads, rows // self.queries, self.queries, size)
        if seen.shape[1] == 1:
            seen = seen[:, :, None]
        else:
            seen = ops.reshape(seen, (-1, num_kv_heads, rows // self.queries, *ops.shape(seen)[2:]))
        return ops.reshape(ops.where(seen, ops.reshape(logits, shape), HIDDEN), (batch, num_kv_heads, rows, size))

    def _seen(self, number: KerasTensor) -> KerasTensor | None:
        places = number * self.size + ops.arange(self.size, dtype="int32")
        seen = None
        if callable(self.mask):
            seen = self.mask(ops.arange(self.queries, dtype="int32")[:, None], places[None, :])
            seen = ops.reshape(seen, (*[1] * (4 - len(seen.shape)), *ops.shape(seen)))
        elif self.mask is not None:
            seen = self.mask if self.mask.shape[3] == 1 else self.take(self.mask, number, axis=3)
        if not self.full:
            real = (places < self.keys)[None, None, None, :]
            seen = real if seen is None else seen & real
        return seen


def _forward(query: KerasTensor, key: KerasTensor, value: KerasTensor, blocks: _Blocks) -> tuple[Any, Any]:
    """Returns the mixed values in float32, and each row's logarithm of the summed exponentials."""
    rows = ops.shape(query)[:3]

    def step(number, highest, total, mixed):
        logits = blocks.logits(query, blocks.take(key, number), number)
        new_highest = ops.maximum(highest, ops.max(logits, axis=-1))
        weights = _exp(logits, new_highest)
        fade = ops.exp(highest - new_highest)
        total = total * fade + ops.sum(weights, axis=-1)
        part = ops.einsum("bkts,bksh->bkth", ops.cast(weights, value.dtype), blocks.take(value, number))
        return number + 1, new_highest, total, mixed * fade[..., None] + ops.cast(part, "float32")

    start = (
        ops.zeros((), "int32"),
        ops.full(rows, HIDDEN, "float32"),
        ops.zeros(rows, "float32"),
        ops.zeros((*rows, value.shape[3]), "float32"),
    )
    _, highest, total, mixed = ops.while_loop(lambda number, *_: number < blocks.count, step, start)
    total = ops.where(total > 0, total, 1.0)
    return mixed / total[..., None], highest + ops.log(total)


def _backward(query, key, value, y, log_sum, upstream, blocks: _Blocks) -> tuple[Any, Any, Any]:
    """Returns the gradients of query, key and value."""
    upstream = ops.cast(upstream, "float32")
    offset = ops.sum(upstream * y, axis=-1, keepdims=True)
    half = ops.cast(upstream, value.dtype)

    def step(number, query_gradient, key_gradient, value_gradient):
        keys, values = blocks.take(key, number), blocks.take(value, number)
        weights = _exp(blocks.logits(query, keys, number), log_sum)
        by_weight = ops.cast(ops.einsum("bkth,bksh->bkts", half, values), "float32")
        by_logit = ops.cast(weights * (by_weight - offset), key.dtype)
        part = ops.cast(ops.einsum("bkts,bksh->bkth", by_logit, keys), "float32")
        return (
            number + 1,
            query_gradient + part,
            blocks.put(key_gradient, number, ops.einsum("bkts,bkth->bksh", by_logit, query)),
            blocks.put(value_gradient, number, ops.einsum("bkts,bkth->bksh", ops.cast(weights, value.dtype), half)),
        )

    start = (
        ops.zeros((), "int32"),
        ops.zeros(ops.shape(query), "float32"),
        ops.zeros(ops.shape(key), key.dtype),
        ops.zeros(ops.shape(value), value.dtype),
    )
    _, *gradients = ops.while_loop(lambda number, *_: number < blocks.count, step, start)
    return tuple(ops.cast(gradient, x.dtype) for gradient, x in zip(gradients, (query, key, value)))


def _exp(logits: KerasTensor, highest: KerasTensor) -> KerasTensor:
    """exp(logits - highest), and 0 where hidden, also in rows that see nothing."""
    return ops.where(logits > HIDDEN / 2, ops.exp(logits - highest[..., None]), 0.0)


@keras.saving.register_keras_serializable("zoo")
class BlockwiseAttention(MultiHeadAttention):
    """Multi-head attention that never holds all its weights: for long sequences.

    Args:
        num_heads: N.
        head_dim: H.
        causal: Whether a place sees only what comes before it; no (T, S) mask is needed for that.
        block: Keys in a block.
        **kwargs: MultiHeadAttention's, without score, bias and dropout.

    Call args:
        As MultiHeadAttention's. An attention_mask (B, 1, 1, S) keeps the memory linear, a whole one does not.

    Returns:
        (B, T, D).

    Source: Rabe & Staats 2021.
    """

    def __init__(self, num_heads: int, head_dim: int, causal: bool = False, block: int = 512, **kwargs):
        for name, plain in (("score", "scaled_dot"), ("bias", None), ("dropout", 0.0)):
            if kwargs.get(name, plain) != plain:
                raise ValueError(f"{name}: {kwargs[name]!r}; blockwise attention takes scaled dot products as they are")
        super().__init__(num_heads, head_dim, **kwargs)
        self.causal = causal
        self.block = block

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
        if self.causal:
            attention_mask = _causal(attention_mask, 0 if cache is None or cache.frozen else cache.length)
        return super().call(x, memory, attention_mask, positions, cache=cache, training=training)

    def attend(self, query, key, value, *, mask, bias, training):
        return blockwise_attend(query, key, value, mask=mask, block=self.block)

    def get_config(self) -> dict:
        return {**super().get_config(), "causal": self.causal, "block": self.block}


def _causal(mask: KerasTensor | None, start: int | KerasTensor) -> MaskRule:
    """Makes the rule that hides the future, and what `mask` hides; the first query stands at place `start`."""

    def rule(queries, keys):
        seen = keys <= queries + start
        if mask is None:
            return seen
        last = ops.shape(mask)[3] - 1  # the last block may end behind it
        return seen & ops.take(mask, ops.minimum(keys[0], last), axis=3)

    return rule
