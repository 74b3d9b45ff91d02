"""BBC News as a tensorflow-datasets builder."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zoo.data.builders.labelled import LabelledBuilder, Row, named
from zoo.data.files import read_jsonl

_SPLITS = {"0": "test", "1": "validation", **{str(fold): "train" for fold in range(2, 10)}}


class Builder(LabelledBuilder):
    """Articles, {"text": ..., "title": ..., "label": "sport"}, of five topics.

    There is no download: upstream has one file an article and neither splits nor folds.

    Source: Greene and Cunningham 2006, Practical Solutions to the Problem of Diagonal Dominance in Kernel Document
    Clustering.
    """

    DESCRIPTION = """
BBC News: articles of 2004 and 2005 from five topics, without the ones that occur twice. Fold 0 of ten is the test
split, fold 1 the validation split.

Licence: the BBC owns all rights in the articles; the data set is offered for non-commercial research, with citation.
"""
    CITATION = """
@inproceedings{greene-cunningham-2006-practical,
  title = {Practical Solutions to the Problem of Diagonal Dominance in Kernel Document Clustering},
  author = {Greene, Derek and Cunningham, P{\\'a}draig},
  booktitle = {Proceedings of the 23rd International Conference on Machine Learning},
  year = {2006},
  pages = {377--384}
}
"""
    HOMEPAGE = "https://github.com/dejanbatanjac/bbc-article-classify-bert"
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit 8265dc84e88b."}
    CLASSES: ClassVar = {
        "text": None,
        "title": None,
        "label": ("business", "entertainment", "politics", "sport", "tech"),
    }
    FILES: ClassVar = {"train": "all.jsonl.gz", "validation": "all.jsonl.gz", "test": "all.jsonl.gz"}

    def local_rows(self, path: Path, split: str) -> Iterator[Row]:
        """Reads the articles of one split from JSON lines with id, label, title, text and fold."""
        names = ("id", *self.CLASSES, "fold")
        for row in read_jsonl(path, {name: name for name in names}):
            where = f"{path}, id {row['id']}"
            if named(where, "fold", row["fold"], _SPLITS) == split:
                yield where, {name: row[name] for name in self.CLASSES}
