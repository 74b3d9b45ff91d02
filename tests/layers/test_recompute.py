"""Blocks that are computed again on the way back, against blocks that are remembered."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.attention import capture
from zoo.layers import Decoder, Encoder, LocalEncoder, RecurrentEncoder
from zoo.layers.recompute import recomputing

BLOCK = {"num_heads": 2, "feedforward_dim": 12}


@pytest.fixture
def computed(monkeypatch):
    """Counts how often an encoder block is computed."""
    from zoo.layers import EncoderBlock

    calls, call = [], EncoderBlock.call
    monkeypatch.setattr(EncoderBlock, "call", lambda *a, **k: calls.append(1) or call(*a, **k))
    return calls


def inputs(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def test_an_encoder_learns_the_same_and_computes_twice(rng, scramble, gradients, computed):
    x = inputs(rng, 2, 5, 8)
    mask = ops.convert_to_tensor(rng.random((2, 1, 1, 5)) < 0.7)
    encoder = Encoder(2, BLOCK)
    encoder(x, mask)
    scramble(encoder)
    counts, found = [], []
    for on in (False, True):
        computed.clear()
        with recomputing(on):
            found += gradients(lambda x: encoder(x, mask, training=True) ** 2, x)
        counts.append(len(computed))
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-5)
    if keras.backend.backend() == "tensorflow":  # JAX computes the program again, not the layer
        assert counts == [2, 4]


def test_a_decoder_hands_gradients_on_to_its_memory(rng, scramble, gradients):
    x, memory = inputs(rng, 2, 4, 8), inputs(rng, 2, 3, 8)
    decoder = Decoder(2, BLOCK)
    decoder(x, memory)
    scramble(decoder)
    found = []
    for on in (False, True):
        with recomputing(on):
            found.append(gradients(lambda x, memory: decoder(x, memory, training=True) ** 2, x, memory))
    for plain, again in zip(*found, strict=True):
        assert np.abs(plain).max() > 0.01
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5)


def test_both_times_the_same_elements_drop_out(rng, scramble, gradients, monkeypatch):
    x = inputs(rng, 2, 5, 8)
    encoder = Encoder(1, {**BLOCK, "dropout": 0.5, "feedforward_dropout": 0.3, "attention_dropout": 0.2})
    encoder(x)
    scramble(encoder)
    state = {id(v): np.array(v) for v in encoder.variables}

    def found():
        for variable in encoder.variables:
            variable.assign(state[id(variable)])
        with recomputing():
            return gradients(lambda x: encoder(x, training=True) ** 2, x)[0]

    again = found()
    following = gradients(lambda x: encoder(x, training=True) ** 2, x)[0]
    monkeypatch.setattr(keras, "remat", lambda function: function)
    np.testing.assert_allclose(again, found(), rtol=1e-5, atol=1e-6)
    assert np.abs(again - following).max() > 1e-3


def test_what_is_looked_at_is_computed_once(rng, computed, gradients):
    x = inputs(rng, 2, 5, 8)
    encoder = Encoder(1, BLOCK)
    encoder(x)

    def looked_at(x):
        with capture() as maps:
            encoder(x, training=True)
        return maps[next(iter(maps))] ** 2

    computed.clear()
    with recomputing():
        again = gradients(looked_at, x)[0]
    assert len(computed) == 1
    np.testing.assert_allclose(again, gradients(looked_at, x)[0], rtol=1e-6)


def test_only_what_is_trained_is_computed_again(rng, computed):
    encoder = Encoder(1, BLOCK)
    encoder(inputs(rng, 2, 5, 8))
    with recomputing():
        encoder(inputs(rng, 2, 5, 8), training=False)
    assert len(computed) == 2


@pytest.mark.parametrize("kind", ["windows", "chunks"])
def test_encoders_of_long_texts_do_it_too(kind, rng, scramble, gradients):
    x, segments = inputs(rng, 2, 7, 8), ops.convert_to_tensor([[1] * 7, [1] * 5 + [0] * 2])
    if kind == "windows":
        encoder = LocalEncoder(2, BLOCK | {"window": 2, "global_tokens": 1})
    else:
        encoder = RecurrentEncoder(2, BLOCK, chunk=3)
    encoder(x, segments)
    scramble(encoder)
    found = []
    for on in (False, True):
        with recomputing(on):
            found += gradients(lambda x: encoder(x, segments, training=True)[:, :5] ** 2, x)
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)
