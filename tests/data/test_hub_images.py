"""How checkpoints want their images, against what transformers' own processors make of a picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data.hub_images import read_image_config
from zoo.data.images import ImageConfig, prepared

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"


@pytest.fixture
def folder(tmp_path):
    def write(**said):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
        return tmp_path

    return write


@pytest.mark.parametrize(("name", "resample"), [("vit-gpt2", "bilinear"), ("blip", "bicubic")])
def test_a_picture_is_prepared_as_transformers_does(name, resample):
    config = read_image_config(FIXTURES / name)
    assert (config.size, config.resize, config.resample) == ((24, 24), "squash", resample)
    with np.load(FIXTURES / "generative.npz") as stored:
        found, expected = prepared(stored[f"{name}/picture"], config), stored[f"{name}/prepared"]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_old_files_are_read(folder):
    # As "nlpconnect/vit-gpt2-image-captioning" has it.
    said = {"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 224}
    found = read_image_config(folder(**said, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2))
    assert found == ImageConfig(size=(224, 224), scale=1 / 255)


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ({"size": {"height": 8, "width": 6}}, "size", (8, 6)),
        (
            {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}},
            "resize",
            "crop",
        ),
        ({"do_normalize": False}, "mean", (0, 0, 0)),
        ({"do_normalize": False}, "std", (1, 1, 1)),
        ({"do_rescale": False}, "scale", 1),
        ({"rescale_factor": 0.5}, "scale", 0.5),
        ({"resample": 1}, "resample", "lanczos"),
        ({"image_processor": {"size": 12}}, "size", (12, 12)),
        ({"do_resize": None, "crop_size": None, "size": 12}, "size", (12, 12)),
    ],
)
def test_every_setting_is_read(said, field, value, folder):
    assert getattr(read_image_config(folder(**said)), field) == value


def test_the_models_own_size_counts(folder):
    assert read_image_config(folder(size=224), (24, 16)).size == (24, 16)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"size": {"shortest_edge": 8}}, "without do_center_crop"),
        ({"size": {"longest_edge": 8}}, "it takes a number, height and width, or shortest_edge"),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, "only equal ones are known"),
        ({"resample": 7}, "resample 7; it is one of 0, 1, 2, 3"),
    ],
)
def test_what_is_not_known_is_named(said, message, folder):
    with pytest.raises(ConfigError, match=message):
        read_image_config(folder(**said))


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no preprocessor_config.json; it says how images are prepared"):
        read_image_config(tmp_path)
    for text in ("[1]", "{"):
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(ConfigError, match="it takes a JSON object"):
            read_image_config(tmp_path)
