"""How sources and the beginnings of targets are laid out in arrays of a few fixed shapes, and targets taken out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from zoo.models.generative import SpecialTokens

# What a target is generated from: token ids; the features of an image (S, E); or {"features", "prompt"}, both.
Source: TypeAlias = Sequence[int] | np.ndarray | Mapping[str, Any]

# The shortest source bucket; longer ones double.
SHORTEST = 16
# Stands in `Beginnings.tokens` where nothing is given.
FREE = -1


def length_of(source: Source) -> int:
    """Counts the tokens of a source, or the places of an image's features."""
    return len(source["features"] if isinstance(source, Mapping) else source)


def bucket(sources: Sequence[Source], special: SpecialTokens, max_length: int) -> int:
    """Returns the places that sources are laid out in, their special tokens included."""
    longest = max(length_of(source) for source in sources) + special.around_source
    return min(rounded_up(longest), max_length)


def rounded_up(length: int) -> int:
    """Rounds a length up, so that there are few."""
    places = SHORTEST
    while places < length:
        places *= 2
    return places


def lay_out(sources: Sequence[Source], rows: int, special: SpecialTokens, max_length: int) -> Any:
    """Lays sources out: features one behind the other, tokens with their special ones in the places of a bucket."""
    first = sources[0]
    if isinstance(first, Mapping):
        parts = cast(Sequence[Mapping[str, Any]], sources)
        return {name: lay_out([source[name] for source in parts], rows, special, max_length) for name in first}
    if isinstance(first, np.ndarray):
        array = np.zeros((rows, *first.shape), np.float32)
        array[: len(sources)] = sources
        return array
    array = np.full((rows, bucket(sources, special, max_length)), special.pad, np.int32)
    array[:, : len(special.source_ending)] = special.source_ending
    for row, source in enumerate(sources):
        laid_out = [*special.source_start, *source, *special.source_ending]
        array[row, : len(laid_out)] = laid_out
    return array


class Beginnings(NamedTuple):
    """What targets begin with.

    Attributes:
        tokens: int32 (rows, places), FREE behind each row's beginning.
        read: How many places every row has given: a power of two, so that there are few programs.
        forced: Whether a row has more given than that.
        said: The place of the first token that is no special one, for each target.
        uncounted: int32 (rows,), how many tokens of each row no length counts: those of its own beginning.
    """

    tokens: np.ndarray
    read: int
    forced: bool
    said: list[int]
    uncounted: np.ndarray


def begin(beginnings: Sequence[Sequence[int]], rows: int, places: int, special: SpecialTokens) -> Beginnings:
    """Lays beginnings of targets out, led by the special tokens; rows that are left over repeat the first."""
    tokens = np.full((rows, places), FREE, np.int32)
    said = []
    for row, beginning in enumerate(beginnings):
        start = [] if special.start_optional and len(beginning) else [special.start]
        start += special.beginning
        said.append(len(start))
        tokens[row, : len(start) + len(beginning)] = [*start, *beginning]
    tokens[len(beginnings) :] = tokens[0]
    given = (tokens != FREE).sum(axis=1)
    read = 1 << int(given.min()).bit_length() - 1
    uncounted = (given - 1 - len(special.beginning)).astype(np.int32)
    return Beginnings(tokens, read, bool(given.max() > read), said, uncounted)


def strip(tokens: np.ndarray, said: int, special: SpecialTokens) -> list[int]:
    """Takes a target out of the places it may fill: without the special tokens before it and what its end begins."""
    ids = tokens[said:].tolist()
    return ids[: ids.index(special.end)] if special.end in ids else ids
