"""Pruned layers against whole ones whose other heads are silent."""

import keras
import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import General, MultiHeadAttention, RelativeBias, Rotary, SoftCap, capture, masks, prune_heads
from zoo.checkpoints import by_path, load, save
from zoo.models.encoder_decoder import END, START, encoder_decoder

# The first changes nothing but the heads; the others have groups, values of their own width, gates, norms.
KINDS = [
    ({}, [1, 2]),
    ({"num_kv_heads": 2, "value_dim": 3, "gate": True}, [2, 3]),
    ({"rotary": Rotary(), "normalize": True, "use_bias": False}, [0, 3]),
    ({"num_kv_heads": 1, "score": SoftCap(5.0)}, [0, 1, 2, 3]),
]


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.fixture
def make(rng, scramble):
    def build(**changes):
        layer = MultiHeadAttention(4, 4, name="layer", **changes)
        layer(normal(rng, 2, 5, 8))
        return scramble(layer)

    return build


def silence(layer, keep):
    """Zeroes the output rows of all heads but `keep`."""
    kernel, *bias = layer.output_projection.get_weights()
    rows = kernel.reshape(layer.num_heads, layer.value_dim, -1)
    rows[[head for head in range(layer.num_heads) if head not in keep]] = 0
    layer.output_projection.set_weights([rows.reshape(kernel.shape), *bias])


@pytest.mark.parametrize(("changes", "keep"), KINDS)
def test_the_output_is_that_of_silent_heads(rng, make, changes, keep):
    layer, x, mask = make(**changes), normal(rng, 2, 5, 8), masks.causal(5)
    with capture() as before:
        layer(x, attention_mask=mask)
    silence(layer, keep)
    expected = array(layer(x, attention_mask=mask))
    prune_heads(layer, keep)
    with capture() as behind:
        y = array(layer(x, attention_mask=mask))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(array(behind["layer"]), array(before["layer"])[:, keep], atol=1e-6)


def test_a_cross_attention_is_pruned_too(rng, scramble):
    layer, x, memory = MultiHeadAttention(4, 4), normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)
    layer(x, memory)
    silence(scramble(layer), [3])
    expected = array(layer(x, memory))
    prune_heads(layer, [3])
    np.testing.assert_allclose(array(layer(x, memory)), expected, atol=1e-5)


def test_pruning_twice_counts_the_heads_that_are_left(rng, make):
    twice, once, x = make(), make(), normal(rng, 2, 5, 8)
    prune_heads(twice, [0, 1, 3])
    prune_heads(twice, [0, 2])
    prune_heads(once, [0, 3])
    np.testing.assert_allclose(array(twice(x)), array(once(x)), atol=1e-6)


def test_keeping_all_heads_changes_nothing(rng, make):
    layer, x = make(gate=True), normal(rng, 2, 5, 8)
    expected = array(layer(x))
    prune_heads(layer, [0, 1, 2, 3])
    np.testing.assert_array_equal(array(layer(x)), expected)


@pytest.mark.parametrize(("changes", "keep"), KINDS[:3])
def test_weights_get_smaller_and_their_paths_stay(make, changes, keep):
    layer = make(**changes)
    before = {weight.path: weight.shape for weight in layer.trainable_weights}
    prune_heads(layer, keep)
    behind = {weight.path: weight.shape for weight in layer.trainable_weights}
    assert set(behind) == set(before)
    assert len(layer.trainable_weights) == len(before)
    for path, shape in before.items():
        name = path.split("/")[1]
        if "norm" in name or path == "layer/output/bias":
            assert behind[path] == shape
        else:
            axis = 0 if name == "output" else -1
            halved = list(shape)
            halved[axis] //= 2
            assert behind[path] == tuple(halved)


def test_cache_and_configuration_follow(rng, make):
    layer, x = make(num_kv_heads=2, value_dim=3), normal(rng, 2, 5, 8)
    prune_heads(layer, [0, 1])
    assert (layer.get_config()["num_heads"], layer.get_config()["num_kv_heads"]) == (2, 1)
    cache = layer.empty_cache(2, 5)
    assert [tuple(tensor.shape) for tensor in cache.tensors] == [(2, 5, 1, 4), (2, 5, 1, 3)]
    steps = [layer(x[:, t : t + 1], attention_mask=masks.causal(1, 5, offset=t), cache=cache) for t in range(5)]
    expected = array(layer(x, attention_mask=masks.causal(5)))
    np.testing.assert_allclose(np.concatenate([array(y) for y in steps], axis=1), expected, atol=1e-5)


@pytest.mark.parametrize(("changes", "keep"), KINDS[:3])
def test_a_pruned_layer_survives_its_configuration(rng, make, reborn, changes, keep):
    layer, x = make(**changes), normal(rng, 2, 5, 8)
    prune_heads(layer, keep)
    np.testing.assert_array_equal(array(reborn(layer, x)(x)), array(layer(x)))


