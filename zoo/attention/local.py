"""Attention whose cost grows linearly with the length: each query sees its neighbourhood, or its chunk, only."""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from zoo.attention.core import attend, check
from zoo.attention.leaders import Bias, Leaders
from zoo.attention.multi_head import MultiHeadAttention
from zoo.attention.scores import Score, scaled_dot


def local_attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    *,
    window: int,
    global_tokens: int = 0,
    causal: bool = False,
    segments: KerasTensor | None = None,
    score: Score = scaled_dot,
    bias: Bias | None = None,
    dropout: Callable[[KerasTensor], KerasTensor] | None = None,
) -> KerasTensor:
    """Computes attend() with masks.sliding_window(T, window), joined by "or" to masks.global_tokens(), and only that.

    Queries are cut into blocks of `window`; each block sees itself and the block before and behind it, so
    T * (3 window + global_tokens) logits are computed instead of T * T. What global tokens see costs T * global_tokens
    twice.

    Args:
        query: (B, T, N, H).
        key: (B, T, K, H); K divides N.
        value: (B, T, K, Hv).
        window: How far a query sees, its own place included.
        global_tokens: How many tokens at the beginning of each segment see all of it and are seen by all of it.
        causal: Whether keys behind the query's own place are hidden; T * 2 window logits then.
        segments: Integer (B, T): queries see their own segment only, and segment 0 is padding. Segments are texts one
            behind the other; with global tokens, a number that comes again is another text.
        score, dropout: As in attend(). A map captured here is (B * blocks, N, window, global_tokens + 2 or 3 window),
            what global tokens see far away left out.
        bias: From the places of queries and keys to what is added to the logits; it counts distances only.

    Returns:
        (B, T, N, Hv), in value's dtype. A row that may look nowhere is zero.

    Raises:
        ValueError: If shapes do not fit together, window is not positive, or it is smaller than global_tokens.

    Source: Beltagy et al. 2020, section 3.1; first tokens as global ones: Zaheer et al. 2020, section 2 (BigBird-ITC).
    """
    if window < 1:
        raise ValueError(f"window: {window} places; it is at least 1")
    if not 0 <= global_tokens <= window:
        raise ValueError(f"global_tokens: {global_tokens}; it is 0 to {window}, which is the window")
    length = _same_length(query, key, value)
    window = min(window, length) if isinstance(length, int) else window  # a traced length is no int
    segments = _segments(segments, query)
    neighbours = (-1, 0) if causal else (-1, 0, 1)
    leaders = Leaders(segments, window, global_tokens) if global_tokens else None
    queries, own = (blocks(x, window, (0,)) for x in (query, segments))
    keys, values, others = (blocks(x, window, neighbours) for x in (key, value, segments))

    distance = ops.arange(window * len(neighbours))[None, :] - window - ops.arange(window)[:, None]
    near = ops.abs(distance) < window
    if causal:
        near = near & (distance <= 0)
    mask = _same(own, others) & near[None, None]
    added = None
    if bias is not None:
        added = bias(window + ops.arange(window, dtype="int32"), ops.arange(window * len(neighbours), dtype="int32"))
    if leaders is not None:
        texts = blocks(leaders.texts, window, (0,))
        far_keys, far_values, far_mask, far_added = leaders.seen(key, value, texts, bias)
        keys, values = ops.concatenate([far_keys, keys], axis=1), ops.concatenate([far_values, values], axis=1)
        mask = ops.concatenate([far_mask, mask], axis=3)
        if added is not None:
            added = ops.broadcast_to(added, (*ops.shape(far_added)[:3], ops.shape(added)[3]))
            added = ops.concatenate([far_added, added], axis=3)
    y = attend(queries, keys, values, score=score, bias=added, mask=mask, dropout=dropout)
    y = _unfold(y, segments, length)
    if leaders is None or causal:
        return y
    keys, values = (blocks(x, window, (0,)) for x in (key, value))
    return leaders.see(query, keys, values, texts, y, score=score, bias=bias, dropout=dropout)


def chunked_attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    *,
    size: int,
    causal: bool = False,
    segments: KerasTensor | None = None,
    score: Score = scaled_dot,
    dropout: Callable[[KerasTensor], KerasTensor] | None = None,
) -> KerasTensor:
    """Computes attend() with masks.block(T, size), and only that: a long document in chunks that do not see each other.

    Args:
        query: (B, T, N, H).
        key: (B, T, K, H); K divides N.
        value: (B, T, K, Hv).
        size: Places in a chunk.
        causal: Whether keys behind the query's own place are hidden.
        segments, score, dropout: As in local_attend().

    Returns:
        (B, T, N, Hv), in value's dtype. A row that may look nowhere is zero.

    Raises:
        ValueError: If shapes do not fit together, or size is not positive.

    Source: Dai et al. 2019, section 3.1 (the vanilla model); Child et al. 2019.
    """
    if size < 1:
        raise ValueError(f"size: {size} places; it is at least 1")
    length = _same_length(query, key, value)
    segments = _segments(segments, query)
    query, key, value, own = (blocks(x, size, (0,)) for x in (query, key, value, segments))
    mask = _same(own, own)
    if causal:
        mask = mask & (ops.arange(size)[None, :] <= ops.arange(size)[:, None])[None, None]
    return _unfold(attend(query, key, value, score=score, mask=mask, dropout=dropout), segments, length)


