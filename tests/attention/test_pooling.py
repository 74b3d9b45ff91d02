"""Pooling layers against their formulas in numpy."""

import keras
import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import AttentionPooling, GatedAttentionPooling, TaskAttention, capture

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def dense(layer, x):
    return x @ array(layer.kernel) + (array(layer.bias) if layer.use_bias else 0)


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def pooled_by_hand(layer, x, mask):
    """Pools one row and one head at a time."""
    attention, rows = layer.attention, []
    for places, seen in zip(x, mask):
        places = places[seen]
        query, key, value = (
            dense(project, y).reshape(len(y), layer.num_heads, -1)
            for project, y in (
                (attention.query, array(layer.query)[0]),
                (attention.key, places),
                (attention.value, places),
            )
        )
        heads = [
            softmax(key[:, n] @ query[0, n] / np.sqrt(query.shape[-1])) @ value[:, n] for n in range(layer.num_heads)
        ]
        rows.append(dense(attention.output_projection, np.concatenate(heads)))
    return np.array(rows)


def gated_by_hand(layer, x, mask):
    """Computes sum over s of (softmax_s(x W1) W2) * mlp(x), one row at a time."""
    rows = []
    for places, seen in zip(x, mask):
        places = places[seen]
        weights = np.stack([softmax(logits) for logits in dense(layer.score, places).T], axis=1)
        features = dense(layer.output_projection, np.maximum(dense(layer.hidden, places), 0))
        rows.append((dense(layer.gate, weights) * features).sum(axis=0))
    return np.array(rows)


KINDS = {
    "attention": (lambda **kw: AttentionPooling(2, **kw), pooled_by_hand),
    "gated": (lambda **kw: GatedAttentionPooling(3, 6, "relu", **kw), gated_by_hand),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def layer(kind, rng, scramble):
    layer = kind[0](name="pool")
    layer(normal(rng, 2, 5, 8))
    return scramble(layer)


def test_the_formula(rng, kind, layer):
    x = normal(rng, 2, 5, 8)
    np.testing.assert_allclose(array(layer(x)), kind[1](layer, x, np.ones((2, 5), bool)), atol=1e-5)
    np.testing.assert_allclose(array(layer(x, MASK)), kind[1](layer, x, MASK), atol=1e-5)


def test_padding_is_not_seen(rng, layer):
    x = normal(rng, 2, 5, 8)
    x[~MASK] = 1e3
    y = array(layer(x, MASK))
    np.testing.assert_allclose(y[1:], array(layer(x[1:, :2])), atol=1e-5)
    np.testing.assert_allclose(y[:1], array(layer(x[:1])), atol=1e-5)


def test_the_order_of_the_places_is_not_seen(rng, layer):
    x, order = normal(rng, 2, 5, 8), rng.permutation(5)
    np.testing.assert_allclose(array(layer(x[:, order], MASK[:, order])), array(layer(x, MASK)), atol=1e-5)


def test_the_map_tells_where_it_looks(rng, kind, layer):
    with capture() as maps:
        layer(normal(rng, 2, 5, 8), MASK)
    (weights,) = map(array, maps.values())
    assert list(maps) == ["pool/attention" if isinstance(layer, AttentionPooling) else "pool"]
    assert weights.shape == (2, layer.num_heads, 1, 5)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert not weights[1, :, :, 2:].any()


def test_looking_changes_no_output(rng, layer):
    x = normal(rng, 2, 5, 8)
    plain = array(layer(x, MASK))
    with capture():
        np.testing.assert_array_equal(array(layer(x, MASK)), plain)


def test_a_row_without_places_is_finite_and_gives_zero_gradients(rng, layer, gradients):
    x, mask = normal(rng, 2, 5, 8), MASK & np.array([[True], [False]])
    y = array(layer(x, mask))
    bias = array(layer.attention.output_projection.bias) if isinstance(layer, AttentionPooling) else np.zeros(6)
    np.testing.assert_array_equal(y[1], bias)
    (found,) = gradients(lambda x: layer(x, mask) ** 2, x)
    assert np.isfinite(found).all()
    assert not found[1].any()
    assert found[0].any()


def test_half_precision_stays_close(rng, kind, layer):
    x = normal(rng, 2, 5, 8)
    half = kind[0](dtype="mixed_bfloat16")
    half(x)
    half.set_weights(layer.get_weights())
    y = half(x, MASK)
    assert backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_allclose(array(ops.cast(y, "float32")), array(layer(x, MASK)), atol=0.1)


def test_symbolic_shapes_are_the_real_ones(rng, kind, layer):
    y = kind[0]()(keras.Input((None, 8)))
    assert y.shape[0] is None
    assert y.shape[1:] == tuple(layer(normal(rng, 2, 5, 8)).shape)[1:]


def test_it_survives_its_configuration(rng, layer, reborn):
    x = normal(rng, 2, 5, 8)
    np.testing.assert_array_equal(array(reborn(layer, x)(x, MASK)), array(layer(x, MASK)))


def test_it_survives_a_keras_file(rng, kind, scramble, tmp_path):
    x, mask = keras.Input((None, 8)), keras.Input((None,), dtype="bool")
    model = scramble(keras.Model([x, mask], kind[0]()(x, mask)))
    model.save(tmp_path / "model.keras")
    loaded, inputs = keras.saving.load_model(tmp_path / "model.keras"), [normal(rng, 2, 5, 8), MASK]
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))


