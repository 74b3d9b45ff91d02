"""Tags that are read off probabilities: the likeliest sequence among those that make sense."""

import itertools

import numpy as np
import pytest

from zoo.data.texts import Encoding
from zoo.models.encoder import HeadConfig
from zoo.tasks.labels import read_tags

TEXT = "to new york city"
WORDS = Encoding([1, 2, 3, 4], [0, 0, 0, 0], [(0, 2), (3, 6), (7, 11), (12, 16)], False)


def makes_sense(tags):
    return all(
        tag[:2] != "I-" or (before[2:] == tag[2:] and before[0] in "BI")
        for before, tag in itertools.pairwise(["O", *tags])
    )


@pytest.mark.parametrize("seed", range(20))
def test_tags_are_the_likeliest_that_make_sense(seed):
    classes = ("B-city", "B-day", "I-city", "I-day", "O")
    probabilities = np.random.default_rng(seed).dirichlet([0.5] * 5, 4)
    best = max(
        filter(makes_sense, itertools.product(classes, repeat=4)),
        key=lambda tags: np.prod([row[classes.index(tag)] for row, tag in zip(probabilities, tags)]),
    )
    assert read_tags(HeadConfig(kind="tags", classes=classes), probabilities, TEXT, WORDS) == list(best)


def test_tags_without_beginnings_may_come_anywhere():
    classes = ("I-city", "NOUN", "O")
    probabilities = np.eye(3)[[0, 1, 0, 2]]
    found = read_tags(HeadConfig(kind="tags", classes=classes), probabilities, TEXT, WORDS)
    assert found == ["I-city", "NOUN", "I-city", "O"]


def test_a_word_that_was_cut_off_is_outside():
    classes = ("B-city", "I-city", "O")
    cut = Encoding([1, 2], [0, 0], [(0, 2), (3, 6)], True)
    found = read_tags(HeadConfig(kind="tags", classes=classes), np.eye(3)[[2, 0]], TEXT, cut)
    assert found == ["O", "B-city", "O", "O"]
