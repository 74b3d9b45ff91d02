"""The Flickr8k builder: TFDS's own test case on a few invented images, then the real files where they are."""

import importlib.util
import io
import os
import unittest
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from zoo.data import SourceError, load
from zoo.data.builders.flickr8k import flickr8k_dataset_builder
from zoo.data.images import decode

SIZES = {"train": 3, "dev": 1, "test": 2}


def jpeg(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * number, 100, 100)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("ZOO_DATA", raising=False)
    folder = tmp_path / "raw" / "flickr8k"
    folder.mkdir(parents=True)
    for split, size in SIZES.items():
        lines = [f"{split}{i}.jpg\t{n}\tCaption {n} of {split} {i} ." for i in range(size) for n in range(5)]
        (folder / f"{split}.captions.tsv").write_text("\n".join(lines) + "\n")
        for i in reversed(range(size)):
            # The training images are in several archives.
            name = f"train.images.{i // 2}.zip" if split == "train" else f"{split}.images.zip"
            with zipfile.ZipFile(folder / name, "a") as archive:
                archive.writestr(f"{split}{i}.jpg", jpeg(i))
    return folder


@pytest.mark.skipif(not importlib.util.find_spec("dill"), reason="tfds.testing imports dill")
def test_tfds_own_test_case_passes(raw_dir):
    class Flickr8kTest(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = flickr8k_dataset_builder.Builder
        EXAMPLE_DIR = str(raw_dir)
        SPLITS: ClassVar = {"train": 3, "validation": 1, "test": 2}

        def _make_builder(self, config=None):
            return self.DATASET_CLASS(data_dir=self.tmp_dir, raw_dir=raw_dir)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Flickr8kTest).run(result)
    assert result.testsRun
    assert not result.errors + result.failures


def test_images_come_encoded_with_their_captions_in_order(raw_dir):
    examples = load("flickr8k", data_dir=raw_dir.parent)
    assert [example["name"] for example in examples] == ["train0.jpg", "train1.jpg", "train2.jpg"]
    assert [example["image"] for example in examples] == [jpeg(0), jpeg(1), jpeg(2)]
    assert examples[1]["captions"] == [f"Caption {n} of train 1 ." for n in range(5)]
    assert [example["name"] for example in load("flickr8k", "validation", data_dir=raw_dir)] == ["dev0.jpg"]


def message(folder):
    with pytest.raises(SourceError) as raised:
        load("flickr8k", data_dir=folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_missing_is_named(raw_dir):
    captions = raw_dir / "test.captions.tsv"
    whole = captions.read_text()
    captions.write_text(whole + "test9.jpg\t0\tNowhere .\n")
    assert message(raw_dir) == f"{raw_dir}: 1 images not in test.images*.zip, the first test9.jpg"
    captions.write_text("".join(line for line in whole.splitlines(True) if "test1.jpg" not in line))
    assert message(raw_dir) == f"{raw_dir}: 1 images without a caption, the first test1.jpg"
    captions.write_text(whole + "test1.jpg\t5\n")
    assert message(raw_dir).startswith(f"{captions}, line 11: 'test1.jpg\\t5'; it takes image TAB number TAB caption")
    captions.write_text(whole)
    (raw_dir / "test.images.zip").write_bytes(b"no archive")
    assert message(raw_dir) == f"{raw_dir}/test.images.zip: cannot be read: File is not a zip file"
    (raw_dir / "test.images.zip").unlink()
    assert message(raw_dir).startswith(f"{raw_dir}: no test.images*.zip; it takes SPLIT.captions.tsv and SPLIT.images*")


def test_there_is_no_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("ZOO_DATA", raising=False)
    assert message(None).startswith(
        "flickr8k: there is no download; SPLIT.captions.tsv and SPLIT.images*.zip for train, "
    )


def test_real_files(tmp_path, monkeypatch):
    folder = Path(os.environ.get("ZOO_DATA", tmp_path / "none"), "flickr8k")
    if not folder.is_dir():
        pytest.skip("no flickr8k folder in $ZOO_DATA")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    names = set()
    for split, size in (("train", 5999), ("validation", 1000), ("test", 1000)):
        examples = load("flickr8k", split)
        assert len(examples) == size
        assert {len(example["captions"]) for example in examples} == {5}
        assert decode(examples[-1]["image"]).shape == (160, 160, 3)
        names |= {example["name"] for example in examples}
    assert len(names) == 7999
