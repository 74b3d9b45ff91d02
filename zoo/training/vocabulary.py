"""Cross-entropy over a vocabulary, whose logits need not be held all at once."""

import math
from typing import Any, NamedTuple

import keras
from keras import KerasTensor, ops

from zoo.config import ConfigError
from zoo.layers import LogitBias, TokenEmbedding
from zoo.training.distribution import sharing_devices
from zoo.training.losses import cross_entropy

# Logits that are held at once, 64 MB in float32: smaller blocks make slower products, larger ones take more memory.
BLOCK = 2**24
# So many logits and more, 256 MB in float32, a device does not hold all at once where nobody says otherwise.
MANY = 2**26


def vocabulary_loss(
    model: keras.Model,
    inputs: Any,
    labels: KerasTensor,
    weights: KerasTensor,
    smoothing: float | KerasTensor = 0.0,
    *,
    fused: bool | None = None,
    normalized: bool = False,
    training: bool = False,
) -> KerasTensor:
    """Runs a model that scores the tokens of a vocabulary, and sums the weighted cross-entropy of its tokens.

    Args:
        model: A functional model to logits (B, T, V).
        inputs: What it takes.
        labels: Integer (B, T).
        weights: (B, T), of each token's loss.
        smoothing, normalized: See cross_entropy().
        fused: Whether linear_cross_entropy() takes the place of logits; None where there are many of them, and the
            model ends with a product.
        training: Whether the model is trained.

    Returns:
        A float32 scalar.

    Raises:
        ConfigError: If `fused` asks for what the model has not.
    """
    if fused is None:
        logits = math.prod(ops.shape(labels)) * model.output.shape[-1]
        fused = not normalized and logits >= MANY * sharing_devices()
        product = _last_product(model) if fused else None
    elif fused:
        product = _last_product(model)
        if product is None:
            raise ConfigError("training.fused_loss: true, but the model's logits are no product of vectors and a table")
    else:
        product = None
    if product is None:
        losses = cross_entropy(model(inputs, training=training), labels, smoothing, normalized)
        return ops.sum(losses * weights)
    # The same layers in another model, which ends before the product.
    x = keras.Model(model.input, product.x)(inputs, training=training)
    return linear_cross_entropy(x, product.table, labels, weights, smoothing, product.bias)


class _Product(NamedTuple):
    """The product that logits are: x (B, T, D), symbolic, times table (V, D), plus bias (V,) or nothing."""

    x: KerasTensor
    table: KerasTensor
    bias: KerasTensor | None


def _last_product(model: keras.Model) -> _Product | None:
    layer, x = _made_by(model.output)
    bias = None
    if isinstance(layer, LogitBias):
        bias = layer.bias
        layer, x = _made_by(x)
    if isinstance(layer, TokenEmbedding):
        return _Product(x, layer.embeddings, bias)
    if isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear:
        return _Product(x, ops.transpose(layer.kernel), layer.bias if bias is None else bias)
    return None


def _made_by(y: KerasTensor) -> tuple[Any, KerasTensor]:
    """Returns the layer that a symbolic tensor came out of, and what went in first."""
    operation, node, _ = y._keras_history
    return operation, operation._inbound_nodes[node].input_tensors[0]


