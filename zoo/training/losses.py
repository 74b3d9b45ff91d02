"""Losses over tokens, and over where a decoder looks."""

from keras import KerasTensor, ops


def cross_entropy(
    logits: KerasTensor, labels: KerasTensor, smoothing: float = 0.0, normalized: bool = False
) -> KerasTensor:
    """Computes each token's cross-entropy against its label, smoothed towards the uniform distribution.

    Args:
        logits: (..., V).
        labels: Integer (...).
        smoothing: Share of the target distribution spread over the whole vocabulary.
        normalized: Whether the logits are log-probabilities, which need not be normalized again.

    Returns:
        float32 (...), in nats.

    Source: Szegedy et al. 2016, section 7.
    """
    logits = ops.cast(logits, "float32")
    vocabulary = logits.shape[-1]
    # A comparison, not a gather: its gradient fuses, where a gather's fills and scatters a tensor of logits' size.
    is_label = ops.equal(ops.arange(vocabulary, dtype=labels.dtype), labels[..., None])
    spread = smoothing / vocabulary
    expected = ops.sum(ops.where(is_label, 1 - smoothing + spread, spread) * logits, axis=-1)
    return -expected if normalized else ops.logsumexp(logits, axis=-1) - expected


def token_mean(
    losses: KerasTensor, labels: KerasTensor, pad: int = 0, whole: KerasTensor | None = None
) -> tuple[KerasTensor, KerasTensor]:
    """Averages token losses over the places that are not padding.

    Args:
        losses: (B, T).
        labels: Integer (B, T).
        pad: The label of a place that counts nothing.
        whole: The labels of the whole batch, where these are a micro-batch's: see share().

    Returns:
        The mean, and the number of tokens of the whole batch, both float32 scalars; the mean over no token is 0.
    """
    counts = token_counts(labels, pad)
    of = counts if whole is None else token_counts(whole, pad)
    return ops.sum(losses * counts) / share(counts, of), ops.sum(of)


def token_counts(labels: KerasTensor, pad: int = 0) -> KerasTensor:
    """Counts each label once, and padding not at all: float32, of the labels' shape."""
    return ops.cast(ops.not_equal(labels, pad), "float32")


def share(weights: KerasTensor, whole: KerasTensor) -> KerasTensor:
    """Returns what a weighted sum of losses is divided by, so that the mean over micro-batches is the batch's mean.

    Args:
        weights: (b, ...), of a micro-batch or of the batch itself.
        whole: (B, ...), of the batch, from which equal micro-batches were cut.

    Returns:
        The sum of all weights, at least 1, times b / B: a float32 scalar.
    """
    return ops.maximum(ops.sum(whole), 1.0) * (ops.shape(weights)[0] / ops.shape(whole)[0])


def coverage(attention: KerasTensor) -> KerasTensor:
    """Measures at each place of a target how much of its attention goes to what was attended to before.

    Coverage is here what all earlier places of the row looked at, summed: attention is computed for the whole target
    at once and does not, as in the paper, read coverage itself. Texts that share a row share no source, so none counts
    for another.

    Args:
        attention: (B, T, S), for example a block's cross-attention averaged over its heads; rows sum to 1 or to 0.

    Returns:
        float32 (B, T), from 0 to 1: the sum over the source of the smaller one of attention and coverage.

    Source: See et al. 2017, section 2.3, equations 10 and 12.
    """
    attention = ops.cast(attention, "float32")
    before = ops.cumsum(attention, axis=1) - attention
    return ops.sum(ops.minimum(attention, before), axis=-1)


def contrastive(similarity: KerasTensor, rivals: KerasTensor) -> KerasTensor:
    """Computes how hard it is for each row to find its own column among its rivals, and for each column its own row.

    Args:
        similarity: (B, B), logits; what belongs together is on the diagonal.
        rivals: Boolean (B, B), which columns a row is told apart from, and rows a column; the diagonal does not matter.

    Returns:
        float32 (B,), in nats, the mean of both ways; 0 where there is no rival.

    Source: van den Oord et al. 2018, section 2.3; both ways: Radford et al. 2021, section 2.3.
    """
    similarity = ops.cast(similarity, "float32")
    own = ops.eye(similarity.shape[0], dtype="bool")
    logits = ops.where(rivals | own, similarity, -1e30)
    both = ops.logsumexp(logits, axis=1) + ops.logsumexp(logits, axis=0)
    return both / 2 - ops.diagonal(similarity)
