"""Images streamed to an encoder: decoded and prepared in the background, a few batches at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.background import tensorflow
from zoo.data.images import Encoded, ImageConfig, ImageError, decode, prepared

# How many damaged images a message names.
_NAMED = 3


class Damaged(dict[int, str]):
    """What is wrong with each damaged image, by its number; as a text, their count and the first few."""

    def __str__(self) -> str:
        first = "; ".join(self[number] for number in sorted(self)[:_NAMED])
        return f"{len(self)} damaged image{'s' * (len(self) != 1)} skipped: {first}{'; ...' * (len(self) > _NAMED)}"


def image_batches(
    images: Sequence[Encoded],
    config: ImageConfig,
    batch_size: int = 32,
    *,
    names: Sequence[str] | None = None,
    start: int = 0,
    mirrored: bool = False,
    damaged: Damaged | None = None,
) -> Iterator[np.ndarray]:
    """Yields images in batches, in their order, as an encoder expects them.

    Args:
        images: Encoded images or their paths.
        config: How they are prepared.
        batch_size: Rows in a batch; the last one is filled up with zeros.
        names: What errors call the images; their paths or numbers where None.
        start: How many images are left out.
        mirrored: Whether left and right are exchanged.
        damaged: Where damaged images are noted; their rows are zero. None: they are errors.

    Yields:
        float32 (batch_size, height, width, 3).

    Raises:
        ImageError: For a damaged image, where they are not noted.
    """
    tf = tensorflow()
    errors: dict[int, ImageError] = {}

    def load(number: Any) -> np.ndarray:
        number = int(number)
        image = images[number]
        name = names[number] if names else None if isinstance(image, (str, Path)) else f"image {number}"
        try:
            found = prepared(decode(image, name), config)
        except ImageError as error:
            # An error would reach the caller as tf.data's, over many lines.
            if damaged is None:
                errors[number] = error
            else:
                damaged[number] = str(error)
            return np.zeros((*config.size, 3), np.float32)
        return np.ascontiguousarray(found[:, ::-1]) if mirrored else found

    def loaded(number: Any) -> Any:
        image = tf.numpy_function(load, [number], tf.float32, stateful=False)
        return tf.ensure_shape(image, (*config.size, 3))

    dataset = tf.data.Dataset.range(start, len(images))
    dataset = dataset.map(loaded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    for batch in dataset.batch(batch_size).prefetch(2).as_numpy_iterator():
        if errors:
            raise errors[min(errors)]
        missing = batch_size - len(batch)
        yield np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else batch


def without_damaged(
    examples: Sequence[Mapping[str, Any]], report: Callable[[str], None] = print
) -> list[Mapping[str, Any]]:
    """Decodes the image of every example once, and leaves out those that are damaged.

    Args:
        examples: With "image", and "name" for the report.
        report: Is told how many were left out, and the first few.

    Returns:
        The sound examples, in their order.

    Raises:
        ImageError: If none is sound.
    """
    damaged = Damaged()
    for number, example in enumerate(examples):
        try:
            decode(example["image"], example.get("name"))
        except ImageError as error:
            damaged[number] = str(error)
    if damaged:
        report(str(damaged))
    if len(damaged) == len(examples):
        raise ImageError(f"no image that can be read: {damaged or 'there are no examples'}")
    return [example for number, example in enumerate(examples) if number not in damaged]
