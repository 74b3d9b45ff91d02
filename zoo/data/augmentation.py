"""Augmentation of training images: crops, mirror images and colours, drawn from the numbers of seed and example."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from zoo.config import Config, ConfigError
from zoo.data.images import FILTERS, ImageConfig

# How often a crop of the wanted shape is drawn before the whole image is taken.
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Config):
    """How much training images are changed.

    Args:
        crop: The least share of an image's area that is kept; 1 keeps it whole.
        ratio: How much a crop's shape may differ from the image's, as a factor of width to height; at least 1.
        flip: How often an image is mirrored.
        sides: An image is never mirrored if a word of its captions begins with one of these: a mirrored image needs
            another caption, and "left" also means that somebody went away.
        brightness: The most that brightness changes by, as a share.
        contrast: The same of contrast.
        saturation: The same of saturation.
    """

    crop: float = 0.6
    ratio: float = 4 / 3
    flip: float = 0.5
    sides: tuple[str, ...] = ("left", "right")
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop: {self.crop}; it takes a share above 0, and 1 at most")
        if self.ratio < 1:
            raise ConfigError(f"ratio: {self.ratio}; it takes 1 or more")
        for name in ("flip", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; it takes a share between 0 and 1")


def augmented(
    image: np.ndarray,
    captions: Sequence[str],
    config: AugmentationConfig,
    image_config: ImageConfig,
    seed: Sequence[int],
) -> np.ndarray:
    """Cuts an image, resizes it, perhaps mirrors it, and changes its colours; its captions stay true.

    Args:
        image: uint8 (height, width, 3).
        captions: All that is said of the image.
        config: How much it is changed.
        image_config: The size and the filter. With resize "crop" crops have the shape of the size, else the image's.
        seed: The same numbers, for example seed, epoch and number of the example, give the same image.

    Returns:
        uint8 (height, width, 3), with the height and width of image_config.size.

    Source: Szegedy et al. 2015, section 6 (crops); Krizhevsky et al. 2012, section 4.1 (mirrored images).
    """
    random = np.random.default_rng(seed)
    height, width = image_config.size
    box = _box(random, image.shape[:2], config, width / height if image_config.resize == "crop" else None)
    image = np.asarray(Image.fromarray(image).resize((width, height), FILTERS[image_config.resample], box=box))
    if random.random() < config.flip and not _tells_sides(captions, config.sides):
        image = image[:, ::-1]
    return _recoloured(random, image, config)


def _box(
    random: np.random.Generator, size: tuple[int, ...], config: AugmentationConfig, shape: float | None
) -> tuple[float, float, float, float]:
    """Draws a crop (left, upper, right, lower)."""
    height, width = size
    shape = shape or width / height
    for _ in range(_TRIES):
        area = random.uniform(config.crop, 1) * height * width
        ratio = shape * math.exp(random.uniform(-1, 1) * math.log(config.ratio))
        crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if crop_width <= width and crop_height <= height:
            left, upper = random.uniform(0, width - crop_width), random.uniform(0, height - crop_height)
            return left, upper, left + crop_width, upper + crop_height
    crop_width, crop_height = min(width, height * shape), min(height, width / shape)
    left, upper = (width - crop_width) / 2, (height - crop_height) / 2
    return left, upper, left + crop_width, upper + crop_height


def _tells_sides(captions: Sequence[str], sides: Sequence[str]) -> bool:
    return any(re.search(rf"\b{re.escape(side)}", text, re.IGNORECASE) for side in sides for text in captions)


def _recoloured(random: np.random.Generator, image: np.ndarray, config: AugmentationConfig) -> np.ndarray:
    brightness, contrast, saturation = (
        np.float32(1 + share * random.uniform(-1, 1))
        for share in (config.brightness, config.contrast, config.saturation)
    )
    pixels = image * brightness
    pixels = pixels.mean() * (1 - contrast) + pixels * contrast
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # how bright the channels look: ITU-R BT.601
    pixels = grey[..., None] * (1 - saturation) + pixels * saturation
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
