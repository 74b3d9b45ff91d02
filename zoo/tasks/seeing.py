"""From images of any kind to what a vision encoder makes of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zoo.data.images import Encoded, ImageConfig, decode, prepared
from zoo.models.vision_encoder import VisionEncoder

# Images whose outputs are held at once.
CHUNK = 256


def see(
    vision: VisionEncoder, images: Sequence[Encoded | np.ndarray], config: ImageConfig, batch_size: int
) -> Iterator[np.ndarray]:
    """Yields what a vision encoder makes of images, CHUNK images at a time; they are decoded when they are needed.

    Args:
        vision: The encoder.
        images: Paths, encoded bytes, or uint8 arrays (height, width, 3).
        config: How images are prepared.
        batch_size: Images that the encoder sees at once; a single image stays alone.

    Raises:
        ImageError: For what is no image, or a damaged one; it says which.
    """
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        outputs = []
        for first in range(0, len(chunk), batch_size):
            part = chunk[first : first + batch_size]
            rows = np.zeros((batch_size if len(part) > 1 else 1, *config.size, 3), np.float32)
            for row, image in enumerate(part):
                # A path is its own name.
                name = None if isinstance(image, (str, Path)) else f"input {start + first + row + 1}"
                rows[row] = prepared(pixels(image, name), config)
            outputs.append(np.asarray(vision.predict_on_batch(rows))[: len(part)])
        yield np.concatenate(outputs)


def pixels(image: Encoded | np.ndarray, name: str | None = None) -> np.ndarray:
    """Decodes an image that is not decoded yet.

    Args:
        image: A path, encoded bytes, or a uint8 array (height, width, 3).
        name: What errors call the image; its path where None.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ImageError: For what is no image, or a damaged one.
    """
    return image if isinstance(image, np.ndarray) else decode(image, name)
