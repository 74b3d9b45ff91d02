"""The decoder with and without features: what it may not see, that its cache changes nothing, that it can be saved."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.config import ConfigError
from zoo.models.decoder import DecoderConfig, DecoderModel, decoder
from zoo.models.generative import SpecialTokens

TARGET = np.array([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
KINDS = {
    "language model": {},
    "sinusoidal, gated": {"positions": "sinusoidal", "gated": True, "activation": "silu", "embedding_scale": False},
    "features": {"feature_width": 12},
    "projected features, post-norm": {
        "feature_width": 12,
        "feature_projection": True,
        "norm_first": False,
        "embedding_norm": True,
        "output_hidden": "gelu",
        "output_bias": True,
    },
}


def config(**changes):
    sizes = {"vocabulary_size": 40, "width": 16, "num_heads": 2, "num_layers": 2, "max_length": 12}
    return DecoderConfig(**{**sizes, **changes})


def inputs(model, target=TARGET, seed=0):
    found = {"target": np.asarray(target)}
    if model.config.feature_width is not None:
        found["features"] = np.random.default_rng(seed).normal(size=(len(found["target"]), 5, 12)).astype("float32")
    return found


def run(model, target=TARGET, seed=0):
    return ops.convert_to_numpy(model(inputs(model, target, seed), training=False))


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def model(request, scramble):
    return scramble(decoder(config(**request.param)))


def test_it_gives_logits_of_every_token(model):
    assert run(model).shape == (2, 6, 40)


def test_no_place_sees_a_later_one(model):
    logits, changed = run(model), TARGET.copy()
    changed[:, 4:] = 17
    found = run(model, changed)
    np.testing.assert_allclose(found[:, :4], logits[:, :4], atol=1e-5)
    assert np.abs(found[:, 4:] - logits[:, 4:]).max() > 0.1


def test_places_see_earlier_ones_and_their_order(model):
    swapped = TARGET[:, [1, 0, 2, 3, 4, 5]]
    assert np.abs(run(model, swapped)[:, 5] - run(model)[:, 5]).max() > 1e-3


def test_it_looks_at_the_features_it_is_given(model):
    difference = np.abs(run(model, seed=1) - run(model)).max()
    assert difference > 0.1 if model.config.feature_width else difference == 0


@pytest.mark.parametrize("read", [1, 3])
def test_a_cache_changes_nothing(model, read):
    found = inputs(model)
    memory, segments = (None, None) if model.encode is None else model.encode(found)
    cache = model.start_cache(memory, 2, 8)
    logits = [model.decode(found["target"][:, :read], None, segments, cache=cache, position=0)]
    for t in range(read, 6):
        logits.append(model.decode(found["target"][:, t : t + 1], None, segments, cache=cache, position=t))
    np.testing.assert_allclose(ops.convert_to_numpy(ops.concatenate(logits, axis=1)), run(model), atol=1e-5)


def test_it_comes_back_from_a_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, DecoderModel)
    assert loaded.config == model.config
    np.testing.assert_allclose(run(loaded), run(model), atol=1e-6)


def test_a_language_model_has_no_cross_attention():
    paths = [weight.path for weight in decoder(config()).weights]
    assert not any("cross_attention" in path for path in paths)
    with_features = [weight.path for weight in decoder(config(feature_width=12)).weights]
    assert sum("cross_attention" in path for path in with_features) == 2 * (4 * 2 + 2)


def test_it_learns_to_go_on(scramble):
    model = scramble(decoder(config(dropout=0.0)))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [model.train_on_batch({"target": TARGET[:, :-1]}, TARGET[:, 1:]) for _ in range(20)]
    assert losses[-1] < losses[0] / 2


def test_its_special_tokens_are_its_configurations():
    special = SpecialTokens(pad=7, start=7, end=7, never=())
    model = decoder(config(special_tokens=special))
    assert model.special_tokens == special
    assert DecoderConfig.from_dict(model.config.to_dict()).special_tokens == special


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 15}, "num_heads: 2 does not divide width 15"),
        ({"feature_projection": True}, "feature_projection: true without feature_width"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)
