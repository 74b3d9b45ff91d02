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


def token_mean(losses: KerasTensor, labels: KerasTensor, pad: int = 0) -> tuple[KerasTensor, KerasTensor]:
    """Averages token losses over the places that are not padding.

    Args:
        losses: (B, T).
        labels: Integer (B, T).
        pad: The label of a place that counts nothing.

    Returns:
        The mean, and the number of tokens it is over, both float32 scalars; the mean over no token is 0.
    """
    counts = ops.cast(ops.not_equal(labels, pad), "float32")
    tokens = ops.sum(counts)
    return ops.sum(losses * counts) / ops.maximum(tokens, 1.0), tokens


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
