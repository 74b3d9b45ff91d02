"""Every kind of source, and what is said about a bad one."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from zoo.data import SourceError, load, load_train_and_dev, read_lines, sources, toy

KINDS = ", ".join(sorted(["jsonl", "tfds", "toy", "tsv", *sources.BUILDERS]))
PAIRS = [{"source": f"one {i}", "target": f"eins {i}"} for i in range(40)]


def write(path, data):
    """Writes text or bytes, gzipped where the name says so, and returns the path."""
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_tsv(examples):
    return "".join(f"{example['source']}\t{example['target']}\n" for example in examples)


def as_jsonl(examples):
    return "".join(json.dumps(example) + "\n" for example in examples)


@pytest.fixture
def message(tmp_path):
    """Returns what a call's SourceError says, without the folder of the test; it is always one line."""

    def of(call, *arguments, **options):
        with pytest.raises(SourceError) as raised:
            call(*arguments, **options)
        text = str(raised.value).replace(f"{tmp_path}/", "")
        assert "\n" not in text
        return text

    return of


# === Files ===


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("kind", "form"), [("tsv", as_tsv), ("jsonl", as_jsonl)])
def test_a_file_is_read_whole(kind, form, suffix, tmp_path):
    path = write(tmp_path / f"pairs.{kind}{suffix}", form(PAIRS))
    assert load(f"{kind}:{path}") == PAIRS


def test_a_tsv_header_is_read_through_fields(tmp_path):
    path = write(tmp_path / "pairs.tsv", "id\tde\ten\n7\tHund\tdog\n8\tKatze\tcat\n")
    assert load(f"tsv:{path}", fields={"source": "en", "target": "de"}) == [
        {"source": "dog", "target": "Hund"},
        {"source": "cat", "target": "Katze"},
    ]


def test_json_keys_may_be_nested_or_hold_a_slash(tmp_path):
    rows = [{"translation": {"en": "dog", "de": "Hund"}, "a/b": 3}]
    path = write(tmp_path / "pairs.jsonl", as_jsonl(rows))
    fields = {"source": "translation/en", "target": "translation/de", "label": "a/b"}
    assert load(f"jsonl:{path}", fields=fields) == [{"source": "dog", "target": "Hund", "label": "3"}]


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_blank_lines_carriage_returns_and_byte_order_marks_do_no_harm(kind, tmp_path):
    form = as_tsv if kind == "tsv" else as_jsonl
    text = "\ufeff" + form(PAIRS[:2]).replace("\n", "\r\n") + "\r\n\r\n" + form(PAIRS[2:3])
    path = write(tmp_path / "pairs", text)
    assert load(f"{kind}:{path}") == PAIRS[:3]


