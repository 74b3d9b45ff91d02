"""Vision encoders of every kind: transformers' numbers, their grids, and that they survive being saved."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from zoo.config import ConfigError
from zoo.layers.vision import StoredNormalization
from zoo.models.vision_encoder import APPLICATIONS, VisionEncoder, VisionEncoderConfig, ViTConfig, vision_encoder

VIT = np.load(Path(__file__).parent / "fixtures" / "vit.npz")
TINY = {"patch_size": 8, "width": 16, "num_heads": 2, "feedforward_dim": 24, "num_layers": 2}
# Ours -> the module of transformers, for block {i}.
MODULES = {
    "self_attention/query": "attention.q_proj",
    "self_attention/key": "attention.k_proj",
    "self_attention/value": "attention.v_proj",
    "self_attention/output": "attention.o_proj",
    "self_attention_norm": "layernorm_before",
    "feedforward/hidden": "mlp.fc1",
    "feedforward/output": "mlp.fc2",
    "feedforward_norm": "layernorm_after",
}


def vit(size=(32, 32), pooling="none", **changes):
    return VisionEncoderConfig("vit", size, pooling=pooling, vit=ViTConfig(**{**TINY, **changes}))


def run(model, images):
    return ops.convert_to_numpy(model(images, training=False))


def images_of(config, rng, count=2):
    return rng.normal(size=(count, *config.image_size, 3)).astype("float32")


def from_transformers(model):
    """Fills a ViT with the fixture's weights."""
    theirs = {
        "patches/projection": "embeddings.patch_embeddings.projection",
        "encoder/final_norm": "layernorm",
        **{f"encoder/block_{i}/{ours}": f"layers.{i}.{module}" for i in range(2) for ours, module in MODULES.items()},
    }
    for weight in model.weights:
        layer, _, name = weight.path.rpartition("/")
        if layer in theirs:
            name = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}[name]
            value = VIT[f"weights/{theirs[layer]}.{name}"]
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        else:
            name = {"class_token": "cls_token", "patch_positions": "position_embeddings"}[layer]
            value = VIT[f"weights/embeddings.{name}"].reshape(weight.shape)
        weight.assign(value.astype("float32"))
    return model


@pytest.mark.parametrize(("name", "size"), [("same", (32, 32)), ("other", (24, 56))])
def test_a_vit_computes_what_transformers_does(name, size):
    model = from_transformers(vision_encoder(vit(size, learned_size=(32, 32))))
    expected = VIT[f"{name}/features"]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(run(model, VIT[f"{name}/images"].astype("float32")), expected, atol=1e-4)
    assert model.grid == (size[0] // 8, size[1] // 8)
    assert model.extra == 1


def test_pooling_is_the_class_token_or_the_mean_of_the_places(rng):
    images = images_of(vit(), rng)
    features = run(from_transformers(vision_encoder(vit())), images)
    first = from_transformers(vision_encoder(vit(pooling="first")))
    mean = from_transformers(vision_encoder(vit(pooling="mean")))
    np.testing.assert_allclose(run(first, images), features[:, 0], atol=1e-5)
    np.testing.assert_allclose(run(mean, images), features[:, 1:].mean(axis=1), atol=1e-5)


def test_classes_are_told_apart_by_a_last_layer_over_pooled_features(scramble, rng):
    plain = scramble(vision_encoder(vit(pooling="mean")))
    config = VisionEncoderConfig.from_dict({**plain.config.to_dict(), "classes": ["cat", "dog", "bird"]})
    model, images = scramble(vision_encoder(config)), images_of(config, rng)
    for weight, known in zip(model.weights, plain.weights):
        weight.assign(known)
    kernel, bias = (ops.convert_to_numpy(weight) for weight in model.get_layer("logits").weights)
    np.testing.assert_allclose(run(model, images), run(plain, images) @ kernel + bias, atol=1e-5)


def test_a_vit_without_a_class_token_has_places_only(rng):
    config = vit((16, 40), class_token=False)
    model = vision_encoder(config)
    assert run(model, images_of(config, rng)).shape == (2, 10, 16)
    assert (model.grid, model.extra) == ((2, 5), 0)


@pytest.mark.parametrize(
    ("stages", "grid", "width"),
    [
        (("last",), (2, 3), 1280),
        (("stride16",), (4, 6), 112),
        (("stride8", "stride32"), (8, 12), 360),
        (("stride16", "last"), (4, 6), 1392),
    ],
)
def test_the_stages_of_efficientnet_lite0(stages, grid, width):
    model = vision_encoder(VisionEncoderConfig("efficientnet_lite0", (64, 96), stages))
    assert (model.grid, model.extra) == (grid, 0)
    assert model.output_shape == (None, grid[0] * grid[1], width)


@pytest.mark.slow
def test_several_stages_lie_on_the_finest_grid(scramble, rng):
    config = VisionEncoderConfig("efficientnet_lite0", (64, 64), ("stride16", "stride32"))
    both = vision_encoder(config)
    scramble(both.get_layer("block_10_project_norm"))
    scramble(both.get_layer("block_15_project_norm"))
    for layer in both.layers:  # a variance is positive
        if isinstance(layer, StoredNormalization):
            layer.moving_variance.assign(ops.abs(layer.moving_variance))
    weights = {weight.path: weight for weight in both.weights}
    images = images_of(config, rng)
    found = run(both, images).reshape(2, 4, 4, -1)
    for stage, part in (("stride16", found[..., :112]), ("stride32", found[:, ::2, ::2, 112:])):
        alone = vision_encoder(VisionEncoderConfig("efficientnet_lite0", (64, 64), (stage,)))
        for weight in alone.weights:
            weight.assign(weights[weight.path])
        expected = run(alone, images).reshape(part.shape)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(part, expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, ::2, ::2, 112:], found[:, 1::2, 1::2, 112:])


