"""The toy sentences: right in every language, the same for every run, and never in two splits."""

import datetime

import pytest

from zoo.data import toy


@pytest.mark.parametrize(
    ("fact", "english", "german", "french"),
    [
        (312, "three hundred twelve", "dreihundertzwölf", "trois cent douze"),
        (0, "zero", "null", "zéro"),
        (1, "one", "eins", "un"),
        (21, "twenty-one", "einundzwanzig", "vingt et un"),
        (9080, "nine thousand eighty", "neuntausendachtzig", "neuf mille quatre-vingts"),
        ((7, 12), "seven plus twelve is nineteen", "sieben plus zwölf ist neunzehn", "sept plus douze font dix-neuf"),
        (
            (60, 41),
            "sixty plus forty-one is one hundred one",
            "sechzig plus einundvierzig ist einhunderteins",
            "soixante plus quarante et un font cent un",
        ),
        (
            datetime.date(2006, 3, 4),
            "the fourth of March two thousand six",
            "der vierte März zweitausendsechs",
            "le quatre mars deux mille six",
        ),
        (
            datetime.date(1994, 8, 1),
            "the first of August nineteen ninety-four",
            "der erste August neunzehnhundertvierundneunzig",
            "le premier août mille neuf cent quatre-vingt-quatorze",
        ),
        (
            datetime.date(2015, 12, 31),
            "the thirty-first of December twenty fifteen",
            "der einunddreißigste Dezember zweitausendfünfzehn",
            "le trente et un décembre deux mille quinze",
        ),
    ],
)
def test_a_fact_is_spelled_as_a_speaker_would(fact, english, german, french):
    assert [toy._say(fact, language) for language in ("en", "de", "fr")] == [english, german, french]


def test_every_kind_of_sentence_has_its_share():
    sources = [example["source"] for example in toy.numbers()]
    sums = sum(" plus " in source for source in sources)
    dates = sum(" of " in source for source in sources)
    assert all(0.25 < share / len(sources) < 0.42 for share in (sums, dates, len(sources) - sums - dates))


def test_no_sentence_is_in_two_splits_or_twice_in_one():
    seen = {"source": [], "target": []}
    for seed, (split, count) in enumerate([("train", 1500), ("validation", 500), ("test", 500)]):
        for side, sentences in seen.items():
            sentences += [example[side] for example in toy.numbers(count=count, seed=seed, split=split)]
    for sentences in seen.values():
        assert len(set(sentences)) == len(sentences) == 2500


@pytest.mark.parametrize("split", toy.SIZES)
def test_a_split_has_its_size_and_the_seed_decides(split):
    first = toy.numbers(split=split)
    assert len(first) == toy.SIZES[split]
    assert toy.numbers(split=split) == first
    assert toy.numbers(split=split, seed=1) != first


def test_the_first_examples_are_the_same_on_every_machine():
    assert toy.numbers(count=2) == [
        {
            "source": "fifty-seven plus ninety-nine is one hundred fifty-six",
            "target": "siebenundfünfzig plus neunundneunzig ist einhundertsechsundfünfzig",
        },
        {
            "source": "seventy-two plus nineteen is ninety-one",
            "target": "zweiundsiebzig plus neunzehn ist einundneunzig",
        },
    ]


def test_a_reversed_pair_swaps_the_sides():
    swapped = [{"source": example["target"], "target": example["source"]} for example in toy.numbers("en-fr", 50)]
    assert toy.numbers("fr-en", 50) == swapped


def test_toys_names_every_pair():
    assert set(toy.TOYS) > {"numbers/en-de", "numbers/de-en", "numbers/en-fr", "numbers/fr-en"}
    assert toy.TOYS["numbers/de-en"](split="test") == toy.numbers("de-en", split="test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pair": "en-ed"}, r"pair 'en-ed': did you mean 'en-de'\?"),
        ({"split": "valid"}, r"no split 'valid'; did you mean 'validation'\?"),
        ({"count": 0}, r"count 0: the train split has 1 to \d+ examples"),
        ({"count": 10**6}, r"count 1000000: the train split has 1 to \d+ examples"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy.numbers(**arguments)
