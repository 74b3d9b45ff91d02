"""FDU-MTL as a tensorflow-datasets builder."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from zoo.data.builders.labelled import POLARITY, LabelledBuilder, Row, named, numbered, table
from zoo.data.files import SourceError

_URL = "https://raw.githubusercontent.com/ccsasuke/man/b57b4c14340d/data/fdu-mtl/"
_DOMAINS = """
MR apparel baby books camera_photo dvd electronics health_personal_care imdb kitchen_housewares magazines music software
sports_outdoors toys_games video
"""


class Builder(LabelledBuilder):
    """Reviews, {"text": ..., "label": "positive" or "negative", "domain": "books"}, of 16 domains.

    "fdu_mtl" is all of them, "fdu_mtl/books" one, and "fdu_mtl/without_MR" those that share nothing with SST-2.

    Source: Liu et al. 2017, Adversarial Multi-task Learning for Text Classification.
    """

    DESCRIPTION = """
FDU-MTL: reviews of 14 kinds of products and of films (MR, imdb), tokenized and lower-cased, one domain after the other
in upstream's order. Of 6,400 test reviews 559 are also in the training split: report test_without_leaks too.
The domain MR shares sentences with sst2: do not train on one and test on the other.

Licence: the repository's MIT licence is for its code; no licence is stated for the reviews.
"""
    CITATION = """
@inproceedings{liu-etal-2017-adversarial,
  title = {Adversarial Multi-task Learning for Text Classification},
  author = {Liu, Pengfei and Qiu, Xipeng and Huang, Xuanjing},
  booktitle = {Proceedings of the 55th Annual Meeting of the Association for Computational Linguistics},
  year = {2017},
  pages = {1--10},
  doi = {10.18653/v1/P17-1001}
}
"""
    HOMEPAGE = "https://github.com/ccsasuke/man"
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit b57b4c14340d."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="all", description="All domains."),
        tfds.core.BuilderConfig(name="without_MR", description="All domains but MR."),
        *(tfds.core.BuilderConfig(name=name, description=f"The domain {name}.") for name in _DOMAINS.split()),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "all"
    CLASSES: ClassVar = {"text": None, "label": ("negative", "positive"), "domain": tuple(_DOMAINS.split())}
    FILES: ClassVar = {"train": "train.tsv.gz", "test": "test.tsv.gz"}
    URLS: ClassVar = {
        "train": [f"{_URL}{domain}.task.train" for domain in _DOMAINS.split()],
        "test": [f"{_URL}{domain}.task.test" for domain in _DOMAINS.split()],
    }

    def local_rows(self, path: Path, split: str) -> Iterator[Row]:
        """Reads a table of domain, label and text."""
        for where, (domain, label, text) in table(path, "domain", "label", "text"):
            yield where, {"text": text, "label": named(where, "label", label, POLARITY), "domain": domain}

    def upstream_rows(self, paths: Sequence[Path], split: str) -> Iterator[Row]:
        """Reads one file of label TAB text for each domain; a label without a text, which upstream has, is skipped."""
        for domain, path in zip(_DOMAINS.split(), paths, strict=True):
            for where, line in numbered(path, "utf-8"):
                label, tab, text = line.partition("\t")
                if not tab:
                    raise SourceError(f"{where}: no tab; it takes label TAB text")
                label = named(where, "label", label, POLARITY)
                if text.strip():
                    yield where, {"text": text.strip(), "label": label, "domain": domain}

    def _checked(self, split: str, rows: Iterable[Row]) -> list[dict[str, str]]:
        config = self.builder_config.name
        domains = {"all": _DOMAINS.split(), "without_MR": _DOMAINS.split()[1:]}.get(config, [config])
        return [example for example in super()._checked(split, rows) if example["domain"] in domains]