def test_a_pruned_layer_survives_a_keras_file(rng, scramble, tmp_path):
    x, layer = keras.Input((None, 8)), MultiHeadAttention(4, 4, normalize=True)
    model = scramble(keras.Model(x, layer(x)))
    prune_heads(layer, [1, 3])
    model.save(tmp_path / "model.keras")
    loaded, inputs = keras.saving.load_model(tmp_path / "model.keras"), normal(rng, 2, 5, 8)
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))


def test_mixed_precision_stays(rng, make):
    layer, x = make(dtype="mixed_bfloat16"), normal(rng, 2, 5, 8)
    prune_heads(layer, [1, 2])
    assert all(weight.dtype == "float32" for weight in layer.trainable_weights)
    assert keras.backend.standardize_dtype(layer(x).dtype) == "bfloat16"


@pytest.mark.parametrize("keep", [[], [4], [-1, 0], [0, 0], [2, 1]])
def test_numbers_that_fit_no_heads_are_refused(rng, make, keep):
    layer, x = make(), normal(rng, 2, 5, 8)
    before = array(layer(x))
    with pytest.raises(ValueError, match=r"keep: .* ascending numbers from 0 to 3, at least one"):
        prune_heads(layer, keep)
    np.testing.assert_array_equal(array(layer(x)), before)


@pytest.mark.parametrize("keep", [[0], [1, 2], [0, 1, 2]])
def test_groups_are_not_torn(make, keep):
    with pytest.raises(ValueError, match=r"keep: .* 2 neighbouring heads share keys and values"):
        prune_heads(make(num_kv_heads=2), keep)


@pytest.mark.parametrize("score", ["general", "additive", SoftCap(5.0, General())])
def test_scores_with_weights_are_refused(make, score):
    with pytest.raises(ValueError, match=r"attention: its score .* has weights that span the heads"):
        prune_heads(make(score=score), [0])


def test_a_bias_is_refused(make):
    with pytest.raises(ValueError, match="attention: its bias RelativeBias counts on 4 heads"):
        prune_heads(make(bias=RelativeBias(4)), [0])


# === In a model ===

INPUTS = {
    "source": np.array([[5, 6, 7, END], [8, 9, END, 0]], "int32"),
    "target": np.array([[START, 12, 13], [START, 16, 0]], "int32"),
}


@pytest.fixture(scope="module")
def models(tiny_config, scramble):
    """Two small models with other weights, pruned alike, and the first's logits before; tests may change the second."""
    logits, pruned = None, []
    for seed in (0, 1):
        sizes = {"num_heads": 4, "num_encoder_layers": 1, "num_decoder_layers": 1, "dropout": 0.0}
        model = scramble(encoder_decoder(tiny_config(**sizes)), seed)
        encoder, decoder = model.get_layer("encoder").blocks[0], model.get_layer("decoder").blocks[0]
        cut = [(encoder.self_attention, [0, 2]), (decoder.cross_attention, [3])]
        for attention, keep in cut:
            silence(attention, keep)
        logits = array(model(INPUTS)) if seed == 0 else logits
        for attention, keep in cut:
            prune_heads(attention, keep)
        pruned.append(model)
    return *pruned, logits


def test_a_model_runs_on_with_the_heads_that_are_left(models):
    model, _, expected = models
    with capture() as maps:
        logits = array(model(INPUTS))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert [x.shape[1] for x in maps.values()] == [2, 4, 1]
    memory, segments = model.encode(ops.convert_to_tensor(INPUTS["source"]))
    cache = model.start_cache(memory, 2, 3)
    target = ops.convert_to_tensor(INPUTS["target"])
    steps = [model.decode(target[:, t : t + 1], None, segments, cache=cache, position=t) for t in range(3)]
    np.testing.assert_allclose(array(ops.concatenate(steps, axis=1))[0], logits[0], atol=1e-4)


def test_saved_weights_fit_a_model_pruned_alike(models, tmp_path):
    model, other, _ = models
    save(tmp_path / "weights.safetensors", by_path(model.trainable_variables))
    load(tmp_path / "weights.safetensors", by_path(other.trainable_variables))
    np.testing.assert_array_equal(array(other(INPUTS)), array(model(INPUTS)))


def test_a_pruned_model_still_learns(models):
    _, model, _ = models
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3), loss, run_eagerly=backend.backend() == "tensorflow")
    before = {variable.path: array(variable) for variable in model.trainable_variables}
    losses = [model.train_on_batch(INPUTS, np.array([[12, 13, END], [16, END, 0]])) for _ in range(2)]
    assert losses[1] < losses[0]
    changed = {x.path for x in model.trainable_variables if (array(x) != before[x.path]).any()}
    # A key's bias moves all logits of a row alike, so that nothing is learned from it.
    assert {path for path in before if not path.endswith("attention/key/bias")} <= changed
