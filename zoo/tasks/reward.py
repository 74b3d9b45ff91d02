"""Self-critical training: the model writes, a reward tells which of its texts are better than the others."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zoo.config import Config, ConfigError
from zoo.data.caption_batches import CaptionBatches
from zoo.data.pipeline import END, PAD, START
from zoo.generation import GenerationConfig


@dataclasses.dataclass(frozen=True)
class RewardConfig(Config):
    """How texts are drawn to be rewarded.

    Args:
        samples: Texts drawn from the model for each image, at least 2: each is compared with the others.
        temperature: Divides the logits of the draws.
    """

    samples: int = 5
    temperature: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.samples < 2 or self.temperature <= 0:
            raise ConfigError(f"samples, temperature: {self.samples}, {self.temperature}; at least 2, and above 0")

    def generation(self, max_length: int | None, seed: int) -> GenerationConfig:
        """Returns the settings of the draws."""
        return GenerationConfig(
            beams=1,
            sample=True,
            n_best=self.samples,
            temperature=self.temperature,
            max_length=max_length,
            seed=seed,
        )


class RewardedBatches:
    """Batches of images with texts that the model itself draws for them, each with what it is worth.

    A text's advantage is its reward less the mean reward of the image's other texts.

    Args:
        batches: The images.
        config: How texts are drawn.
        sample: From an array of images and a seed to, for each, `samples` lists of token ids.
        rewards: From numbers of images and a text for each to rewards.
        max_length: Tokens in the longest text, end token included.

    Source: Rennie et al. 2017; the other texts' mean as the baseline: Luo 2020.
    """

    def __init__(
        self,
        batches: CaptionBatches,
        config: RewardConfig,
        sample: Callable[[np.ndarray, int], list[list[list[int]]]],
        rewards: Callable[[Sequence[int], Sequence[Sequence[int]]], np.ndarray],
        max_length: int,
    ):
        self.batches = batches
        self.config = config
        self.sample = sample
        self.rewards = rewards
        self.lengths = sorted({*batches.config.buckets, config.samples * max_length})

    def plan(self, epoch: int | None) -> list[tuple[int, list[int]]]:
        """Lays out one pass over all images: see CaptionBatches.plan."""
        return self.batches.plan(epoch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yields the batches of one pass; texts are drawn when a batch is asked for, from the model as it is then.

        Args:
            epoch: The pass' number.
            start: How many batches are skipped.

        Yields:
            What CaptionBatches.batch does, and float32 "advantages" (batch_size, T), one value for all of a text.
        """
        for number, (_, rows) in enumerate(self.plan(epoch)[start:], start):
            size = self.batches.config.batch_size
            images = self.batches.image_of([*rows, *[rows[0]] * (size - len(rows))], epoch)
            drawn = self.sample(images[: len(rows)], (epoch * 100_003 + number) % 2**31)
            flat = [text for texts in drawn for text in texts]
            worth = self.rewards(np.repeat(rows, self.config.samples).tolist(), flat)
            worth = worth.reshape(len(rows), self.config.samples)
            others = (worth.sum(axis=1, keepdims=True) - worth) / (self.config.samples - 1)
            yield {self.batches.name: images, **self._written(drawn, worth - others, size)}

    def _written(self, drawn: list[list[list[int]]], advantages: np.ndarray, size: int) -> dict[str, np.ndarray]:
        places = max(sum(len(text) + 1 for text in texts) for texts in drawn)
        length = next(length for length in self.lengths if length >= places)
        target = np.full((size, length), PAD, np.int32)
        labels = np.full((size, length), PAD, np.int32)
        weights = np.zeros((size, length), np.float32)
        for row, texts in enumerate(drawn):
            place = 0
            for text, advantage in zip(texts, advantages[row]):
                here = slice(place, place + len(text) + 1)
                target[row, here] = [START, *text]
                labels[row, here] = [*text, END]
                weights[row, here] = advantage
                place += len(text) + 1
        return {"target": target, "labels": labels, "advantages": weights}
