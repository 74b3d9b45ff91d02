"""Several sources as one memory, and one attention for each source behind a gate, put together by hand."""

import keras
import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import GatedCrossAttention, JointMemory, MultiHeadAttention, capture

# Sources of different lengths and widths.
SHAPES = [(2, 4, 6), (2, 3, 10), (2, 5, 8)]
MASKS = [np.array([[1, 1, 1, 1], [1, 0, 0, 0]], bool), None, np.array([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0]], bool)]


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def dense(layer, x):
    return x @ array(layer.kernel) + array(layer.bias)


@pytest.fixture
def sources(rng):
    return [normal(rng, *shape) for shape in SHAPES]


# === One memory ===


@pytest.fixture
def joint(sources, scramble):
    layer = JointMemory(8)
    layer(sources)
    return scramble(layer)


def test_sources_stand_one_behind_the_other(joint, sources):
    memory, mask = joint(sources)
    by_hand = [
        dense(projection, source) + vector
        for projection, source, vector in zip(joint.projections, sources, array(joint.modalities))
    ]
    np.testing.assert_allclose(array(memory), np.concatenate(by_hand, axis=1), atol=1e-5)
    assert backend.standardize_dtype(mask.dtype) == "bool"
    assert tuple(mask.shape) == (2, 1, 1, 12)
    assert array(mask).all()


def test_masks_are_joined(joint, sources):
    _, mask = joint(sources, MASKS)
    expected = [[1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]]
    assert array(mask).tolist() == [[[row]] for row in np.array(expected, bool).tolist()]


def test_one_attention_weighs_all_places_together(rng, joint, sources, scramble):
    x, attention = normal(rng, 2, 3, 8), MultiHeadAttention(2, 4)
    memory, mask = joint(sources, MASKS)
    attention(x, memory, mask)
    scramble(attention)
    query, key, value = (
        dense(project, y).reshape(2, -1, 2, 4)
        for project, y in ((attention.query, x), (attention.key, array(memory)), (attention.value, array(memory)))
    )
    weights = np.where(array(mask), np.exp(np.einsum("btnh,bsnh->bnts", query, key) / 2), 0)
    mixed = np.einsum("bnts,bsnh->btnh", weights / weights.sum(axis=-1, keepdims=True), value)
    expected = dense(attention.output_projection, mixed.reshape(2, 3, 8))
    np.testing.assert_allclose(array(attention(x, memory, mask)), expected, atol=1e-5)


def test_hidden_places_are_not_seen(rng, joint, sources, scramble):
    x, attention = normal(rng, 2, 3, 8), MultiHeadAttention(2, 4)
    attention(x, *joint(sources, MASKS))
    scramble(attention)
    before = array(attention(x, *joint(sources, MASKS)))
    for source, mask in zip(sources, MASKS):
        if mask is not None:
            source[~mask] = 1e3
    np.testing.assert_allclose(array(attention(x, *joint(sources, MASKS))), before, atol=1e-6)


