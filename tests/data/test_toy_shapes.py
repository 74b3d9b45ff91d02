"""The toy images: what their captions say is what is drawn."""

import numpy as np
import pytest

from zoo.data import load
from zoo.data.images import decode
from zoo.data.toy_shapes import _COLOURS, SIDE, shapes
from zoo.data.toy_texts import SIZES


def places(example):
    """Where the two colours of a caption are in the image, (y, x), and how many pixels each has."""
    words = example["captions"][0].split()
    pixels = decode(example["image"]).astype(int)
    found = []
    for colour in (words[2], words[-2]):
        is_colour = np.abs(pixels - _COLOURS[colour]).sum(axis=-1) == 0
        found.append((np.argwhere(is_colour).mean(axis=0), is_colour.sum()))
    return found


def test_the_first_thing_is_where_the_caption_says():
    said = set()
    for example in shapes(200):
        words = example["captions"][0].split()
        if words[2] == words[-2]:
            continue  # the same colour: which is which cannot be told by it
        (first, first_size), (second, second_size) = places(example)
        relation = words[4]
        said.add(relation)
        axis = {"above": 0, "left": 1}[relation]
        assert first[axis] < second[axis]
        sizes = (words[1], words[-3])
        if sizes == ("large", "small"):
            assert first_size > second_size
    assert said == {"above", "left"}


def test_both_captions_say_the_same():
    example = shapes(1, seed=3)[0]
    first, there_is = example["captions"][0], example["captions"][2]
    assert there_is == f"there is {first}"
    for example in shapes(50):
        first, reverse, _ = example["captions"]
        if " above " in first:
            assert first.split(" above ") == reverse.split(" below ")[::-1]
        else:
            assert first.split(" left of ") == reverse.split(" right of ")[::-1]


def test_splits_share_no_caption_and_a_seed_decides():
    captions = {split: {text for e in shapes(split=split) for text in e["captions"]} for split in SIZES}
    assert len(set().union(*captions.values())) == sum(map(len, captions.values()))
    assert shapes(5, seed=1) == shapes(5, seed=1)
    assert shapes(5, seed=1) != shapes(5, seed=2)


def test_it_is_a_source():
    examples = load("toy:shapes", "test")
    assert len(examples) == SIZES["test"]
    assert decode(examples[0]["image"]).shape == (SIDE, SIDE, 3)
    assert set(examples[0]) == {"image", "captions", "name"}


@pytest.mark.parametrize("arguments", [{"count": 0}, {"count": 10**6}, {"split": "dev"}])
def test_a_wrong_argument_is_named(arguments):
    with pytest.raises(ValueError, match=r"count|split"):
        shapes(**arguments)
