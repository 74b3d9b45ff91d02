"""Images with captions out of files and of TFDS: grouped, found beside the file, and still encoded."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from zoo.data import SourceError, captions, load, load_train_and_dev
from zoo.data.images import decode

FIELDS = {"image": "file", "captions": "caption"}
COLOURS = {"a.png": (200, 0, 0), "b.png": (0, 200, 0), "c.png": (0, 0, 200)}


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (4, 2), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, colour in COLOURS.items():
        (tmp_path / "images" / name).write_bytes(png(colour))
    return tmp_path


def write(folder, name, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return f"{name.rpartition('.')[2]}:{folder / name}"


def error(*arguments, **keywords):
    with pytest.raises(SourceError) as raised:
        load(*arguments, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# === Files ===


def test_rows_of_a_tsv_about_the_same_image_become_one_example(folder):
    source = write(
        folder,
        "captions.tsv",
        "caption\tfile",
        "a red one\timages/a.png",
        "a green one\timages/b.png",
        "it is red\timages/a.png",
    )
    examples = load(source, fields=FIELDS)
    assert examples == [
        {"image": folder / "images/a.png", "captions": ["a red one", "it is red"], "name": "images/a.png"},
        {"image": folder / "images/b.png", "captions": ["a green one"], "name": "images/b.png"},
    ]
    assert decode(examples[1]["image"])[0, 0].tolist() == [0, 200, 0]


def test_a_jsonl_holds_one_caption_or_several(folder):
    source = write(
        folder,
        "captions.jsonl",
        {"file": "images/a.png", "caption": ["a red one", "it is red"], "meta": {"tag": "x"}},
        {"file": "images/c.png", "caption": "a blue one", "meta": {"tag": "y"}},
        {"file": "images/c.png", "caption": "it is blue", "meta": {"tag": "z"}},
    )
    examples = load(source, fields={**FIELDS, "tags": "meta/tag"})
    assert [(example["name"], example["captions"], example["tags"]) for example in examples] == [
        ("images/a.png", ["a red one", "it is red"], "x"),
        ("images/c.png", ["a blue one", "it is blue"], "y"),
    ]


def test_images_alone_have_no_captions(folder):
    source = write(folder, "images.tsv", "file", "images/a.png")
    (example,) = load(source, fields={"image": "file"})
    assert example["captions"] == []


def test_an_absolute_path_stays_as_it_is(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    source = write(elsewhere, "captions.tsv", "file\tcaption", f"{folder}/images/a.png\ta red one")
    assert load(source, fields=FIELDS)[0]["image"] == folder / "images/a.png"


@pytest.mark.parametrize(
    ("name", "rows", "problem"),
    [
        ("c.tsv", ["file\tcaption", "images/a.png\t"], "line 2: nothing in column 'caption': 'images/a.png\\t'; "),
        ("c.tsv", ["file\tcaption", "images/a.png"], "line 2: 1 column: 'images/a.png'; it takes 2 columns, as in "),
        ("c.tsv", ["file\ttext", "images/a.png\tx"], "line 1: no column 'caption' in the header; there is file, text"),
        ("c.jsonl", [{"file": "images/a.png"}], "line 1: no key 'caption'; there is file"),
        (
            "c.jsonl",
            [{"file": "images/a.png", "caption": []}],
            "line 1: '[]' under the key 'caption'; it takes a text or a list of texts",
        ),
        (
            "c.jsonl",
            [{"file": "images/a.png", "caption": ["x", " "]}],
            "line 1: '\" \"' under the key 'caption'; it takes a text or a list of texts",
        ),
        (
            "c.jsonl",
            [{"file": ["images/a.png"], "caption": "x"}],
            "line 1: '[\"images/a.png\"]' under the key 'file'; ",
        ),
    ],
)
def test_a_missing_caption_is_named_with_its_line(name, rows, problem, folder):
    source = write(folder, name, *rows)
    assert error(source, fields=FIELDS).startswith(f"{folder / name}, {problem}")


def test_a_missing_image_is_named(folder):
    source = write(folder, "captions.tsv", "file\tcaption", "images/a.png\tx", "images/d.png\ty")
    assert error(source, fields=FIELDS) == f"{folder}/captions.tsv: no image '{folder}/images/d.png'"
    source = write(
        folder, "captions.tsv", "file\tcaption", "http://example.org/e.png\tx", "d.png\tx", "images/a.png\ty"
    )
    assert error(source, fields=FIELDS) == (
        f"{folder}/captions.tsv: no image '{folder}/http:/example.org/e.png', and 1 more of 3"
    )


def test_a_share_is_held_out_by_images(folder):
    rows = [f"images/{name}\tcaption {number}" for name in COLOURS for number in range(5)]
    train, dev = load_train_and_dev(write(folder, "captions.tsv", "file\tcaption", *rows), fields=FIELDS)
    assert sorted(example["name"] for example in train + dev) == sorted(f"images/{name}" for name in COLOURS)
    assert all(len(example["captions"]) == 5 for example in train + dev)


# === TFDS ===


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A folder where coco_captions is prepared, with the features that TFDS declares and three invented images."""
    folder = tmp_path_factory.mktemp("tfds")
    builder = tfds.builder("coco_captions", data_dir=folder)
    rows = [
        {
            "image": io.BytesIO(jpeg(colour)),
            "image/filename": name,
            "image/id": number,
            "objects": [],
            "captions": [{"id": 10 * number + i, "text": f"caption {i} of {name}"} for i in range(2 + number)],
        }
        for number, (name, colour) in enumerate(COLOURS.items())
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=builder.name,
        version=str(builder.version),
        config=builder.builder_config.name,
        features=builder.info.features,
        split_datasets={"train": list(enumerate(rows[:2])), "val": list(enumerate(rows[2:]))},
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder


def jpeg(colour):
    file = io.BytesIO()
    Image.new("RGB", (16, 8), colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_the_nested_captions_of_coco_are_read(coco):
    examples = load("tfds:coco_captions", data_dir=coco)
    assert [(example["name"], example["captions"]) for example in examples] == [
        ("a.png", ["caption 0 of a.png", "caption 1 of a.png"]),
        ("b.png", ["caption 0 of b.png", "caption 1 of b.png", "caption 2 of b.png"]),
    ]
    assert [example["image"] for example in examples] == [jpeg(COLOURS["a.png"]), jpeg(COLOURS["b.png"])]
    (example,) = load("tfds:coco_captions:val", data_dir=coco, fields={"image": "image", "number": "image/id"})
    assert example == {"image": jpeg(COLOURS["c.png"]), "number": "2"}


def test_images_that_memory_would_not_hold_are_read_from_a_file(coco, monkeypatch):
    expected = load("tfds:coco_captions", data_dir=coco)
    monkeypatch.setattr(captions, "MOST_BYTES", len(expected[0]["image"]))
    examples = load("tfds:coco_captions", data_dir=coco)
    assert [type(example["image"]) for example in examples] == [bytes, memoryview]
    assert examples == expected
    np.testing.assert_array_equal(decode(examples[1]["image"]), decode(expected[1]["image"]))


def test_a_feature_that_is_no_image_is_named(coco):
    message = error("tfds:coco_captions", data_dir=coco, fields={"image": "objects"})
    assert message == "tfds:coco_captions: feature 'objects' is no text but Sequence; name others (fields)"
