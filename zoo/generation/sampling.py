"""What happens to one step's logits before a token is chosen, and how one is chosen."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from zoo.random import random_bits

IMPOSSIBLE = -1e30


def forbid(logits: KerasTensor, forbidden: KerasTensor) -> KerasTensor:
    """Makes tokens impossible.

    Args:
        logits: (R, V).
        forbidden: Boolean, broadcastable to (R, V).

    Returns:
        (R, V).
    """
    return ops.where(forbidden, IMPOSSIBLE, logits)


# From this vocabulary on, blocks are looked at first.
LARGE = 16384
BLOCK = 128


def likeliest(logits: KerasTensor) -> KerasTensor:
    """Finds each row's largest logit, the first one of equals; XLA's own argmax takes twice as long on a CPU.

    Args:
        logits: (R, V).

    Returns:
        int32 (R,).
    """
    vocabulary = logits.shape[-1]
    if vocabulary < LARGE:
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    largest = ops.equal(logits, ops.max(logits, axis=-1, keepdims=True))
    places = ops.where(largest, ops.arange(vocabulary, dtype="int32"), vocabulary - 1)
    return ops.min(places, axis=-1)


def largest(logits: KerasTensor, k: int) -> tuple[KerasTensor, KerasTensor]:
    """Finds each row's k largest logits, the first ones of equals; XLA's own top_k takes twice as long on a CPU.

    Of many logits, the k largest are in the k blocks whose largest are largest.

    Args:
        logits: (R, V).
        k: At most V.

    Returns:
        The logits, largest first, and their int32 places, both (R, k).
    """
    rows, vocabulary = logits.shape
    if vocabulary < max(LARGE, 2 * k * BLOCK):
        values, places = ops.top_k(logits, k)
        return values, ops.cast(places, "int32")
    whole = vocabulary // BLOCK * BLOCK
    best = ops.max(ops.reshape(logits[:, :whole], (rows, -1, BLOCK)), axis=-1)
    if whole < vocabulary:
        best = ops.concatenate([best, ops.max(logits[:, whole:], axis=-1, keepdims=True)], axis=1)
    # In their order, so that the first of equals stays the first.
    blocks = ops.sort(ops.cast(ops.top_k(best, k)[1], "int32"), axis=-1)
    places = ops.reshape(blocks[:, :, None] * BLOCK + ops.arange(BLOCK, dtype="int32"), (rows, k * BLOCK))
    found = ops.take_along_axis(logits, ops.minimum(places, vocabulary - 1), axis=1)
    values, index = ops.top_k(ops.where(places < vocabulary, found, 2 * IMPOSSIBLE), k)
    return values, ops.take_along_axis(places, ops.cast(index, "int32"), axis=1)


def force(logits: KerasTensor, wanted: KerasTensor, where: KerasTensor, certain: float | None = None) -> KerasTensor:
    """Makes all tokens but some impossible in some rows.

    Args:
        logits: (R, V).
        wanted: Boolean, broadcastable to (R, V): what stays possible.
        where: Boolean (R, 1): in which rows.
        certain: The logit that these tokens get; their own where None.

    Returns:
        (R, V).
    """
    chosen = ops.where(wanted, logits if certain is None else certain, IMPOSSIBLE)
    return ops.where(where, chosen, logits)


def forbid_words(
    logits: KerasTensor, tokens: KerasTensor, length: KerasTensor, words: Sequence[Sequence[int]]
) -> KerasTensor:
    """Makes the last token of each word impossible where the others stand before it.

    Args:
        logits: (R, V), for place `length`.
        tokens: int32 (R, L), of which `length` places are filled.
        length: Scalar.
        words: Token ids, at least two each.

    Returns:
        (R, V).
    """
    vocabulary = ops.arange(logits.shape[1], dtype="int32")
    for *before, last in words:
        match = ops.ones_like(tokens[:, 0], dtype="bool") & (length > len(before))
        for i, token in enumerate(before):
            place = ops.maximum(length - len(before) + i, 0)
            match = match & ops.equal(ops.take(tokens, place, axis=1), token)
        logits = forbid(logits, match[:, None] & ops.equal(vocabulary, last))
    return logits


def forbid_repeated_ngrams(logits: KerasTensor, tokens: KerasTensor, length: KerasTensor, n: int) -> KerasTensor:
    """Makes every token impossible that would repeat an n-gram of its own row.

    Args:
        logits: (R, V), for place `length`.
        tokens: int32 (R, L), of which `length` places are filled, start token included.
        length: Scalar.
        n: At least 1.

    Returns:
        (R, V).

    Source: Paulus et al. 2018, section 2.5.
    """
    rows, places = tokens.shape
    vocabulary = logits.shape[1]
    windows = places - n + 1
    if windows <= 0:
        return logits
    starts = ops.arange(windows, dtype="int32")
    match = ops.broadcast_to((starts >= 1) & (starts + n <= length), (rows, windows))
    for i in range(n - 1):
        latest = ops.take(tokens, ops.maximum(length - n + 1 + i, 0), axis=1)
        match = match & ops.equal(tokens[:, i : i + windows], latest[:, None])
    # Windows that do not match write into a column of their own, which is cut off again.
    columns = ops.where(match, tokens[:, n - 1 : n - 1 + windows], vocabulary)
    lines = ops.broadcast_to(ops.arange(rows, dtype="int32")[:, None], (rows, windows))
    indices = ops.reshape(ops.stack([lines, columns], axis=-1), (-1, 2))
    padded = ops.pad(logits, [[0, 0], [0, 1]])
    return ops.scatter_update(padded, indices, ops.full((rows * windows,), IMPOSSIBLE, logits.dtype))[:, :vocabulary]


def forbid_broken_words(
    logits: KerasTensor, latest: KerasTensor, source: KerasTensor, continuing: KerasTensor, joining: KerasTensor
) -> KerasTensor:
    """Makes tokens that continue a word impossible where the source does not continue so.

    Args:
        logits: (R, V).
        latest: int32 (R,), the token before.
        source: int32 (R, S).
        continuing: Boolean (V,), tokens that continue a word.
        joining: Boolean (V,), tokens behind which they may come all the same.

    Returns:
        (R, V).
    """
    rows, vocabulary = logits.shape
    # What follows no such token is written into a column of its own, which is cut off again.
    columns = ops.where(ops.equal(source[:, :-1], latest[:, None]), source[:, 1:], vocabulary)
    lines = ops.broadcast_to(ops.arange(rows, dtype="int32")[:, None], columns.shape)
    indices = ops.reshape(ops.stack([lines, columns], axis=-1), (-1, 2))
    nowhere = ops.zeros((rows, vocabulary + 1), "int32")
    follows = ops.scatter_update(nowhere, indices, ops.ones_like(indices[:, 0]))[:, :vocabulary] > 0
    return forbid(logits, continuing & ~follows & ~ops.take(joining, latest)[:, None])


def keep_top_k(logits: KerasTensor, k: int) -> KerasTensor:
    """Keeps each row's k most likely tokens. Source: Fan et al. 2018."""
    if k >= logits.shape[-1]:
        return logits
    return forbid(logits, logits < ops.top_k(logits, k)[0][:, -1:])


