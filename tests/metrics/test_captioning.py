"""Scores of captions worked out by hand, or by another program; and rewards against the evaluation's own code."""

import collections
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from zoo.metrics.captioning import bleu_rewards, caption_scores, caption_words, cider_rewards, document_frequencies

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def captions(rng):
    """Candidates and references over few words, so that they share many n-grams; some are empty or repeat."""
    words = np.array(["a", "the", "dog", "cat", "runs", "sits", "on", "in", "grass", "snow"])

    def say():
        return " ".join(words[rng.integers(len(words), size=rng.integers(3, 12))])

    references = [[say() for _ in range(rng.integers(1, 6))] for _ in range(30)]
    candidates = [say() if rng.random() < 0.5 else texts[0] for texts in references]
    return ["", "dog dog dog dog dog", *candidates[2:]], references


# === Words ===


def test_words_are_those_of_the_evaluation():
    lines = (FIXTURES / "words.tsv").read_text(encoding="utf-8").splitlines()
    expected = dict(line.split("\t") for line in lines)
    assert len(expected) > 30
    assert {caption: " ".join(caption_words(caption)) for caption in expected} == expected


# === Scores ===


def test_bleu_by_hand():
    # All words and pairs are in one of the references; "over the grass" is not, and so one triple and one quadruple.
    found = caption_scores(
        ["a dog runs over the grass"], [["a dog runs over the snow today", "the dog is on the grass"]]
    )
    precisions = [6 / 6, 5 / 5, 3 / 4, 2 / 3]
    for n in range(1, 5):
        assert found[f"bleu{n}"] == pytest.approx(100 * math.prod(precisions[:n]) ** (1 / n))


@pytest.mark.parametrize(
    ("candidate", "references", "expected"),
    [
        ("the the the dog", ["the dog", "the cat sat"], 2 / 4),  # a word counts as often as one reference has it
        ("the dog", ["the dog sits down", "the old dog of the man"], math.exp(1 - 4 / 2)),  # the nearest length
        ("the old dog", ["a dog of theirs", "old dog"], 2 / 3),  # of two as near, the shorter: no penalty
    ],
)
def test_bleu1_by_hand(candidate, references, expected):
    assert caption_scores([candidate], [references])["bleu1"] == pytest.approx(100 * expected)


def test_bleu_is_of_the_corpus_as_plain_loops_have_it(captions):
    candidates, references = captions
    matches, totals, length, wanted = np.zeros(4), np.zeros(4), 0, 0
    for candidate, texts in zip(candidates, references):
        words, others = candidate.split(), [text.split() for text in texts]
        length += len(words)
        wanted += sorted((abs(len(other) - len(words)), len(other)) for other in others)[0][1]
        for n in range(1, 5):
            mine = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            theirs = [[tuple(other[i : i + n]) for i in range(len(other) - n + 1)] for other in others]
            totals[n - 1] += len(mine)
            matches[n - 1] += sum(min(mine.count(g), max(t.count(g) for t in theirs)) for g in set(mine))
    penalty = min(1.0, math.exp(1 - wanted / length))
    found = caption_scores(candidates, references)
    for n in range(1, 5):
        expected = 100 * penalty * math.prod(matches[:n] / totals[:n]) ** (1 / n)
        assert found[f"bleu{n}"] == pytest.approx(expected, abs=1e-4)
    assert 5 < found["bleu4"] < found["bleu1"] < 95
    assert found["length"] == pytest.approx(100 * length / wanted)


def test_rouge_by_hand():
    # In common are "dog on grass", in this order: three of four words said, three of five wanted.
    precision, recall = 3 / 4, 3 / 5
    expected = 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert caption_scores(["brown dog on grass"], [["the dog lies on grass"]])["rougeL"] == pytest.approx(expected)


def test_cider_by_hand():
    # Every n-gram is known of one image of two, so all weigh the same. The first caption is right in words and pairs
    # and has no longer n-grams; the second has one word of two, and no pair.
    found = caption_scores(["red dog", "blue bird"], [["red dog"], ["blue cat"]])
    assert found["cider"] == pytest.approx(100 * 10 * np.mean([(1 + 1 + 0 + 0) / 4, (1 / 2 + 0 + 0 + 0) / 4]))


def test_cider_weighs_what_is_said_of_every_image_with_nothing():
    references = [["a dog runs"], ["a cat sits"], ["a bird sings"]]
    assert caption_scores(["a b", "a c", "a d"], references)["cider"] == 0
    assert caption_scores(["dog", "cat", "bird"], references)["cider"] > 0


def test_perfect_and_wrong():
    texts = ["a black dog runs on grass", "two people sit at a table", "the boy jumps into water"]
    perfect, wrong = (caption_scores(list(found), [[text] for text in texts]) for found in (texts, ["x y z w"] * 3))
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rougeL"):
        assert perfect[name] == pytest.approx(100)
        assert wrong[name] == pytest.approx(0, abs=1e-3)
    assert perfect["cider"] == pytest.approx(1000)
    assert wrong["cider"] == 0