def test_only_a_line_feed_ends_a_line(tmp_path):
    assert read_lines(write(tmp_path / "lines", "one\u2028still one\x85\ntwo\n\nfour")) == [
        "one\u2028still one\x85",
        "two",
        "",
        "four",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nonly\n", "pairs.tsv, line 2: 1 column: 'only'; it takes 2 columns, source TAB target"),
        ("a\tb\tc\n", "pairs.tsv, line 1: 3 columns: 'a\\tb\\tc'; it takes 2 columns, source TAB target"),
        (
            "a\tb\nc\t \n",
            "pairs.tsv, line 2: nothing in column 'target': 'c\\t '; it takes 2 columns, source TAB target",
        ),
        (
            "a\tb\n" + "x\n" * 7,
            "pairs.tsv, line 2: 1 column: 'x'; it takes 2 columns, source TAB target (7 bad lines: 2, 3, 4, 5, 6, ...)",
        ),
        ("x\na\tb\nx\n", "pairs.tsv, line 1: 1 column: 'x'; it takes 2 columns, source TAB target (2 bad lines: 1, 3)"),
        ("", "pairs.tsv: the file is empty"),
        ("\n \n", "pairs.tsv: the file is empty"),
    ],
)
def test_a_bad_tsv_line_is_named(text, expected, message, tmp_path):
    path = write(tmp_path / "pairs.tsv", text)
    assert message(load, f"tsv:{path}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("en\tde\n", "pairs.tsv: a header and no examples"),
        ("left\tright\ndog\tHund\n", "pairs.tsv, line 1: no column 'en' in the header; there is left, right"),
        ("en\tdee\ndog\tHund\n", "pairs.tsv, line 1: no column 'de' in the header; did you mean 'dee'?"),
        ("en\tde\tid\ndog\tHund\n", "pairs.tsv, line 2: 2 columns: 'dog\\tHund'; it takes 3 columns, as in the header"),
    ],
)
def test_a_bad_tsv_file_with_a_header_is_named(text, expected, message, tmp_path):
    path = write(tmp_path / "pairs.tsv", text)
    assert message(load, f"tsv:{path}", fields={"source": "en", "target": "de"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"source": "a"',
            "pairs.jsonl, line 1: not JSON (Expecting ',' delimiter at column 15): '{\"source\": \"a\"'",
        ),
        ('{"source": "a", "tarjet": "b"}', "pairs.jsonl, line 1: no key 'target'; did you mean 'tarjet'?"),
        (
            '{"source": "a", "target": null}',
            "pairs.jsonl, line 1: 'null' under the key 'target'; it takes a text or a list of texts",
        ),
        ('{"source": "", "target": "b"}', "pairs.jsonl, line 1: '\"\"' under the key 'source'; it takes text"),
        ('["a", "b"]', "pairs.jsonl, line 1: '[\"a\", \"b\"]' is no object with a key 'source'"),
        ("1\n2\n3", "pairs.jsonl, line 1: '1' is no object with a key 'source' (3 bad lines: 1, 2, 3)"),
        ("", "pairs.jsonl: the file is empty"),
    ],
)
def test_a_bad_json_line_is_named(text, expected, message, tmp_path):
    path = write(tmp_path / "pairs.jsonl", text)
    assert message(load, f"jsonl:{path}") == expected


@pytest.mark.parametrize("name", ["lines", "lines.gz"])
@pytest.mark.parametrize("call", [read_lines, lambda path: load(f"tsv:{path}"), lambda path: load(f"jsonl:{path}")])
def test_a_byte_that_is_not_utf8_is_named(call, name, message, tmp_path):
    path = write(tmp_path / name, "wäre\tso\n".encode() + "für\tfor\n".encode("latin-1"))
    expected = f"{name}, line 2: byte 0xfc at byte offset 10 is not UTF-8; save the file as UTF-8"
    assert message(call, path) == expected


def test_a_file_that_cannot_be_read_is_named(message, tmp_path):
    assert message(read_lines, tmp_path / "nope.txt") == "nope.txt: no such file"
    assert message(load, f"tsv:{tmp_path}/nope.tsv") == "nope.tsv: no such file"
    (tmp_path / "folder").mkdir()
    assert message(read_lines, tmp_path / "folder") == "folder: cannot be read: Is a directory"
    half = gzip.compress(b"a\tb\n" * 1000)[:20]
    (tmp_path / "half.gz").write_bytes(half)
    assert message(read_lines, tmp_path / "half.gz").startswith("half.gz: cannot be read: Compressed file ended")


def test_a_file_is_all_train(message, tmp_path):
    path = write(tmp_path / "pairs.tsv", as_tsv(PAIRS))
    assert message(load, f"tsv:{path}", "test") == "tsv:pairs.tsv: no split 'test'; there is train"
    assert message(load, f"tsv:{path}", "train[:5]") == "tsv:pairs.tsv: no split 'train[:5]'; did you mean 'train'?"


