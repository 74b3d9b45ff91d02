"""Flickr8k as a tensorflow-datasets builder."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from zoo.data.files import SourceError, read_lines

_DESCRIPTION = """
Flickr8k: photographs of people and animals, each described by five people in one English sentence. The captions are
tokenized and cased as annotated; the splits are the official ones (6,000, 1,000 and 1,000 images), in their order.

Licence: the photographs belong to their Flickr users; the authors give the data out for non-commercial research and
education.
"""

_CITATION = """
@article{hodosh-etal-2013-framing,
  title = {Framing Image Description as a Ranking Task: Data, Models and Evaluation Metrics},
  author = {Hodosh, Micah and Young, Peter and Hockenmaier, Julia},
  journal = {Journal of Artificial Intelligence Research},
  volume = {47},
  year = {2013},
  pages = {853--899},
  doi = {10.1613/jair.3994}
}
"""

# Our split names are the ones that TFDS users expect; upstream says dev.
_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_CAPTIONS = "{split}.captions.tsv"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Images with their captions, {"image": ..., "captions": [...], "name": ...}.

    Source: Hodosh et al. 2013, Framing Image Description as a Ranking Task.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The official splits."}

    def __init__(self, *, raw_dir: str | Path | None = None, **kwargs: Any):
        """Constructs the builder.

        Args:
            raw_dir: A folder with, for each split, SPLIT.captions.tsv (image TAB number TAB caption) and the images in
                SPLIT.images*.zip; SPLIT is train, dev or test. There is no download.
            **kwargs: data_dir and version, as every TFDS builder takes them.
        """
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://hockenmaier.cs.illinois.edu/8k-pictures.html",
            citation=_CITATION,
            # Image N of the test split stays image N, so outputs can be compared with other systems' files.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        expected = f"{_CAPTIONS.format(split='SPLIT')} and SPLIT.images*.zip for {', '.join(_SPLITS.values())}"
        if self._raw_dir is None:
            raise SourceError(f"{self.name}: there is no download; {expected} are read from data_dir or $ZOO_DATA")
        raw_dir = Path(self._raw_dir)
        for split in _SPLITS.values():
            for pattern in (_CAPTIONS.format(split=split), f"{split}.images*.zip"):
                if not any(raw_dir.glob(pattern)):
                    raise SourceError(f"{raw_dir}: no {pattern}; it takes {expected}")
        return {split: self._generate_examples(raw_dir, upstream) for split, upstream in _SPLITS.items()}

    def _generate_examples(self, raw_dir: Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        captions = _captions(raw_dir / _CAPTIONS.format(split=split))
        with contextlib.ExitStack() as stack:
            images: dict[str, zipfile.ZipFile] = {}
            for path in sorted(raw_dir.glob(f"{split}.images*.zip")):
                archive = stack.enter_context(_opened(path))
                images |= dict.fromkeys(archive.namelist(), archive)
            for some, others, problem in (
                (captions, images, f"not in {split}.images*.zip"),
                (images, captions, "without a caption"),
            ):
                lost = [name for name in some if name not in others]
                if lost:
                    raise SourceError(f"{raw_dir}: {len(lost)} images {problem}, the first {lost[0]}")
            for number, (name, texts) in enumerate(captions.items()):
                yield number, {"image": images[name].read(name), "captions": texts, "name": name}


def _captions(path: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split("\t")
        if len(cells) != 3 or not all(cell.strip() for cell in cells):
            raise SourceError(f"{path}, line {number}: {line[:40]!r}; it takes image TAB number TAB caption")
        captions.setdefault(cells[0], []).append(cells[2].strip())
    return captions


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
