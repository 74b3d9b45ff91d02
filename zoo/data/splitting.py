"""Texts in pieces: turns, sentences, and windows that a model can read at once, never cut inside a word."""

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

# Counts the tokens of a text.
Length = Callable[[str], int]

_MARK = re.compile(r"^\s*(#[^#\s]+#):", re.MULTILINE)
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”’]*")
# A full stop behind one of these, or behind an initial, does not end a sentence.
_TITLES = {"mr", "mrs", "ms", "messrs", "dr", "prof", "st", "gen", "col", "capt", "lt", "sgt", "rev", "hon", "mt", "vs"}


def turns(text: str) -> list[str]:
    """Returns the turns of a dialogue, one a line; a text that is no dialogue has one turn a paragraph."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text.

    A sentence ends with its line, or at . ! ? ... before white space and no small letter, or at their CJK forms. This
    is a rule of thumb for any language that writes so; a full stop behind an English title or an initial ends nothing.
    """
    return [sentence for turn in turns(text) for sentence in _sentences(turn)]


def speakers(texts: Iterable[str], least: int = 2) -> list[str]:
    """Finds the marks of speakers, such as #Person1#, that lead turns: what Tokenizer.train takes as special tokens.

    Args:
        texts: Dialogues, one turn a line: "#Person1#: Hello!".
        least: How many turns a mark leads at least. Fewer are slips of the pen.

    Returns:
        The marks, most frequent first.
    """
    counts = Counter(mark for text in texts for mark in _MARK.findall(text))
    return [mark for mark, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= least]


def truncate(text: str, most: int, length: Length) -> str:
    """Returns the beginning of a text: as many whole sentences as fit, or whole words where not even one does.

    Args:
        text: The text.
        most: How many tokens fit.
        length: Counts the tokens of a text.

    Returns:
        The text itself where it fits.

    Raises:
        ValueError: If not even the first word fits.
    """
    if length(text) <= most:
        return text
    pieces = _split(text, _sentences)
    if not _fitting(pieces, most, length):
        pieces = _split(text, str.split)
        _refuse(pieces[0].text, most, length)
    return _joined(pieces[: _fitting(pieces, most, length)])


def windows(text: str, most: int, length: Length, overlap: int = 0) -> list[str]:
    """Cuts a text into windows that fit.

    It cuts between turns; a turn that is too long between its sentences; and a sentence that is too long between words.

    Args:
        text: The text.
        most: How many tokens fit.
        length: Counts the tokens of a text.
        overlap: How many turns, or parts of turns, at the end of a window also begin the next, as far as they fit.

    Returns:
        The windows, which together are the text; the text itself where it fits, none where it is blank.

    Raises:
        ValueError: If a single word does not fit.
    """
    pieces = _pieces(text, most, length)
    if len(pieces) and length(text) <= most:
        return [text]
    found: list[str] = []
    start = end = 0
    while end < len(pieces):
        # What a window shares with the last one must leave room for something new.
        start = max(end - overlap, start + 1 if found else 0)
        while start + _fitting(pieces[start:], most, length) <= end:
            start += 1
        end = start + _fitting(pieces[start:], most, length)
        found.append(_joined(pieces[start:end]))
    return found


class _Piece(NamedTuple):
    """A part of a text, the white space before it, and whether a window must begin with it."""

    space: str
    text: str
    first: bool = False


def _sentences(turn: str) -> list[str]:
    found, start = [], 0
    for match in _END.finditer(turn):
        before, after = turn[start : match.start()].split(), turn[match.end() :].lstrip()
        word = before[-1].lstrip("\"'“‘([") if before else ""
        is_initial = len(word) == 1 and word.isupper() and word != "I"
        if after[:1].islower() or (match.group() == "." and (is_initial or word.lower() in _TITLES)):
            continue
        found.append(turn[start : match.end()].strip())
        start = match.end()
    return [sentence for sentence in (*found, turn[start:].strip()) if sentence]


def _split(text: str, split: Callable[[str], list[str]]) -> list[_Piece]:
    return [piece for turn in turns(text) for piece in _led(split(turn), "\n")]


def _led(parts: Sequence[str], space: str) -> list[_Piece]:
    """Returns the parts as pieces, with a white space of its own before the first."""
    return [_Piece(" " if number else space, part) for number, part in enumerate(parts)]


def _pieces(text: str, most: int, length: Length) -> list[_Piece]:
    """Returns turns, in place of those that do not fit their sentences, and in place of those their words."""
    pieces = []
    for turn in turns(text):
        for sentence in _led([turn] if length(turn) <= most else _sentences(turn), "\n"):
            if length(sentence.text) <= most:
                pieces.append(sentence)
                continue
            # A sentence that has to be cut is cut as late as can be.
            first, *others = _led(sentence.text.split(), sentence.space)
            pieces += [first._replace(first=True), *others]
    for piece in pieces:
        _refuse(piece.text, most, length)
    return pieces


def _refuse(word: str, most: int, length: Length) -> None:
    if length(word) > most:
        raise ValueError(f"{word[:40]!r} alone has {length(word)} tokens, and {most} fit; a word is not cut")


def _fitting(pieces: Sequence[_Piece], most: int, length: Length) -> int:
    """Returns how many of the first pieces fit together."""
    together = next((number for number, piece in enumerate(pieces) if number and piece.first), len(pieces))
    # A piece has a token at least: more pieces than `most` need no look.
    counts = range(1, min(together, most) + 1)
    return bisect.bisect_right(counts, most, key=lambda count: length(_joined(pieces[:count])))


def _joined(pieces: Sequence[_Piece]) -> str:
    return "".join(piece.space + piece.text for piece in pieces)[len(pieces[0].space) :]
