"""DialogSum as a tensorflow-datasets builder."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from zoo.data.files import SourceError, read_jsonl

_URL = "https://raw.githubusercontent.com/cylnlp/dialogsum/848cc8c05e0a/DialogSum_Data/dialogsum."

_DESCRIPTION = """
DialogSum: English dialogues of daily life, one turn a line, each turn led by its speaker's mark (#Person1#: ...), with
a summary in the third person and a topic in a few words. Upstream's order.

A test dialogue has three summaries and topics by different annotators: target, target2, target3 and topic, topic2,
topic3. The others have one: the rest is empty.

Of 12,460 training dialogues 1,093 repeat an earlier one but for case, punctuation and white space, mostly with another
summary; all are there. Of the dialogues of upstream's development set 51 of 500, and of its test set 1 of 500, are also
in the training split: choose a model by validation_without_leaks, and report test_without_leaks too.

Licence: CC BY-NC-SA 4.0; the copyright of the dialogues remains with their creators.
"""

_CITATION = """
@inproceedings{chen-etal-2021-dialogsum,
  title = {{D}ialog{S}um: A Real-Life Scenario Dialogue Summarization Dataset},
  author = {Chen, Yulong and Liu, Yang and Chen, Liang and Zhang, Yue},
  booktitle = {Findings of the Association for Computational Linguistics: ACL-IJCNLP 2021},
  year = {2021},
  pages = {5062--5074},
  doi = {10.18653/v1/2021.findings-acl.449}
}
"""

# Our split names are the ones that TFDS users expect; upstream calls the development set "dev".
_UPSTREAM = {"train": "train", "validation": "dev", "test": "test"}
_FIELDS = {"name": "fname", "source": "dialogue", "target": "summary", "topic": "topic"}
_TEST_FIELDS = {
    "name": "fname",
    "source": "dialogue",
    **{"target": "summary1", "target2": "summary2", "target3": "summary3"},
    **{"topic": "topic1", "topic2": "topic2", "topic3": "topic3"},
}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Dialogues, {"source": "#Person1#: ...", "target": summary, "topic": "see a doctor", "name": "train_0"}.

    The splits "validation_without_leaks" and "test_without_leaks" leave out dialogues that, whatever their case,
    punctuation and white space, are also in the training split.

    Source: Chen et al. 2021, DialogSum: A Real-Life Scenario Dialogue Summarization Dataset.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Upstream commit 848cc8c05e0a."}

    def __init__(self, *, raw_dir: str | Path | None = None, **kwargs: Any):
        """Constructs the builder.

        Args:
            raw_dir: A folder with upstream's files as train.jsonl.gz, dev.jsonl.gz and test.jsonl.gz; None downloads
                them.
            **kwargs: data_dir and version, as every TFDS builder takes them.
        """
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict({name: tfds.features.Text() for name in _TEST_FIELDS}),
            supervised_keys=("source", "target"),
            homepage="https://github.com/cylnlp/dialogsum",
            citation=_CITATION,
            # Row N of a test set stays row N, so outputs can be compared with other systems' files.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self._raw_dir is None:
            paths = dl_manager.download({name: f"{_URL}{name}.jsonl" for name in _UPSTREAM.values()})
        else:
            paths = {name: Path(self._raw_dir, f"{name}.jsonl.gz") for name in _UPSTREAM.values()}
            missing = [path.name for path in paths.values() if not path.exists()]
            if missing:
                raise SourceError(f"{self._raw_dir}: no {', '.join(missing)}")
        examples = {
            split: read_jsonl(paths[name], _TEST_FIELDS if split == "test" else _FIELDS)
            for split, name in _UPSTREAM.items()
        }
        seen = {_normalized(example["source"]) for example in examples["train"]}
        for split in ("validation", "test"):
            examples[f"{split}_without_leaks"] = [
                example for example in examples[split] if _normalized(example["source"]) not in seen
            ]
        return {split: self._generate_examples(found) for split, found in examples.items()}

    def _generate_examples(self, examples: Sequence[dict[str, str]]) -> Iterator[tuple[int, dict[str, str]]]:
        for number, example in enumerate(examples):
            yield number, {name: example.get(name, "") for name in _TEST_FIELDS}


def _normalized(dialogue: str) -> str:
    return " ".join(re.findall(r"\w+", dialogue.casefold()))
