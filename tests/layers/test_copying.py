"""Copying against the equations of the paper, worked out with loops, and against differences instead of gradients."""

import numpy as np
import pytest
from keras import ops

from zoo.attention import capture, masks
from zoo.layers import Decoder, PointerGenerator, PointingDecoder
from zoo.layers.copying import sum_by_token

V, D = 9, 4


@pytest.fixture
def inputs(rng):
    """Logits, state, input, attention, source and context of two rows of three places over five source places."""
    attention = rng.dirichlet(np.ones(5), (2, 3))
    attention[1, 2] = 0  # a place that looks nowhere
    source = np.array([[4, 7, 4, 2, 4], [8, 8, 3, 2, 0]])
    shapes = (2, 3, V), (2, 3, D), (2, 3, D), (2, 5)
    logits, state, x, context = (rng.normal(size=shape) for shape in shapes)
    return [logits, state, x, attention, source, context]


def as_tensors(inputs):
    return [ops.convert_to_tensor(x, "int32" if x.dtype.kind == "i" else "float32") for x in inputs]


@pytest.fixture
def head(scramble, inputs):
    layer = PointerGenerator()
    layer(*as_tensors(inputs))
    return scramble(layer)


def probabilities(head, logits, state, x, attention, source, context):
    """See et al. 2017, equations 8 and 9, in float64."""
    kernel, bias = (ops.convert_to_numpy(weight).astype("float64") for weight in head.gate.weights)
    mixed = np.zeros(logits.shape)
    for b, t in np.ndindex(logits.shape[:2]):
        looked = sum(attention[b, t, i] * context[b, i] for i in range(attention.shape[2]))
        gate = 1 / (1 + np.exp(-(np.concatenate([state[b, t], x[b, t]]) @ kernel[:, 0] + bias[0] + looked)))
        mixed[b, t] = gate * np.exp(logits[b, t]) / np.exp(logits[b, t]).sum()
        for i, token in enumerate(source[b]):
            mixed[b, t, token] += (1 - gate) * attention[b, t, i]
    return mixed


def test_it_is_what_the_paper_says(head, inputs):
    log_probabilities = ops.convert_to_numpy(head(*as_tensors(inputs)))
    expected = probabilities(head, *inputs)
    np.testing.assert_allclose(np.exp(log_probabilities), expected, rtol=1e-5, atol=1e-7)
    sums = np.exp(log_probabilities).sum(axis=-1)
    np.testing.assert_allclose(sums.ravel()[:5], 1, rtol=1e-5)


def test_its_gradients_are_differences(head, inputs, gradients, rng):
    weights = rng.normal(size=(2, 3, V))
    places = [0, 1, 2, 3, 5]

    def value(*changed):
        given = list(inputs)
        for place, x in zip(places, changed):
            given[place] = x
        return np.sum(weights * np.log(probabilities(head, *given)))

    def function(*changed):
        given = as_tensors(inputs)
        for place, x in zip(places, changed):
            given[place] = x
        return head(*given) * ops.cast(weights, "float32")

    at = [inputs[place] for place in places]
    found = gradients(function, *(x.astype("float32") for x in at))
    for number, x in enumerate(at):
        for index in [*np.ndindex(x.shape)][:: max(1, x.size // 12)]:
            if number == 3 and index[:2] == (1, 2):
                continue  # a weight that is not there has no gradient that could be compared
            step = np.zeros(x.shape)
            step[index] = 1e-5
            above, below = (value(*at[:number], x + s, *at[number + 1 :]) for s in (step, -step))
            assert found[number][index] == pytest.approx((above - below) / 2e-5, rel=2e-3, abs=2e-4)


def test_beams_share_a_source(head, inputs):
    logits, state, x, attention, source, context = (np.repeat(values, 3, axis=0) for values in inputs)
    logits[1] += 1
    attention[2] = attention[2][::-1]
    apart = head(*as_tensors([logits, state, x, attention, source, context]))
    together = head(*as_tensors([logits, state, x, attention, inputs[4], inputs[5]]))
    np.testing.assert_allclose(ops.convert_to_numpy(together), ops.convert_to_numpy(apart), atol=1e-6)


def test_xla_gives_the_same(head, inputs, jit):
    compiled = jit(lambda *tensors: head(*tensors))(*as_tensors(inputs))
    expected = ops.convert_to_numpy(head(*as_tensors(inputs)))
    np.testing.assert_allclose(ops.convert_to_numpy(compiled), expected, rtol=1e-5, atol=1e-5)


def test_what_nobody_would_say_is_finite(head, inputs, gradients):
    logits = np.where(np.arange(V) == 1, 0.0, -1e4) + 0 * inputs[0]
    log_probabilities = ops.convert_to_numpy(head(*as_tensors([logits, *inputs[1:]])))
    assert np.isfinite(log_probabilities).all()
    assert log_probabilities[0, 0, 5] < -60 < log_probabilities[0, 0, 4]
    found = gradients(lambda x: head(x, *as_tensors(inputs[1:])), logits.astype("float32"))
    assert np.isfinite(found[0]).all()


def test_weights_are_added_up_by_token(rng):
    weights, tokens = rng.random((2, 4, 6)), rng.integers(0, 5, (2, 6))
    found = ops.convert_to_numpy(sum_by_token(*as_tensors([weights, tokens]), 5))
    expected = [[np.bincount(ids, row, 5) for row in rows] for rows, ids in zip(weights, tokens)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_pointing_decoder_is_a_decoder_that_tells_where_it_looked(rng):
    x, memory = rng.normal(size=(2, 3, 8)).astype("float32"), rng.normal(size=(2, 5, 8)).astype("float32")
    mask = masks.padding(np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]))
    block = {"num_heads": 2, "feedforward_dim": 8}
    pointing, plain = PointingDecoder(2, block, name="decoder"), Decoder(2, block, name="decoder")
    with capture() as maps:
        y, attention = pointing(x, memory, None, mask)
    plain(x, memory, None, mask)
    plain.set_weights(pointing.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(y), ops.convert_to_numpy(plain(x, memory, None, mask)))
    weights = ops.convert_to_numpy(maps["decoder/block_1/cross_attention"])
    np.testing.assert_allclose(ops.convert_to_numpy(attention), weights.mean(axis=1), atol=1e-6)
    assert pointing.pointer == "decoder/block_1/cross_attention"
    assert not ops.convert_to_numpy(attention)[1, :, 2:].any()


def test_both_layers_survive_their_configuration(head, inputs, reborn, rng):
    copy = reborn(head, *as_tensors(inputs))
    same = [ops.convert_to_numpy(layer(*as_tensors(inputs))) for layer in (head, copy)]
    np.testing.assert_array_equal(*same)
    decoder = PointingDecoder(1, {"num_heads": 2, "feedforward_dim": 8})
    x = rng.normal(size=(2, 3, 8)).astype("float32")
    decoder(x, x)
    assert ops.shape(reborn(decoder, x, x)(x, x)[1]) == (2, 3, 3)
