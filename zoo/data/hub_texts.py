"""How a hub model from text to text reads and writes: its tokenizer files, of whatever kind, become tokenizers."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.config import ConfigError, nearest
from zoo.data.sentencepiece import read_sentence_pieces, tokenizer_of
from zoo.data.tokenizers import SPECIAL, Tokenizer, VocabularyError
from zoo.models.generative import SpecialTokens

# Files that say the same: everything at once; Marian's; T5's and Pegasus'; M2M100's.
WHOLE = "tokenizer.json"
MARIAN = ("source.spm", "target.spm", "vocab.json")
PIECES = "spiece.model"
NUMBERED = ("sentencepiece.bpe.model", "vocab.json")


class HubVocabulary(NamedTuple):
    """What a hub model reads and writes by.

    Attributes:
        source: Reads sources.
        target: Writes targets; the same object where source writes too.
        source_start: Token ids that stand before every source.
        source_end: Token ids that stand behind every source; empty where the files do not say.
    """

    source: Tokenizer
    target: Tokenizer
    source_start: tuple[int, ...] = ()
    source_end: tuple[int, ...] = ()


def read_hub_vocabulary(folder: Path, family: str) -> HubVocabulary:
    """Reads the tokenizer of a hub folder.

    Args:
        folder: Holds tokenizer.json; or source.spm, target.spm and vocab.json (and target_vocab.json where languages
            have vocabularies of their own); or spiece.model; or sentencepiece.bpe.model and vocab.json.
        family: The model's.

    Raises:
        VocabularyError: If there is none, or one is damaged.
    """
    if all((folder / name).is_file() for name in MARIAN):
        return _marian(folder)
    if (folder / WHOLE).is_file():
        return _whole(folder / WHOLE)
    if (folder / PIECES).is_file():
        return _t5(folder) if family != "pegasus" else _pegasus(folder)
    if all((folder / name).is_file() for name in NUMBERED):
        return _numbered(folder)
    raise VocabularyError(
        f"{folder}: no tokenizer; it takes {WHOLE}, or {PIECES}, or {' and '.join(NUMBERED)}, or {', '.join(MARIAN)}"
    )


def _whole(path: Path) -> HubVocabulary:
    try:
        tokenizer = Tokenizer.load(path, read_special=True)
    except Exception as error:  # whatever the library raises
        raise VocabularyError(f"{path}: not a tokenizer of the library tokenizers: {error}") from None
    library = tokenizer.library_tokenizer
    bare, around = (library.encode("a", add_special_tokens=special).ids for special in (False, True))
    before = next((i for i in range(len(around)) if around[i : i + len(bare)] == bare), 0)
    return HubVocabulary(tokenizer, tokenizer, tuple(around[:before]), tuple(around[before + len(bare) :]))


def _marian(folder: Path) -> HubVocabulary:
    names = target_names = _names(folder / "vocab.json")
    if _settings(folder).get("separate_vocabs"):
        target_names = _names(folder / "target_vocab.json")
    source, target = (
        _tokenizer(folder / file, tokens, [name for name in tokens if name.startswith(">>")], strip=True)
        for file, tokens in (("source.spm", names), ("target.spm", target_names))
    )
    return HubVocabulary(source, target)


def _t5(folder: Path) -> HubVocabulary:
    names = [piece.text for piece in read_sentence_pieces(folder / PIECES).pieces]
    extra = [f"<extra_id_{i}>" for i in range(_settings(folder).get("extra_ids", 100))]
    # The last one comes first; newer files hold them already.
    names += [name for name in reversed(extra) if name not in names]
    tokenizer = _tokenizer(folder / PIECES, names, extra)
    return HubVocabulary(tokenizer, tokenizer)


def _pegasus(folder: Path) -> HubVocabulary:
    pieces = [piece.text for piece in read_sentence_pieces(folder / PIECES).pieces]
    own = ["<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103))]
    # Its first two pieces are padding and the end; its own tokens stand between them and the others.
    tokenizer = _tokenizer(folder / PIECES, [*pieces[:2], *own, *pieces[2:]], own)
    return HubVocabulary(tokenizer, tokenizer)


def _numbered(folder: Path) -> HubVocabulary:
    named = _settings(folder, "special_tokens_map.json").get("additional_special_tokens", [])
    languages = [name["content"] if isinstance(name, dict) else name for name in named]
    names = _names(folder / "vocab.json")
    tokenizer = _tokenizer(folder / NUMBERED[0], names + [name for name in languages if name not in names], languages)
    start = tuple(tokenizer.token_id(name) for name in ("__en__",) if name in languages)
    return HubVocabulary(tokenizer, tokenizer, start)


def with_languages(
    special: SpecialTokens, tokenizer: Tokenizer, source: str | None, target: str | None
) -> SpecialTokens:
    """Says which languages a model that knows several reads and writes.

    Args:
        special: The model's special tokens.
        tokenizer: The model's.
        source, target: Languages, as the vocabulary names them; "__en__" may be written "en". What special says where
            None.

    Raises:
        ConfigError: If the model knows no such language; the nearest is named.
    """
    if source is not None:
        language = _language(tokenizer, source, "source_language")
        first, last = (
            tuple(language if _is_language(tokenizer, token) else token for token in tokens)
            for tokens in (special.source_start, special.source_end)
        )
        special = dataclasses.replace(special, source_start=first, source_end=last)
    if target is not None:
        language = _language(tokenizer, target, "target_language")
        starts = _is_language(tokenizer, special.start)
        special = dataclasses.replace(special, **({"start": language} if starts else {"beginning": (language,)}))
    return special


def _language(tokenizer: Tokenizer, name: str, field: str) -> int:
    added = tokenizer.library_tokenizer.get_added_tokens_decoder().items()
    known = {token.content: number for number, token in added if _is_language(tokenizer, number)}
    for spelt in (name, f"__{name}__"):
        if spelt in known:
            return known[spelt]
    raise ConfigError(f"{field}: no language {name!r}; {nearest(name, known)}")


def _is_language(tokenizer: Tokenizer, token: int) -> bool:
    """Tells whether a special token names a language: "eng_Latn", "de_DE" or "__en__"."""
    return re.fullmatch(r"__[a-z]+__|[a-z]{2,3}_[A-Za-z]+", tokenizer.tokens([token])[0]) is not None


def _tokenizer(path: Path, names: Sequence[str], special: Sequence[str], strip: bool = False) -> Tokenizer:
    model = read_sentence_pieces(path)
    special = [*(name for name in SPECIAL if name in names), *special]
    try:
        return Tokenizer(tokenizer_of(model, names, special, strip), read_special=True)
    except VocabularyError as error:
        raise VocabularyError(f"{path}: {error}") from None


def _names(path: Path) -> list[str]:
    """Reads tokens by id from a file that says each token's id."""
    ids = _settings(path.parent, path.name)
    try:
        names = sorted(ids, key=ids.__getitem__)
        if names and [ids[name] for name in names] == list(range(len(names))):
            return names
    except TypeError:
        pass
    raise VocabularyError(f"{path}: it takes a JSON object, from tokens to the numbers 0 to {len(ids) - 1}")


def _settings(folder: Path, name: str = "tokenizer_config.json") -> dict[str, Any]:
    """Reads a JSON object; nothing where there is no file."""
    if not (folder / name).is_file():
        return {}
    try:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise VocabularyError(f"{folder / name}: it takes a JSON object") from None