def test_case_and_punctuation_do_not_count():
    references = [["Two dogs , running .", "dogs!"], ["a cat"]]
    assert caption_scores(["two dogs running", "A cat."], references) == caption_scores(
        ["TWO DOGS, RUNNING!", "a cat"], references
    )


def test_captions_that_repeat_are_counted():
    found = caption_scores(["A dog runs .", "a dog runs", "a cat", "a bird"], [["a dog"]] * 4)
    assert found["distinct"] == pytest.approx(75)
    assert found["vocabulary"] == 5


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "0 captions and 0 lists"),
        (["a dog"], [], "1 captions and 0 lists"),
        (["a dog", "a cat"], [["a dog"], []], r"references of caption 2: no word in \[\]"),
        (["a dog"], [[" . "]], r"references of caption 1: no word in \[' \. '\]"),
    ],
)
def test_what_cannot_be_scored_is_named(candidates, references, message):
    with pytest.raises(ValueError, match=message):
        caption_scores(candidates, references)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="takes Java")
def test_java_adds_meteor():
    said = ["a black dog running on grass", "two persons sit at a table"]
    found = caption_scores(said, [["a black dog runs on grass"], ["two people sit at a table"]], java=None)
    assert found["bleu4"] < 60 < found["meteor"] < 100  # stems and synonyms count


def test_where_java_fails_the_other_scores_stand(monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError("no java")

    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", fail)
    with pytest.warns(UserWarning, match="meteor is left out"):
        found = caption_scores(["a dog"], [["a dog"]], java=True)
    assert found["bleu1"] == pytest.approx(100)
    assert "meteor" not in found


# === Rewards ===


def test_rewards_are_the_evaluations_own(captions):
    candidates, references = captions
    wanted, found = dict(enumerate(references)), {i: [caption] for i, caption in enumerate(candidates)}
    expected = Cider().compute_score(wanted, found)[1]
    rewards = cider_rewards(candidates, references, document_frequencies(references))
    assert rewards[0] == 0
    assert rewards.max() > 2
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)


def test_a_reward_depends_on_its_own_caption_alone(captions):
    candidates, references = captions
    frequencies = document_frequencies(references)
    rewards = cider_rewards(candidates, references, frequencies)
    order = [7, 7, 3, 29]
    some = cider_rewards([candidates[i] for i in order], [references[i] for i in order], frequencies)
    np.testing.assert_array_equal(some, rewards[order])


def test_bleu_as_a_reward_by_hand():
    # With its end: 3 of 3 words, 2 of 2 pairs, 1 of 1 triple, and no group of four. "a", "dog" and the end are 3 of 4
    # words; no pair is right.
    short, wrong = bleu_rewards(["a dog", "a cat dog"], [["a dog runs", "a dog"], ["a dog runs"]])
    assert short == pytest.approx((1 + 1 + 1 + 0) / 4, abs=0.01)
    assert wrong == pytest.approx((3 / 4 + 0 + 0 + 0) / 4, abs=0.01)
    # One word fewer than the reference, and all but the end right.
    (penalized,) = bleu_rewards(["a dog"], [["a dog runs"]])
    assert penalized == pytest.approx(math.exp(1 - 4 / 3) * (1 + (1 / 2) ** (1 / 2) + 0 + 0) / 4, abs=0.01)


def test_bleu_as_a_reward_sees_captions_that_break_off():
    whole, broken = bleu_rewards(["a dog runs in the park", "a dog runs in the"], [["a dog runs in the park"]] * 2)
    assert whole == pytest.approx(1)
    assert broken < 0.95 * math.exp(1 - 6 / 5)  # which it would be if the end did not count: every word is right


def test_frequencies_count_images_not_captions():
    frequencies = document_frequencies([["a dog", "a dog a dog"], ["A cat."]])
    assert frequencies.images == 2
    assert frequencies.counts == collections.Counter(
        {("a",): 2} | dict.fromkeys([("dog",), ("cat",), ("a", "dog"), ("dog", "a"), ("a", "cat")], 1)
        | dict.fromkeys([("a", "dog", "a"), ("dog", "a", "dog"), ("a", "dog", "a", "dog")], 1)
    )  # fmt: skip


def test_with_the_ending_a_caption_that_breaks_off_earns_less():
    references = [["a dog runs on grass"], ["two cats sit in a tree"], ["people eat"]]
    whole, broken = "a dog runs on grass", "a dog runs on grass and a"
    losses = []
    for ending in (False, True):
        frequencies = document_frequencies(references, ending)
        best, worse = cider_rewards([whole, broken], [references[0]] * 2, frequencies)
        assert best == pytest.approx(10)
        losses.append(best - worse)
    assert losses[1] > losses[0] > 0
