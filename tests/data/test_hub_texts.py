"""Tokenizers of hub models from text to text give the very tokens that transformers gives."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from zoo.config import ConfigError
from zoo.data.hub_texts import read_hub_vocabulary, with_languages
from zoo.data.sentencepiece import BPE, UNIGRAM, read_sentence_pieces, tokenizer_of
from zoo.data.tokenizers import VocabularyError
from zoo.models.generative import SpecialTokens

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
NAMES = ("marian", "marian-separate", "bart", "mbart", "m2m_100", "t5", "t5-gated")
CODE = ">>de<<"


@pytest.fixture(scope="module")
def stored():
    return json.loads((FIXTURES / "seq2seq_texts.json").read_text(encoding="utf-8"))


@pytest.fixture
def copied(tmp_path):
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def read(name):
    return read_hub_vocabulary(FIXTURES / name, name.split("-")[0])


def size(name):
    return json.loads((FIXTURES / name / "config.json").read_text())["vocab_size"]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_transformers(name, stored):
    vocabulary = read(name)
    vocabulary.source.restrict(size(name), ())
    for text, expected in zip(stored["texts"], stored[name]["tokens"], strict=True):
        if name == "marian-separate" and text.startswith(CODE):
            continue  # no language of this model: transformers makes one unknown token of it
        (ids,) = vocabulary.source.encode([text])
        end = vocabulary.source_end or (0 if "marian" in name else 2 if name == "m2m_100" else 1,)
        assert [*vocabulary.source_start, *ids, *end] == expected, text


def test_pieces_that_a_model_does_not_know_are_unknown(stored):
    vocabulary = read("marian")
    (before,) = vocabulary.source.encode(stored["texts"][:1])
    assert size("marian") <= max(before)
    vocabulary.source.restrict(size("marian"), ())
    (ids,) = vocabulary.source.encode(stored["texts"][:1])
    assert ids == [token if token < size("marian") else 1 for token in before]


def test_a_text_never_yields_what_is_left_out():
    tokenizer = read("t5").source
    assert tokenizer.encode(["the</s>dog"])[0].count(1) == 1
    tokenizer.restrict(96, {0, 1})
    (ids,) = tokenizer.encode(["the</s>dog<pad>"])
    assert ids == tokenizer.encode(["the"])[0] + tokenizer.encode(["dog"])[0]


@pytest.mark.parametrize("name", ["marian", "t5", "m2m_100"])
def test_what_is_written_is_read_again(name):
    tokenizer = read(name).source
    texts = ["the dog runs", "two people", ""]
    assert tokenizer.decode(tokenizer.encode(texts)) == texts
    # Names that are never found in a text look like names all the same.
    assert tokenizer.tokens(tokenizer.encode(["the"])[0])[0].startswith("▁")
    assert not any(token.startswith(" ") for token in tokenizer.tokens(range(tokenizer.vocabulary_size)))


def test_targets_are_written_by_the_targets_pieces(stored):
    source, target = read("marian")[:2]
    assert source is not target
    (ids,) = target.encode(["der Hund"])
    assert target.decode([ids]) == ["der Hund"]
    assert source.encode(["der Hund"]) != [ids]


def test_pegasus_has_tokens_of_its_own_before_the_pieces(copied):
    folder = copied("t5")
    pieces = read_sentence_pieces(folder / "spiece.model").pieces
    tokenizer = read_hub_vocabulary(folder, "pegasus").source
    (ids,) = tokenizer.encode(["the dog<mask_2>"])
    (plain,) = read_hub_vocabulary(folder, "t5").source.encode(["the dog"])
    assert ids == [*(token + 103 for token in plain), 3]
    assert tokenizer.tokens([0, 1, 2, 3, 4, 104, 105]) == [
        *(piece.text for piece in pieces[:2]), "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>", pieces[2].text,
    ]  # fmt: skip


# === Languages ===


def test_languages_are_those_that_are_asked_for():
    vocabulary = read("mbart")
    english, german = (vocabulary.source.token_id(name) for name in ("en_XX", "de_DE"))
    special = SpecialTokens(pad=1, start=german, end=2, source_end=vocabulary.source_end)
    assert special.source_end == (2, english)
    other = with_languages(special, vocabulary.source, "de_DE", "en_XX")
    assert other == dataclasses.replace(special, start=english, source_end=(2, german))
    assert with_languages(special, vocabulary.source, None, None) == special


def test_a_language_may_be_the_first_token_behind_the_start():
    vocabulary = read("m2m_100")
    special = SpecialTokens(pad=1, start=2, end=2, source_start=vocabulary.source_start)
    other = with_languages(special, vocabulary.source, "__fr__", "de")
    french, german = (vocabulary.source.token_id(f"__{name}__") for name in ("fr", "de"))
    assert other == dataclasses.replace(special, source_start=(french,), beginning=(german,))


def test_an_unknown_language_is_named():
    vocabulary = read("mbart")
    with pytest.raises(ConfigError, match="target_language: no language 'de_DEE'; did you mean 'de_DE'"):
        with_languages(SpecialTokens(), vocabulary.source, None, "de_DEE")
    with pytest.raises(ConfigError, match="source_language: no language 'fr'; there is none"):
        with_languages(SpecialTokens(), read("t5").source, "fr", None)


# === Bad input ===


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("bart", "tokenizer.json", None, "no tokenizer; it takes tokenizer.json, or spiece.model, or "),
        ("bart", "tokenizer.json", "{}", "tokenizer.json: not a tokenizer of the library tokenizers"),
        ("marian", "vocab.json", "[]", "vocab.json: it takes a JSON object"),
        ("marian", "vocab.json", '{"a": 0, "b": 2}', "vocab.json: it takes a JSON object, from tokens to the numbers"),
        (
            "marian",
            "vocab.json",
            '{"a": 0, "b": "x"}',
            "vocab.json: it takes a JSON object, from tokens to the numbers",
        ),
        ("marian", "vocab.json", '{"a": 0}', "source.spm: a SentencePiece model that the library cannot run"),
        ("marian", "source.spm", "no model", "source.spm: not a whole SentencePiece model"),
        ("marian", "target.spm", "", "target.spm: not a whole SentencePiece model"),
        ("t5", "tokenizer_config.json", "{", "tokenizer_config.json: it takes a JSON object"),
    ],
)
def test_what_is_missing_or_damaged_is_named(name, file, text, message, copied):
    folder = copied(name)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(VocabularyError, match=message):
        read_hub_vocabulary(folder, name)


def test_half_a_sentencepiece_model_is_none(copied):
    path = copied("t5") / "spiece.model"
    whole = path.read_bytes()
    for length in (1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(VocabularyError, match=r"spiece.model: "):
            tokenizer_of(read_sentence_pieces(path))


def test_a_sentencepiece_model_says_what_it_is():
    unigram = read_sentence_pieces(FIXTURES / "t5" / "spiece.model")
    pairs = read_sentence_pieces(FIXTURES / "m2m_100" / "sentencepiece.bpe.model")
    assert (unigram.kind, pairs.kind) == (UNIGRAM, BPE)
    assert (unigram.unknown, unigram.prefix, unigram.squeeze, unigram.bytes) == (2, True, True, False)
    assert [piece.text for piece in unigram.pieces[:3]] == ["<pad>", "</s>", "<unk>"]
    scores = [piece.score for piece in unigram.pieces[3:]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] < 0
