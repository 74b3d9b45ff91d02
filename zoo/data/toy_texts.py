"""Toy texts with labels, and how every toy draws its examples; zoo/data/toy.py names them all."""

import random
import zlib
from collections.abc import Callable

from zoo.config import nearest

SIZES = {"train": 2000, "validation": 200, "test": 200}

# Any toy that draws has more different examples than this in each split.
_MOST = 10_000

# Topic -> thing -> the good and the bad word that only fit this thing.
_THINGS = {
    "restaurant": {
        "soup": ("tasty", "cold"),
        "waiter": ("friendly", "rude"),
        "bread": ("fresh", "stale"),
        "terrace": ("quiet", "noisy"),
        "dessert": ("delicious", "soggy"),
    },
    "hotel": {
        "room": ("clean", "dirty"),
        "bed": ("comfortable", "hard"),
        "shower": ("warm", "broken"),
        "lobby": ("elegant", "shabby"),
        "breakfast": ("generous", "meagre"),
    },
    "film": {
        "plot": ("gripping", "dull"),
        "ending": ("clever", "silly"),
        "music": ("moving", "tiresome"),
        "acting": ("natural", "wooden"),
        "dialogue": ("witty", "clumsy"),
    },
    "phone": {
        "screen": ("bright", "dim"),
        "battery": ("durable", "weak"),
        "camera": ("sharp", "blurry"),
        "case": ("sturdy", "flimsy"),
        "software": ("fast", "slow"),
    },
}
_WORDS = (("good", "bad"), ("great", "awful"), ("lovely", "dreadful"), ("excellent", "poor"), ("wonderful", "terrible"))
_PLAIN = ("{}", "very {}", "really {}", "rather {}")
_NEGATED = ("not {} at all", "anything but {}", "far from {}", "never {}")
_OPINIONS = (
    "the {thing} was {it}",
    "the {thing} was {it} and the {other} {too}",
    "the {thing} was {it} , and the {other} was {too}",
    "we had expected the {thing} to be {not_it} , but it was {it}",
    "nobody would call the {thing} {not_it} , and the {other} was {too}",
)

_BEGINNINGS = "Bel Brin Cor Dun Fal Gar Hol Kal Lor Mar Nor Ost Pel Quen Ros Sel Tor Ul Vel Wen"
_ENDINGS = "by den ford ham holm mora ness rel stad ster ton wick"
_RIVERS = "Arun Brume Calder Dove Esk Fenn Garra Ister Lune Mole Nive Orla Tarn Ure Wharfe"
_FIRST_NAMES = "Ada Boris Clara David Edith Felix Greta Henry Irene Jonas Karin Leon Mira Oskar Paula"
_LAST_NAMES = "Abel Berg Cross Dahl Engel Frost Gray Holt Jansen Keller Lund Moore Nolan Price Stone"
_KINDS = "blue old wooden sweet painted silver giant red tiny famous"
_GOODS = "clocks cheese bridges apples boats bells carpets roses violins candles"

# What can be known of a place: ways to say it, ways to ask for it, and how a value is drawn.
_FACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[random.Random], str]]] = {
    "river": (
        ("{place} lies on the river {value}.", "The river {value} flows through {place}."),
        ("On which river does {place} lie?", "Which river flows through {place}?"),
        lambda dice: dice.choice(_RIVERS.split()),
    ),
    "mayor": (
        ("The mayor of {place} is {value}.", "{value} is the mayor of {place}."),
        ("Who is the mayor of {place}?", "Who governs {place}?"),
        lambda dice: f"{dice.choice(_FIRST_NAMES.split())} {dice.choice(_LAST_NAMES.split())}",
    ),
    "age": (
        ("{place} was founded in {value}.", "In {value} the first houses of {place} were built."),
        ("When was {place} founded?", "In which year did {place} begin?"),
        lambda dice: str(dice.randint(1000, 1899)),
    ),
    "people": (
        ("{value} people live in {place}.", "{place} is a town of {value} people."),
        ("How many people live in {place}?", "How large is {place}?"),
        lambda dice: f"{dice.randint(2, 99)},{dice.randint(0, 9)}00",
    ),
    "goods": (
        ("{place} is known for its {value}.", "Many visitors come to {place} to see its {value}."),
        ("What is {place} known for?", "What do visitors of {place} want to see?"),
        lambda dice: f"{dice.choice(_KINDS.split())} {dice.choice(_GOODS.split())}",
    ),
}
_UNANSWERED = 0.15


