"""From labelled texts to batches of a few fixed shapes, for encoders."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import processors

from zoo.config import Config, ConfigError
from zoo.data.background import in_background
from zoo.data.tokenizers import END, START, Tokenizer
from zoo.files import replacing


class Encoding(NamedTuple):
    """One text, or a pair, as tokens with the special ones around them.

    Attributes:
        ids: Token ids.
        segments: 0 for the first text, 1 for the second.
        offsets: Where each token begins and ends in its text; (0, 0) for special tokens.
        cut: Whether the text was longer than allowed.
    """

    ids: Sequence[int]
    segments: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    cut: bool


def split_pairs(inputs: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Splits inputs such as "first TAB second".

    Returns:
        The first texts and the second ones; None for these where no input has a tab.

    Raises:
        ValueError: If some inputs have one and others not; it says which.
    """
    parts = [text.split("\t", 1) for text in inputs]
    if all(len(part) == 1 for part in parts):
        return list(inputs), None
    for number, part in enumerate(parts, 1):
        if len(part) == 1:
            raise ValueError(f"input {number}: one text, where others are pairs; write first TAB second")
    return [first for first, _ in parts], [second for _, second in parts]


class TextTokenizer:
    """Turns texts and pairs of texts into token ids, with special tokens where the model expects them.

    Args:
        tokenizer: A tokenizer of the `tokenizers` library whose post-processor adds the special tokens.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int = 0) -> "TextTokenizer":
        """Learns byte-pair encodings from texts: see Tokenizer.train. A text becomes <s> text </s>.

        Args:
            texts: The corpus.
            vocabulary_size: How many tokens; 0 is as many as the corpus allows, up to 8,000.
        """
        learned = Tokenizer.train(texts, vocabulary_size).library_tokenizer
        learned.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}",
            pair=f"{START} $A {END} $B:1 {END}:1",
            special_tokens=[(token, learned.token_to_id(token)) for token in (START, END)],
        )
        return cls(learned)

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Reads a tokenizer.json."""
        return cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))

    def copy(self) -> "TextTokenizer":
        """Returns another one, which another thread may use at the same time."""
        return TextTokenizer(tokenizers.Tokenizer.from_str(self._tokenizer.to_str()))

    def save(self, path: str | Path) -> None:
        """Writes a tokenizer.json, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")

    @property
    def vocabulary_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns the tokens behind ids, as text."""
        return [self._tokenizer.id_to_token(int(i)) or "" for i in ids]

    def encode(
        self, texts: Sequence[str], seconds: Sequence[str] | None = None, max_length: int | None = None
    ) -> list[Encoding]:
        """Turns texts into tokens, cut to `max_length` where they are longer.

        Args:
            texts: The texts, or the first of each pair.
            seconds: The second of each pair, which is what gets cut; None for single texts.
            max_length: Most tokens, special ones included.
        """
        if max_length is None:
            self._tokenizer.no_truncation()
        else:
            strategy = "longest_first" if seconds is None else "only_second"
            self._tokenizer.enable_truncation(max_length, strategy=strategy)
        inputs = list(texts) if seconds is None else list(zip(texts, seconds, strict=True))
        return [
            Encoding(found.ids, found.type_ids, found.offsets, bool(found.overflowing))
            for found in self._tokenizer.encode_batch(inputs)
        ]

    def windows(self, text: str, second: str | None, max_length: int, stride: int) -> list[Encoding]:
        """Turns a text into as many overlapping windows as it needs; of a pair, the second text.

        Args:
            text: The text; of a pair, the first one, which is in every window.
            second: The second text of a pair.
            max_length: Most tokens in a window, special ones included.
            stride: Tokens that two neighbouring windows share.
        """
        strategy = "longest_first" if second is None else "only_second"
        self._tokenizer.enable_truncation(max_length, stride=stride, strategy=strategy)
        found = self._tokenizer.encode(text, second)
        return [Encoding(w.ids, w.type_ids, w.offsets, False) for w in (found, *found.overflowing)]


