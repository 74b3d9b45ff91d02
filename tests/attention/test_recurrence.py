"""RelativeAttention against Transformer-XL's sums written out, and segments with a memory against long rows."""

import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import RelativeAttention, capture, carry, masks
from zoo.attention.recurrence import relative_logits

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def encoding(distance, width):
    """A distance as sines and cosines, in float64."""
    angles = [distance / 10000 ** (i / (width // 2 - 1)) for i in range(width // 2)]
    return np.array([*np.sin(angles), *np.cos(angles)])


def by_hand(layer, x, memory, mask):
    """Attends one query at a time, by the equation of section 3.3 with its four products, in float64."""
    num_heads, head_dim = layer.num_heads, layer.head_dim

    def heads(dense):
        return array(dense.kernel).astype("float64").reshape(-1, num_heads, head_dim)

    of_query, of_key, of_value, of_position = map(heads, (layer.query, layer.key, layer.value, layer.position))
    u, v = array(layer.content_bias).astype("float64"), array(layer.position_bias).astype("float64")
    context = np.concatenate([memory, x], axis=1).astype("float64")
    batch, length, width = x.shape
    first = memory.shape[1]
    mask = np.broadcast_to(mask, (batch, num_heads, length, first + length))
    y = np.zeros((batch, length, num_heads, head_dim))
    for b, t, n in np.ndindex(batch, length, num_heads):
        seen = np.flatnonzero(mask[b, n, t])
        if not seen.size:
            continue
        query = context[b, first + t] @ of_query[:, n]
        logits = []
        for s in seen:
            key = context[b, s] @ of_key[:, n]
            position = encoding(first + t - s, width) @ of_position[:, n]
            logits.append((query @ key + query @ position + u[n] @ key + v[n] @ position) / np.sqrt(head_dim))
        weights = np.exp(logits) / np.exp(logits).sum()
        y[b, t, n] = sum(weight * (context[b, s] @ of_value[:, n]) for weight, s in zip(weights, seen))
    return y.reshape(batch, length, -1) @ array(layer.output_projection.kernel)


@pytest.fixture
def layer(scramble):
    layer = RelativeAttention(2, 3, name="relative")
    layer.build((None, None, 8))
    return scramble(layer)


@pytest.mark.parametrize("remembered", [0, 3])
@pytest.mark.parametrize("kind", ["all", "causal", "random"])
def test_the_equation_written_out(rng, layer, remembered, kind):
    x, memory = normal(rng, 2, 4, 8), normal(rng, 2, remembered, 8)
    mask = {
        "all": np.ones((1, 1, 4, 4 + remembered), bool),
        "causal": array(masks.causal(4, 4 + remembered, offset=remembered)),
        "random": rng.random((2, 2, 4, 4 + remembered)) < 0.5,
    }[kind]
    y = layer(x, memory if remembered else None, attention_mask=None if kind == "all" else mask)
    np.testing.assert_allclose(array(y), by_hand(layer, x, memory, mask), atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(1, 4), (3, 3), (3, 7)])
def test_relative_logits_written_out(rng, queries, keys):
    query, encoded = normal(rng, 2, queries, 3, 4), normal(rng, queries + keys - 1, 3, 4)
    logits = array(relative_logits(query, encoded))
    assert logits.shape == (2, 3, queries, keys)
    for b, n, t, s in np.ndindex(logits.shape):
        distance = keys - queries + t - s
        expected = query[b, t, n].astype("float64") @ encoded[keys - 1 - distance, n]
        np.testing.assert_allclose(logits[b, n, t, s], expected, atol=1e-5)


def test_two_segments_with_a_memory_are_one_long_row(rng, layer):
    x = normal(rng, 2, 7, 8)
    first, second = x[:, :3], x[:, 3:]
    memory = carry(None, first, 3)
    parts = [
        layer(first, attention_mask=masks.causal(3)),
        layer(second, memory, masks.causal(4, 7, offset=3)),
    ]
    whole = array(layer(x, attention_mask=masks.causal(7)))
    np.testing.assert_allclose(np.concatenate([array(y) for y in parts], axis=1), whole, atol=1e-5)


def test_a_shorter_memory_is_all_that_is_seen(rng, layer):
    x = normal(rng, 2, 8, 8)
    memory = carry(carry(None, x[:, :2], 3), x[:, 2:4], 3)
    y = array(layer(x[:, 4:], memory, masks.causal(4, 7, offset=3)))
    whole = array(layer(x[:, 1:], attention_mask=masks.causal(7)))
    np.testing.assert_allclose(y, whole[:, 3:], atol=1e-5)


def test_places_count_by_their_distance_alone(rng, layer):
    x, mask = normal(rng, 2, 4, 8), np.array([0, 0, 0, 1, 1, 1, 1], bool)[None, None, None]
    padded = layer(x, np.zeros((2, 3, 8), "float32"), mask)
    np.testing.assert_allclose(array(padded), array(layer(x)), atol=1e-5)


def test_the_order_is_seen(rng, layer):
    x = normal(rng, 2, 4, 8)
    assert not np.allclose(array(layer(x[:, ::-1]))[:, ::-1], array(layer(x)), atol=0.01)


def test_no_gradient_flows_into_the_memory(rng, layer, gradients, jit):
    x, memory = normal(rng, 2, 4, 8), normal(rng, 2, 3, 8)
    # Added without being used, so that both inputs have a gradient.
    of_x, of_memory = gradients(jit(lambda x, memory: layer(x, memory) ** 2 + ops.sum(0 * memory)), x, memory)
    assert of_x.any()
    assert not of_memory.any()
    of_x, of_memory = gradients(lambda x, memory: carry(memory, x, 5) + ops.sum(0 * memory + 0 * x[:, :3]), x, memory)
    assert not of_x.any()
    assert not of_memory.any()


@pytest.mark.parametrize("length", [0, 2, 4, 7, 9])
def test_carry_keeps_the_last_places(rng, length):
    memory, x = normal(rng, 2, 4, 3), normal(rng, 2, 3, 3)
    joined = np.concatenate([memory, x], axis=1)
    np.testing.assert_array_equal(array(carry(memory, x, length)), joined[:, max(0, 7 - length) :])
    np.testing.assert_array_equal(array(carry(None, x, length)), x[:, max(0, 3 - length) :])


def test_rows_of_the_captured_map_sum_to_one(rng, layer):
    x, memory = normal(rng, 2, 4, 8), normal(rng, 2, 3, 8)
    mask = masks.causal(4, 7, offset=3)
    with capture() as maps:
        layer(x, memory, mask)
    weights = array(maps["relative"])
    assert weights.shape == (2, 2, 4, 7)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert not weights[np.broadcast_to(~array(mask), weights.shape)].any()


def test_a_query_that_sees_nothing_gets_zeros(rng, layer):
    mask = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]], bool)[None, None]
    y = array(layer(normal(rng, 2, 4, 8), attention_mask=mask))
    assert not y[:, 1].any()
    assert y[:, [0, 2, 3]].all()