@pytest.mark.parametrize("kind", ["efficientnet_lite0", pytest.param("MobileNet", marks=pytest.mark.slow)])
def test_stored_statistics_are_used_in_training_too(kind, rng):
    config = VisionEncoderConfig(kind, (32, 32))
    model = vision_encoder(config)
    images = images_of(config, rng)
    before = [np.array(weight) for weight in model.weights]
    np.testing.assert_array_equal(ops.convert_to_numpy(model(images, training=True)), run(model, images))
    for weight, value in zip(model.weights, before):
        np.testing.assert_array_equal(np.array(weight), value)


@pytest.mark.slow
def test_a_network_of_keras_applications(rng):
    stages = ("conv_pw_5_relu", "last")
    config = VisionEncoderConfig("MobileNet", (64, 64), stages)
    model = vision_encoder(config)
    assert model.output_shape == (None, 64, 256 + 1024)
    assert model.grid == (8, 8)
    images = images_of(config, rng, 1)
    pooled = vision_encoder(VisionEncoderConfig("MobileNet", (64, 64), stages, pooling="mean"))
    pooled.set_weights(model.get_weights())
    np.testing.assert_allclose(run(pooled, images), run(model, images).mean(axis=1), atol=1e-5)


@pytest.mark.slow
def test_weights_have_the_same_paths_however_many_models_were_built():
    # Xception leaves naming some of its layers to Keras.
    config = VisionEncoderConfig("Xception", (71, 71))
    first, second = ([weight.path for weight in vision_encoder(config).weights] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def test_every_application_is_a_network():
    assert {"ResNet50", "MobileNetV2", "EfficientNetB0", "VGG16"} <= set(APPLICATIONS)
    assert all(callable(getattr(keras.applications, name)) for name in APPLICATIONS)


@pytest.mark.parametrize(
    "config",
    [vit(pooling="first"), VisionEncoderConfig("efficientnet_lite0", (32, 64), ("stride8", "last"))],
    ids=["vit", "efficientnet_lite0"],
)
def test_it_survives_a_keras_file(config, scramble, rng, tmp_path):
    model = vision_encoder(config)
    if config.kind == "vit":
        scramble(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is VisionEncoder
    assert (loaded.config, loaded.grid, loaded.extra) == (config, model.grid, model.extra)
    images = images_of(config, rng)
    np.testing.assert_array_equal(run(loaded, images), run(model, images))
    assert VisionEncoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VisionEncoderConfig("efficientnet_lite1"), "did you mean 'efficientnet_lite0'"),
        (lambda: VisionEncoderConfig("ResNet5O"), "did you mean 'ResNet50'"),
        (lambda: VisionEncoderConfig(image_size=(16, 64)), r"image_size: \[16, 64\]; height and width are at least 32"),
        (lambda: VisionEncoderConfig(stages=()), r"stages: \[\]; it takes some"),
        (lambda: VisionEncoderConfig("vit", stages=("stride8",)), r"stages: \['stride8'\]; it takes \[last\]"),
        (lambda: VisionEncoderConfig(pooling="first"), "pooling: 'first'; it takes a class token"),
        (lambda: vit(class_token=False, pooling="first"), "pooling: 'first'; it takes a class token"),
        (lambda: VisionEncoderConfig(classes=("cat", "dog")), "classes: 2 of them with pooling 'none'"),
        (lambda: ViTConfig(width=16, num_heads=3), "num_heads: 3 does not divide width 16"),
        (lambda: vision_encoder(VisionEncoderConfig(stages=("stride7",))), "stages: 'stride7'; did you mean 'stride"),
        (
            lambda: vision_encoder(VisionEncoderConfig(image_size=(80, 64), stages=("stride8", "last"))),
            "stages: 'last' has a grid of 3 x 2, which does not divide the finest, 10 x 8",
        ),
    ],
)
def test_bad_configurations_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