# === Names ===


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("multi3k/en-de", "no source 'multi3k/en-de'; did you mean 'multi30k'?"),
        ("tvs:pairs.txt", "no source 'tvs:pairs.txt'; did you mean 'tsv'?"),
        ("quark", "no source 'quark'; there is " + KINDS),
        ("", "no source ''; there is " + KINDS),
        ("pairs.tsv", "no source 'pairs.tsv'; did you mean 'tsv:pairs.tsv'?"),
        ("pairs.jsonl.gz", "no source 'pairs.jsonl.gz'; did you mean 'jsonl:pairs.jsonl.gz'?"),
        ("tsv:", "'tsv:' names nothing; it takes tsv:FILE"),
        ("toy:", "'toy:' names nothing; it takes toy:NAME"),
        ("toy:numbers/en-ed", "no toy 'numbers/en-ed'; did you mean 'numbers/en-de'?"),
        ("tfds:/x", "no source 'tfds:/x'; it takes tfds:NAME[/CONFIG][:VERSION][:SPLIT]"),
        ("multi30k/en-ed", "multi30k has no config 'en-ed'; did you mean 'en-de'?"),
        ("multi30k", "multi30k has no config ''; there is de-en, en-de, en-fr, fr-en"),
    ],
)
def test_an_unknown_name_gets_the_nearest(source, expected, message):
    assert message(load, source) == expected


def test_a_toy_is_generated():
    assert load("toy:numbers/en-de") == toy.numbers("en-de")
    assert load("toy:numbers/fr-en", "test") == toy.numbers("fr-en", split="test")
    renamed = load("toy:numbers/en-de", "test", fields={"text": "target"})
    assert renamed == [{"text": example["target"]} for example in toy.numbers(split="test")]


def test_an_unknown_split_or_field_of_a_toy_gets_the_nearest(message):
    expected = "toy:numbers/en-de: no split 'tets'; did you mean 'test'?"
    assert message(load, "toy:numbers/en-de", "tets") == expected
    expected = "toy:numbers/en-de: no field 'sauce'; did you mean 'source'?"
    assert message(load, "toy:numbers/en-de", fields={"source": "sauce"}) == expected


# === TFDS builders ===


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of prepared TFDS data with nested features, a label and an image."""
    folder = tmp_path_factory.mktemp("tfds")
    features = tfds.features.FeaturesDict(
        {
            "translation": {"en": tfds.features.Text(), "de": tfds.features.Text()},
            "label": tfds.features.ClassLabel(names=["animal", "plant"]),
            "year": tfds.features.Scalar(np.int64),
            "file/name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(1, 1, 3)),
        }
    )
    rows = [
        {
            "translation": {"en": f"dog {i}", "de": f"Hund {i}"},
            "label": i % 2,
            "year": i,
            "file/name": f"{i}.png",
            "image": np.zeros((1, 1, 3), np.uint8),
        }
        for i in range(10)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="pets",
        version="1.0.0",
        features=features,
        split_datasets={"train": list(enumerate(rows[:8])), "validation": list(enumerate(rows[8:]))},
        config="small",
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder


FIELDS = {"source": "translation/en", "target": "translation/de"}


def test_a_tfds_builder_is_read_through_fields(prepared):
    fields = {**FIELDS, "kind": "label", "when": "year", "where": "file/name"}
    assert load("tfds:pets/small", "train[1:3]", data_dir=prepared, fields=fields) == [
        {"source": "dog 1", "target": "Hund 1", "kind": "plant", "when": "1", "where": "1.png"},
        {"source": "dog 2", "target": "Hund 2", "kind": "animal", "when": "2", "where": "2.png"},
    ]


def test_a_split_in_the_source_goes_first(prepared):
    expected = [{"source": "dog 8", "target": "Hund 8"}, {"source": "dog 9", "target": "Hund 9"}]
    for name in ("pets/small:validation", "pets/small:1.0.0:validation", "pets:1.*.*:validation"):
        assert load(f"tfds:{name}", "train", data_dir=prepared, fields=FIELDS) == expected


@pytest.mark.parametrize(
    ("source", "fields", "expected"),
    [
        ("tfds:pets/small:valid", FIELDS, "no split 'valid'; did you mean 'validation'?"),
        ("tfds:pets/small:train[:x]", FIELDS, "split 'train[:x]': Error parsing split"),
        ("tfds:pets/small", {"source": "translation/dee"}, "no field 'translation/dee'; did you mean 'de'?"),
        ("tfds:pets/small", {"source": "text"}, "no field 'text'; there is file/name, image, label, translation, year"),
        ("tfds:pets/small", {"source": "image"}, "feature 'image' is no text but Image; name others (fields)"),
    ],
)
def test_a_bad_split_or_feature_is_named(source, fields, expected, prepared, message):
    assert message(load, source, data_dir=prepared, fields=fields).startswith(f"{source}: {expected}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnsit", "no TFDS builder 'mnsit'; did you mean 'mnist'?"),
        ("ted_hrlr_translate/pt_to_ne", "tfds:ted_hrlr_translate has no config 'pt_to_ne'; did you mean 'pt_to_en'?"),
    ],
)
def test_an_unknown_tfds_builder_gets_the_nearest(name, expected, message, tmp_path):
    assert message(load, f"tfds:{name}", data_dir=tmp_path) == expected


@pytest.fixture
def raw_dir(tmp_path, monkeypatch):
    """The folder of $ZOO_DATA with a tiny multi30k/ in it, and an empty cache."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "raw"))
    write_multi30k(tmp_path / "raw" / "multi30k", "Hund")
    return tmp_path / "raw"


