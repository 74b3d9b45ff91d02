"""The Multi30k builder: TFDS's own test case on a few invented lines, then upstream's files where they are."""

import gzip
import importlib.util
import os
import unittest
from pathlib import Path
from typing import ClassVar

import pytest
import tensorflow_datasets as tfds

from zoo.data import SourceError, load
from zoo.data.builders.multi30k import multi30k_dataset_builder

# Upstream's name of each split, and how many lines of it are invented.
SIZES = {"train": 3, "val": 2, "test_2016_flickr": 2, "test_2017_flickr": 1, "test_2017_mscoco": 1}
FILES = [f"{split}.{language}.gz" for split in SIZES for language in ("en", "de", "fr")]
REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[2] / "../shared/data")) / "multi30k"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="no multi30k folder in $ZOO_DATA")


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = tmp_path / "raw" / "multi30k"
    folder.mkdir(parents=True)
    for split, size in SIZES.items():
        for language in ("en", "de", "fr"):
            text = "".join(f"{split} {language} {number}.\n" for number in range(size))
            (folder / f"{split}.{language}.gz").write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.mark.skipif(not importlib.util.find_spec("dill"), reason="tfds.testing imports dill")
def test_tfds_own_test_case_passes(raw_dir):
    class Multi30kTest(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = multi30k_dataset_builder.Builder
        EXAMPLE_DIR = str(raw_dir)
        SPLITS: ClassVar = {"validation" if name == "val" else name: size for name, size in SIZES.items()}
        DL_DOWNLOAD_RESULT: ClassVar = {name: name for name in FILES}

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Multi30kTest).run(result)
    assert result.testsRun
    assert not result.errors + result.failures


@pytest.mark.parametrize("config", ["en-de", "de-en", "en-fr", "fr-en"])
def test_without_raw_files_the_registered_urls_are_downloaded(config, raw_dir, monkeypatch):
    downloaded = {}

    def download(self, urls):
        downloaded.update(urls)
        return {name: raw_dir / name for name in urls}

    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    source, target = config.split("-")
    assert load(f"multi30k/{config}", "validation") == [
        {"source": f"val {source} {number}.", "target": f"val {target} {number}."} for number in range(2)
    ]
    assert len(downloaded) == 10
    assert all(url.endswith(f"/{name}") for name, url in downloaded.items())
    assert set(downloaded.values()) <= set(multi30k_dataset_builder.Builder.url_infos)


def test_lines_keep_upstreams_order(raw_dir):
    assert load("multi30k/fr-en", data_dir=raw_dir) == [
        {"source": f"train fr {number}.", "target": f"train en {number}."} for number in range(3)
    ]


def test_a_missing_raw_file_is_named(raw_dir):
    (raw_dir / "val.de.gz").unlink()
    with pytest.raises(SourceError, match=rf"^{raw_dir}: no val\.de\.gz$"):
        load("multi30k/en-de", data_dir=raw_dir)


def test_files_of_different_length_are_refused(raw_dir):
    (raw_dir / "val.de.gz").write_bytes(gzip.compress(b"eine Zeile\n"))
    with pytest.raises(SourceError, match=r"val\.en\.gz has 2 lines and .*val\.de\.gz 1; they go in pairs$"):
        load("multi30k/en-de", data_dir=raw_dir)


@needs_real_files
@pytest.mark.parametrize(
    ("config", "first"),
    [
        (
            "en-de",
            {
                "source": "Two young, White males are outside near many bushes.",
                "target": "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
            },
        ),
        (
            "fr-en",
            {
                "source": "Deux jeunes hommes blancs sont dehors près de buissons.",
                "target": "Two young, White males are outside near many bushes.",
            },
        ),
    ],
)
def test_upstreams_files(config, first, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ZOO_DATA", str(REAL.parent))
    train = load(f"multi30k/{config}")
    assert (len(train), train[0]) == (29000, first)
    counts = {"validation": 1014, "test_2016_flickr": 1000, "test_2017_flickr": 1000, "test_2017_mscoco": 461}
    for split, count in counts.items():
        examples = load(f"multi30k/{config}", split)
        assert len(examples) == count
        assert all(example["source"] and example["target"] for example in examples)


@needs_real_files
def test_upstreams_files_have_the_registered_checksums():
    for url, expected in multi30k_dataset_builder.Builder.url_infos.items():
        found = tfds.download.checksums.compute_url_info(REAL / url.rpartition("/")[2])
        assert found == expected
