"""Logits that are never held all at once, against those that are."""

import numpy as np
import pytest
from keras import ops

from zoo.config import ConfigError
from zoo.models.encoder_decoder import encoder_decoder
from zoo.training import cross_entropy, linear_cross_entropy, vocabulary
from zoo.training.vocabulary import vocabulary_loss

TOKENS, WIDTH, VOCABULARY = (3, 7), 5, 11


@pytest.fixture(params=[1, 4, 100], ids=["a token a block", "an unfinished block", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(vocabulary, "BLOCK", request.param * VOCABULARY)


@pytest.fixture
def values(rng):
    """x, table, weights, some of them 0, bias; and labels."""
    weights = rng.uniform(0, 2, TOKENS) * (rng.random(TOKENS) < 0.7)
    inputs = [rng.normal(size=(*TOKENS, WIDTH)), rng.normal(size=(VOCABULARY, WIDTH)), weights]
    labels = rng.integers(0, VOCABULARY, TOKENS)
    return [x.astype("float32") for x in (*inputs, rng.normal(size=VOCABULARY))], ops.convert_to_tensor(labels, "int32")


def test_loss_and_gradients_are_those_of_whole_logits(block, values, gradients):
    inputs, labels = values

    def plain(x, table, weights, bias):
        logits = ops.matmul(x, ops.transpose(table)) + bias
        return 3.0 * ops.sum(weights * cross_entropy(logits, labels, 0.1))

    def blockwise(x, table, weights, bias):
        return 3.0 * linear_cross_entropy(x, table, labels, weights, 0.1, bias)

    np.testing.assert_allclose(blockwise(*inputs), plain(*inputs), rtol=1e-5)
    for mine, theirs in zip(gradients(blockwise, *inputs), gradients(plain, *inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_compiled_it_stays_the_same(values, jit, monkeypatch):
    monkeypatch.setattr(vocabulary, "BLOCK", 4 * VOCABULARY)
    (x, table, weights, _), labels = values

    def loss(x, table, weights):
        return linear_cross_entropy(x, table, labels, weights)

    tensors = [ops.convert_to_tensor(value) for value in (x, table, weights)]
    np.testing.assert_allclose(jit(loss)(*tensors), loss(*tensors), rtol=1e-5)


def test_vectors_of_16_bits_have_gradients_of_16_bits_and_the_table_of_32(values, gradients):
    (x, table, weights, _), labels = values
    x = ops.cast(x, "bfloat16")

    def loss(x, table):
        return linear_cross_entropy(x, table, labels, weights)

    def exact(x, table):
        return linear_cross_entropy(ops.cast(x, "float32"), table, labels, weights)

    dx, dtable = gradients(loss, x, table)
    assert (str(dx.dtype), str(dtable.dtype)) == ("bfloat16", "float32")
    for mine, theirs in zip((dx, dtable), gradients(exact, x, table)):
        np.testing.assert_allclose(mine.astype("float32"), theirs.astype("float32"), atol=0.1)


HEADS = {
    "tied": {},
    "tied, with biases": {"output_bias": True, "output_scale": True},
    "a table of its own": {"tied_output": False, "target_vocabulary_size": 30},
}


@pytest.mark.parametrize("head", HEADS)
def test_a_model_learns_the_same_with_and_without_its_logits(
    head, tiny_config, scramble, rng, derivatives, monkeypatch
):
    monkeypatch.setattr(vocabulary, "BLOCK", 300)
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dropout": 0.0}
    model = scramble(encoder_decoder(tiny_config(**sizes, **HEADS[head])))
    tokens = rng.integers(4, 30, (3, 2, 6)).astype("int32")
    tokens[0, :, -1], tokens[1, :, 0], tokens[2, 1, 3:] = 2, 1, 0
    source, target, labels = (ops.convert_to_tensor(x) for x in tokens)
    weights = ops.cast(labels != 0, "float32")

    def loss(fused):
        inputs = {"source": source, "target": target}
        return vocabulary_loss(model, inputs, labels, weights, 0.1, fused=fused, training=True)

    found = [derivatives(lambda fused=fused: loss(fused), model.trainable_variables) for fused in (False, True)]
    assert any(np.abs(gradient).max() > 0.1 for gradient in found[0])
    for plain, fused in zip(*found, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-3, atol=1e-5)


def test_many_logits_are_not_held_and_a_model_that_copies_holds_them(tiny_config, monkeypatch):
    seen = []
    monkeypatch.setattr(vocabulary, "linear_cross_entropy", lambda *a: seen.append(True) or linear_cross_entropy(*a))
    labels = ops.convert_to_tensor([[5, 2]], "int32")
    inputs = {"source": ops.convert_to_tensor([[5, 2]], "int32"), "target": ops.convert_to_tensor([[1, 5]], "int32")}
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1}

    def run(copying, many, fused=None):
        monkeypatch.setattr(vocabulary, "MANY", many)
        model = encoder_decoder(tiny_config(copying=copying, **sizes))
        vocabulary_loss(model, inputs, labels, ops.ones((1, 2)), fused=fused, normalized=copying)
        return len(seen)

    assert run(copying=False, many=81) == 0
    assert run(copying=False, many=80) == 1
    assert run(copying=False, many=80, fused=False) == 1
    assert run(copying=True, many=80) == 1
    with pytest.raises(ConfigError, match=r"^training.fused_loss: true, but the model's logits are no product"):
        run(copying=True, many=80, fused=True)
