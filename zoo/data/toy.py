"""Toy data, generated on the spot: quick starts and tests need no file and no network."""

import datetime
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

from num2words import num2words

from zoo.config import nearest
from zoo.data.toy_dialogues import meetings
from zoo.data.toy_shapes import shapes
from zoo.data.toy_texts import SIZES, checked_count, places, polarity, split_of

__all__ = ["PAIRS", "SIZES", "TOYS", "number_intents", "number_tags", "numbers"]

PAIRS = ("en-de", "de-en", "en-fr", "fr-en")

_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
}
_DATES = {"en": "the {day} of {month} {year}", "de": "der {day} {month} {year}", "fr": "le {day} {month} {year}"}
_SUMS = {"en": "{a} plus {b} is {total}", "de": "{a} plus {b} ist {total}", "fr": "{a} plus {b} font {total}"}

# Intent -> ways to say it.
_REQUESTS = {
    "number": ("write down {number}", "the answer is {number}", "can you spell {number}", "{number} is what i counted"),
    "add": ("add {a} to {b}", "what is {a} plus {b}", "the sum of {a} and {b}", "{a} plus {b} is {total}"),
    "date": (
        "the {day} of {month} {year}",
        "what happened on {month} {day} {year}",
        "i was born on the {day} of {month} {year}",
        "it is the year {year} and today is {month} the {day}",
    ),
}
_TAGS = {"a": "number", "b": "number", "total": "number"}

# What a sentence is about: a number, the two terms of a sum, or a day.
_Fact = int | tuple[int, int] | datetime.date


def numbers(pair: str = "en-de", count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Draws different numbers, sums and dates, spelled out in two languages.

        {"source": "the fourth of March two thousand six", "target": "der vierte März zweitausendsechs"}

    A sentence belongs to the same split whatever the pair, the count and the seed: splits never share one.

    Args:
        pair: Languages of source and target, one of PAIRS.
        count: How many examples; None takes the split's entry in SIZES.
        seed: The same seed gives the same examples in the same order.
        split: "train", "validation" or "test".

    Returns:
        Examples {"source": ..., "target": ...}.

    Raises:
        ValueError: For an unknown pair or split, or more examples than there are.
    """
    if pair not in PAIRS:
        raise ValueError(f"pair {pair!r}: {nearest(pair, PAIRS)}")
    source, target = pair.split("-")
    chosen = _drawn_facts(random.Random(seed), count, split)
    return [{"source": _say(fact, source), "target": _say(fact, target)} for fact in chosen]


def number_tags(count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Draws different English requests with numbers, sums and dates, spelled out, and tags every word.

        {"text": "the fourth of March two thousand six", "tags": "O B-day O B-month B-year I-year I-year"}

    A fact belongs to the same split whatever the count and the seed: splits never share a text.

    Args:
        count: How many examples; None takes the split's entry in SIZES.
        seed: The same seed gives the same examples in the same order.
        split: "train", "validation" or "test".

    Returns:
        Examples {"text": words, "tags": one of O, B-number, I-number, B-day, B-month, B-year ... for each word}.

    Raises:
        ValueError: For an unknown split, or more examples than there are.
    """
    return [{"text": text, "tags": tags} for text, _, tags in _requests(count, seed, split)]


def number_intents(count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Draws the texts of `number_tags`, and tells what each is about.

        {"text": "add one to two", "intent": "add", "slots": "O B-number O B-number"}

    Args:
        count: As for `number_tags`.
        seed: As for `number_tags`.
        split: As for `number_tags`.

    Returns:
        Examples {"text": ..., "intent": "number", "add" or "date", "slots": the tags}.

    Raises:
        ValueError: As `number_tags`.
    """
    return [{"text": text, "intent": intent, "slots": tags} for text, intent, tags in _requests(count, seed, split)]


TOYS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    **{f"numbers/{pair}": functools.partial(numbers, pair) for pair in PAIRS},
    "numbers/tags": number_tags,
    "numbers/intent": number_intents,
    "polarity": polarity,
    "places/questions": places,
    "meetings": meetings,
    "shapes": shapes,
}


def _facts() -> Iterator[_Fact]:
    """Yields all there is to say: about ten thousand of each kind, so a draw mixes the kinds evenly."""
    yield from range(10_000)
    yield from ((a, b) for a in range(100) for b in range(100))
    first, last = datetime.date(1990, 1, 1), datetime.date(2019, 12, 31)
    yield from map(datetime.date.fromordinal, range(first.toordinal(), last.toordinal() + 1))


def _drawn_facts(dice: random.Random, count: int | None, split: str) -> list[_Fact]:
    facts = [fact for fact in _facts() if split_of(repr(fact)) == split]
    return dice.sample(facts, checked_count(count, split, len(facts)))


def _requests(count: int | None, seed: int, split: str) -> Iterator[tuple[str, str, str]]:
    """Yields text, intent and tags."""
    dice = random.Random(seed)
    for fact in _drawn_facts(dice, count, split):
        intent, values = _spelled(fact)
        words: list[str] = []
        tags: list[str] = []
        for piece in dice.choice(_REQUESTS[intent]).split():
            if not piece.startswith("{"):
                words.append(piece)
                tags.append("O")
                continue
            name = piece[1:-1]
            found, tag = values[name].split(), _TAGS.get(name, name)
            words += found
            tags += [f"B-{tag}", *[f"I-{tag}"] * (len(found) - 1)]
        yield " ".join(words), intent, " ".join(tags)


def _spelled(fact: _Fact) -> tuple[str, dict[str, str]]:
    """Returns the intent of a fact, and its parts in English words."""
    if isinstance(fact, int):
        return "number", {"number": _number(fact, "en")}
    if isinstance(fact, tuple):
        a, b, total = (_number(number, "en") for number in (*fact, sum(fact)))
        return "add", {"a": a, "b": b, "total": total}
    day, month = _number(fact.day, "en", to="ordinal"), _MONTHS["en"].split()[fact.month - 1]
    return "date", {"day": day, "month": month, "year": _number(fact.year, "en", to="year")}


def _say(fact: _Fact, language: str) -> str:
    if isinstance(fact, int):
        return _number(fact, language)
    if isinstance(fact, tuple):
        a, b, total = (_number(number, language) for number in (*fact, sum(fact)))
        return _SUMS[language].format(a=a, b=b, total=total)
    # French counts the days of a month with cardinals, all but the first.
    day = "cardinal" if language == "fr" and fact.day > 1 else "ordinal"
    return _DATES[language].format(
        day=_number(fact.day, language, to=day),
        month=_MONTHS[language].split()[fact.month - 1],
        year=_number(fact.year, language, to="year"),
    )


def _number(number: int, language: str, to: str = "cardinal") -> str:
    # American English: "three hundred twelve", without the "and" and the commas that num2words writes.
    return num2words(number, lang=language, to=to).replace(" and ", " ").replace(",", "")
