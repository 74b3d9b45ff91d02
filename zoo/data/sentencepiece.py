"""SentencePiece models: read from their files, and run by the `tokenizers` library."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers

from zoo.data.tokenizers import SPACE, VocabularyError

# Kinds of pieces.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
# Kinds of models.
UNIGRAM, BPE = 1, 2
# Names that begin with a space are never found in a text: when it is cut, it holds none any more.
HIDDEN = " "
# How a field's value is written.
_VARINT, _LONG, _BYTES, _FLOAT = 0, 1, 2, 5


class Piece(NamedTuple):
    """A piece, its score, and which kind it is of."""

    text: str
    score: float
    kind: int


class SentencePieces(NamedTuple):
    """What a SentencePiece model file says.

    Attributes:
        pieces: By number.
        kind: UNIGRAM or BPE.
        unknown: The unknown piece's number.
        characters: How characters are changed first: a table as the library makes it, empty where they are not.
        prefix: Whether a space is put before every text.
        squeeze: Whether runs of spaces become one, and spaces at the ends go.
        bytes: Whether what is unknown is taken byte by byte.
    """

    pieces: list[Piece]
    kind: int
    unknown: int
    characters: bytes
    prefix: bool
    squeeze: bool
    bytes: bool


def read_sentence_pieces(path: str | Path) -> SentencePieces:
    """Reads a SentencePiece model: a file that ends with .model or .spm.

    Raises:
        VocabularyError: If it is none, or of a kind that is not known here.

    Source: Kudo & Richardson 2018; the file is a Protocol Buffers message, whose fields its project describes.
    """
    try:
        whole = dict[int, list[Any]]()
        for number, value in _fields(Path(path).read_bytes()):
            whole.setdefault(number, []).append(value)
        pieces = [_piece(dict(_fields(piece))) for piece in whole[1]]
        training, characters = (dict(_fields(whole.get(number, [b""])[-1])) for number in (2, 3))
        found = SentencePieces(
            pieces=pieces,
            kind=training.get(3, UNIGRAM),
            unknown=training.get(40, 0),
            characters=characters.get(2, b""),
            prefix=bool(characters.get(3, 1)),
            squeeze=bool(characters.get(4, 1)),
            bytes=bool(training.get(35, 0)),
        )
        unknown = pieces[found.unknown].kind
    except (KeyError, IndexError, TypeError, ValueError, struct.error):
        raise VocabularyError(f"{path}: not a whole SentencePiece model") from None
    if found.kind not in (UNIGRAM, BPE) or unknown != UNKNOWN:
        raise VocabularyError(f"{path}: a SentencePiece model of kind {found.kind}; unigram (1) and BPE (2) are known")
    return found


def _piece(fields: dict[int, Any]) -> Piece:
    return Piece(fields[1].decode("utf-8"), fields.get(2, 0.0), fields.get(3, NORMAL))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the fields of a Protocol Buffers message: numbers, and values without a type of their own."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        number, kind = divmod(varint(), 8)
        if kind == _VARINT:
            yield number, varint()
            continue
        size = varint() if kind == _BYTES else {_LONG: 8, _FLOAT: 4}[kind]
        value = message[place : place + size]
        place += size
        if len(value) < size:
            raise ValueError("the message ends too early")
        yield number, value if kind == _BYTES else struct.unpack("<f" if kind == _FLOAT else "<d", value)[0]


def tokenizer_of(
    model: SentencePieces, names: Sequence[str] = (), special: Sequence[str] = (), strip: bool = False
) -> tokenizers.Tokenizer:
    """Makes a tokenizer that cuts texts into the pieces that a SentencePiece model would.

    It differs where a text has several combining marks on one character, of which the `tokenizers` library changes all
    or none.

    Args:
        model: The model.
        names: Tokens by id; the model's own pieces where there is none. Pieces that are not among them follow.
        special: Names that stand for themselves in a text, and are left out when ids are decoded.
        strip: Whether decoded texts lose all spaces at their ends, or only the one that a first piece begins with.

    Raises:
        VocabularyError: If the library cannot run the model.
    """
    names = names or [piece.text for piece in model.pieces]
    steps: list[normalizers.Normalizer] = []
    try:
        if model.characters:
            steps.append(normalizers.Precompiled(model.characters))
        found = _unigram(model, names, special) if model.kind == UNIGRAM else _byte_pairs(model, names)
        tokenizer = tokenizers.Tokenizer(found)
    except Exception as error:  # whatever the library raises
        raise VocabularyError(f"a SentencePiece model that the library cannot run: {error}") from None
    if model.squeeze:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex(r"\A | \z"), "")]
    steps.append(normalizers.Replace(" ", SPACE))
    if model.prefix:
        steps.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    ends = Regex(r"\A +| +\z" if strip else r"\A ")
    joined = [decoders.Replace(HIDDEN, ""), decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip or model.prefix:
        joined.append(decoders.Replace(ends, ""))
    tokenizer.decoder = decoders.Sequence(joined)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return tokenizer


def _unigram(model: SentencePieces, names: Sequence[str], special: Sequence[str]) -> models.Unigram:
    scores = {p.text: p.score for p in model.pieces if p.kind in (NORMAL, USER)}
    unknown = model.pieces[model.unknown].text
    seen = {*scores, *special, unknown, *(p.text for p in model.pieces if p.kind == BYTE)}
    pieces = [(name, scores.get(name, 0.0)) if name in seen else (HIDDEN + name, 0.0) for name in names]
    known = {*names}
    pieces += [(text, score) for text, score in scores.items() if text not in known]
    return models.Unigram(pieces, names.index(unknown), model.bytes)


def _byte_pairs(model: SentencePieces, names: Sequence[str]) -> models.BPE:
    scores = {p.text: p.score for p in model.pieces if p.kind in (NORMAL, USER)}
    ids = {name: i for i, name in enumerate(dict.fromkeys([*names, *scores]))}
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(scores, key=lambda text: -scores[text])
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]
    unknown = model.pieces[model.unknown].text
    return models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=model.bytes)
