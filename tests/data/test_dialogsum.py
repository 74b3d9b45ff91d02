"""The DialogSum builder: TFDS's own test case on a few invented dialogues, then upstream's files where they are."""

import gzip
import importlib.util
import json
import os
import unittest
from pathlib import Path
from typing import ClassVar

import pytest
import tensorflow_datasets as tfds

from zoo.data import SourceError, load, references
from zoo.data.builders.dialogsum import dialogsum_dataset_builder

# Upstream's name of each split -> its dialogues. In dev and test the last one is also in train.
DIALOGUES = {
    "train": ["#Person1#: Hi, Ada.\n#Person2#: Hello!", "#Person1#: Bye.", "#Person1#: bye"],
    "dev": ["#Person1#: Where is Ada?\n#Person2#: Gone.", "#person1#: HI Ada!\n\n#Person2#: Hello."],
    "test": ["#Person1#: Is it late?", "#Person1#: Early?", "#Person1#: Bye ..."],
}
SIZES = {"train": 3, "validation": 2, "validation_without_leaks": 1, "test": 3, "test_without_leaks": 2}
REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[2] / "../shared/data")) / "dialogsum"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="no dialogsum folder in $ZOO_DATA")


def upstream_row(name, number, dialogue):
    row = {"fname": f"{name}_{number}", "dialogue": dialogue}
    for annotator in ("1", "2", "3") if name == "test" else ("",):
        row |= {f"summary{annotator}": f"About {name}{annotator}.", f"topic{annotator}": f"{name}{annotator}"}
    return row


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = tmp_path / "raw" / "dialogsum"
    folder.mkdir(parents=True)
    for name, dialogues in DIALOGUES.items():
        rows = [upstream_row(name, number, dialogue) for number, dialogue in enumerate(dialogues)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.mark.skipif(not importlib.util.find_spec("dill"), reason="tfds.testing imports dill")
def test_tfds_own_test_case_passes(raw_dir):
    class DialogsumTest(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = dialogsum_dataset_builder.Builder
        EXAMPLE_DIR = str(raw_dir)
        SPLITS: ClassVar = SIZES
        DL_DOWNLOAD_RESULT: ClassVar = {name: f"{name}.jsonl.gz" for name in DIALOGUES}
        OVERLAPPING_SPLITS: ClassVar = ["validation_without_leaks", "test_without_leaks"]
        SKIP_CHECKSUMS = True

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(DialogsumTest).run(result)
    assert result.testsRun
    assert not result.errors + result.failures


def test_without_raw_files_upstreams_are_downloaded(raw_dir, monkeypatch):
    downloaded = {}

    def download(self, urls):
        downloaded.update(urls)
        return {name: raw_dir / f"{name}.jsonl.gz" for name in urls}

    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    assert [example["source"] for example in load("dialogsum", "validation")] == DIALOGUES["dev"]
    commit = "848cc8c05e0a"
    assert dialogsum_dataset_builder.Builder.RELEASE_NOTES["1.0.0"] == f"Upstream commit {commit}."
    root = f"https://raw.githubusercontent.com/cylnlp/dialogsum/{commit}/DialogSum_Data"
    assert sorted(downloaded.values()) == [f"{root}/dialogsum.{name}.jsonl" for name in ("dev", "test", "train")]


def test_dialogues_keep_upstreams_order_and_no_repetition_is_dropped(raw_dir):
    assert load("dialogsum", data_dir=raw_dir) == [
        {
            **{"name": f"train_{number}", "source": dialogue, "target": "About train.", "topic": "train"},
            **dict.fromkeys(("target2", "target3", "topic2", "topic3"), ""),
        }
        for number, dialogue in enumerate(DIALOGUES["train"])
    ]


def test_a_test_dialogue_has_three_references_and_the_others_have_one(raw_dir):
    for split, expected in (("train", [""]), ("validation", [""]), ("test", ["1", "2", "3"])):
        name = "dev" if split == "validation" else split
        for example in load("dialogsum", split, data_dir=raw_dir):
            assert references(example) == [f"About {name}{annotator}." for annotator in expected]
            assert references(example, "topic") == [f"{name}{annotator}" for annotator in expected]


def test_a_dialogue_of_the_training_split_is_a_leak_however_it_is_written(raw_dir):
    for split, name in (("validation", "dev"), ("test", "test")):
        found = [example["source"] for example in load("dialogsum", f"{split}_without_leaks", data_dir=raw_dir)]
        assert found == DIALOGUES[name][:-1]


def test_missing_files_and_bad_rows_are_named(raw_dir):
    rows = [upstream_row("dev", 0, "#Person1#: Hm."), {"fname": "dev_1", "dialogue": "#Person1#: Oh.", "topic": "oh"}]
    (raw_dir / "dev.jsonl.gz").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SourceError, match=r"dev\.jsonl\.gz, line 2: no key 'summary'; there is dialogue, "):
        load("dialogsum", data_dir=raw_dir)
    for name in ("dev", "test"):
        (raw_dir / f"{name}.jsonl.gz").unlink()
    with pytest.raises(SourceError, match=rf"^{raw_dir}: no dev\.jsonl\.gz, test\.jsonl\.gz$"):
        load("dialogsum", data_dir=raw_dir)


def test_the_builder_tells_licence_citation_and_repetitions(tmp_path):
    info = dialogsum_dataset_builder.Builder(data_dir=tmp_path).info
    assert "Licence: CC BY-NC-SA 4.0" in info.description
    assert "1,093 repeat" in info.description
    assert info.citation.startswith("@")
    assert info.disable_shuffling


@needs_real_files
def test_upstreams_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ZOO_DATA", str(REAL.parent))
    sizes = {
        "train": 12460,
        **{"validation": 500, "validation_without_leaks": 449},
        **{"test": 500, "test_without_leaks": 499},
    }
    splits = {split: load("dialogsum", split) for split in sizes}
    assert {split: len(examples) for split, examples in splits.items()} == sizes
    repeated = len({dialogsum_dataset_builder._normalized(example["source"]) for example in splits["train"]})
    assert 12460 - repeated == 1093
    for split, name in (("validation", "dev"), ("test", "test")):
        # A list of the leaks that was made without this builder.
        leaked = {int(row) for row in (REAL / f"{name}.leaked_rows.txt").read_text().split()}
        kept = [example for row, example in enumerate(splits[split]) if row not in leaked]
        assert splits[f"{split}_without_leaks"] == kept
    assert all(len(references(example)) == 3 for example in splits["test"])
