"""TREC question types as a tensorflow-datasets builder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from zoo.data.builders.labelled import LabelledBuilder, Row, numbered, table
from zoo.data.files import SourceError

_URL = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c/data/raw/TREC."
_FINE = {
    "ABBR": "abb exp",
    "DESC": "def desc manner reason",
    "ENTY": "animal body color cremat currency dismed event food instru lang letter other plant product religion sport"
    " substance symbol techmeth termeq veh word",
    "HUM": "desc gr ind title",
    "LOC": "city country mount other state",
    "NUM": "code count date dist money ord other perc period speed temp volsize weight",
}


class Builder(LabelledBuilder):
    """Questions, {"text": ..., "label": "NUM", "fine": "NUM:dist"}: 6 coarse classes and 50 fine ones.

    Source: Li and Roth 2002, Learning Question Classifiers.
    """

    DESCRIPTION = """
TREC question types: questions in English with the kind of answer they want, tokenized and cased, in upstream's order.

Licence: the repository's MIT licence is for its code; the questions are an academic release without a stated licence.
"""
    CITATION = """
@inproceedings{li-roth-2002-learning,
  title = {Learning Question Classifiers},
  author = {Li, Xin and Roth, Dan},
  booktitle = {COLING 2002: The 19th International Conference on Computational Linguistics},
  year = {2002}
}
"""
    HOMEPAGE = "https://github.com/harvardnlp/sent-conv-torch"
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit d61ded09c99c."}
    CLASSES: ClassVar = {
        "text": None,
        "label": tuple(_FINE),
        "fine": tuple(f"{coarse}:{name}" for coarse, names in _FINE.items() for name in names.split()),
    }
    FILES: ClassVar = {"train": "train.tsv", "test": "test.tsv"}
    URLS: ClassVar = {"train": [f"{_URL}train"], "test": [f"{_URL}test"]}

    def local_rows(self, path: Path, split: str) -> Iterator[Row]:
        """Reads a table of coarse class, fine class and text."""
        for where, (coarse, fine, text) in table(path, "coarse", "fine", "text"):
            if not fine.startswith(f"{coarse}:"):
                raise SourceError(f"{where}: the fine class {fine!r} is none of {coarse!r}")
            yield where, {"text": text, "label": coarse, "fine": fine}

    def upstream_rows(self, paths: Sequence[Path], split: str) -> Iterator[Row]:
        """Reads lines such as "NUM:dist How far is the moon ?"."""
        for where, line in numbered(paths[0], "cp1252"):
            fine, _, text = line.partition(" ")
            yield where, {"text": text.strip(), "label": fine.partition(":")[0], "fine": fine}