def test_a_source_is_told_from_its_twin_by_its_vector(rng, scramble):
    layer, source = JointMemory(8), normal(rng, 1, 2, 6)
    layer([source, source])
    scramble(layer)
    layer.projections[1].set_weights(layer.projections[0].get_weights())
    memory = array(layer([source, source])[0])
    difference = array(layer.modalities)[1] - array(layer.modalities)[0]
    np.testing.assert_allclose(memory[:, 2:] - memory[:, :2], np.broadcast_to(difference, (1, 2, 8)), atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_sources_or_masks_is_refused(joint, sources, count):
    with pytest.raises(ValueError, match=f"sources: {count} given, this layer was built for 3"):
        joint((sources * 2)[:count])
    with pytest.raises(ValueError, match=f"key_masks: {count} given, this layer was built for 3"):
        joint(sources, [None] * count)


def test_a_memory_survives_its_configuration(joint, sources, reborn):
    expected, found = joint(sources, MASKS), reborn(joint, sources)(sources, MASKS)
    for y, other in zip(found, expected):
        np.testing.assert_array_equal(array(y), array(other))


# === One attention a source ===


@pytest.fixture
def gated(rng, sources, scramble):
    layer = GatedCrossAttention(2, 4, name="gated")
    layer(normal(rng, 2, 3, 8), sources)
    return scramble(layer)


@pytest.mark.parametrize("masked", [False, True])
def test_it_sums_gates_times_separate_attentions(rng, gated, sources, masked):
    x, expected = normal(rng, 2, 3, 8), 0
    masks = [None if mask is None or not masked else mask[:, None, None, :] for mask in MASKS]
    for attention, gate, source, mask in zip(gated.attentions, gated.gates, sources, masks):
        alone = MultiHeadAttention(2, 4)
        alone(x, source)
        alone.set_weights(attention.get_weights())
        expected = expected + array(alone(x, source, mask)) / (1 + np.exp(-dense(gate, x)))
    y = gated(x, sources, masks) if masked else gated(x, sources)
    np.testing.assert_allclose(array(y), expected, atol=1e-5)


def test_a_closed_gate_shuts_its_source_out(rng, gated, sources):
    x = normal(rng, 2, 3, 8)
    kernel, bias = gated.gates[1].get_weights()
    gated.gates[1].set_weights([0 * kernel, 0 * bias - 200])
    before = array(gated(x, sources))
    sources[1] += 1
    np.testing.assert_array_equal(array(gated(x, sources)), before)
    sources[0] += 1
    assert np.abs(array(gated(x, sources)) - before).max() > 1e-3


def test_each_source_has_its_map(rng, gated, sources):
    with capture() as maps:
        gated(normal(rng, 2, 3, 8), sources)
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        f"gated/attention_{i}": (2, 2, 3, shape[1]) for i, shape in enumerate(SHAPES)
    }


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_memories_or_masks_is_refused(rng, gated, sources, count):
    x = normal(rng, 2, 3, 8)
    with pytest.raises(ValueError, match=f"memories: {count} given, this layer was built for 3"):
        gated(x, (sources * 2)[:count])
    with pytest.raises(ValueError, match=f"attention_masks: {count} given, this layer was built for 3"):
        gated(x, sources, [None] * count)


def test_dropout_drops_weights_while_training_only(rng, sources):
    layer, x = GatedCrossAttention(2, 4, dropout=0.5), normal(rng, 2, 3, 8)
    expected = array(layer(x, sources))
    np.testing.assert_array_equal(array(layer(x, sources, training=False)), expected)
    assert np.abs(array(layer(x, sources, training=True)) - expected).max() > 1e-3


def test_it_survives_its_configuration(rng, gated, sources, reborn):
    x = normal(rng, 2, 3, 8)
    np.testing.assert_array_equal(array(reborn(gated, x, sources)(x, sources)), array(gated(x, sources)))


# === In a model ===


def joined(x, image, text, image_mask):
    memory, mask = JointMemory(8)([image, text], [image_mask, None])
    return MultiHeadAttention(2, 4)(x, memory, mask)


def gated_sum(x, image, text, image_mask):
    return GatedCrossAttention(2, 4)(x, [image, text], [image_mask[:, None, None, :], None])


@pytest.mark.parametrize("fuse", [joined, gated_sum])
def test_a_model_survives_a_keras_file(rng, sources, scramble, tmp_path, fuse):
    inputs = [keras.Input((None, 8)), keras.Input((None, 6)), keras.Input((None, 10))]
    inputs.append(keras.Input((None,), dtype="bool"))
    model = scramble(keras.Model(inputs, fuse(*inputs)))
    assert model.output.shape == (None, None, 8)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = [normal(rng, 2, 3, 8), *sources[:2], MASKS[0]]
    y = array(model(given))
    np.testing.assert_array_equal(array(loaded(given)), y)
    given[1][~MASKS[0]] = 1e3
    np.testing.assert_allclose(array(model(given)), y, atol=1e-6)


@pytest.mark.parametrize("fuse", [joined, gated_sum])
def test_mixed_precision_goes_through_the_whole_layer(rng, sources, fuse):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        y = fuse(normal(rng, 2, 3, 8), *sources[:2], ops.convert_to_tensor(MASKS[0]))
    finally:
        keras.config.set_dtype_policy("float32")
    assert backend.standardize_dtype(y.dtype) == "bfloat16"
