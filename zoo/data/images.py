"""Images: from whatever file there is to RGB numbers, and from those to what an encoder expects.

An image is given as its encoded bytes, or as the path of a file that is read when it is needed: decoded, a few thousand
of them would not fit into memory.
"""

import contextlib
import dataclasses
import io
import os
import re
import warnings
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zoo.config import Config, ConfigError
from zoo.data.files import SourceError

# An encoded image, or where it is.
Encoded = bytes | memoryview | str | Path

# A JPEG with more pixels than this is decoded to a half, a quarter or an eighth of its sides; 3 bytes a pixel.
MOST_PIXELS = 30_000_000
# Other formats can only be decoded whole.
MOST_PIXELS_WHOLE = 60_000_000

# Pillow knows more formats, some of which run other programs.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# Strips that are longer than so many times what is wanted of them are cut before they are scaled.
_LONGEST = 16

# Our own limits, which are errors, stand in for Pillow's warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(SourceError):
    """Says in one line which image cannot be read, and why."""


# === From files to RGB ===


def decode(image: Encoded, name: str | None = None) -> np.ndarray:
    """Decodes an image of any kind to RGB.

    Turned as its EXIF orientation says; transparency on white; 16 bits scaled to 8; of an animation the first frame. A
    JPEG of more than MOST_PIXELS is decoded scaled down, so that memory stays bounded.

    Args:
        image: The file's bytes, or its path.
        name: What errors call the image; its path where None.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ImageError: If there is no such file, or it is empty, damaged, not an image, or too large.
    """
    name = name or (str(image) if isinstance(image, (str, Path)) else "image")
    with _opened(image, name) as file:
        if not file.seek(0, os.SEEK_END):
            raise ImageError(f"{name}: the file is empty")
        file.seek(0)
        try:
            with Image.open(file, formats=_FORMATS) as opened:
                return np.array(_rgb(opened))
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
        except UnidentifiedImageError:
            raise ImageError(f"{name}: not an image; it takes JPEG, PNG, GIF, WebP, BMP, TIFF or PPM") from None
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; scale it down") from None
        except Exception as error:  # a damaged file may raise anything
            raise ImageError(f"{name}: a damaged image: {str(error) or type(error).__name__}") from None


def _opened(image: Encoded, name: str) -> BinaryIO:
    if not isinstance(image, (str, Path)):
        return io.BytesIO(image)
    if _ADDRESS.match(str(image)):
        raise ImageError(f"{name}: an address; download the image and name its file")
    try:
        return open(Path(image).expanduser(), "rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:  # a folder, no permission; a zero byte in the path
        raise ImageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _rgb(image: Image.Image) -> Image.Image:
    """Decodes an opened image, as small as its format allows where it is very large."""
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        for scale in (2, 4, 8):
            if image.size[0] * image.size[1] > MOST_PIXELS:
                image.draft(None, (width // scale, height // scale))
    elif width * height > MOST_PIXELS_WHOLE:
        raise ImageError(
            f"{width} x {height} pixels; {image.format} is decoded whole, up to {MOST_PIXELS_WHOLE:,} pixels: scale "
            "it down or save it as JPEG"
        )
    image.load()
    with contextlib.suppress(Exception):  # a damaged note on the orientation is no reason to refuse the image
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ImageError("floating-point pixels have no range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, in one of three modes; the upper byte, as where there are three channels
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


# === From RGB to what an encoder expects ===


@dataclasses.dataclass(frozen=True)
class ImageConfig(Config):
    """How images become an encoder's inputs: resized, then (image * scale - mean) / std.

    Args:
        size: Height and width.
        resize: "squash" changes the aspect ratio; "crop" scales the short side and cuts the middle out.
        resample: The filter.
        scale: What 0 ... 255 is multiplied by first.
        mean: Of the channels, red first.
        std: Of the channels, red first.
        channels: The order that the encoder was trained with.
    """

    size: tuple[int, int] = (224, 224)
    resize: Literal["squash", "crop"] = "squash"
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self):
        super().__post_init__()
        if min(self.size) < 1:
            raise ConfigError(f"size: {list(self.size)}; it takes height and width in pixels")
        if min(self.std) <= 0:
            raise ConfigError(f"std: {list(self.std)}; all are positive")


def resized(image: np.ndarray, config: ImageConfig) -> np.ndarray:
    """Resizes an image as a configuration says.

    Args:
        image: uint8 (height, width, 3).
        config: The size and how it is reached.

    Returns:
        uint8 (height, width, 3), with the height and width of config.size.
    """
    height, width = config.size
    if config.resize == "squash":
        return _scaled(image, height, width, config)
    old_height, old_width = image.shape[:2]
    # What is cut off a very long strip anyway is not scaled first: 1 x 10,000 pixels would become 224 x 2,240,000.
    if old_width * height >= old_height * width:
        image = _middle(image, old_height, min(old_width, -(-_LONGEST * old_height * width // height)))
        image = _scaled(image, height, height * image.shape[1] // old_height, config)
    else:
        image = _middle(image, min(old_height, -(-_LONGEST * old_width * height // width)), old_width)
        image = _scaled(image, width * image.shape[0] // old_width, width, config)
    return _middle(image, height, width)


def prepared(image: np.ndarray, config: ImageConfig) -> np.ndarray:
    """Turns an image into an encoder's input, as the image processors of Hugging Face do.

    Args:
        image: uint8 (height, width, 3).
        config: How.

    Returns:
        float32 (height, width, 3), with the height and width of config.size.
    """
    return normalized(resized(image, config), config)


def normalized(image: np.ndarray, config: ImageConfig) -> np.ndarray:
    """Turns pixels of the right size into an encoder's input; the arguments are those of `prepared`."""
    scale = (config.scale / np.array(config.std)).astype(np.float32)
    shift = (np.array(config.mean) / np.array(config.std)).astype(np.float32)
    numbers = image * scale - shift
    return numbers[..., ::-1] if config.channels == "bgr" else numbers


def _scaled(image: np.ndarray, height: int, width: int, config: ImageConfig) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), FILTERS[config.resample]))


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
