"""The toy dialogues: a summary says what the dialogue says, and no name of one split is in another."""

import re

import pytest

from zoo.data import load, load_train_and_dev, toy
from zoo.data.toy_dialogues import meetings

AGREED = re.compile(r"(\S+) and (\S+) will go to (\w+) on (\w+day)\. (\S+) will bring (\w+)\.")
REFUSED = re.compile(r"(\S+) wants to go to (\w+) on (\w+day), but (\S+) has to help (\w+)\.")
MARKS = ["#Person1#", "#Person2#"]


def names(examples):
    """Returns all names and places in the summaries: capitalized words that are neither days nor marks."""
    found = {word for example in examples for word in re.findall(r"\b[A-Z]\w+\b", example["target"])}
    return {word for word in found if not word.endswith("day")} - {"Person1", "Person2"}


@pytest.mark.parametrize("split", toy.SIZES)
def test_a_split_has_its_size_and_the_seed_decides(split):
    first = meetings(split=split)
    assert len({example["source"] for example in first}) == len(first) == toy.SIZES[split]
    assert meetings(split=split) == first
    assert meetings(split=split, seed=1) != first


def test_a_summary_says_what_the_dialogue_says():
    agreed = 0
    for example in meetings():
        lines = [re.fullmatch(r"(#Person[12]#): (.+)", line).groups() for line in example["source"].split("\n")]
        assert [mark for mark, _ in lines] == MARKS * (len(lines) // 2)
        # Each is called what the other says at the beginning.
        hellos = [re.search(r", (\w+)[.!]", text) for _, text in lines[:2]]
        second, first = (hello[1] if hello else mark for hello, mark in zip(hellos, reversed(MARKS)))
        proposal, answer = lines[-2][1], lines[-1][1]
        if match := AGREED.fullmatch(example["target"]):
            assert match[1] == first
            assert match[2] == match[5] == second
            place, day, said = match[3], match[4], match[6]
        else:
            match = REFUSED.fullmatch(example["target"])
            assert (match[1], match[4]) == (first, second)
            place, day, said = match[2], match[3], match[5]
        assert f" {said}" in answer
        assert place in proposal
        assert day in proposal
        agreed += match.re is AGREED
    assert 1100 < agreed < 1300


def test_no_name_of_one_split_is_in_another():
    train, validation, test = (names(meetings(split=split)) for split in toy.SIZES)
    assert len(train) > 2000
    assert min(len(validation), len(test)) > 150
    assert validation.isdisjoint(test)
    # Nor are they spoken of in a training dialogue, outside its summary.
    spoken = {word for example in meetings() for word in re.findall(r"\w+", example["source"])}
    assert train < spoken
    assert spoken.isdisjoint(validation | test)


def test_there_are_as_many_examples_as_the_error_says():
    assert len(meetings(10_000, split="test")) == 10_000
    with pytest.raises(ValueError, match=r"^count 10001: the test split has 1 to 10000 examples$"):
        meetings(10_001, split="test")
    with pytest.raises(ValueError, match=r"^no split 'valid'; did you mean 'validation'\?$"):
        meetings(split="valid")


def test_the_toy_is_a_source():
    assert load("toy:meetings", "test") == meetings(split="test")
    assert [len(part) for part in load_train_and_dev("toy:meetings")] == [2000, 200]


def test_the_first_dialogue_is_the_same_on_every_machine():
    assert meetings(1) == [
        {
            "source": "#Person1#: Hi! How are you?\n#Person2#: Hi, Nonaus! How are you?\n"
            "#Person1#: I am a bit tired.\n#Person2#: I see.\n"
            "#Person1#: Shall we go to Senamouth on Wednesday?\n#Person2#: Yes, and I will take music with me.",
            "target": "Nonaus and #Person2# will go to Senamouth on Wednesday. #Person2# will bring music.",
        }
    ]