def polarity(count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Draws different short opinions, half of them with a negation, so that single words do not tell what they say.

        {"text": "the soup was not bad at all and the waiter friendly", "label": "positive"}

    A text belongs to the same split whatever the count and the seed: splits never share one.

    Args:
        count: How many examples; None takes the split's entry in SIZES.
        seed: The same seed gives the same examples in the same order.
        split: "train", "validation" or "test".

    Returns:
        Examples {"text": ..., "label": "positive" or "negative"}.

    Raises:
        ValueError: For an unknown split, or a count that is not between 1 and 10000.
    """
    return _draw(_opinion, "text", count, seed, split)


def places(count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Draws different questions about invented places, each with a passage; 15 % of the passages do not answer.

        {"text": "Who is the mayor of Ulholm?", "second": "Ulholm is known for its old bells. Clara Dahl is the mayor of
         Ulholm.", "span": "Clara Dahl", "answer_start": "35"}

    A passage speaks of one or two places in two or three sentences. It belongs to the same split whatever the count and
    the seed: splits never share one.

    Args:
        count: How many examples; None takes the split's entry in SIZES.
        seed: The same seed gives the same examples in the same order.
        split: "train", "validation" or "test".

    Returns:
        Examples {"text": question, "second": passage, "span": answer, "answer_start": where it begins in the passage};
        the last two are "" and "-1" where the passage does not answer.

    Raises:
        ValueError: For an unknown split, or a count that is not between 1 and 10000.
    """
    return _draw(_question, "second", count, seed, split)


def split_of(key: str) -> str:
    """Tells which split an example belongs to: eight tenths are for training.

    Args:
        key: What no two splits may share.
    """
    # A checksum of the key itself: Python's hash() differs from run to run, a draw would depend on count and seed.
    return {0: "validation", 1: "test"}.get(zlib.crc32(key.encode()) % 10, "train")


def checked_count(count: int | None, split: str, most: int) -> int:
    """Returns how many examples are wanted.

    Args:
        count: A number, or None for the split's entry in SIZES.
        split: The split's name.
        most: How many there are.

    Raises:
        ValueError: For an unknown split, or a count that is not between 1 and `most`.
    """
    if split not in SIZES:
        raise ValueError(f"no split {split!r}; {nearest(split, SIZES)}")
    count = SIZES[split] if count is None else count
    if not 1 <= count <= most:
        raise ValueError(f"count {count}: the {split} split has 1 to {most} examples")
    return count


def _draw(
    make: Callable[[random.Random], dict[str, str]], key: str, count: int | None, seed: int, split: str
) -> list[dict[str, str]]:
    """Makes examples until there are `count` of the split, no two of them with the same text under `key`."""
    count, dice = checked_count(count, split, _MOST), random.Random(seed)
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        example = make(dice)
        if split_of(example[key]) == split:
            found.setdefault(example[key], example)
    return list(found.values())


def _opinion(dice: random.Random) -> dict[str, str]:
    good = dice.random() < 0.5
    things = dice.choice(list(_THINGS.values()))
    thing, other = dice.sample(list(things), 2)
    text = dice.choice(_OPINIONS).format(
        thing=thing,
        other=other,
        it=_judgement(dice, things[thing], good),
        too=_judgement(dice, things[other], good),
        not_it=_word(dice, things[thing], not good),
    )
    return {"text": text, "label": "positive" if good else "negative"}


def _judgement(dice: random.Random, words: tuple[str, str], good: bool) -> str:
    if dice.random() < 0.5:
        return dice.choice(_NEGATED).format(_word(dice, words, not good))
    return dice.choice(_PLAIN).format(_word(dice, words, good))


def _word(dice: random.Random, words: tuple[str, str], good: bool) -> str:
    return dice.choice((words, words, *_WORDS))[0 if good else 1]


def _question(dice: random.Random) -> dict[str, str]:
    beginnings, endings = dice.sample(_BEGINNINGS.split(), 2), dice.sample(_ENDINGS.split(), 2)
    towns = [beginning + ending for beginning, ending in zip(beginnings, endings)]
    known = dice.sample([(town, fact) for town in towns for fact in _FACTS], dice.choice((2, 3)))
    passage = ""
    answers: list[tuple[str, int]] = []
    for town, fact in known:
        statements, _, value_of = _FACTS[fact]
        value = value_of(dice)
        while any(value == earlier for earlier, _ in answers):
            value = value_of(dice)
        before, after = (part.format(place=town) for part in dice.choice(statements).split("{value}"))
        passage += " " * bool(passage) + before
        answers.append((value, len(passage)))
        passage += value + after
    if dice.random() < _UNANSWERED:
        unknown = [(town, fact) for town, _ in known for fact in _FACTS if (town, fact) not in known]
        (town, fact), (span, start) = dice.choice(unknown), ("", -1)
    else:
        (town, fact), (span, start) = dice.choice(list(zip(known, answers)))
    question = dice.choice(_FACTS[fact][1]).format(place=town)
    return {"text": question, "second": passage, "span": span, "answer_start": str(start)}