def linear_cross_entropy(
    x: KerasTensor,
    table: KerasTensor,
    labels: KerasTensor,
    weights: KerasTensor,
    smoothing: float | KerasTensor = 0.0,
    bias: KerasTensor | None = None,
) -> KerasTensor:
    """Sums the weighted cross-entropy of logits, which are x times a table, without ever holding all of them.

    It goes from block to block of the tokens, and computes the gradients of a block's logits right behind its loss,
    while they are at hand: there are as many products as ever, and nothing is kept but gradients of x and of the table.

    Args:
        x: (..., D), in the type that products are computed in.
        table: (V, D).
        labels: Integer (...).
        weights: (...), of each token's loss.
        smoothing: See cross_entropy().
        bias: (V,), added to the logits.

    Returns:
        A float32 scalar, which x, table, weights and bias can be learned from.

    Source: gradients on the way there: Hsu et al. 2024, section 3.2.
    """
    vocabulary, width = table.shape
    tokens = math.prod(ops.shape(labels))
    lanes = math.gcd(sharing_devices(), tokens)
    size = max(1, min(BLOCK // vocabulary, tokens // lanes))
    blocks = -(-tokens // lanes // size)

    # Each device goes through its own tokens, and sums up its own gradient of the table.
    def blocked(values: KerasTensor) -> KerasTensor:
        values = ops.reshape(values, (lanes, -1, *values.shape[1:]))
        padding = [(0, 0), (0, blocks * size - tokens // lanes)] + [(0, 0)] * (len(values.shape) - 2)
        return ops.reshape(ops.pad(values, padding), (lanes, blocks, size, *values.shape[2:]))

    all_labels = blocked(ops.reshape(labels, (-1,)))
    spread = smoothing / vocabulary

    @ops.custom_gradient
    def total(x: KerasTensor, table: KerasTensor, bias: KerasTensor, weights: KerasTensor):
        all_x, all_weights, rows = blocked(x), blocked(weights), ops.cast(table, x.dtype)

        def one_block(i, losses, dx, dtable, dbias):
            logits = ops.cast(ops.matmul(all_x[:, i], ops.transpose(rows)), "float32") + bias
            is_label = ops.equal(ops.arange(vocabulary, dtype=labels.dtype), all_labels[:, i, :, None])
            target = ops.where(is_label, 1 - smoothing + spread, spread)
            normalizer = ops.logsumexp(logits, axis=-1, keepdims=True)
            loss = normalizer[..., 0] - ops.sum(target * logits, axis=-1)
            dlogits = (ops.exp(logits - normalizer) - target) * all_weights[:, i, :, None]
            dbias = dbias + ops.sum(dlogits, axis=1)
            dlogits = ops.cast(dlogits, x.dtype)
            dtable = dtable + ops.cast(ops.matmul(ops.transpose(dlogits, (0, 2, 1)), all_x[:, i]), "float32")
            dx = ops.slice_update(dx, (0, i, 0, 0), ops.matmul(dlogits, rows)[:, None])
            return i + 1, ops.slice_update(losses, (0, i, 0), loss[:, None]), dx, dtable, dbias

        start = (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((lanes, blocks, size)),
            ops.zeros((lanes, blocks, size, width), x.dtype),
            ops.zeros((lanes, vocabulary, width)),
            ops.zeros((lanes, vocabulary)),
        )
        _, losses, dx, dtable, dbias = ops.while_loop(lambda i, *_: i < blocks, one_block, start)
        losses, dx = (_unblocked(values, tokens) for values in (losses, dx))
        dtable, dbias = ops.sum(dtable, axis=0), ops.sum(dbias, axis=0)

        def gradients(upstream: KerasTensor):
            dx_now = ops.cast(dx, "float32") * upstream
            return (
                ops.cast(dx_now, x.dtype),
                ops.cast(dtable * upstream, table.dtype),
                dbias * upstream,
                losses * upstream,
            )

        return ops.sum(losses * weights), gradients

    bias = ops.zeros((vocabulary,)) if bias is None else ops.cast(bias, "float32")
    # A copy, since TensorFlow wants to hear of variables that a function with gradients of its own reads.
    return total(ops.reshape(x, (-1, width)), ops.copy(table), bias, ops.reshape(weights, (-1,)))


def _unblocked(values: KerasTensor, tokens: int) -> KerasTensor:
    """Lays what stands in blocks (lanes, blocks, size, ...) out token by token again, without padding."""
    lanes, blocks, size, *rest = values.shape
    values = ops.reshape(values, (lanes, blocks * size, *rest))[:, : tokens // lanes]
    return ops.reshape(values, (tokens, *rest))
