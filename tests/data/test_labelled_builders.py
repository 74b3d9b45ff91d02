"""The builders of labelled texts, on a few invented rows in the local and in upstream's format, then on real files."""

import gzip
import importlib
import importlib.util
import json
import os
import unittest
from pathlib import Path
from typing import ClassVar

import pytest
import tensorflow_datasets as tfds

from zoo.data import SourceError, load, load_train_and_dev
from zoo.data.builders import labelled
from zoo.data.sources import BUILDERS

# Name -> the rows of every split, the same in the local and in upstream's files. In each test split the last row leaks.
EXAMPLES = {
    "sst2": {
        "train": [
            {"text": "a fine film .", "label": "positive"},
            {"text": "crème brûlée gone bad", "label": "negative"},
        ],
        "validation": [{"text": "not bad", "label": "positive"}],
        "test": [{"text": "no yuks", "label": "negative"}, {"text": "A fine  film .", "label": "positive"}],
    },
    "trec": {
        "train": [
            {"text": "How far is Aspen ?", "label": "NUM", "fine": "NUM:dist"},
            {"text": "Who rides Odin 's ð horse ?", "label": "HUM", "fine": "HUM:ind"},
        ],
        "test": [
            {"text": "What is e-coli ?", "label": "DESC", "fine": "DESC:def"},
            {"text": "how far is aspen ?", "label": "NUM", "fine": "NUM:dist"},
        ],
    },
    "ag_news_10k": {
        "train": [
            {"text": "oil prices soar reuters", "label": "Business"},
            {"text": "scientists find ants", "label": "Sci/Tech"},
        ],
        "test": [
            {"text": "pope celebrates mass", "label": "World"},
            {"text": "phelps wins", "label": "Sports"},
            {"text": "oil prices soar reuters", "label": "Business"},
        ],
    },
    "atis": {
        "train": [
            {"text": "fly to las vegas", "intent": "atis_flight", "slots": "O O B-toloc.city_name I-toloc.city_name"}
        ],
        "validation": [{"text": "cheapest fare", "intent": "atis_flight#atis_airfare", "slots": "B-cost_relative O"}],
        "test": [
            {"text": "what is ewr", "intent": "atis_abbreviation", "slots": "O O B-airport_code"},
            {"text": "Fly to Las Vegas", "intent": "atis_flight", "slots": "O O B-toloc.city_name I-toloc.city_name"},
        ],
    },
    "snips": {
        "train": [{"text": "play the clásicos", "intent": "PlayMusic", "slots": "O O B-playlist"}],
        "validation": [{"text": "will it rain", "intent": "GetWeather", "slots": "O O B-condition_description"}],
        "test": [
            {"text": "rate this book five", "intent": "RateBook", "slots": "O O O B-rating_value"},
            {"text": "play the clásicos", "intent": "PlayMusic", "slots": "O O B-playlist"},
        ],
    },
    "bbc_news": {
        "train": [
            {"text": "Profits jumped to $1.13bn (£600m).", "title": "Ad sales", "label": "business"},
            {"text": "They won.", "title": "A win", "label": "sport"},
        ],
        "validation": [{"text": "A vote was held.", "title": "Vote", "label": "politics"}],
        "test": [
            {"text": "A film was shown.", "title": "Film", "label": "entertainment"},
            {"text": "They  won.", "title": "Another win", "label": "sport"},
        ],
    },
    "fdu_mtl": {
        "train": [
            {"text": "it's refreshing .", "label": "positive", "domain": "MR"},
            {"text": "a dull book", "label": "negative", "domain": "books"},
        ],
        "test": [
            {"text": "blurry", "label": "negative", "domain": "books"},
            {"text": "a dull book", "label": "negative", "domain": "video"},
        ],
    },
}
SIZES = {
    "sst2": {"train": 6920, "validation": 872, "test": 1821, "test_without_leaks": 1819},
    "trec": {"train": 5452, "test": 500, "test_without_leaks": 489},
    "ag_news_10k": {"train": 10000, "test": 7600, "test_without_leaks": 7598},
    "atis": {"train": 4478, "validation": 500, "test": 893, "test_without_leaks": 880},
    "snips": {"train": 13084, "validation": 700, "test": 700, "test_without_leaks": 674},
    "bbc_news": {"train": 1653, "validation": 232, "test": 202, "test_without_leaks": 202},
    "fdu_mtl": {"train": 25379, "test": 6400, "test_without_leaks": 5841},
}
DOWNLOADED = sorted(set(EXAMPLES) - {"bbc_news"})
TOPICS = ["World", "Sports", "Business", "Sci/Tech"]


