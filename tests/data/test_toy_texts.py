"""The toys with labels: labels that follow from the text, the same for every run, and never in two splits."""

import collections
import math
import re

import pytest

from zoo.data import load, load_train_and_dev, toy, toy_texts

LABELLED = {
    "polarity": ("text", {"text", "label"}),
    "numbers/tags": ("text", {"text", "tags"}),
    "numbers/intent": ("text", {"text", "intent", "slots"}),
    "places/questions": ("second", {"text", "second", "span", "answer_start"}),
}


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("split", toy.SIZES)
def test_a_split_has_its_size_and_the_seed_decides(name, split):
    draw = toy.TOYS[name]
    first = draw(split=split)
    assert len(first) == toy.SIZES[split]
    assert {frozenset(example) for example in first} == {frozenset(LABELLED[name][1])}
    assert all(isinstance(value, str) for example in first for value in example.values())
    assert draw(split=split) == first
    assert draw(split=split, seed=1) != first


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, (key, _) in LABELLED.items()])
def test_no_text_is_in_two_splits_or_twice_in_one(name, key):
    texts = []
    for seed, (split, count) in enumerate([("train", 1500), ("validation", 500), ("test", 500)]):
        texts += [example[key] for example in toy.TOYS[name](count=count, seed=seed, split=split)]
    assert len(set(texts)) == len(texts) == 2500


@pytest.mark.parametrize("name", LABELLED)
def test_a_toy_is_a_source(name):
    assert load(f"toy:{name}", "test") == toy.TOYS[name](split="test")
    train, dev = load_train_and_dev(f"toy:{name}")
    assert (len(train), len(dev)) == (2000, 200)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, r"no split 'valid'; did you mean 'validation'\?"),
        ({"count": 0}, r"count 0: the train split has 1 to \d+ examples"),
        ({"count": 10**6}, r"count 1000000: the train split has 1 to \d+ examples"),
    ],
)
def test_a_wrong_argument_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        toy.TOYS[name](**arguments)


def test_there_are_as_many_examples_as_the_error_says():
    for draw in (toy_texts.polarity, toy_texts.places):
        assert len(draw(10_000, split="test")) == 10_000


# === Polarity ===


def ngrams(text, longest):
    words = text.split()
    return {tuple(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1)}


def accuracy(longest):
    """Returns how often naive Bayes over word n-grams is right on the test split."""
    counts = {"positive": collections.Counter(), "negative": collections.Counter()}
    for example in toy_texts.polarity():
        counts[example["label"]].update(ngrams(example["text"], longest))
    right = 0
    for example in toy_texts.polarity(split="test"):
        grams = ngrams(example["text"], longest)
        score = sum(math.log((counts["positive"][gram] + 1) / (counts["negative"][gram] + 1)) for gram in grams)
        right += (score > 0) == (example["label"] == "positive")
    return right / 200


def test_single_words_do_not_tell_the_polarity_and_phrases_do():
    assert accuracy(1) < 0.65
    assert accuracy(2) > 0.95


def test_both_polarities_have_their_share():
    counts = collections.Counter(example["label"] for example in toy_texts.polarity())
    assert set(counts) == {"positive", "negative"}
    assert 900 < counts["positive"] < 1100


def test_a_negation_turns_a_word_around():
    found = 0
    for example in toy_texts.polarity():
        if match := re.fullmatch(
            r"the \w+ was (not |never |far from |anything but )?(?:\w+ )?(good|bad)( at all)?", example["text"]
        ):
            negated, word, _ = match.groups()
            assert example["label"] == ("positive" if (word == "good") != bool(negated) else "negative")
            found += 1
    assert found > 10


# === Numbers ===


def spans(example, field):
    """Returns the tagged parts of a text as {tag: [words, ...]}."""
    found = collections.defaultdict(list)
    for word, tag in zip(example["text"].split(), example[field].split(), strict=True):
        if tag.startswith("B-"):
            found[tag[2:]].append(word)
        elif tag.startswith("I-"):
            found[tag[2:]][-1] += f" {word}"
    return found


def test_every_part_of_a_request_has_its_tag():
    tags = collections.Counter()
    for example in toy.number_tags(500):
        found = spans(example, "tags")
        tags.update(example["tags"].split())
        assert set(found) in ({"number"}, {"day", "month", "year"})
        assert all(month in toy._MONTHS["en"].split() for month in found["month"])
        assert all(re.search("(st|nd|rd|th)$", day) for day in found["day"])
        assert not {"plus", "of", "the"} & {word for words in found.values() for part in words for word in part.split()}
    assert set(tags) == {"O", "B-number", "I-number", "B-day", "B-month", "B-year", "I-year"}


def test_the_intent_follows_from_the_parts():
    examples = toy.number_intents()
    counts = collections.Counter(example["intent"] for example in examples)
    assert set(counts) == {"number", "add", "date"}
    assert all(0.25 < count / len(examples) < 0.42 for count in counts.values())
    for example in examples:
        parts = {kind: len(words) for kind, words in spans(example, "slots").items()}
        expected = {"date": [{"day": 1, "month": 1, "year": 1}], "number": [{"number": 1}]}
        assert parts in expected.get(example["intent"], [{"number": 2}, {"number": 3}])


def test_tags_and_intents_come_with_the_same_texts():
    tags, intents = toy.number_tags(), toy.number_intents()
    assert tags == [{"text": example["text"], "tags": example["slots"]} for example in intents]


def test_the_first_requests_are_the_same_on_every_machine():
    assert toy.number_intents(3) == [
        {"text": "the sum of fifty-seven and ninety-nine", "intent": "add", "slots": "O O O B-number O B-number"},
        {"text": "seventy-two plus nineteen is ninety-one", "intent": "add", "slots": "B-number O B-number O B-number"},
        {
            "text": "one thousand six hundred sixty-two is what i counted",
            "intent": "number",
            "slots": "B-number I-number I-number I-number I-number O O O O",
        },
    ]


# === Places ===


def test_an_answer_is_where_it_should_be():
    for example in toy_texts.places():
        start = int(example["answer_start"])
        if example["span"]:
            assert example["second"][start:].startswith(example["span"])
            assert example["second"].count(example["span"]) == 1
        else:
            assert start == -1


def test_about_fifteen_in_a_hundred_have_no_answer():
    unanswered = sum(not example["span"] for example in toy_texts.places(10_000))
    assert 0.13 < unanswered / 10_000 < 0.17


def test_a_passage_has_two_or_three_sentences_and_speaks_of_the_place():
    sentences = collections.Counter()
    for example in toy_texts.places():
        sentences[example["second"].count(".")] += 1
        place = re.search(r" ([A-Z]\w+)", example["text"])[1]
        assert place in example["second"]
    assert set(sentences) == {2, 3}


def test_an_answer_is_of_the_kind_that_is_asked_for():
    kinds = {"Who": r"[A-Z]\w+ [A-Z]\w+", "When": r"\d{4}", "How": r"\d+,\d00", "On": r"[A-Z]\w+", "What": r"\w+ \w+"}
    for example in toy_texts.places():
        kind = example["text"].split()[0]
        if example["span"] and kind in kinds:
            assert re.fullmatch(kinds[kind], example["span"])


def test_the_first_question_is_the_same_on_every_machine():
    assert toy_texts.places(1) == [
        {
            "text": "How many people live in Dunden?",
            "second": "In 1362 the first houses of Dunden were built. 42,900 people live in Dunden. "
            "Irene Holt is the mayor of Marwick.",
            "span": "42,900",
            "answer_start": "47",
        }
    ]
