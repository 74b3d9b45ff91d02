"""Scores of classes, tags and spans."""

import collections
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Guesses(NamedTuple):
    """What a classifier thinks of labelled examples.

    Args:
        classes: Their names.
        probabilities: (examples, classes).
        labels: Integer (examples,), or 0 and 1 (examples, classes) where an example may have several.
    """

    classes: Sequence[str]
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def exclusive(self) -> bool:
        """Whether an example has one label."""
        return self.labels.ndim == 1

    @property
    def right(self) -> np.ndarray:
        """Which example is of which class: boolean (examples, classes)."""
        return self.labels[:, None] == np.arange(len(self.classes)) if self.exclusive else self.labels == 1

    @property
    def confusion(self) -> np.ndarray:
        """How often each class, a row, was taken for which, a column, of exclusive ones: integer (classes, classes)."""
        counts = np.zeros((len(self.classes),) * 2, int)
        np.add.at(counts, (self.labels, self.probabilities.argmax(axis=1)), 1)
        return counts


def label_scores(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, float]:
    """Scores one label a text.

    Args:
        probabilities: (examples, classes).
        labels: Integer (examples,).
        bins: Of the calibration error.

    Returns:
        "accuracy", "f1" (macro) and "ece", the expected calibration error, 0-100.

    Source: ECE: Guo et al. 2017, section 2.
    """
    from sklearn.metrics import f1_score

    guesses = probabilities.argmax(axis=1)
    right = guesses == labels
    confidence = probabilities.max(axis=1)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[bin_of == b].mean() - confidence[bin_of == b].mean()) * np.count_nonzero(bin_of == b)
        for b in np.unique(bin_of)
    ]
    return {
        "accuracy": 100 * float(right.mean()),
        "f1": 100 * float(f1_score(labels, guesses, average="macro", zero_division=0)),
        "ece": 100 * float(sum(gaps) / len(labels)),
    }


def multi_label_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores any number of labels a text; a class is guessed from probability 0.5 on.

    Args:
        probabilities: (examples, classes).
        labels: 0 or 1, (examples, classes).

    Returns:
        "accuracy" (all classes of a text right), "f1" (macro) and "f1_micro", 0-100.
    """
    from sklearn.metrics import f1_score

    guesses = probabilities >= 0.5
    return {
        "accuracy": 100 * float((guesses == labels).all(axis=1).mean()),
        "f1": 100 * float(f1_score(labels, guesses, average="macro", zero_division=0)),
        "f1_micro": 100 * float(f1_score(labels, guesses, average="micro", zero_division=0)),
    }


def tag_scores(guesses: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores B-/I- tags: a slot counts when its kind and both its ends are right.

    Args:
        guesses, labels: One list of tags a text, one tag a word.

    Returns:
        "slot_f1" by seqeval, and "tag_accuracy", 0-100.
    """
    from seqeval.metrics import accuracy_score, f1_score

    labels, guesses = [list(row) for row in labels], [list(row) for row in guesses]
    return {
        "slot_f1": 100 * float(f1_score(labels, guesses)),
        "tag_accuracy": 100 * float(accuracy_score(labels, guesses)),
    }


def answer_scores(guesses: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores extracted answers, each against the best of its references; no reference means no answer.

    Args:
        guesses: The answers given; "" for none.
        answers: The accepted ones.

    Returns:
        "em" (exact match) and "f1" (over words), 0-100, after articles, punctuation and case are taken away.

    Source: Rajpurkar et al. 2016, section 6.1; no answer: Rajpurkar et al. 2018.
    """
    exact, overlap = [], []
    for guess, accepted in zip(guesses, answers, strict=True):
        words = _answer_words(guess)
        references = [_answer_words(answer) for answer in accepted] or [[]]
        exact.append(max(float(words == reference) for reference in references))
        overlap.append(max(_word_f1(words, reference) for reference in references))
    return {"em": 100 * float(np.mean(exact)), "f1": 100 * float(np.mean(overlap))}


def _answer_words(text: str) -> list[str]:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _word_f1(guess: list[str], reference: list[str]) -> float:
    common = sum((collections.Counter(guess) & collections.Counter(reference)).values())
    if not guess or not reference:
        return float(guess == reference)
    return 2 * common / (len(guess) + len(reference))


def describe_classes(labels: Sequence[str]) -> dict[str, int]:
    """Counts how often each class occurs, most frequent first."""
    return dict(collections.Counter(labels).most_common())
