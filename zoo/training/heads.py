"""What the logits of an encoder's heads mean, and what they cost when they are wrong."""

from keras import KerasTensor, ops

from zoo.models.encoder import HeadConfig
from zoo.training.losses import cross_entropy, share


def activate(head: HeadConfig, logits: KerasTensor, segments: KerasTensor) -> KerasTensor:
    """Turns a head's logits into what it says.

    Args:
        head: Its kind decides.
        logits: What the head gives: see encoder().
        segments: Integer (B, T).

    Returns:
        Probabilities for label, labels and tags; log-probabilities over the tokens for span; the numbers themselves
        for number and vector. float32.
    """
    logits = ops.cast(logits, "float32")
    if head.kind in ("label", "tags"):
        return ops.softmax(logits)
    if head.kind == "span":
        return ops.log_softmax(_possible(logits, segments), axis=1)
    return ops.sigmoid(logits) if head.kind == "labels" else logits


def head_loss(
    head: HeadConfig,
    logits: KerasTensor,
    labels: KerasTensor,
    weights: KerasTensor,
    segments: KerasTensor,
    smoothing: float = 0.0,
    whole: tuple[KerasTensor, KerasTensor] | None = None,
) -> KerasTensor:
    """Computes a head's mean loss over the examples that say something of it.

    Args:
        head: Its kind decides: cross-entropy for label, tags and span (over the tokens of the second segment, and the
            first place, which stands for no answer), binary cross-entropy for labels, squared error for number.
        logits: What the head gives: see encoder().
        labels: Integer (B,) for label, (B, T) with -1 where nothing is asked for tags, (B, 2) for span; float
            (B, classes) for labels, (B,) for number.
        weights: (B,), 0 for examples that say nothing.
        segments: Integer (B, T).
        smoothing: Of label and tags.
        whole: Labels and weights of the whole batch, where these are a micro-batch's: see share().

    Returns:
        A float32 scalar; 0 where no example says anything.
    """
    logits = ops.cast(logits, "float32")
    asked = _asked(head, labels, weights)
    divisor = share(asked, asked if whole is None else _asked(head, *whole))
    return ops.sum(_losses(head, logits, labels, segments, smoothing) * asked) / divisor


def _asked(head: HeadConfig, labels: KerasTensor, weights: KerasTensor) -> KerasTensor:
    """Weighs everything that a head's loss is the mean of."""
    return ops.cast(labels >= 0, "float32") * weights[:, None] if head.kind == "tags" else weights


def _losses(
    head: HeadConfig, logits: KerasTensor, labels: KerasTensor, segments: KerasTensor, smoothing: float
) -> KerasTensor:
    """Computes a head's losses: (B, T) for tags, (B,) for others."""
    if head.kind == "tags":
        return cross_entropy(logits, ops.maximum(labels, 0), smoothing)
    if head.kind == "label":
        return cross_entropy(logits, labels, smoothing)
    if head.kind == "labels":
        losses = ops.maximum(logits, 0) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))
        return ops.mean(losses, axis=-1)
    if head.kind == "number":
        return ops.square(logits[:, 0] - labels)
    if head.kind == "span":
        losses = cross_entropy(ops.transpose(_possible(logits, segments), (0, 2, 1)), labels)
        return ops.mean(losses, axis=-1)
    raise ValueError(f"a head of kind {head.kind!r} has no loss")


def _possible(logits: KerasTensor, segments: KerasTensor) -> KerasTensor:
    """Leaves an answer's ends the second segment, and the first place, which stands for no answer."""
    possible = ops.equal(segments, 1) | ops.equal(ops.arange(ops.shape(segments)[1]), 0)[None]
    return ops.where(possible[:, :, None], logits, -1e30)
