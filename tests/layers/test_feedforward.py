"""FeedForward against its formula."""

import math

import numpy as np
import pytest
from keras import ops

from zoo.layers import FeedForward

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_formula_written_out(rng, scramble, activation, gated):
    layer, x = FeedForward(12, activation, gated), normal(rng, 2, 3, 8)
    layer(x)
    scramble(layer)

    def dense(x, part):
        kernel, bias = part.get_weights()
        return x.astype("float64") @ kernel + bias

    hidden = ACTIVATIONS[activation](dense(x, layer.hidden))
    if gated:
        hidden = hidden * dense(x, layer.gate)
    np.testing.assert_allclose(array(layer(x)), dense(hidden, layer.output_projection), atol=1e-5)
    assert layer.count_params() == 8 * 12 + 12 + 12 * 8 + 8 + (8 * 12 + 12) * gated


def test_the_projections_need_no_bias(rng, scramble, reborn):
    layer, x = FeedForward(12, gated=True, use_bias=False), normal(rng, 2, 3, 8)
    layer(x)
    scramble(layer)
    hidden, gate, output = (part.get_weights()[0] for part in (layer.hidden, layer.gate, layer.output_projection))
    expected = (np.maximum(x @ hidden, 0) * (x @ gate)) @ output
    np.testing.assert_allclose(array(layer(x)), expected, atol=1e-5)
    np.testing.assert_allclose(array(reborn(layer, x)(x)), expected, atol=1e-5)


def test_positions_do_not_see_each_other(rng):
    layer, x = FeedForward(12, "gelu", gated=True), normal(rng, 2, 5, 8)
    y = array(layer(x))
    for t in range(5):
        np.testing.assert_allclose(array(layer(x[:, t : t + 1])), y[:, t : t + 1], atol=1e-6)


def test_every_activation_survives_its_configuration(rng):
    x = normal(rng, 4)
    for name, formula in ACTIVATIONS.items():
        layer = FeedForward.from_config(FeedForward(12, name).get_config())
        np.testing.assert_allclose(array(layer.activation(x)), formula(x), atol=1e-6)


def test_dropout_drops_hidden_elements_while_training_only(rng):
    layer, x = FeedForward(512, dropout=0.5), np.ones((1, 1, 8), "float32")
    layer(x)
    layer.hidden.set_weights([np.zeros((8, 512)), np.ones(512)])
    layer.output_projection.set_weights([np.full((512, 8), 1 / 512), np.zeros(8)])
    np.testing.assert_allclose(array(layer(x)), 1, rtol=1e-6)
    np.testing.assert_allclose(array(layer(x, training=False)), 1, rtol=1e-6)
    # Every output is the mean of 512 hidden elements, each 0 or 2.
    y = np.array([array(layer(x, training=True))[0, 0, 0] for _ in range(50)])
    assert np.allclose(y * 256, np.round(y * 256), atol=1e-3)
    assert 0 < np.abs(y - 1).max() < 5 / np.sqrt(512)
    assert abs(y.mean() - 1) < 4 / np.sqrt(50 * 512)


def test_xla_gives_the_same(rng, jit):
    layer, x = FeedForward(12, "silu", gated=True), normal(rng, 2, 3, 8)
    expected = array(layer(x))
    np.testing.assert_allclose(array(jit(lambda x: layer(x))(ops.convert_to_tensor(x))), expected, atol=1e-6)


@pytest.mark.parametrize("gated", [False, True])
def test_it_survives_its_configuration(rng, scramble, reborn, gated):
    layer, x = FeedForward(12, "silu", gated, dropout=0.1), normal(rng, 2, 3, 8)
    layer(x)
    expected = array(scramble(layer)(x))
    np.testing.assert_array_equal(array(reborn(layer, x)(x)), expected)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="rellu"):
        FeedForward(12, "rellu")
