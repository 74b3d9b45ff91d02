"""Scores against sums written out, alone and inside MultiHeadAttention."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from zoo.attention import (
    Additive,
    ALiBi,
    General,
    MultiHeadAttention,
    SoftCap,
    additive,
    attend,
    dot,
    general,
    masks,
    scaled_dot,
)
from zoo.attention.scores import get_score, soft_capped

SCORES = ["scaled_dot", "dot", "general", "additive", {"cap": 2.0}, {"cap": 0.5, "score": "additive"}]


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def formula(score):
    """Returns the score of a head's number, one query and one key, with the layer's weights."""
    if isinstance(score, SoftCap):
        inner = formula(score.score)
        return lambda n, q, k: score.cap * np.tanh(inner(n, q, k) / score.cap)
    if isinstance(score, General):
        weight = array(score.weight).astype("float64")
        return lambda n, q, k: sum(q[h] * weight[n, h, i] * k[i] for h, i in np.ndindex(weight.shape[1:]))
    if isinstance(score, Additive):
        vector = array(score.vector).astype("float64")
        return lambda n, q, k: sum(vector[n, h] * np.tanh(q[h] + k[h]) for h in range(len(q)))
    scale = {dot: 1, scaled_dot: None}[score]
    return lambda n, q, k: sum(a * b for a, b in zip(q, k)) / (scale or np.sqrt(len(q)))


def by_hand(query, key, score):
    """Scores one query against one key at a time, in float64."""
    query, key = query.astype("float64"), key.astype("float64")
    batch, length, heads, _ = query.shape
    groups = heads // key.shape[2]
    logits = np.zeros((batch, heads, length, key.shape[1]))
    for b, n, t, s in np.ndindex(*logits.shape):
        logits[b, n, t, s] = score(n, query[b, t, n], key[b, s, n // groups])
    return logits


# === The functions ===


@pytest.mark.parametrize("score", [dot, scaled_dot])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_products_written_out(rng, score, num_kv_heads):
    query, key = normal(rng, 2, 3, 4, 5), normal(rng, 2, 6, num_kv_heads, 5)
    logits = array(score(query, key))
    assert logits.shape == (2, 4, 3, 6)
    np.testing.assert_allclose(logits, by_hand(query, key, formula(score)), atol=1e-5)


def test_ones_of_width_16_score_4():
    ones = np.ones((1, 2, 1, 16), "float32")
    np.testing.assert_allclose(array(scaled_dot(ones, ones)), np.full((1, 1, 2, 2), 4.0), rtol=1e-6)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 3])
def test_a_group_shares_its_key_head(rng, num_kv_heads):
    query, key, vector = normal(rng, 2, 3, 6, 4), normal(rng, 2, 5, num_kv_heads, 4), normal(rng, 6, 4)
    weight = normal(rng, 6, 4, 4)
    repeated = np.repeat(key, 6 // num_kv_heads, axis=2)
    for score, *weights in ((scaled_dot,), (dot,), (general, weight), (additive, vector)):
        np.testing.assert_allclose(
            array(score(query, key, *weights)), array(score(query, repeated, *weights)), atol=1e-5
        )


def test_queries_of_unit_variance_give_logits_of_unit_variance(rng):
    query, key = rng.normal(size=(2, 1, 64, 4, 256)).astype("float32")
    assert abs(array(scaled_dot(query, key)).std() - 1) < 0.05


def test_general_takes_keys_of_another_width(rng):
    query, key, weight = normal(rng, 2, 3, 4, 5), normal(rng, 2, 6, 2, 3), normal(rng, 4, 5, 3)
    expected = np.zeros((2, 4, 3, 6))
    for b, n, t, s in np.ndindex(*expected.shape):
        expected[b, n, t, s] = query[b, t, n].astype("float64") @ weight[n] @ key[b, s, n // 2]
    np.testing.assert_allclose(array(general(query, key, weight)), expected, atol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=8), st.floats(0.1, 100))
def test_a_cap_bounds_logits_and_keeps_their_order(logits, cap):
    logits = np.sort(np.array(logits, "float32"))
    capped = array(soft_capped(ops.convert_to_tensor(logits), cap))
    assert (np.abs(capped) <= cap * (1 + 1e-6)).all()
    assert (np.diff(capped) >= -1e-5 * cap).all()
    np.testing.assert_allclose(capped, cap * np.tanh(logits.astype("float64") / cap), rtol=1e-4, atol=1e-6)


def test_a_high_cap_changes_little(rng):
    logits = normal(rng, 50)
    np.testing.assert_allclose(array(soft_capped(logits, 1000.0)), logits, atol=1e-4)


# === The layers ===


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("layer", [General, Additive, lambda: SoftCap(0.7), lambda: SoftCap(2.0, "general")])
def test_a_layers_sums_written_out(rng, scramble, layer, num_kv_heads):
    layer, query, key = layer(), normal(rng, 2, 3, 4, 5), normal(rng, 2, 4, num_kv_heads, 5)
    layer(query, key)
    scramble(layer)
    np.testing.assert_allclose(array(layer(query, key)), by_hand(query, key, formula(layer)), atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_general_starts_as_the_scaled_dot_product(rng, num_kv_heads):
    query, key = normal(rng, 2, 3, 4, 5), normal(rng, 2, 6, num_kv_heads, 5)
    np.testing.assert_allclose(array(General()(query, key)), array(scaled_dot(query, key)), atol=1e-6)


def test_each_head_has_weights_of_its_own(rng):
    query, key = normal(rng, 2, 3, 4, 5), normal(rng, 2, 6, 2, 5)
    for layer, shape in ((General(), (4, 5, 5)), (Additive(), (4, 5)), (SoftCap(1.0, "additive"), (4, 5))):
        layer(query, key)
        assert [tuple(weight.shape) for weight in layer.weights] == [shape]


@pytest.mark.parametrize(
    "layer",
    [General, Additive, lambda: SoftCap(0.7), lambda: SoftCap(2.0, "dot"), lambda: SoftCap(2.0, score=General())],
)
def test_it_survives_its_configuration(rng, scramble, reborn, layer):
    layer, query, key = layer(), normal(rng, 2, 3, 4, 5), normal(rng, 2, 6, 2, 5)
    layer(query, key)
    expected = array(scramble(layer)(query, key))
    np.testing.assert_array_equal(array(reborn(layer, query, key)(query, key)), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scaled_dott", r"score: 'scaled_dott'; did you mean 'scaled_dot'\?"),
        ("aditive", r"score: 'aditive'; did you mean 'additive'\?"),
        ("cosine", "score: 'cosine'; there is additive, dot, general, scaled_dot"),
    ],
)
def test_an_unknown_score_names_the_nearest(name, message):
    for make in (get_score, lambda name: MultiHeadAttention(2, 4, score=name), lambda name: SoftCap(1.0, name)):
        with pytest.raises(ValueError, match=message):
            make(name)


@pytest.mark.parametrize("cap", [0, -1.0])
def test_a_cap_that_is_not_positive_is_refused(cap):
    with pytest.raises(ValueError, match=f"cap: {cap}; it is positive"):
        SoftCap(cap)


# === Inside MultiHeadAttention ===


def attended(layer, x, mask):
    """Attends with the layer's own weights, fading by ALiBi's four slopes, in float64."""
    split = (*x.shape[:2], -1, layer.head_dim)
    query, key, value = (
        (x.astype("float64") @ array(dense.kernel) + array(dense.bias)).reshape(split)
        for dense in (layer.query, layer.key, layer.value)
    )
    places = np.arange(x.shape[1])
    slopes = np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256])
    logits = by_hand(query, key, formula(layer.score))
    logits -= slopes[:, None, None] * abs(places[:, None] - places)
    weights = np.exp(logits) * mask
    weights /= weights.sum(axis=-1, keepdims=True)
    value = np.repeat(value, layer.num_heads // layer.num_kv_heads, axis=2)
    y = np.einsum("bnts,bsnh->btnh", weights, value).reshape(*x.shape[:2], -1)
    return y @ array(layer.output_projection.kernel) + array(layer.output_projection.bias)


@pytest.fixture
def layer_of(rng, scramble):
    """Makes a layer with that score, and its input."""

    def make(score, **changes):
        score = SoftCap(**score) if isinstance(score, dict) else score
        layer = MultiHeadAttention(4, 3, num_kv_heads=2, score=score, bias=ALiBi(4), **changes)
        x = normal(rng, 2, 4, 8)
        layer.build(x.shape)
        return scramble(layer), x

    return make


@pytest.mark.parametrize("score", SCORES)
def test_every_score_takes_masks_and_positions(rng, layer_of, score):
    layer, x = layer_of(score)
    mask = (rng.random((2, 4, 4, 4)) < 0.6) | np.eye(4, dtype=bool)
    np.testing.assert_allclose(array(layer(x, attention_mask=mask)), attended(layer, x, mask), atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_decodes_with_a_cache(layer_of, score):
    layer, x = layer_of(score)
    cache = layer.empty_cache(2, 4)
    steps = [array(layer(x[:, t : t + 1], attention_mask=masks.causal(1, 4, offset=t), cache=cache)) for t in range(4)]
    expected = array(layer(x, attention_mask=masks.causal(4)))
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_survives_the_layers_configuration(layer_of, reborn, score):
    layer, x = layer_of(score)
    copy = reborn(layer, x)
    assert type(copy.score) is type(layer.score)
    assert [weight.path for weight in copy.weights] == [weight.path for weight in layer.weights]
    np.testing.assert_array_equal(array(copy(x)), array(layer(x)))


@pytest.mark.parametrize("score", SCORES)
def test_every_score_computes_in_half_precision(layer_of, score):
    half, x = layer_of(score, dtype="mixed_float16")
    full, _ = layer_of(score)
    y = half(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(array(y), array(full(x)), atol=5e-3)


def test_xla_gives_the_same_scores(rng, scramble, jit):
    query, key = normal(rng, 2, 3, 4, 5), normal(rng, 2, 6, 2, 5)
    layers = [General(), Additive(), SoftCap(0.7), SoftCap(2.0, "additive")]
    for layer in layers:
        layer(query, key)
        scramble(layer)
    compiled = jit(lambda query, key: [layer(query, key) for layer in layers])
    found = compiled(ops.convert_to_tensor(query), ops.convert_to_tensor(key))
    for layer, logits in zip(layers, found, strict=True):
        np.testing.assert_allclose(array(logits), array(layer(query, key)), atol=1e-5)


@pytest.mark.parametrize("layer", [General, Additive, lambda: SoftCap(2.0, "additive")])
def test_a_weight_moves_its_own_head_only(rng, layer):
    layer, query, key, value = layer(), *(normal(rng, 2, 3, 4, 5) for _ in range(3))
    before = array(attend(query, key, value, score=layer))
    for weight in layer.weights:
        start = array(weight)
        for place in ((0,) * start.ndim, tuple(size - 1 for size in start.shape)):
            moved = start.copy()
            moved[place] += 0.5
            weight.assign(moved)
            after = array(attend(query, key, value, score=layer))
            changed = [n for n in range(4) if not np.allclose(after[:, :, n], before[:, :, n], atol=1e-6)]
            assert changed == [place[0]]
        weight.assign(start)