def _same_length(query: KerasTensor, key: KerasTensor, value: KerasTensor) -> int:
    check(query, key, value)
    if query.shape[1] != key.shape[1]:
        raise ValueError(f"key: {key.shape[1]} places for {query.shape[1]} queries; a sequence attends to itself here")
    return ops.shape(query)[1]


def _segments(segments: KerasTensor | None, query: KerasTensor) -> KerasTensor:
    return ops.ones(ops.shape(query)[:2], "int32") if segments is None else ops.cast(segments, "int32")


def blocks(x: KerasTensor, size: int, neighbours: tuple[int, ...]) -> KerasTensor:
    """Cuts a sequence into blocks, and lays beside each the blocks around it.

    Args:
        x: (B, T, ...).
        size: Places in a block.
        neighbours: Which blocks are wanted, in order: (-1, 0) the one before and the block itself.

    Returns:
        (B * blocks, neighbours * size, ...), zeros where there is no neighbour.
    """
    batch, length, *rest = ops.shape(x)
    count = -(-length // size)
    before, behind = -neighbours[0], max(0, neighbours[-1])
    x = ops.pad(x, [(0, 0), (before * size, (count + behind) * size - length)] + [(0, 0)] * len(rest))
    x = ops.reshape(x, (batch, before + count + behind, size, *rest))
    x = ops.concatenate([x[:, i : i + count] for i in range(len(neighbours))], axis=2)
    return ops.reshape(x, (batch * count, len(neighbours) * size, *rest))


def _same(query_segments: KerasTensor, key_segments: KerasTensor) -> KerasTensor:
    same = ops.equal(query_segments[:, :, None], key_segments[:, None, :])
    return (same & (key_segments > 0)[:, None, :])[:, None]


def _unfold(y: KerasTensor, segments: KerasTensor, length: int) -> KerasTensor:
    return ops.reshape(y, (ops.shape(segments)[0], -1, *y.shape[2:]))[:, :length]


# === Layers ===


class _Windowed(MultiHeadAttention):
    """MultiHeadAttention over neighbourhoods."""

    def __init__(self, num_heads: int, head_dim: int, causal: bool = False, **kwargs):
        super().__init__(num_heads, head_dim, **kwargs)
        self.causal = causal

    def build(self, x_shape):  # type: ignore[override]
        super().build(x_shape)

    def call(  # type: ignore[override]
        self,
        x: KerasTensor,
        segments: KerasTensor | None = None,
        positions: KerasTensor | None = None,
        *,
        training: bool | None = None,
    ) -> KerasTensor:
        return super().call(x, attention_mask=segments, positions=positions, training=training)

    def _bias(self, positions, key_positions, key) -> None:
        """Leaves the bias to local_attend(): one over all distances is just what is avoided."""

    def get_config(self) -> dict:
        return {**super().get_config(), "causal": self.causal}


@keras.saving.register_keras_serializable("zoo")
class LocalAttention(_Windowed):
    """Multi-head attention in which each place sees its neighbourhood only, at a cost that is linear in T.

    Args:
        num_heads: N.
        head_dim: H.
        window: How far a place sees, itself included.
        causal: Whether it sees only what comes before it.
        global_tokens: How many tokens at the beginning of each segment see all of it and are seen by all of it.
        **kwargs: MultiHeadAttention's; a bias is one of distances, such as RelativeBias, whatever the positions.

    Call args:
        x: (B, T, D).
        segments: Integer (B, T): places see their own segment only, and segment 0 is padding.
        positions: As in MultiHeadAttention.

    Returns:
        (B, T, D).

    Source: Beltagy et al. 2020, section 3.1.
    """

    def __init__(
        self, num_heads: int, head_dim: int, window: int, causal: bool = False, global_tokens: int = 0, **kwargs
    ):
        super().__init__(num_heads, head_dim, causal, **kwargs)
        self.window = window
        self.global_tokens = global_tokens

    def attend(self, query, key, value, *, mask, bias, training):
        return local_attend(
            query,
            key,
            value,
            window=self.window,
            global_tokens=self.global_tokens,
            causal=self.causal,
            segments=mask,
            score=self.score,
            bias=self.bias,
            dropout=self._dropout(training),
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "window": self.window, "global_tokens": self.global_tokens}


@keras.saving.register_keras_serializable("zoo")
class ChunkedAttention(_Windowed):
    """Multi-head attention in which each place sees its own chunk only.

    Args:
        num_heads: N.
        head_dim: H.
        size: Places in a chunk.
        causal: Whether a place sees only what comes before it.
        **kwargs: MultiHeadAttention's, without bias.

    Call args:
        x, segments, positions: As in LocalAttention.

    Returns:
        (B, T, D).
    """

    def __init__(self, num_heads: int, head_dim: int, size: int, causal: bool = False, **kwargs):
        if kwargs.get("bias") is not None:
            raise ValueError(f"bias: {type(self).__name__} takes none; use rotary positions")
        super().__init__(num_heads, head_dim, causal, **kwargs)
        self.size = size

    def attend(self, query, key, value, *, mask, bias, training):
        return chunked_attend(
            query,
            key,
            value,
            size=self.size,
            causal=self.causal,
            segments=mask,
            score=self.score,
            dropout=self._dropout(training),
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size}
