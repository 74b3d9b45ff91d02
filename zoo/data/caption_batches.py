"""From images with their captions to batches of a few fixed shapes, for training."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from zoo.config import Config, ConfigError
from zoo.data.background import in_background
from zoo.data.pipeline import END, PAD, START


@dataclasses.dataclass(frozen=True)
class CaptionBatchingConfig(Config):
    """How images and captions are laid out in batches.

    Args:
        buckets: Places for the captions of one image, one behind the other, fewest first. An image goes into the first
            bucket that holds all of its captions; captions that do not fit into the last are left out.
        batch_size: Images in a batch.
    """

    buckets: tuple[int, ...] = (64, 96)
    batch_size: int = 32

    def __post_init__(self):
        super().__post_init__()
        if list(self.buckets) != sorted(set(self.buckets)) or not self.buckets or self.buckets[0] < 2:
            raise ConfigError(f"buckets: {list(self.buckets)}; it takes numbers of places, fewest first")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: {self.batch_size}; it is at least 1")


class CaptionBatches:
    """Batches of images, each with all of its captions in one row, in an order that seed and epoch alone decide.

    The captions of an image share one row, so an image is worked on once for all of them.

    Args:
        captions: For each image its captions' token ids.
        image_of: Called with numbers of images and an epoch's number; returns what the model sees of them.
        config: The layout.
        name: What the model calls its images.
        seed: Decides the order, together with the epoch's number.

    Raises:
        ValueError: If there is no image, or one has no caption that fits.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[Sequence[int]]],
        image_of: Callable[[Sequence[int], int], np.ndarray],
        config: CaptionBatchingConfig,
        *,
        name: str = "features",
        seed: int = 0,
    ):
        if not captions:
            raise ValueError("captions: there is no image")
        self.config = config
        self.image_of = image_of
        self.name = name
        self.seed = seed
        self.captions = [self._fitting(number, texts) for number, texts in enumerate(captions, 1)]
        self.left_out = sum(len(texts) for texts in captions) - sum(len(texts) for texts in self.captions)
        lengths = [sum(len(text) + 1 for text in texts) for texts in self.captions]
        self.bucket = np.searchsorted(config.buckets, lengths)

    def _fitting(self, number: int, texts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        fitting: list[Sequence[int]] = []
        free = self.config.buckets[-1]
        for text in texts:
            if len(text) + 1 <= free:
                fitting.append(text)
                free -= len(text) + 1
        if not fitting:
            raise ValueError(f"example {number}: no caption of at most {self.config.buckets[-1] - 1} tokens")
        return fitting

    def plan(self, epoch: int | None) -> list[tuple[int, list[int]]]:
        """Lays out one pass over all images.

        Args:
            epoch: The pass' number, which shuffles it; None keeps the images' own order.

        Returns:
            The batches: each a bucket's number and the numbers of its images.
        """
        random = None if epoch is None else np.random.default_rng((self.seed, epoch))
        order = np.arange(len(self.captions))
        if random is not None:
            random.shuffle(order)
        size = self.config.batch_size
        batches = []
        for bucket in range(len(self.config.buckets)):
            rows = order[self.bucket[order] == bucket].tolist()
            batches += [(bucket, rows[start : start + size]) for start in range(0, len(rows), size)]
        if random is not None:
            random.shuffle(batches)
        return batches

    def batch(self, bucket: int, rows: Sequence[int], epoch: int = 0) -> dict[str, np.ndarray]:
        """Writes one planned batch as arrays.

        Returns:
            The images under their name; int32 "target" (batch_size, T), each caption led by START; "labels", what comes
            next at each of its places. PAD everywhere else; rows that are left over repeat the first image.
        """
        length, size = self.config.buckets[bucket], self.config.batch_size
        target = np.full((size, length), PAD, np.int32)
        labels = np.full((size, length), PAD, np.int32)
        for row, number in enumerate(rows):
            place = 0
            for text in self.captions[number]:
                target[row, place : place + len(text) + 1] = [START, *text]
                labels[row, place : place + len(text) + 1] = [*text, END]
                place += len(text) + 1
        images = self.image_of([*rows, *[rows[0]] * (size - len(rows))], epoch)
        return {self.name: images, "target": target, "labels": labels}

    def epoch(self, epoch: int | None, start: int = 0) -> Iterator[dict]:
        """Yields the batches of one pass, prepared in the background by tf.data.

        Args:
            epoch: As in plan().
            start: How many batches are skipped: where an interrupted pass goes on.
        """
        plan = self.plan(epoch)[start:]
        if not plan:
            return iter(())
        example = self.batch(*plan[0], epoch or 0)
        return in_background(lambda: (self.batch(*planned, epoch or 0) for planned in plan), example)
