"""From token pairs to batches of a few fixed shapes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from zoo.config import Config, ConfigError
from zoo.data.background import in_background
from zoo.models.generative import SpecialTokens

PAD, START, END = 0, 1, 2

# How many unfinished rows wait for a pair that fills them: more waste less and plan slower.
OPEN_ROWS = 256


class Pair(NamedTuple):
    """One example: token ids of the source and of the target, without special tokens."""

    source: Sequence[int]
    target: Sequence[int]


@dataclasses.dataclass(frozen=True)
class BatchingConfig(Config):
    """How pairs are laid out in batches.

    Args:
        buckets: The shapes of a row, (source places, target places), smallest first. A pair goes into the first
            bucket that holds it.
        batch_tokens: Target places in a batch: a bucket's batch has batch_tokens / target places rows.
        pack: Whether a row holds as many pairs as fit, or only one.
    """

    buckets: tuple[tuple[int, int], ...] = ((32, 32), (64, 64))
    batch_tokens: int = 4096
    pack: bool = True

    def __post_init__(self):
        super().__post_init__()
        for _, target in self.buckets:
            if self.batch_tokens < target:
                raise ConfigError(f"batch_tokens: {self.batch_tokens} is less than one row of {target} target places")


class PairBatches:
    """Batches of packed token pairs, in an order that seed and epoch alone decide.

    Args:
        pairs: The examples. Those longer than the largest bucket are left out and counted in `too_long`.
        config: The layout.
        seed: Decides the order, together with the epoch's number.
        special: Tokens that are laid out around sources and targets.

    Raises:
        ValueError: If no pair fits.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        config: BatchingConfig,
        seed: int = 0,
        special: SpecialTokens = SpecialTokens(),
    ):
        self.pairs = pairs
        self.config = config
        self.seed = seed
        self.special = special
        around = (special.around_source, 1 + len(special.beginning))
        lengths = np.array([(len(pair.source), len(pair.target)) for pair in pairs]).reshape(-1, 2) + around
        self.lengths = lengths  # with the tokens around sources, and the ones before targets
        fits = np.all(lengths[:, None, :] <= np.array(config.buckets)[None], axis=-1)
        self.bucket = np.where(np.any(fits, axis=1), np.argmax(fits, axis=1), -1)
        self.too_long = int(np.count_nonzero(self.bucket < 0))
        if self.too_long == len(pairs):
            raise ValueError(f"buckets: none of {len(pairs)} pairs fits into {config.buckets[-1]} places")

    def plan(self, epoch: int | None) -> list[tuple[int, list[list[int]]]]:
        """Lays out one pass over all pairs.

        Args:
            epoch: The pass' number, which shuffles it; None keeps the pairs' own order.

        Returns:
            The batches: each a bucket's number and its rows, each row a list of pair numbers.
        """
        order = np.arange(len(self.pairs))
        random = None if epoch is None else np.random.default_rng((self.seed, epoch))
        if random is not None:
            random.shuffle(order)
        batches = []
        for bucket, rows in enumerate(self._rows(order[self.bucket[order] >= 0])):
            count = self.batch_rows[bucket]
            batches += [(bucket, rows[start : start + count]) for start in range(0, len(rows), count)]
        if random is not None:
            random.shuffle(batches)
        return batches

    @property
    def batch_rows(self) -> list[int]:
        """Rows in a batch of each bucket."""
        return [self.config.batch_tokens // target for _, target in self.config.buckets]

    def _rows(self, order: np.ndarray) -> list[list[list[int]]]:
        """Lays pairs out in rows, for each bucket.

        Each pair goes into the fullest open row that still takes it (best fit), and opens a row of its own bucket
        where there is none. So short pairs also fill up the rows that long ones opened.
        """
        rows: list[list[list[int]]] = [[] for _ in self.config.buckets]
        open_rows: list[list[int]] = []
        free = np.zeros((0, 2), int)

        def close(number):
            row = open_rows.pop(number)
            rows[self.bucket[row[0]]].append(row)

        for pair in order.tolist():
            left = free - self.lengths[pair]
            takes = (left >= 0).all(axis=1)
            if self.config.pack and takes.any():
                best = int(np.where(takes, left.sum(axis=1), np.iinfo(int).max).argmin())
                open_rows[best].append(pair)
                free[best] = left[best]
                continue
            if len(open_rows) == OPEN_ROWS:
                fullest = int(free.sum(axis=1).argmin())
                close(fullest)
                free = np.delete(free, fullest, axis=0)
            open_rows.append([pair])
            free = np.concatenate([free, [np.array(self.config.buckets[self.bucket[pair]]) - self.lengths[pair]]])
        while open_rows:
            close(0)
        return rows

    def batch(self, bucket: int, rows: list[list[int]]) -> dict[str, np.ndarray]:
        """Writes one planned batch as arrays.

        Returns:
            int32 "source" (rows, S), each text followed by the end token; "target" (rows, T), each text led by the
            start token; and "labels" (rows, T), what comes next at each target place. Padding everywhere else.
        """
        special = self.special
        (source_length, target_length), count = self.config.buckets[bucket], self.batch_rows[bucket]
        source = np.full((count, source_length), special.pad, np.int32)
        target = np.full((count, target_length), special.pad, np.int32)
        labels = np.full((count, target_length), special.pad, np.int32)
        for r, row in enumerate(rows):
            s = t = 0
            for pair in row:
                read, written = self.lengths[pair]
                ids, answer = self.pairs[pair]
                answer = [*special.beginning, *answer]
                source[r, s : s + read] = [*special.source_start, *ids, *special.source_ending]
                target[r, t : t + written] = [special.start, *answer]
                labels[r, t : t + written] = [*answer, special.end]
                s += read
                t += written
        return {"source": source, "target": target, "labels": labels}

    def epoch(self, epoch: int | None, start: int = 0) -> Iterator[dict]:
        """Yields the batches of one pass, prepared in the background by tf.data.

        Args:
            epoch: As in plan().
            start: How many batches are skipped: where an interrupted pass goes on.
        """
        plan = self.plan(epoch)[start:]
        return in_background(lambda: (self.batch(*planned) for planned in plan), self.batch(0, []))

    def padding(self, plan: list[tuple[int, list[list[int]]]]) -> float:
        """Returns the share of source and target places in planned batches that hold nothing."""
        used = sum(self.lengths[row].sum() for _, rows in plan for row in rows)
        places = sum(self.batch_rows[bucket] * sum(self.config.buckets[bucket]) for bucket, _ in plan)
        return 1 - float(used) / places


class ChangingPairBatches:
    """Batches of packed token pairs that are others in every pass; seed and pass alone decide which.

    Args:
        pairs: Makes the pairs of a pass, with a Generator that decides how they are changed, or with None where they
            are to be as they are at first.
        config: The layout: see PairBatches.
        seed: Decides pairs and order, together with the epoch's number.
        special: As for PairBatches.

    Raises:
        ValueError: If no pair of the first pass fits.
    """

    def __init__(
        self,
        pairs: Callable[[np.random.Generator | None], Sequence[Pair]],
        config: BatchingConfig,
        seed: int = 0,
        special: SpecialTokens = SpecialTokens(),
    ):
        self.pairs = pairs
        self.config = config
        self.seed = seed
        self.special = special
        self._latest: tuple[int | None, PairBatches] = (0, self._make(0))

    def pass_of(self, epoch: int | None) -> PairBatches:
        """Returns the batches of one pass; the latest one is kept."""
        if self._latest[0] != epoch:
            self._latest = epoch, self._make(epoch)
        return self._latest[1]

    def _make(self, epoch: int | None) -> PairBatches:
        # A seed of its own: how a pair is changed says nothing of where it stands.
        random = None if epoch is None else np.random.default_rng((self.seed, epoch, 1))
        return PairBatches(self.pairs(random), self.config, self.seed, self.special)

    def plan(self, epoch: int | None) -> list[tuple[int, list[list[int]]]]:
        """Lays out one pass: see PairBatches.plan."""
        return self.pass_of(epoch).plan(epoch)

    def epoch(self, epoch: int | None, start: int = 0) -> Iterator[dict]:
        """Yields the batches of one pass: see PairBatches.epoch."""
        return self.pass_of(epoch).epoch(epoch, start)
