"""How a checkpoint of the Hugging Face hub wants its images: preprocessor_config.json as an ImageConfig."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import ConfigError
from zoo.data.images import ImageConfig

PREPROCESSOR = "preprocessor_config.json"
# Pillow's numbers of its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_image_config(folder: Path, size: tuple[int, int] | None = None) -> ImageConfig:
    """Reads how a hub folder's images are prepared.

    Args:
        folder: Holds preprocessor_config.json.
        size: Height and width that the model takes; as the file says where None.

    Raises:
        ConfigError: If there is no such file, or it asks for something that is not known here.
    """
    path = folder / PREPROCESSOR
    try:
        said: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        said = said.get("image_processor", said)  # as processors of images and texts together are written
        said = {name: value for name, value in said.items() if value is not None}
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no {PREPROCESSOR}; it says how images are prepared") from None
    except (ValueError, AttributeError):
        raise ConfigError(f"{path}: it takes a JSON object") from None
    crop = said.get("do_center_crop", False)
    given = _size(said.get("size", 224), path)
    if crop and _size(said.get("crop_size", given[1]), path)[1] != given[1]:
        raise ConfigError(f"{path}: size {said.get('size')} cut to {said.get('crop_size')}; only equal ones are known")
    squashes, sides = given
    if not said.get("do_resize", True):
        raise ConfigError(f"{path}: do_resize is false; images of any size are not known")
    if not (squashes or crop):
        raise ConfigError(f"{path}: size {said['size']} without do_center_crop; images of any shape are not known")
    resample = said.get("resample", 2)
    if resample not in _FILTERS:
        raise ConfigError(f"{path}: resample {resample!r}; it is one of {', '.join(map(str, _FILTERS))}")
    normalizes = said.get("do_normalize", True)
    return ImageConfig.from_dict(
        {
            "size": size or sides,
            "resize": "squash" if squashes else "crop",
            "resample": _FILTERS[resample],
            "scale": said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0,
            "mean": said.get("image_mean", [0.5] * 3) if normalizes else [0.0] * 3,
            "std": said.get("image_std", [0.5] * 3) if normalizes else [1.0] * 3,
        }
    )


def _size(size: Any, path: Path) -> tuple[bool, tuple[int, int]]:
    """Reads a size: whether height and width are both reached by scaling, and the two."""
    if isinstance(size, int):
        return True, (size, size)
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        return True, (size["height"], size["width"])
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return False, (size["shortest_edge"],) * 2
    raise ConfigError(f"{path}: size {size!r}; it takes a number, height and width, or shortest_edge")