def test_dropout_drops_weights_while_training_only(rng):
    layer, x = AttentionPooling(2, dropout=0.5), normal(rng, 2, 5, 8)
    expected = array(layer(x))
    np.testing.assert_array_equal(array(layer(x, training=False)), expected)
    assert np.abs(array(layer(x, training=True)) - expected).max() > 1e-3


def test_heads_that_do_not_divide_are_refused(rng):
    with pytest.raises(ValueError, match="num_heads: 3 does not divide the width 8"):
        AttentionPooling(3)(normal(rng, 2, 5, 8))


# === Several tasks ===


@pytest.fixture
def shared(rng, scramble):
    layer = TaskAttention(["tags", "mood"], 2, name="shared")
    layer(normal(rng, 2, 5, 8))
    return scramble(layer)


@pytest.mark.parametrize("mask", [None, MASK])
def test_each_task_gates_what_all_share(rng, shared, mask):
    x = normal(rng, 2, 5, 8)
    pooled = pooled_by_hand(shared.pooling, x, np.ones((2, 5), bool) if mask is None else mask)
    with capture() as maps:
        y = shared(x, mask)
    assert list(y) == ["tags", "mood"]
    for task, gate in zip(y, shared.gates):
        np.testing.assert_allclose(array(y[task]), pooled / (1 + np.exp(-dense(gate, pooled))), atol=1e-5)
    assert list(maps) == ["shared/pooling/attention"]


def test_tasks_differ_by_their_gates_only(rng, shared):
    x = normal(rng, 2, 5, 8)
    shared.gates[1].set_weights(shared.gates[0].get_weights())
    y = shared(x)
    np.testing.assert_array_equal(array(y["tags"]), array(y["mood"]))


def test_a_closed_gate_lets_nothing_through(rng, shared):
    kernel, bias = shared.gates[0].get_weights()
    shared.gates[0].set_weights([0 * kernel, 0 * bias - 200])
    y = shared(normal(rng, 2, 5, 8))
    assert not array(y["tags"]).any()
    assert array(y["mood"]).all()


def test_gates_have_their_tasks_names(shared):
    assert {path.split("/")[1] for path in (x.path for x in shared.weights)} == {"pooling", "gate_tags", "gate_mood"}


@pytest.mark.parametrize("tasks", [[], ["tags", "tags"]])
def test_no_task_and_one_task_twice_are_refused(tasks):
    with pytest.raises(ValueError, match=r"tasks: .* at least one, and each once"):
        TaskAttention(tasks)


def test_tasks_survive_their_configuration(rng, shared, reborn):
    x = normal(rng, 2, 5, 8)
    expected, found = shared(x, MASK), reborn(shared, x)(x, MASK)
    assert list(found) == list(expected)
    for task in expected:
        np.testing.assert_array_equal(array(found[task]), array(expected[task]))


def test_tasks_survive_a_keras_file(rng, scramble, tmp_path):
    x = keras.Input((None, 8))
    model = scramble(keras.Model(x, TaskAttention(["tags", "mood"], 2)(x)))
    model.save(tmp_path / "model.keras")
    loaded, inputs = keras.saving.load_model(tmp_path / "model.keras"), normal(rng, 2, 5, 8)
    expected, found = model(inputs), loaded(inputs)
    for task in ("tags", "mood"):
        np.testing.assert_array_equal(array(found[task]), array(expected[task]))