def builder(name):
    return importlib.import_module(BUILDERS[name]).Builder


def local_row(name, example):
    """Writes an example as a line of the local file."""
    columns = {**example, "label": {"positive": "1", "negative": "0"}.get(example.get("label"), example.get("label"))}
    order = {
        "trec": ("label", "fine", "text"),
        "atis": ("intent", "text", "slots"),
        "snips": ("intent", "text", "slots"),
        "fdu_mtl": ("domain", "label", "text"),
    }
    return "\t".join(columns[column] for column in order.get(name, ("label", "text")))


HEADERS = {
    "sst2": "label\ttext",
    "ag_news_10k": "label\ttext",
    "trec": "coarse\tfine\ttext",
    "atis": "intent\ttokens\tslots",
    "snips": "intent\ttokens\tslots",
    "fdu_mtl": "domain\tlabel\ttext",
}


def write_local(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    if name == "bbc_news":
        folds = {"test": 0, "validation": 1, "train": 9}
        rows = [
            {"id": f"{split}/{number}", "fold": folds[split], **example}
            for split, examples in EXAMPLES[name].items()
            for number, example in enumerate(examples)
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "all.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        return folder
    for split, file in builder(name).FILES.items():
        text = "\n".join([HEADERS[name], *(local_row(name, example) for example in EXAMPLES[name][split])]) + "\n"
        (folder / file).write_bytes(gzip.compress(text.encode()) if file.endswith(".gz") else text.encode())
    return folder


def upstream_file(name, split, url):
    """Returns the bytes that upstream has at an address."""
    examples = EXAMPLES[name][split]
    if name == "sst2":
        lines = [f"{int(example['label'] == 'positive')} {example['text']}" for example in examples]
    elif name == "trec":
        lines = [f"{example['fine']} {example['text']}" for example in examples]
    elif name == "ag_news_10k":
        texts = [example["text"].replace(" ", " \\", 1).replace("oil", "oil ") for example in examples]
        lines = [f"{TOPICS.index(example['label']) + 1}\t  {text} " for example, text in zip(examples, texts)]
    elif name == "fdu_mtl":
        domain = url.rpartition("/")[2].partition(".")[0]
        mine = [example for example in examples if example["domain"] == domain]
        lines = ["0\t", *(f"{int(example['label'] == 'positive')}\t{example['text']}" for example in mine)]
    else:
        field = {"label": "intent", "seq.in": "text", "seq.out": "slots"}[url.rpartition("/")[2]]
        lines = [f"{example[field]} " for example in examples]
    return "".join(f"{line}\n" for line in lines).encode("cp1252" if name == "trec" else "utf-8")


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    """A function that writes the local files of a builder into $ZOO_DATA and returns their folder."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "raw"))
    return lambda name: write_local(tmp_path / "raw" / name, name)


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """Upstream's files in place of downloads: a dictionary from address to path, filled when they are downloaded."""
    addresses = {}

    def download(self, urls):
        paths = {}
        for split, addressed in urls.items():
            paths[split] = []
            for url in addressed:
                path = tmp_path / f"download-{len(addresses)}"
                name = next(name for name in DOWNLOADED if url in builder(name).URLS.get(split, ()))
                path.write_bytes(upstream_file(name, split, url))
                addresses[url] = path
                paths[split].append(path)
        return paths

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    return addresses


@pytest.mark.parametrize("name", EXAMPLES)
def test_local_files_are_read_in_order(name, raw_dir):
    raw_dir(name)
    for split, examples in EXAMPLES[name].items():
        assert load(name, split) == examples
    assert load(name, "test_without_leaks") == EXAMPLES[name]["test"][:-1]


@pytest.mark.parametrize("name", DOWNLOADED)
def test_without_local_files_upstreams_are_downloaded(name, upstream):
    for split, examples in EXAMPLES[name].items():
        collapsed = [{field: " ".join(value.split()) for field, value in example.items()} for example in examples]
        assert load(name, split) == (examples if name in ("sst2", "trec") else collapsed)
    assert load(name, "test_without_leaks") == load(name, "test")[:-1]
    assert all(url.startswith("https://raw.githubusercontent.com/") for url in upstream)
    release = builder(name).RELEASE_NOTES["1.0.0"]
    assert all(release.removeprefix("Upstream commit ").removesuffix(".") in url for url in upstream)


def test_data_without_a_download_say_so(upstream):
    expected = r"^bbc_news: there is no download; all\.jsonl\.gz is read from data_dir or \$ZOO_DATA$"
    with pytest.raises(SourceError, match=expected):
        load("bbc_news")


@pytest.mark.skipif(not importlib.util.find_spec("dill"), reason="tfds.testing imports dill")
def test_tfds_own_test_case_passes(raw_dir, tmp_path, upstream):
    urls = builder("sst2").URLS
    for split, (url,) in urls.items():
        (tmp_path / split).write_bytes(upstream_file("sst2", split, url))

    class Sst2Test(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = builder("sst2")
        EXAMPLE_DIR = str(tmp_path)
        SPLITS: ClassVar = {"train": 2, "validation": 1, "test": 2, "test_without_leaks": 1}
        DL_DOWNLOAD_RESULT: ClassVar = {split: [split] for split in urls}
        OVERLAPPING_SPLITS: ClassVar = ["test_without_leaks"]
        SKIP_CHECKSUMS = True

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Sst2Test).run(result)
    assert result.testsRun
    assert not result.errors + result.failures


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_builder_tells_licence_and_citation(name, tmp_path):
    info = builder(name)(data_dir=tmp_path).info
    assert info.name == name
    assert "Licence: " in info.description
    assert info.citation.startswith("@")
    assert set(info.features) == set(EXAMPLES[name]["train"][0])
    assert info.disable_shuffling


def test_development_examples_are_upstreams_or_held_out(raw_dir):
    for name in ("sst2", "trec"):
        raw_dir(name)
    train, dev = load_train_and_dev("sst2")
    assert (train, dev) == (EXAMPLES["sst2"]["train"], EXAMPLES["sst2"]["validation"])
    train, dev = load_train_and_dev("trec")
    assert (len(train), len(dev)) == (1, 1)
    assert sorted(train + dev, key=EXAMPLES["trec"]["train"].index) == EXAMPLES["trec"]["train"]


def test_reviews_of_one_domain_and_of_those_that_share_nothing_with_sst2(raw_dir):
    raw_dir("fdu_mtl")
    film, book = EXAMPLES["fdu_mtl"]["train"]
    assert load("fdu_mtl/all") == [film, book]
    assert load("fdu_mtl/without_MR") == load("fdu_mtl/books") == [book]
    assert load("fdu_mtl/without_MR", "test_without_leaks") == EXAMPLES["fdu_mtl"]["test"][:1]
    with pytest.raises(SourceError, match=r"^fdu_mtl has no config 'book'; did you mean 'books'\?$"):
        load("fdu_mtl/book")


def test_joined_sources_train_together_and_are_tested_by_the_first(raw_dir):
    raw_dir("sst2")
    raw_dir("fdu_mtl")
    joined = "sst2+fdu_mtl/without_MR"
    train, dev = load_train_and_dev(joined)
    assert train == EXAMPLES["sst2"]["train"] + EXAMPLES["fdu_mtl"]["train"][1:]
    assert dev == EXAMPLES["sst2"]["validation"]
    assert load(joined, "test") == EXAMPLES["sst2"]["test"]
    with pytest.raises(SourceError, match=r"^no source 'sst3'; did you mean 'sst2'\?"):
        load("sst3+fdu_mtl")


# === Bad files ===


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_missing_file_is_named(name, raw_dir):
    folder = raw_dir(name)
    file = builder(name).FILES["test"]
    (folder / file).unlink()
    with pytest.raises(SourceError) as raised:
        load(name)
    assert str(raised.value) == f"{folder}: no {file}"


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("sst2", "1\tfine\tfilm", "3 columns; it takes label TAB text"),
        ("sst2", "1", "1 column; it takes label TAB text"),
        ("sst2", "2\tfine film", "no label '2'; it takes 0 (negative), 1 (positive)"),
        ("sst2", "1\t ", "nothing in 'text'"),
        ("trec", "NUM\tHUM:ind\tWho ?", "the fine class 'HUM:ind' is none of 'NUM'"),
        ("trec", "NUM\tNUM:dits\tHow far ?", "no fine 'NUM:dits'; did you mean 'NUM:dist'?"),
        ("ag_news_10k", "Sport\tphelps wins", "no label 'Sport'; did you mean 'Sports'?"),
        ("atis", "atis_flight\tto las vegas\tO O", "3 words and 2 slots; it takes one slot a word"),
        ("atis", "atis_fligth\tto las\tO O", "no intent 'atis_fligth'; did you mean 'atis_flight'?"),
        ("snips", "PlayMusic\tplay this\tO X-artist", "no slot 'X-artist'; it takes O, B-NAME or I-NAME"),
        ("fdu_mtl", "book\t1\tfine", "no domain 'book'; did you mean 'books'?"),
    ],
)
def test_a_bad_row_is_named(name, row, problem, raw_dir):
    folder = raw_dir(name)
    file = builder(name).FILES["train"]
    text = f"{HEADERS[name]}\n{local_row(name, EXAMPLES[name]['train'][0])}\n{row}\n"
    (folder / file).write_bytes(text.encode())
    with pytest.raises(SourceError) as raised:
        load(name)
    assert str(raised.value) == f"{folder / file}, line 3: {problem}"