def test_dropout_drops_weights_while_training_only(rng, scramble, layer):
    dropping, x = RelativeAttention(2, 3, dropout=0.5), normal(rng, 1, 5, 8)
    dropping(x)
    scramble(dropping)
    expected = array(layer(x))
    np.testing.assert_allclose(array(dropping(x)), expected, atol=1e-6)
    draws = array(dropping(np.repeat(x, 500, axis=0), training=True))
    assert not np.allclose(draws[0], draws[1])
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * draws.std(axis=0) / np.sqrt(500)).all()


def test_xla_gives_the_same(rng, layer, jit):
    x, memory = normal(rng, 2, 4, 8), normal(rng, 2, 3, 8)
    expected = array(layer(x, memory, masks.causal(4, 7, offset=3)))
    compiled = jit(lambda x, memory: layer(x, memory, masks.causal(4, 7, offset=3)))
    np.testing.assert_allclose(array(compiled(*map(ops.convert_to_tensor, (x, memory)))), expected, atol=1e-5)


def test_float16_stays_close_to_float32(rng, scramble, layer):
    half, x, memory = RelativeAttention(2, 3, dtype="mixed_float16"), normal(rng, 2, 4, 8), normal(rng, 2, 3, 8)
    half.build(x.shape)
    scramble(half)
    y = half(x, memory)
    assert backend.standardize_dtype(y.dtype) == "float16"
    assert all(weight.dtype == "float32" for weight in half.weights)
    np.testing.assert_allclose(array(ops.cast(y, "float32")), array(layer(x, memory)), atol=0.01)


def test_it_survives_its_configuration(rng, scramble, reborn):
    layer, x, memory = RelativeAttention(2, 3, dropout=0.1), normal(rng, 2, 4, 8), normal(rng, 2, 3, 8)
    layer(x, memory)
    expected = array(scramble(layer)(x, memory))
    np.testing.assert_array_equal(array(reborn(layer, x, memory)(x, memory)), expected)


def test_an_odd_width_is_refused(rng):
    with pytest.raises(ValueError, match="width: 7 is odd"):
        RelativeAttention(2, 3)(normal(rng, 1, 2, 7))
