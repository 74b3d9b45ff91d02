"""Toy dialogues with summaries, in which names have to be copied; zoo/data/toy.py names them."""

import functools
import itertools
import random

from zoo.data.toy_texts import checked_count, split_of

# Names and places are put together from these: a few thousand, and no split has another's.
_BEGINNINGS = "Ba Be Bo Da De Do Fa Fe Ka Ke Ko La Le Lo Ma Me Mo Na Ne No Ra Re Ro Sa Se So Ta Te To Va"
_MIDDLES = "bi da dri ga ki la li lu mi na ni ra ri ro sa ti tha vi za zi"
_ENDINGS = {"name": "a an e el en in is o on us", "place": "burg dorf field ford ham holm mouth stead ton wick"}

_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_GOODS = "apples bread cake candles cheese coffee flowers lemonade music soup"

_HELLOS = (
    ("Hello, {}.", "Hello!"),
    ("Hi, {}! How are you?", "Hi! How are you?"),
    ("Good morning, {}.", "Good morning."),
)
_TALK = (
    "What a day! I met {name} in {place}.",
    "The weather was awful in {place}.",
    "Have you seen {name} lately?",
    "{name} told me about {place}.",
    "I am a bit tired.",
    "Time flies.",
)
_REPLIES = ("Really?", "I see.", "Oh, good to know.", "No, I have not heard.", "That is so true.")
_PROPOSALS = (
    "Shall we go to {place} on {day}?",
    "Would you like to see {place} with me on {day}?",
    "On {day} I am going to {place}. Will you come along?",
)
_PROMISES = ("With pleasure. I will bring {goods}.", "Yes, and I will take {goods} with me.")
_EXCUSES = ("I am sorry, I have to help {name} on {day}.", "I would love to, but I promised {name} to help.")


def meetings(count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Draws different dialogues of two people who make an appointment, or do not, each with a summary.

        {"source": "#Person1#: Hi, Karion.\\n#Person2#: Hello!\\n#Person1#: Shall we go to Nolifield on Monday?\\n..."
         "target": "#Person1# and Karion will go to Nolifield on Monday. Karion will bring cheese."}

    A summary calls people by their names where they are told. No name or place of one split is in another: what a model
    gets right about them it has copied.

    Args:
        count: How many examples; None takes the split's entry in SIZES.
        seed: The same seed gives the same examples in the same order.
        split: "train", "validation" or "test".

    Returns:
        Examples {"source": the dialogue, one turn a line, "target": the summary}.

    Raises:
        ValueError: For an unknown split, or a count that is not between 1 and 10000.
    """
    count, dice = checked_count(count, split, 10_000), random.Random(seed)
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        example = _meeting(dice, split)
        found.setdefault(example["source"], example)
    return list(found.values())


def _meeting(dice: random.Random, split: str) -> dict[str, str]:
    names = dice.sample(_words("name", split), 3)
    day, goods, place = (dice.choice(kind) for kind in (_DAYS.split(), _GOODS.split(), _words("place", split)))
    told = [dice.random() < 0.7 for _ in range(2)]
    # Each of the two says hello to the other, by name or without.
    lines = [
        dice.choice(_HELLOS)[0 if told[1] else 1].format(names[1]),
        dice.choice(_HELLOS)[0 if told[0] else 1].format(names[0]),
    ]
    for _ in range(dice.randrange(3)):
        other = {kind: dice.choice(_words(kind, split)) for kind in _ENDINGS}
        lines += [dice.choice(_TALK).format(**other), dice.choice(_REPLIES)]
    agreed = dice.random() < 0.6
    values = {"day": day, "goods": goods, "place": place, "name": names[2]}
    lines += [dice.choice(_PROPOSALS).format(**values), dice.choice(_PROMISES if agreed else _EXCUSES).format(**values)]
    first, second = (name if is_told else f"#Person{n}#" for n, (name, is_told) in enumerate(zip(names, told), 1))
    if agreed:
        summary = f"{first} and {second} will go to {place} on {day}. {second} will bring {goods}."
    else:
        summary = f"{first} wants to go to {place} on {day}, but {second} has to help {names[2]}."
    source = "\n".join(f"#Person{number % 2 + 1}#: {line}" for number, line in enumerate(lines))
    return {"source": source, "target": summary}


@functools.cache
def _words(kind: str, split: str) -> list[str]:
    """Returns all names, or places, of a split."""
    parts = (_BEGINNINGS.split(), _MIDDLES.split(), _ENDINGS[kind].split())
    return [word for word in map("".join, itertools.product(*parts)) if split_of(word) == split]
