"""Toy data, generated on the spot: quick starts and tests need no file and no network."""

import datetime
import functools
import random
import zlib
from collections.abc import Iterator

from num2words import num2words

from zoo.config import nearest

PAIRS = ("en-de", "de-en", "en-fr", "fr-en")
SIZES = {"train": 2000, "validation": 200, "test": 200}

_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
}
_DATES = {"en": "the {day} of {month} {year}", "de": "der {day} {month} {year}", "fr": "le {day} {month} {year}"}
_SUMS = {"en": "{a} plus {b} is {total}", "de": "{a} plus {b} ist {total}", "fr": "{a} plus {b} font {total}"}

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
    if split not in SIZES:
        raise ValueError(f"no split {split!r}; {nearest(split, SIZES)}")
    facts = [fact for fact in _facts() if _split_of(fact) == split]
    count = SIZES[split] if count is None else count
    if not 1 <= count <= len(facts):
        raise ValueError(f"count {count}: the {split} split has 1 to {len(facts)} examples")
    source, target = pair.split("-")
    chosen = random.Random(seed).sample(facts, count)
    return [{"source": _say(fact, source), "target": _say(fact, target)} for fact in chosen]


TOYS = {f"numbers/{pair}": functools.partial(numbers, pair) for pair in PAIRS}


def _facts() -> Iterator[_Fact]:
    """Yields all there is to say: about ten thousand of each kind, so a draw mixes the kinds evenly."""
    yield from range(10_000)
    yield from ((a, b) for a in range(100) for b in range(100))
    first, last = datetime.date(1990, 1, 1), datetime.date(2019, 12, 31)
    yield from map(datetime.date.fromordinal, range(first.toordinal(), last.toordinal() + 1))


def _split_of(fact: _Fact) -> str:
    # A checksum of the fact itself: Python's hash() differs from run to run, a draw would depend on count and seed.
    return {0: "validation", 1: "test"}.get(zlib.crc32(repr(fact).encode()) % 10, "train")


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