def write_multi30k(folder, noun):
    folder.mkdir(parents=True)
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco"):
        write(folder / f"{split}.en.gz", f"dog {split}\ncat {split}\n")
        write(folder / f"{split}.de.gz", f"{noun} {split}\nKatze {split}\n")


def test_our_builder_reads_the_raw_files(raw_dir, tmp_path, capfd):
    expected = [{"source": "dog val", "target": "Hund val"}, {"source": "cat val", "target": "Katze val"}]
    assert load("multi30k/en-de", "validation") == expected
    assert load("multi30k/en-de", "validation", data_dir=raw_dir) == expected
    assert load("multi30k/en-de", "validation", data_dir=raw_dir / "multi30k") == expected
    assert len(list((tmp_path / "cache").glob("*/multi30k/en-de/1.0.0"))) == 1
    assert capfd.readouterr() == ("", "")


def test_other_raw_files_are_not_taken_from_the_cache(raw_dir, tmp_path):
    write_multi30k(tmp_path / "other", "Köter")
    assert load("multi30k/en-de")[0]["target"] == "Hund train"
    assert load("multi30k/en-de", data_dir=tmp_path / "other")[0]["target"] == "Köter train"


def test_wrong_raw_files_are_named(raw_dir, tmp_path, message, monkeypatch):
    assert message(load, "multi30k/en-de", data_dir=tmp_path / "nope") == "data_dir nope: no such folder"
    write(raw_dir / "multi30k" / "val.de.gz", b"\xff\xfe")
    expected = "raw/multi30k/val.de.gz, line 1: byte 0xff at byte offset 0 is not UTF-8; save the file as UTF-8"
    assert message(load, "multi30k/en-de") == expected
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "nope"))
    assert message(load, "multi30k/en-de") == "ZOO_DATA nope: no such folder"


def test_a_failed_download_says_where_files_on_disk_belong(raw_dir, tmp_path, message, monkeypatch):
    def fail(self, urls):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", fail)
    monkeypatch.delenv("ZOO_DATA")
    assert message(load, "multi30k/en-de") == (
        "multi30k/en-de: cannot be prepared: no route; raw files on disk are read from data_dir or $ZOO_DATA"
    )


# === Training and development examples ===


