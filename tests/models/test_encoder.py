"""The encoder with every kind of head: shapes, what it may not see, and that it survives being saved."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.config import ConfigError
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, EncoderModel, HeadConfig, encoder

TOKENS = np.array([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]])
CLASSES = ("a", "b", "c")
HEADS = {
    "one": HeadConfig(classes=CLASSES, pooling="mean"),
    "first": HeadConfig(classes=CLASSES, pooling="first", hidden="tanh"),
    "attentive": HeadConfig(classes=CLASSES, pooling="attention"),
    "gated": HeadConfig(classes=CLASSES, pooling="gated"),
    "several": HeadConfig(kind="labels", classes=CLASSES),
    "score": HeadConfig(kind="number"),
    "tags": HeadConfig(kind="tags", classes=CLASSES),
    "answer": HeadConfig(kind="span"),
    "vector": HeadConfig(kind="vector", pooling="mean"),
}
KINDS = {
    "pre-norm": {},
    "post-norm, learned positions": {"norm_first": False, "positions": "learned", "embedding_norm": True},
    "segments, narrow embeddings": {"num_segments": 2, "embedding_width": 8},
    "windows": {"window": 2, "global_tokens": 1},
}


def config(heads=HEADS, shared_attention=False, **changes):
    sizes = {
        "vocabulary_size": 40,
        "width": 16,
        "num_heads": 2,
        "feedforward_dim": 24,
        "num_layers": 2,
        "max_length": 12,
    }
    return EncoderHeadsConfig(EncoderConfig(**{**sizes, **changes}), heads, shared_attention)


def run(model, tokens, segments=None):
    tokens = np.asarray(tokens)
    inputs = {"tokens": tokens}
    if model.config.encoder.num_segments:
        inputs["segments"] = np.zeros_like(tokens) if segments is None else segments
    return {name: ops.convert_to_numpy(value) for name, value in model(inputs, training=False).items()}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def model(request, scramble):
    return scramble(encoder(config(**request.param)))


def test_every_head_has_its_shape(model):
    shapes = {name: value.shape for name, value in run(model, TOKENS).items()}
    assert shapes == {
        **dict.fromkeys(("one", "first", "attentive", "gated", "several"), (2, 3)),
        "score": (2, 1),
        "tags": (2, 5, 3),
        "answer": (2, 5, 2),
        "vector": (2, 16),
    }


def test_padding_changes_nothing(model):
    both, alone = run(model, TOKENS), run(model, TOKENS[1:, :3])
    for name, head in HEADS.items():
        found = both[name][1:] if head.pooled else both[name][1:, :3]
        np.testing.assert_allclose(found, alone[name], atol=1e-5)


def test_every_output_sees_the_whole_text(model):
    before = run(model, TOKENS)
    changed = TOKENS.copy()
    changed[0, 4] = 20
    after = run(model, changed)
    for name in HEADS:
        assert np.abs(after[name][0] - before[name][0]).reshape(len(before[name][0]), -1).max() > 1e-4
        np.testing.assert_allclose(after[name][1], before[name][1], atol=1e-5)


def test_the_vector_is_the_mean_of_the_features(model):
    features = encoder(EncoderHeadsConfig(model.config.encoder))
    own = {weight.path: weight for weight in model.weights}
    for weight in features.weights:
        weight.assign(own[weight.path])
    inputs = {"tokens": TOKENS}
    if model.config.encoder.num_segments:
        inputs["segments"] = np.zeros_like(TOKENS)
    x = ops.convert_to_numpy(features(inputs))
    expected = np.stack([x[0].mean(axis=0), x[1, :3].mean(axis=0)])
    np.testing.assert_allclose(run(model, TOKENS)["vector"], expected, atol=1e-5)


def test_segments_are_seen(scramble):
    model = scramble(encoder(config(num_segments=2)))
    segments = np.array([[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]])
    assert np.abs(run(model, TOKENS, segments)["one"] - run(model, TOKENS)["one"]).max() > 1e-3


def test_pooled_heads_may_share_one_attention(scramble):
    model = scramble(encoder(config(shared_attention=True)))
    paths = [weight.path for weight in model.weights]
    assert sum(path.startswith("task_attention/pooling") for path in paths) == 9
    assert sum("_pooling" in path for path in paths) == 0
    both, alone = run(model, TOKENS), run(model, TOKENS[1:, :3])
    np.testing.assert_allclose(both["one"][1:], alone["one"], atol=1e-5)


def test_it_survives_a_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is EncoderModel
    assert loaded.config == model.config
    before, after = run(model, TOKENS), run(loaded, TOKENS)
    for name in HEADS:
        np.testing.assert_array_equal(after[name], before[name])


def test_the_configuration_survives_json():
    for sizes in KINDS.values():
        assert EncoderHeadsConfig.from_dict(config(**sizes).to_dict()) == config(**sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderConfig(width=16, num_heads=3), "num_heads: 3 does not divide width 16"),
        (lambda: EncoderConfig(global_tokens=2), "global_tokens: 2 with window None; it is 0 up to the window"),
        (lambda: HeadConfig(classes=("a",)), r"classes: \['a'\]; a head of kind 'label' chooses between several"),
        (lambda: HeadConfig(kind="lable"), "did you mean 'label'"),
        (lambda: encoder(config({"mood": HeadConfig()})), "heads.mood.classes: none; name them"),
    ],
)
def test_bad_configurations_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
