"""Augmentation: decided by its seed, within its limits, and never against the captions."""

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data.augmentation import AugmentationConfig, augmented
from zoo.data.images import ImageConfig, resized

SIZE = ImageConfig((24, 32))
NOTHING = AugmentationConfig(crop=1, ratio=1, flip=0, brightness=0, contrast=0, saturation=0)


def image(height=48, width=64):
    """Red grows to the right, green downwards."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)], axis=-1).astype(np.uint8)


def change(**changes):
    return AugmentationConfig(**{**NOTHING.to_dict(), **changes})


def is_mirrored(found):
    return float(found[:, 0, 0].mean()) > float(found[:, -1, 0].mean())


def test_the_seed_alone_decides():
    config = AugmentationConfig()
    first, again = (augmented(image(), ["a dog"], config, SIZE, (7, 2, 5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (24, 32, 3)
    assert first.dtype == np.uint8
    for seed in ((8, 2, 5), (7, 3, 5), (7, 2, 6)):
        assert np.abs(augmented(image(), ["a dog"], config, SIZE, seed) - first.astype(float)).max() > 3


def test_nothing_is_changed_where_nothing_may_be():
    for seed in range(5):
        np.testing.assert_array_equal(augmented(image(), [], NOTHING, SIZE, (seed,)), resized(image(), SIZE))


def test_half_of_the_images_are_mirrored_and_exactly_so():
    straight = resized(image(), SIZE)
    mirrored = 0
    for seed in range(200):
        found = augmented(image(), ["a dog runs"], change(flip=0.5), SIZE, (seed,))
        np.testing.assert_array_equal(found, straight[:, ::-1] if is_mirrored(found) else straight)
        mirrored += is_mirrored(found)
    assert 70 < mirrored < 130


@pytest.mark.parametrize("caption", ["a man on the left .", "Left of him stands a dog", "the rightmost dog", "(right)"])
def test_an_image_whose_captions_tell_sides_is_never_mirrored(caption):
    for seed in range(20):
        found = augmented(image(), ["a dog", caption], change(flip=1), SIZE, (seed,))
        assert not is_mirrored(found)


def test_words_that_only_contain_a_side_do_not_count():
    assert is_mirrored(augmented(image(), ["a bright cleft"], change(flip=1), SIZE, (0,)))
    config = change(flip=1, sides=("links", "rechts"))
    assert is_mirrored(augmented(image(), ["left"], config, SIZE, (0,)))
    assert not is_mirrored(augmented(image(), ["ein Hund rechts"], config, SIZE, (0,)))
    assert is_mirrored(augmented(image(), ["left"], change(flip=1, sides=()), SIZE, (0,)))


def test_a_crop_keeps_its_share_and_shape():
    areas = []
    for seed in range(100):
        found = augmented(image(480, 640), [], change(crop=0.5, ratio=1.25), SIZE, (seed,)).astype(float)
        # How far the two gradients reach is how wide and high the crop is; the outermost pixels are half a pixel in.
        width = (found[:, -1, 0] - found[:, 0, 0]).mean() / 255 * 32 / 31
        height = (found[-1, :, 1] - found[0, :, 1]).mean() / 255 * 24 / 23
        areas.append(width * height)
        assert 1 / 1.27 < width / height < 1.27
    assert 0.47 < min(areas) < 0.6
    assert 0.9 < max(areas) < 1.03


def test_a_crop_of_a_strip_that_fits_no_shape_is_the_whole_or_its_middle():
    strip = image(4, 400)
    assert augmented(strip, [], change(crop=1, ratio=4), SIZE, (0,)).shape == (24, 32, 3)
    squares = ImageConfig((16, 16), resize="crop")
    found = augmented(strip, [], change(crop=0.9), squares, (0,)).astype(float)
    assert np.abs(found[..., 0] - 127).max() < 5


def test_colours_change_as_much_as_they_may():
    grey = np.full((8, 8, 3), 100, np.uint8)
    size = ImageConfig((8, 8))
    values = [augmented(grey, [], change(brightness=0.3), size, (seed,))[0, 0] for seed in range(100)]
    assert 69 <= np.min(values) < 80
    assert 120 < np.max(values) <= 131
    # Contrast and saturation leave an even grey alone, and saturation keeps brightness.
    for kind in ("contrast", "saturation"):
        np.testing.assert_array_equal(augmented(grey, [], change(**{kind: 1}), size, (0,)), grey)
    coloured = np.tile(np.array([120, 100, 60], np.uint8), (8, 8, 1))
    weights = np.array([0.299, 0.587, 0.114])
    for seed in range(10):
        found = augmented(coloured, [], change(saturation=1), size, (seed,))[0, 0]
        assert abs(found @ weights - coloured[0, 0] @ weights) < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"crop": 0}, "crop: 0"), ({"ratio": 0.5}, "ratio: 0.5; it takes 1 or more"), ({"flip": 2}, "flip: 2")],
)
def test_a_bad_configuration_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationConfig(**changes)