def test_a_wrong_header_or_an_empty_file_is_named(raw_dir):
    folder = raw_dir("sst2")
    (folder / "dev.tsv").write_text("text\tlabel\nfine\t1\n")
    with pytest.raises(SourceError, match=r"dev\.tsv, line 1: the header is text TAB label; it takes label TAB text$"):
        load("sst2")
    (folder / "dev.tsv").write_text("label\ttext\n")
    with pytest.raises(SourceError, match=r"sst2: no examples in the validation split$"):
        load("sst2")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": "sports"}, "no label 'sports'; did you mean 'sport'?"),
        ({"fold": 10}, "no fold '10'; it takes 0 (test), 1 (validation), 2 (train), "),
    ],
)
def test_a_bad_article_is_named(change, problem, raw_dir):
    folder = raw_dir("bbc_news")
    row = {"id": "sport/7", "fold": 2, **EXAMPLES["bbc_news"]["train"][1], **change}
    (folder / "all.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    with pytest.raises(SourceError) as raised:
        load("bbc_news")
    assert str(raised.value).startswith(f"{folder / 'all.jsonl.gz'}, id sport/7: {problem}")


@pytest.mark.parametrize(
    ("name", "files", "problem"),
    [
        ("sst2", ["1 fine\n\npositive fine\n"], "line 3: no label 'positive'; it takes 0 (negative), 1 (positive)"),
        ("trec", ["NUM:dist How far ?\nHow far ?\n"], "line 2: no label 'How'; there is ABBR, DESC, "),
        ("ag_news_10k", ["1\tnews\n5\tnews\n"], "line 2: no label '5'; it takes 1 (World), 2 (Sports), "),
        ("ag_news_10k", ["1 news\n"], "line 1: no tab; it takes number TAB text"),
        ("atis", ["atis_flight\n", "to las vegas\n", "O O\n"], "line 1: 3 words and 2 slots; it takes one slot a word"),
        ("fdu_mtl", ["1\tgood\ngood\n"] * 16, "line 2: no tab; it takes label TAB text"),
    ],
)
def test_a_bad_row_of_upstreams_is_named(name, files, problem, tmp_path):
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, text in zip(paths, files):
        path.write_text(text)
    made = builder(name)(data_dir=tmp_path)
    with pytest.raises(SourceError) as raised:
        made._checked("train", made.upstream_rows(paths, "train"))
    where, _, said = str(raised.value).partition(", ")
    assert where in map(str, paths)
    assert said.startswith(problem)


def test_upstreams_files_of_different_length_are_refused(tmp_path):
    paths = [tmp_path / name for name in ("label", "seq.in", "seq.out")]
    for path, text in zip(paths, ("atis_flight\n", "fly\nfly\n", "O\n")):
        path.write_text(text)
    made = builder("atis")(data_dir=tmp_path)
    with pytest.raises(SourceError, match=r"lines differ: .*label 1, .*seq\.in 2, .*seq\.out 1; they go together$"):
        list(made.upstream_rows(paths, "train"))


def test_a_file_that_is_not_utf_8_is_read_in_its_encoding(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes("ð\r\n\nz".encode("cp1252"))
    assert list(labelled.numbered(path, "cp1252")) == [(f"{path}, line 1", "ð"), (f"{path}, line 3", "z")]
    assert [line for _, line in labelled.numbered(path, "utf-8")] == ["�", "z"]
    with pytest.raises(SourceError, match="is not UTF-8"):
        list(labelled.numbered(path))


# === Real files ===


@pytest.mark.parametrize("name", SIZES)
def test_real_files(name, tmp_path, monkeypatch):
    folder = Path(os.environ.get("ZOO_DATA", tmp_path / "none"), name)
    if not folder.is_dir():
        pytest.skip(f"no {name} folder in $ZOO_DATA")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    examples = {split: load(name, split) for split in SIZES[name]}
    assert {split: len(found) for split, found in examples.items()} == SIZES[name]
    for field, classes in builder(name).CLASSES.items():
        if classes is not None:
            assert {example[field] for found in examples.values() for example in found} == set(classes)