def test_the_sources_own_validation_split_is_the_dev_set(prepared, raw_dir):
    train, dev = load_train_and_dev("multi30k/en-de")
    assert [example["source"] for example in train + dev] == ["dog train", "cat train", "dog val", "cat val"]
    assert load_train_and_dev("toy:numbers/en-de") == (toy.numbers(), toy.numbers(split="validation"))
    train, dev = load_train_and_dev("tfds:pets/small:train[:3]", data_dir=prepared, fields=FIELDS)
    assert (len(train), len(dev)) == (3, 2)


def test_training_on_the_validation_split_holds_out_examples(prepared):
    train, dev = load_train_and_dev("tfds:pets/small:train+validation", data_dir=prepared, fields=FIELDS)
    assert (len(train), len(dev)) == (9, 1)
    assert dev[0] not in train


def test_a_share_of_a_file_is_held_out(tmp_path):
    source = f"tsv:{write(tmp_path / 'pairs.tsv', as_tsv(PAIRS))}"
    train, dev = load_train_and_dev(source)
    assert (len(train), len(dev)) == (38, 2)
    assert sorted(train + dev, key=PAIRS.index) == PAIRS
    assert load_train_and_dev(source) == (train, dev)
    assert load_train_and_dev(source, seed=1) != (train, dev)
    assert [len(part) for part in load_train_and_dev(source, holdout=0.5)] == [20, 20]
    assert [len(part) for part in load_train_and_dev(source, holdout=0.001)] == [39, 1]
    assert [len(part) for part in load_train_and_dev(source, holdout=0.999)] == [1, 39]


def test_dev_is_a_source_or_a_file_in_the_same_format(prepared, tmp_path):
    source = f"tsv:{write(tmp_path / 'pairs.tsv', as_tsv(PAIRS))}"
    dev = write(tmp_path / "dev.tsv", as_tsv(PAIRS[:3]))
    for spelling in (dev, str(dev), f"tsv:{dev}"):
        assert load_train_and_dev(source, dev=spelling) == (PAIRS, PAIRS[:3])
    assert load_train_and_dev(source, dev="toy:numbers/en-de")[1] == toy.numbers(split="validation")
    rows = [{"en": "dog", "de": "Hund"}]
    named = f"jsonl:{write(tmp_path / 'named.jsonl', as_jsonl(rows))}"
    fields = {"source": "en", "target": "de"}
    assert load_train_and_dev(named, dev=f"tsv:{dev}", fields=fields) == (
        [{"source": "dog", "target": "Hund"}],
        PAIRS[:3],
    )


def test_a_missing_or_empty_dev_set_is_an_error(tmp_path, message, monkeypatch):
    source = f"tsv:{write(tmp_path / 'pairs.tsv', as_tsv(PAIRS[:1]))}"
    assert message(load_train_and_dev, source) == (
        "1 training example: too few to hold one out; name development data (dev)"
    )
    assert message(load_train_and_dev, source, dev=tmp_path / "nope.tsv") == "nope.tsv: no such file"
    assert message(load_train_and_dev, source, dev=write(tmp_path / "dev.tsv", "")) == "dev.tsv: the file is empty"
    assert message(load_train_and_dev, "toy:numbers/en-de", dev="dev.tsv") == (
        "dev 'dev.tsv': toy:numbers/en-de is no file that would tell its format; write tsv:FILE or jsonl:FILE"
    )
    many = f"tsv:{write(tmp_path / 'many.tsv', as_tsv(PAIRS))}"
    for holdout in (0, 1, -0.5):
        expected = f"holdout {holdout}: it takes a share between 0 and 1, for example 0.05"
        assert message(load_train_and_dev, many, holdout=holdout) == expected
    monkeypatch.setattr(sources, "_read_toy", lambda *arguments: [])
    expected = "toy:numbers/en-de: no training examples; name a source that has some"
    assert message(load_train_and_dev, "toy:numbers/en-de") == expected


def test_importing_the_package_leaves_tfds_alone():
    code = "import sys, zoo.data; sys.exit('tensorflow_datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
