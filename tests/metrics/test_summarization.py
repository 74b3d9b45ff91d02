"""ROUGE worked out by hand and as another package computed it; baselines and diagnostics on texts one can count in."""

import pytest
import rouge_score.rouge_scorer

from zoo.metrics.summarization import baseline, summarization_scores, summary_diagnostics

SUMMARIES = [
    "The doctor asks Ada about her trouble breathing and will send her to a specialist.",
    "Ben invites Ada to lunch.",
]
REFERENCES = [
    [
        "Ada has trouble breathing. The doctor asks Ada about it and will send Ada to a specialist.",
        "The doctor sends Ada to a specialist as she cannot breathe well.",
    ],
    ["Ada and Ben will have lunch on Monday.", "Ben asks Ada out for lunch."],
]
# py-rouge 1.1, one pair after the other: Rouge(metrics=["rouge-n", "rouge-l"], max_n=2, limit_length=False, alpha=0.5,
# weight_factor=1.2, stemming=True), "f".
PY_ROUGE = {
    "rouge1": [[81.25, 59.2593], [46.1538, 54.5455]],
    "rouge2": [[60.0, 24.0], [0.0, 0.0]],
    "rougeL_py_rouge": [[73.2001, 50.92], [37.5888, 60.3784]],
}
TURNS = ["#Person1#: Hi.", "#Person2#: Hello, how are you?", "#Person1#: Fine, and you today?", "#Person2#: So so."]


# === ROUGE ===


def test_rouge_by_hand():
    # "the dog sat" in "the old dog sat down": all three words, one of the two pairs, and all three in order.
    scores = summarization_scores(["The dog sat."], ["the old dog sat down"])
    precision, recall = 3 / 3, 3 / 5
    assert scores["rouge1"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert scores["rouge2"] == pytest.approx(100 * 2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4))
    assert scores["rougeL"] == pytest.approx(scores["rouge1"])
    assert summarization_scores(["sat the dog"], ["the old dog sat down"])["rougeL"] == pytest.approx(100 * 4 / 8)


@pytest.mark.parametrize("name", PY_ROUGE)
def test_rouge_is_what_py_rouge_says(name):
    for summary, texts, expected in zip(SUMMARIES, REFERENCES, PY_ROUGE[name]):
        for text, value in zip(texts, expected):
            assert summarization_scores([summary], [text])[name] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("name", PY_ROUGE)
def test_several_references_give_their_mean_and_the_best(name):
    scores = summarization_scores(SUMMARIES, REFERENCES)
    assert scores[name] == pytest.approx(sum(map(sum, PY_ROUGE[name])) / 4, abs=1e-4)
    assert scores[f"{name}_best"] == pytest.approx(sum(map(max, PY_ROUGE[name])) / 2, abs=1e-4)
    uneven = summarization_scores(SUMMARIES, [REFERENCES[0], REFERENCES[1][1]])
    assert uneven[name] == pytest.approx((sum(PY_ROUGE[name][0]) / 2 + PY_ROUGE[name][1][1]) / 2, abs=1e-4)


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_is_what_its_package_says(stemmer):
    summary, text = "It's  the dogs'\nold-fashioned house: HOUSES, naïve?", "a dog's old house.\nIt is NAÏVE, fashion"
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    expected = rouge_score.rouge_scorer.RougeScorer(names, use_stemmer=stemmer).score(text, summary)
    scores = summarization_scores([summary], [text], stemmer=stemmer)
    for name in names:
        assert scores[name] == pytest.approx(100 * expected[name].fmeasure)


def test_stems_count_unless_told_otherwise():
    assert summarization_scores(["dogs running"], ["dog runs"])["rouge1"] == 100
    assert summarization_scores(["dogs running"], ["dog runs"], stemmer=False)["rouge1"] == 0


def test_rouge_lsum_goes_by_sentences():
    summary, text = "a b. c d.", "c d. a b."
    assert summarization_scores([summary], [text])["rougeLsum"] == 50
    split = {summary: ["a b.", "c d."], text: ["c d.", "a b."]}.__getitem__
    scores = summarization_scores([summary], [text], split=split)
    assert (scores["rougeLsum"], scores["rougeL"]) == (100, 50)


