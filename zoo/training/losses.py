"""Losses over tokens."""

from keras import KerasTensor, ops


def cross_entropy(logits: KerasTensor, labels: KerasTensor, smoothing: float = 0.0) -> KerasTensor:
    """Computes each token's cross-entropy against its label, smoothed towards the uniform distribution.

    Args:
        logits: (..., V).
        labels: Integer (...).
        smoothing: Share of the target distribution spread over the whole vocabulary.

    Returns:
        float32 (...), in nats.

    Source: Szegedy et al. 2016, section 7.
    """
    logits = ops.cast(logits, "float32")
    vocabulary = logits.shape[-1]
    # A comparison, not a gather: its gradient fuses, where a gather's fills and scatters a tensor of logits' size.
    is_label = ops.equal(ops.arange(vocabulary, dtype=labels.dtype), labels[..., None])
    spread = smoothing / vocabulary
    return ops.logsumexp(logits, axis=-1) - ops.sum(
        ops.where(is_label, 1 - smoothing + spread, spread) * logits, axis=-1
    )


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
