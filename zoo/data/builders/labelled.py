"""What the builders of labelled texts share: finding files, checking rows, and the test set without leaks."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from zoo.config import nearest
from zoo.data.files import SourceError, read_lines

POLARITY = {"0": "negative", "1": "positive"}

_TAG = re.compile(r"O|[BI]-\S+")

# Where a row is ("train.tsv, line 3"), and what it holds.
Row = tuple[str, dict[str, str]]


class LabelledBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Texts with one or more labels each; every feature is text.

    A subclass says what its files are and reads rows from them. The split "test_without_leaks" is the test split
    without the texts that, whatever their case and white space, are also in the training split.

    Attributes:
        DESCRIPTION: What the data are, with their licence.
        CITATION: A BibTeX entry.
        HOMEPAGE: Where upstream lives.
        CLASSES: Feature -> the values it may have, or None where it may have any.
        FILES: Split -> name of its file in raw_dir.
        URLS: Split -> addresses of upstream's files; empty where the data cannot be downloaded.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: ClassVar[str]
    CITATION: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    CLASSES: ClassVar[Mapping[str, Collection[str] | None]]
    FILES: ClassVar[Mapping[str, str]]
    URLS: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, *, raw_dir: str | Path | None = None, **kwargs: Any):
        """Constructs the builder.

        Args:
            raw_dir: A folder with the files that FILES names; None downloads upstream's.
            **kwargs: data_dir and version, as every TFDS builder takes them.
        """
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def local_rows(self, path: Path, split: str) -> Iterable[Row]:
        """Reads one split from its file in raw_dir."""
        raise NotImplementedError

    def upstream_rows(self, paths: Sequence[Path], split: str) -> Iterable[Row]:
        """Reads one split from the files that URLS names, in that order."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict({name: tfds.features.Text() for name in self.CLASSES}),
            supervised_keys=("text", "intent" if "intent" in self.CLASSES else "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            # Row N of a test set stays row N, so outputs can be compared with other systems' files.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self._raw_dir is not None:
            missing = [name for name in dict.fromkeys(self.FILES.values()) if not Path(self._raw_dir, name).exists()]
            if missing:
                raise SourceError(f"{self._raw_dir}: no {', '.join(missing)}")
            rows = {split: self.local_rows(Path(self._raw_dir, name), split) for split, name in self.FILES.items()}
        elif self.URLS:
            downloaded = dl_manager.download({split: list(urls) for split, urls in self.URLS.items()})
            rows = {split: self.upstream_rows([Path(path) for path in downloaded[split]], split) for split in self.URLS}
        else:
            files = ", ".join(dict.fromkeys(self.FILES.values()))
            raise SourceError(f"{self.name}: there is no download; {files} is read from data_dir or $ZOO_DATA")
        examples = {split: self._checked(split, found) for split, found in rows.items()}
        seen = {_normalized(example["text"]) for example in examples["train"]}
        examples["test_without_leaks"] = [
            example for example in examples["test"] if _normalized(example["text"]) not in seen
        ]
        return {split: self._generate_examples(found) for split, found in examples.items()}

    def _generate_examples(self, examples: Sequence[dict[str, str]]) -> Iterator[tuple[int, dict[str, str]]]:
        yield from enumerate(examples)

    def _checked(self, split: str, rows: Iterable[Row]) -> list[dict[str, str]]:
        examples = []
        for where, example in rows:
            for name, classes in self.CLASSES.items():
                if not example[name].strip():
                    raise SourceError(f"{where}: nothing in {name!r}")
                if classes is not None and example[name] not in classes:
                    raise SourceError(f"{where}: no {name} {example[name]!r}; {nearest(example[name], classes)}")
            examples.append(example)
        if not examples:
            raise SourceError(f"{self._raw_dir or self.name}: no examples in the {split} split")
        return examples


class SlotBuilder(LabelledBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Utterances with an intent and one slot tag a word, as MiuLab/SlotGated-SLU lays them out.

    Source: Goo et al. 2018, Slot-Gated Modeling for Joint Slot Filling and Intent Prediction.
    """

    HOMEPAGE = "https://github.com/MiuLab/SlotGated-SLU"
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit 61f0307c729b."}
    FILES: ClassVar = {"train": "train.tsv", "validation": "valid.tsv", "test": "test.tsv"}

    @staticmethod
    def urls(folder: str) -> dict[str, list[str]]:
        """Returns URLS for one of upstream's folders."""
        root = f"https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/61f0307c729b/data/{folder}"
        names = {"train": "train", "validation": "valid", "test": "test"}
        return {
            split: [f"{root}/{name}/{part}" for part in ("label", "seq.in", "seq.out")] for split, name in names.items()
        }

    def local_rows(self, path: Path, split: str) -> Iterator[Row]:
        """Reads intent, words and slots from the columns of a table."""
        for where, cells in table(path, "intent", "tokens", "slots"):
            yield self._aligned(where, *cells)

    def upstream_rows(self, paths: Sequence[Path], split: str) -> Iterator[Row]:
        """Reads intents, words and slots from three files that go line by line."""
        columns = [read_lines(path) for path in paths]
        if len(set(map(len, columns))) > 1:
            counts = ", ".join(f"{path} {len(lines)}" for path, lines in zip(paths, columns))
            raise SourceError(f"numbers of lines differ: {counts}; they go together")
        for number, cells in enumerate(zip(*columns), 1):
            yield self._aligned(f"{paths[1]}, line {number}", *cells)

    def _aligned(self, where: str, intent: str, text: str, slots: str) -> Row:
        words, tags = text.split(), slots.split()
        if len(words) != len(tags):
            raise SourceError(f"{where}: {len(words)} words and {len(tags)} slots; it takes one slot a word")
        bad = [tag for tag in tags if not _TAG.fullmatch(tag)]
        if bad:
            raise SourceError(f"{where}: no slot {bad[0]!r}; it takes O, B-NAME or I-NAME")
        return where, {"text": " ".join(words), "intent": intent.strip(), "slots": " ".join(tags)}


def numbered(path: Path, encoding: str | None = None) -> Iterator[tuple[str, str]]:
    """Reads a file line by line; blank lines are skipped.

    Args:
        path: The file, gzipped or not if it is UTF-8.
        encoding: None is UTF-8, and whatever is not is an error. Else what cannot be decoded becomes U+FFFD.

    Yields:
        Where the line is, "FILE, line NUMBER", and the line.

    Raises:
        SourceError: As `read_lines`.
    """
    lines = read_lines(path) if encoding is None else path.read_bytes().decode(encoding, "replace").split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}, line {number}", line.removesuffix("\r")


def table(path: Path, *columns: str) -> Iterator[tuple[str, list[str]]]:
    """Reads a file of tab-separated columns below a header; blank lines are skipped.

    Args:
        path: The file, gzipped or not.
        *columns: What the header has to say.

    Yields:
        Where the row is, "FILE, line NUMBER", and its cells.

    Raises:
        SourceError: As `read_lines`, and for another header or a row with another number of columns.
    """
    expected = f"it takes {' TAB '.join(columns)}"
    for number, (where, line) in enumerate(numbered(path)):
        cells = line.split("\t")
        if number == 0 and cells != list(columns):
            raise SourceError(f"{where}: the header is {' TAB '.join(cells)}; {expected}")
        if len(cells) != len(columns):
            raise SourceError(f"{where}: {len(cells)} column{'s' * (len(cells) > 1)}; {expected}")
        if number:
            yield where, cells


def named(where: str, kind: str, code: str, names: Mapping[str, str]) -> str:
    """Returns the name of a class that a file writes as a number.

    Args:
        where: Where the number is, for the error.
        kind: What it numbers, for the error.
        code: The number.
        names: Number -> name.

    Raises:
        SourceError: For a number without a name.
    """
    if code not in names:
        known = ", ".join(f"{known} ({name})" for known, name in names.items())
        raise SourceError(f"{where}: no {kind} {code!r}; it takes {known}")
    return names[code]


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())
