"""AG News with 10,000 training examples as a tensorflow-datasets builder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from zoo.data.builders.labelled import LabelledBuilder, Row, named, numbered, table
from zoo.data.files import SourceError

_URL = "https://raw.githubusercontent.com/PKUAI-LINGroup/PAS/f70d2ad55370e01d749160aef85f594734c9d4f0/data/agnews/"
_TOPICS = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}


class Builder(LabelledBuilder):
    """News, {"text": ..., "label": "World", "Sports", "Business" or "Sci/Tech"}.

    Source: Zhang et al. 2015, Character-level Convolutional Networks for Text Classification.
    """

    DESCRIPTION = """
AG News: titles and first sentences with their topic, 2,500 training and 1,900 test examples a class, in upstream's
order. Lower-cased, without digits and most punctuation; stray backslashes and double spaces are taken out here.
Upstream's development file is left out: it is the test file in another order.

Licence: the repository states none. The AG corpus is for research and other non-commercial use.
"""
    CITATION = """
@inproceedings{zhang-etal-2015-character,
  title = {Character-level Convolutional Networks for Text Classification},
  author = {Zhang, Xiang and Zhao, Junbo and LeCun, Yann},
  booktitle = {Advances in Neural Information Processing Systems 28},
  year = {2015}
}
"""
    HOMEPAGE = "https://github.com/PKUAI-LINGroup/PAS"
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit f70d2ad55370."}
    CLASSES: ClassVar = {"text": None, "label": tuple(_TOPICS.values())}
    FILES: ClassVar = {"train": "train.tsv", "test": "test.tsv"}
    URLS: ClassVar = {"train": [f"{_URL}train.txt"], "test": [f"{_URL}test.txt"]}

    def local_rows(self, path: Path, split: str) -> Iterator[Row]:
        """Reads a table of label and text."""
        for where, (label, text) in table(path, "label", "text"):
            yield where, {"text": text, "label": label}

    def upstream_rows(self, paths: Sequence[Path], split: str) -> Iterator[Row]:
        r"""Reads lines of number TAB text, such as "3 TAB  oil prices\soar ": backslashes stand for spaces."""
        for where, line in numbered(paths[0]):
            label, tab, text = line.partition("\t")
            if not tab:
                raise SourceError(f"{where}: no tab; it takes number TAB text")
            text = " ".join(text.replace("\\", " ").split())
            yield where, {"text": text, "label": named(where, "label", label.strip(), _TOPICS)}