def test_perfect_and_empty():
    perfect = summarization_scores(REFERENCES[1], REFERENCES[1])
    empty = summarization_scores(["", "?"], REFERENCES)
    assert {value for name, value in perfect.items() if name != "signature"} == {100}
    assert {value for name, value in empty.items() if name != "signature"} == {0}


def test_the_signature_says_how():
    signature = summarization_scores(SUMMARIES, [REFERENCES[0], "one"], stemmer=False)["signature"]
    assert signature.split("|")[1:] == ["nrefs:1-2", "stemmer:no", "f1", "mean over references"]
    assert summarization_scores(SUMMARIES, REFERENCES)["signature"].split("|")[1:3] == ["nrefs:2", "stemmer:yes"]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (REFERENCES[:1], r"^2 summaries, references for 1; they go together$"),
        ([REFERENCES[0], []], r"^references: none for summary 2; it takes one$"),
    ],
)
def test_a_missing_reference_is_named(references, message):
    with pytest.raises(ValueError, match=message):
        summarization_scores(SUMMARIES, references)


# === Baselines ===


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lead-1", [0]),
        ("lead-3", [0, 1, 2]),
        ("longest-1", [1]),  # of two that are equally long the first
        ("longest-3", [1, 2, 3]),
        ("longest-9", [0, 1, 2, 3]),
        ("random-9", [0, 1, 2, 3]),
    ],
)
def test_a_baseline_takes_turns_in_their_order(name, expected):
    assert baseline(name)(TURNS) == " ".join(TURNS[number] for number in expected)


def test_the_seed_and_the_text_decide_what_random_takes():
    choices = {baseline("random-2", seed)(TURNS) for seed in range(60)}
    assert choices == {f"{TURNS[i]} {TURNS[j]}" for i in range(4) for j in range(i + 1, 4)}
    summarize = baseline("random-2")
    assert summarize(TURNS) == summarize(TURNS) == baseline("random-2", 0)(TURNS)


def test_a_baseline_of_nothing_is_nothing():
    assert [baseline(name)([]) for name in ("lead-3", "longest-3", "random-3")] == ["", "", ""]


@pytest.mark.parametrize("name", ["led-3", "lead3", "lead", "lead-0", "lead--1"])
def test_an_unknown_baseline_gets_the_nearest(name):
    with pytest.raises(ValueError, match=rf"^baseline '{name}': did you mean 'lead-3'\?$"):
        baseline(name)


# === Diagnostics ===


def test_novelty_and_repetition_by_hand():
    scores = summary_diagnostics(["The dog ran, the dog ran home."], ["A dog ran; the dog ran away."])
    # the dog ran the dog ran home: of 7 words "home" is new; of 6 pairs "ran home"; of 5 triples "dog ran home", and
    # "the dog ran" was said before.
    assert scores["novel1"] == pytest.approx(100 / 7)
    assert scores["novel2"] == pytest.approx(100 / 6)
    assert scores["novel3"] == pytest.approx(100 / 5)
    assert scores["repeated3"] == pytest.approx(100 / 5)
    assert "length_ratio" not in scores


def test_lengths_by_hand():
    scores = summary_diagnostics(["a b c", "?"], ["a b c d e f", "x"], [["a b", "a b c d"], "a"])
    assert scores["words"] == 1.5
    assert scores["length_ratio"] == pytest.approx(3 / (3 + 1))
    assert scores["compression"] == pytest.approx(7 / 3)
    assert scores["empty"] == 1


def test_a_copy_is_nothing_new_and_nothing_said_is_no_harm():
    assert summary_diagnostics(["a b c d"], ["x a b c d"])["novel2"] == 0
    nothing = summary_diagnostics([""], ["a"], [""])
    assert nothing.pop("empty") == 1
    assert set(nothing.values()) == {0}