def keep_top_p(logits: KerasTensor, p: float) -> KerasTensor:
    """Keeps each row's likeliest tokens up to a total probability of p, at least one. Source: Holtzman et al. 2020."""
    if p >= 1:
        return logits
    ranked = ops.flip(ops.sort(logits, axis=-1), axis=-1)
    probabilities = ops.softmax(ranked, axis=-1)
    kept = ops.cumsum(probabilities, axis=-1) - probabilities < p
    threshold = ops.min(ops.where(kept, ranked, -IMPOSSIBLE), axis=-1, keepdims=True)
    return forbid(logits, logits < threshold)


def draw(logits: KerasTensor, seeds: KerasTensor) -> KerasTensor:
    """Draws one token a row from its softmax, by adding Gumbel noise and taking the best.

    Args:
        logits: (R, V).
        seeds: Integers (R, 2); a row's draw depends on its own seed alone.

    Returns:
        int32 (R,).

    Source: Maddison et al. 2014.
    """
    bits = random_bits(seeds, logits.shape[-1])
    uniform = (ops.cast(ops.right_shift(bits, ops.cast(8, "uint32")), "float32") + 0.5) * 2.0**-24
    return ops.cast(ops.argmax(logits - ops.log(-ops.log(uniform)), axis=-1), "int32")