@dataclasses.dataclass(frozen=True)
class TextBatchingConfig(Config):
    """How texts are laid out in batches.

    Args:
        buckets: Lengths of a row, shortest first. A text goes into the first bucket that holds it.
        batch_size: Rows in a batch.
        temperature: With several sources, each is drawn in proportion to its size ** (1 / temperature): 1 is
            proportional, a large number gives all sources the same share.
    """

    buckets: tuple[int, ...] = (16, 32, 64, 128, 256)
    batch_size: int = 32
    temperature: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if list(self.buckets) != sorted(set(self.buckets)) or not self.buckets or self.buckets[0] < 1:
            raise ConfigError(f"buckets: {list(self.buckets)}; it takes lengths, shortest first")
        if self.batch_size < 1 or self.temperature <= 0:
            raise ConfigError(f"batch_size, temperature: {self.batch_size}, {self.temperature}; both are positive")


class LabelledText(NamedTuple):
    """One example: tokens, and what each head should say of them.

    Attributes:
        encoding: The tokens.
        labels: Head -> a number or vector for the text, or one number a token. A head that is not there learns
            nothing from this example.
        source: Number of the source that the example comes from.
    """

    encoding: Encoding
    labels: Mapping[str, np.ndarray]
    source: int = 0


class TextBatches:
    """Batches of texts of similar length, in an order that seed and epoch alone decide.

    Args:
        texts: The examples.
        config: The layout.
        label_specs: Head -> how an example's label looks where there is none: zeros of its shape and type, where a
            first axis of length 0 stands for the tokens.
        pad: Token that fills rows.
        seed: Decides the order, together with the epoch's number.
        augment: Changes a text in passes that are numbered: from the example's number and a random generator, which
            seed, pass and example decide, to other tokens. A text that outgrows its row stays as it was.

    Raises:
        ValueError: If there is no text, or one is longer than the longest bucket.
    """

    def __init__(
        self,
        texts: Sequence[LabelledText],
        config: TextBatchingConfig,
        label_specs: Mapping[str, np.ndarray],
        *,
        pad: int = 0,
        seed: int = 0,
        augment: Callable[[int, np.random.Generator], Encoding] | None = None,
    ):
        if not texts:
            raise ValueError("texts: there is none")
        self.texts = texts
        self.config = config
        self.label_specs = label_specs
        self.pad = pad
        self.seed = seed
        self.augment = augment
        lengths = np.array([len(text.encoding.ids) for text in texts])
        if lengths.max() > config.buckets[-1]:
            raise ValueError(f"buckets: a text has {lengths.max()} tokens, the longest bucket {config.buckets[-1]}")
        self.bucket = np.searchsorted(config.buckets, lengths)
        self.lengths = lengths

    def plan(self, epoch: int | None) -> list[tuple[int, list[int]]]:
        """Lays out one pass.

        Args:
            epoch: The pass' number, which shuffles it and draws from the sources; None keeps every text, once.

        Returns:
            The batches: each a bucket's number and the numbers of its texts.
        """
        random = None if epoch is None else np.random.default_rng((self.seed, epoch))
        order = np.arange(len(self.texts)) if random is None else self._drawn(random)
        batches = []
        for bucket in range(len(self.config.buckets)):
            rows = order[self.bucket[order] == bucket].tolist()
            size = self.config.batch_size
            batches += [(bucket, rows[start : start + size]) for start in range(0, len(rows), size)]
        if random is not None:
            random.shuffle(batches)
        return batches

    def _drawn(self, random: np.random.Generator) -> np.ndarray:
        """Draws as many texts as there are, each source in its share; a source is gone through before it repeats."""
        sources = np.array([text.source for text in self.texts])
        numbers, counts = np.unique(sources, return_counts=True)
        shares = counts ** (1 / self.config.temperature)
        wanted = np.maximum(1, np.round(shares / shares.sum() * len(sources))).astype(int)
        drawn = []
        for number, count, want in zip(numbers, counts, wanted):
            members = np.flatnonzero(sources == number)
            rounds = [random.permutation(members) for _ in range(-(-want // count))]
            drawn.append(np.concatenate(rounds)[:want])
        order = np.concatenate(drawn)
        random.shuffle(order)
        return order

    def batch(self, bucket: int, rows: Sequence[int], epoch: int | None = None) -> dict[str, np.ndarray]:
        """Writes one planned batch as arrays.

        Args:
            bucket, rows, epoch: As in plan().

        Returns:
            int32 "tokens" and "segments" (batch_size, length); for each head its labels under "labels/HEAD" and float32
            (batch_size,) "weights/HEAD", 1 where the example has one. Rows that are left over are padding.
        """
        length, size = self.config.buckets[bucket], self.config.batch_size
        arrays: dict[str, np.ndarray] = {
            "tokens": np.full((size, length), self.pad, np.int32),
            "segments": np.zeros((size, length), np.int32),
        }
        for head, spec in self.label_specs.items():
            shape = (length, *spec.shape[1:]) if spec.shape[:1] == (0,) else spec.shape
            fill = -1 if spec.shape[:1] == (0,) else 0
            arrays[f"labels/{head}"] = np.full((size, *shape), fill, spec.dtype)
            arrays[f"weights/{head}"] = np.zeros(size, np.float32)
        for row, number in enumerate(rows):
            encoding = self._encoding(number, length, epoch)
            count = len(encoding.ids)
            arrays["tokens"][row, :count] = encoding.ids
            arrays["segments"][row, :count] = encoding.segments
            for head, label in self.texts[number].labels.items():
                per_token = self.label_specs[head].shape[:1] == (0,)
                arrays[f"labels/{head}"][(row, slice(count)) if per_token else row] = label
                arrays[f"weights/{head}"][row] = 1
        return arrays

    def _encoding(self, number: int, length: int, epoch: int | None) -> Encoding:
        """Returns a text's tokens in one pass, at most `length`."""
        encoding = self.texts[number].encoding
        if self.augment is None or epoch is None:
            return encoding
        changed = self.augment(number, np.random.default_rng((self.seed, epoch, number)))
        return changed if len(changed.ids) <= length else encoding

    def epoch(self, epoch: int | None, start: int = 0) -> Iterator[dict]:
        """Yields the batches of one pass, prepared in the background by tf.data.

        Args:
            epoch: As in plan().
            start: How many batches are skipped: where an interrupted pass goes on.
        """
        plan = self.plan(epoch)[start:]
        return in_background(lambda: (self.batch(*planned, epoch) for planned in plan), self.batch(0, []))


class TextPairBatches(TextBatches):
    """Batches of pairs of texts, each text in a row of its own, in an order that seed and epoch alone decide.

    Args:
        texts: The first text of each pair.
        seconds: The second of each pair.
        config: The layout; a pair goes into the first bucket that holds both.
        pad: Token that fills rows.
        seed: Decides the order, together with the epoch's number.

    Raises:
        ValueError: If there is no pair, or a text is longer than the longest bucket.
    """

    def __init__(
        self,
        texts: Sequence[Encoding],
        seconds: Sequence[Encoding],
        config: TextBatchingConfig,
        *,
        pad: int = 0,
        seed: int = 0,
    ):
        self.pairs = list(zip(texts, seconds, strict=True))
        longer = [max(pair, key=lambda encoding: len(encoding.ids)) for pair in self.pairs]
        super().__init__([LabelledText(encoding, {}) for encoding in longer], config, {}, pad=pad, seed=seed)

    def batch(self, bucket: int, rows: Sequence[int], epoch: int | None = None) -> dict[str, np.ndarray]:
        """Writes one planned batch as arrays.

        Args:
            bucket, rows, epoch: As in plan().

        Returns:
            int32 "tokens" and "segments" (batch_size, 2, length); float32 "weights" (batch_size,), 1 for a pair. Rows
            that are left over are padding.
        """
        length, size = self.config.buckets[bucket], self.config.batch_size
        tokens, segments = np.full((size, 2, length), self.pad, np.int32), np.zeros((size, 2, length), np.int32)
        for row, number in enumerate(rows):
            for place, encoding in enumerate(self.pairs[number]):
                tokens[row, place, : len(encoding.ids)] = encoding.ids
                segments[row, place, : len(encoding.ids)] = encoding.segments
        weights = (np.arange(size) < len(rows)).astype(np.float32)
        return {"tokens": tokens, "segments": segments, "weights": weights}
