"""From what an example says to what a head learns, and back: classes, sets of classes, tags of words, spans."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.config import nearest
from zoo.data.texts import Encoding
from zoo.models.encoder import HeadConfig

# Between the classes of a multi-label example.
SEPARATOR = ","
# A tag that no entity has.
OUTSIDE = "O"


def find_classes(head: HeadConfig, values: Sequence[str]) -> tuple[str, ...]:
    """Finds the classes that examples name, in alphabetical order.

    Raises:
        ValueError: If there are too few to choose from.
    """
    if head.kind == "labels":
        found = {name.strip() for value in values for name in value.split(SEPARATOR) if name.strip()}
    elif head.kind == "tags":
        found = {OUTSIDE, *(tag for value in values for tag in value.split())}
    else:
        found = set(values)
    if len(found) < 2 and head.kind != "labels":
        raise ValueError(f"the training examples name one class only: {sorted(found)}; there must be two or more")
    return tuple(sorted(found))


def read_label(head: HeadConfig, value: str, example: Mapping[str, str], encoding: Encoding | None) -> np.ndarray:
    """Turns one head's value of an example into numbers.

    Args:
        head: The head.
        value: A class; classes joined by commas; a number; one tag a word of the text; or an answer, which begins at
            the character example["answer_start"] of example["second"].
        example: The whole example.
        encoding: Its tokens; needed for tags and answers.

    Returns:
        What TextBatches takes as the label of such a head.

    Raises:
        ValueError: If a class is not known, a number is none, or tags and words do not go together.
    """
    if head.kind == "label":
        return np.array(class_number(head, value), np.int32)
    if head.kind == "labels":
        label = np.zeros(len(head.classes), np.float32)
        for name in value.split(SEPARATOR):
            if name.strip():
                label[class_number(head, name.strip())] = 1
        return label
    if head.kind == "number":
        return np.array(float(value), np.float32)
    if encoding is None:
        raise ValueError(f"a head of kind {head.kind!r} learns from tokens")
    if head.kind == "tags":
        return _tag_numbers(head, value.split(), example["text"], encoding)
    if head.kind == "span":
        return _span(value, int(example.get("answer_start", -1)), encoding)
    raise ValueError(f"a head of kind {head.kind!r} learns from no label")


def class_number(head: HeadConfig, name: str) -> int:
    """Finds a class.

    Raises:
        ValueError: If there is none of this name; it names the nearest.
    """
    if name not in head.classes:
        raise ValueError(f"no class {name!r}; {nearest(name, head.classes)}")
    return head.classes.index(name)


def word_starts(text: str, encoding: Encoding) -> list[int | None]:
    """Finds the token that each word of a text begins with; words are what white space separates.

    Returns:
        A token's place for each word; None where the word was cut off, or has no token of its own.
    """
    words, end = [], 0
    for spelling in text.split():
        start = text.index(spelling, end)
        words.append((start, end := start + len(spelling)))
    first: list[int | None] = [None] * len(words)
    word = 0
    for place, (begin, stop) in enumerate(encoding.offsets):
        while begin < stop and text[begin].isspace():  # some tokenizers count the space before a word as its own
            begin += 1
        if begin >= stop:
            continue
        while word < len(words) and words[word][1] <= begin:
            word += 1
        if word < len(words) and begin >= words[word][0] and first[word] is None:
            first[word] = place
    return first


def _tag_numbers(head: HeadConfig, tags: Sequence[str], text: str, encoding: Encoding) -> np.ndarray:
    places = word_starts(text, encoding)
    if len(tags) != len(places):
        raise ValueError(f"{len(tags)} tags for {len(places)} words; each word has one")
    numbers = np.full(len(encoding.ids), -1, np.int32)
    for tag, place in zip(tags, places):
        if place is not None:
            numbers[place] = class_number(head, tag) if tag in head.classes else -1
    return numbers


def read_tags(head: HeadConfig, probabilities: np.ndarray, text: str, encoding: Encoding) -> list[str]:
    """Reads the likeliest tags of words off their first tokens; OUTSIDE where a word has none.

    Of all sequences of tags only those count in which I-NAME follows B-NAME or I-NAME, where there is a B-NAME.

    Args:
        head: A head of kind tags.
        probabilities: (tokens, classes).
        text: The text.
        encoding: Its tokens.

    Source: Viterbi 1967, section III.
    """
    places = word_starts(text, encoding)
    seen = [place for place in places if place is not None]
    found = iter(_likeliest(np.log(probabilities[seen] + 1e-9), *_transitions(head.classes)) if seen else [])
    return [OUTSIDE if place is None else head.classes[next(found)] for place in places]


@functools.cache
def _transitions(classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns log-probabilities, 0 or minus infinity: of a first tag (C,), and of a tag behind another (C, C)."""
    inside = np.array([name.startswith("I-") and f"B-{name[2:]}" in classes for name in classes])
    entity = np.array([name[2:] if name.startswith(("B-", "I-")) else "" for name in classes])
    allowed = ~inside | (entity[:, None] == entity)
    return np.where(inside, -np.inf, 0.0), np.where(allowed, 0.0, -np.inf)


def _likeliest(scores: np.ndarray, first: np.ndarray, transitions: np.ndarray) -> list[int]:
    """Finds the path of the highest sum through scores (words, classes)."""
    total, came_from = scores[0] + first, []
    for row in scores[1:]:
        through = total[:, None] + transitions
        came_from.append(through.argmax(axis=0))
        total = through.max(axis=0) + row
    path = [int(total.argmax())]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    return path[::-1]


def _span(answer: str, start: int, encoding: Encoding) -> np.ndarray:
    """Finds the tokens of an answer in the second text; place 0 twice where there is none, or it was cut off."""
    if start < 0 or not answer:
        return np.zeros(2, np.int32)
    end = start + len(answer)
    inside = [
        place
        for place, (segment, (begin, stop)) in enumerate(zip(encoding.segments, encoding.offsets))
        if segment == 1 and begin < stop and begin < end and stop > start
    ]
    reaches = inside and encoding.offsets[inside[-1]][1] >= end
    return np.array([inside[0], inside[-1]] if reaches else [0, 0], np.int32)
