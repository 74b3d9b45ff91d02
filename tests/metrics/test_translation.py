"""Scores worked out by hand or stated in sacrebleu's own tests, and signatures that say how they came about."""

import math

import pytest
import sacrebleu

from zoo.metrics.translation import translation_scores


def test_bleu_by_hand():
    # Of the hypothesis' words, pairs, triples and quadruples so many are right; it is one word too short.
    scores = translation_scores(["the dog bit the old man"], ["the old dog bit the old man"])
    expected = 100 * (6 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25 * math.exp(1 - 7 / 6)
    assert scores["bleu"] == pytest.approx(expected)


def test_bleu_is_of_the_corpus_and_not_a_mean_over_sentences():
    sources, references = ["a b c d e", "f g h i j k"], ["a b c d e", "f g h i x y"]
    expected = 100 * (9 / 11 * 7 / 9 * 5 / 7 * 3 / 5) ** 0.25
    assert translation_scores(sources, references)["bleu"] == pytest.approx(expected)


# Hypotheses, references and chrF from sacrebleu's test/test_chrf.py (effective order, no smoothing); precision equals
# recall in all of them, so they hold for any beta.
@pytest.mark.parametrize(
    ("hypotheses", "references", "expected"),
    [
        (["a"], ["a"], 100.0),
        ([""], ["reference"], 0.0),
        (["a b c"], ["a b c"], 100.0),
        (["a b c"], ["abc"], 100.0),
        (["a", "b"], ["a", "c"], 50.0),
        (["aa"], ["ab"], 25.0),
    ],
)
def test_chrf_as_stated_by_sacrebleu(hypotheses, references, expected):
    assert translation_scores(hypotheses, references)["chrf"] == pytest.approx(expected)


def test_chrf_weighs_recall_twice():
    # One letter of one is right, one of two was wanted: precision 1, recall 1/2.
    expected = 100 * (1 + 4) * 1 * 0.5 / (4 * 1 + 0.5)
    assert translation_scores(["a"], ["ab"])["chrf"] == pytest.approx(expected)


def test_only_the_lowercase_bleu_overlooks_case():
    scores = translation_scores(["Two Dogs run home ."], ["two dogs run home ."])
    assert scores["bleu_lowercase"] == pytest.approx(100)
    assert scores["bleu"] == pytest.approx(100 * (3 / 5 * 2 / 4 * 1 / 3 * 1 / 4) ** 0.25)


def test_punctuation_is_split_off():
    assert translation_scores(["Yes , two dogs !"], ["Yes, two dogs!"])["bleu"] == pytest.approx(100)


def test_perfect_and_empty():
    perfect = translation_scores(["this is a test"] * 2, ["this is a test"] * 2)
    empty = translation_scores([""] * 2, ["this is a test"] * 2)
    for name in ("bleu", "bleu_lowercase", "chrf"):
        assert perfect[name] == pytest.approx(100)
        assert empty[name] == 0


def test_signatures_say_how():
    signatures = translation_scores(["a b c d"], ["a b c d"])["signatures"]
    parts = {name: dict(part.split(":") for part in text.split("|")) for name, text in signatures.items()}
    assert parts.keys() == {"bleu", "bleu_lowercase", "chrf"}
    for name, case in (("bleu", "mixed"), ("bleu_lowercase", "lc")):
        assert parts[name] == {
            "nrefs": "1",
            "case": case,
            "eff": "no",
            "tok": "13a",
            "smooth": "exp",
            "version": sacrebleu.__version__,
        }
    assert parts["chrf"]["nc"] == "6"
    assert parts["chrf"]["nw"] == "0"
