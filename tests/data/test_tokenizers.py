"""The tokenizer against text itself: what goes in comes out, and nothing in a text is ever taken for a command."""

import random
import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.tokenizers import Tokenizer, VocabularyError

CORPUS = [
    "Two young, White males are outside near many bushes.",
    "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
    "Deux jeunes hommes blancs sont dehors près de buissons: ça va?",
    "A little girl climbing into a wooden playhouse!",
    "Ein kleines Mädchen klettert in ein Spielhaus aus Holz; \"gut\", sagt sie - 3 (drei) Mal.",
] * 4  # fmt: skip
LETTERS = sorted(set("".join(CORPUS)) - {" "})
PAD, START, END, UNKNOWN = range(4)
FIXED = settings(deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CORPUS)


def both_ways(tokenizer, text):
    return tokenizer.decode(tokenizer.encode([text]))[0]


# === Text in, text out ===


@FIXED
@given(words=st.lists(st.text(st.sampled_from(LETTERS), min_size=1), min_size=1))
def test_words_come_back_as_they_were(tokenizer, words):
    text = " ".join(words)
    assert both_ways(tokenizer, text) == text
    assert UNKNOWN not in tokenizer.encode([text])[0]


@FIXED
@given(text=st.text(st.sampled_from([*LETTERS, " ", "\t", "\n", "\u00a0", "\u3000", "\x00", "\x1b"])))
def test_white_space_becomes_one_space_and_control_characters_go(tokenizer, text):
    assert both_ways(tokenizer, text) == " ".join(text.replace("\x00", "").replace("\x1b", "").split())


@FIXED
@given(text=st.text())
def test_any_text_encodes_to_ids_of_the_vocabulary_and_no_special_token(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    assert not {PAD, START, END} & set(ids)
    assert all(0 <= i < tokenizer.vocabulary_size for i in ids)
    assert len(tokenizer.tokens(ids)) == len(ids)


def test_control_characters_alone_are_no_tokens(tokenizer):
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) == "Cc":
            assert tokenizer.encode([chr(code)]) == [[]], hex(code)
    assert both_ways(tokenizer, "gi\x07rl\x85near") == "girl near"


def test_nothing_and_white_space_are_no_tokens(tokenizer):
    assert tokenizer.encode(["", " ", "\n\t \u200b"]) == [[], [], []]
    assert tokenizer.decode([[], []]) == ["", ""]
    assert tokenizer.encode([]) == []


def test_a_decomposed_character_is_composed(tokenizer):
    assert both_ways(tokenizer, "Ma\u0308dchen") == "Mädchen"


def test_what_the_corpus_did_not_have_is_unknown_and_left_out(tokenizer):
    (ids,) = tokenizer.encode(["girl 😀 near"])
    assert ids.count(UNKNOWN) == 1
    assert both_ways(tokenizer, "girl 😀 near").split() == ["girl", "near"]


@pytest.mark.parametrize("token", ["<pad>", "<s>", "</s>", "<unk>"])
def test_a_special_token_in_a_text_is_text(token):
    tokenizer = Tokenizer.train([*CORPUS, "<pad> <s> </s> <unk>"])
    for text in (token, f"girl {token} near", f"{token}{token}girl"):
        (ids,) = tokenizer.encode([text])
        assert not set(range(4)) & set(ids)
        assert tokenizer.decode([ids]) == [text]


def test_special_ids_are_left_out_of_a_text(tokenizer):
    (ids,) = tokenizer.encode(["A little girl"])
    assert tokenizer.decode([[START, *ids, END, PAD, PAD]]) == ["A little girl"]


def test_the_special_tokens_have_the_first_ids(tokenizer):
    assert [tokenizer.token_id(token) for token in ("<pad>", "<s>", "</s>", "<unk>")] == [PAD, START, END, UNKNOWN]
    assert tokenizer.tokens([PAD, END]) == ["<pad>", "</s>"]
    with pytest.raises(KeyError, match="nonsense"):
        tokenizer.token_id("nonsense")


# === Learning ===


@pytest.mark.parametrize("size", [5, 20, 100, 200])
def test_the_vocabulary_has_the_size_asked_for(size):
    tokenizer = Tokenizer.train(iter(CORPUS), size)
    assert tokenizer.vocabulary_size == size
    assert len({*tokenizer.tokens(range(size))}) == size


def test_frequent_words_are_one_token(tokenizer):
    assert len(tokenizer.encode(["Two young"])[0]) == 2


@pytest.mark.parametrize("size", [0, 20, 100, 200])
def test_the_same_corpus_gives_the_same_tokenizer(size, tmp_path):
    # A small vocabulary cuts its alphabet, between characters that are equally frequent.
    for name in "abc":
        Tokenizer.train(CORPUS, size).save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def rare_characters():
    """Many characters and little to merge: half of what a vocabulary holds are single characters."""
    draw = random.Random(0)
    return ["".join(draw.choices([chr(0x4E00 + i) for i in range(60)], k=3)) for _ in range(30)]


@pytest.mark.parametrize("texts", [CORPUS, rare_characters(), ["a"], ["ab", "ab"]], ids=["text", "rare", "one", "two"])
@pytest.mark.parametrize("excess", [1, 100, 10_000])
def test_a_vocabulary_larger_than_the_corpus_names_the_largest(texts, excess):
    largest = Tokenizer.train(texts).vocabulary_size
    with pytest.raises(VocabularyError) as raised:
        Tokenizer.train(texts, largest + excess)
    asked, allowed, again = map(int, re.findall(r"\d+", str(raised.value)))
    assert (asked, allowed, again) == (largest + excess, largest, largest)
    assert Tokenizer.train(texts, allowed).vocabulary_size == allowed


@pytest.mark.parametrize("texts", [[], ["", " "], ["\x00\x1b", "\u200b"]], ids=["none", "blank", "control"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_corpus_without_text_is_refused(texts, size):
    with pytest.raises(VocabularyError, match=f"no visible character in {len(texts)} texts"):
        Tokenizer.train(texts, size)


@pytest.mark.parametrize("size", [-1, 1, 4])
def test_a_vocabulary_smaller_than_its_special_tokens_is_refused(size):
    with pytest.raises(VocabularyError, match=rf"^vocabulary_size: {size} tokens asked; it is at least 5"):
        Tokenizer.train(CORPUS, size)


# === Special tokens ===

MARKS = ["#Person1#", "#Person2#", "\n"]
DIALOGUES = ["#Person1#: Two dogs?\n#Person2#: (laughs) No, #Person1#'s two cats! Ask #Person1# again."] * 4


@pytest.fixture(scope="module")
def speakers():
    return Tokenizer.train([*CORPUS, *DIALOGUES], special=MARKS)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("#Person1#: Two", ["#Person1#", ":", "▁Two"]),
        ("Two #Person2# Two", ["▁Two", "#Person2#", "▁Two"]),
        ("#Person1#'s\n#Person2#: Two", ["#Person1#", "'", "s", "\n", "#Person2#", ":", "▁Two"]),
        ("Two\nTwo\n\nTwo", ["▁Two", "\n", "▁Two", "\n", "\n", "▁Two"]),
    ],
)
def test_a_special_token_is_one_token_and_words_beside_it_are_words(text, tokens, speakers):
    (ids,) = speakers.encode([text])
    assert speakers.tokens(ids) == tokens
    assert speakers.decode([ids]) == [text]


@FIXED
@given(
    lines=st.lists(
        st.lists(st.one_of(st.sampled_from(MARKS[:2]), st.text(st.sampled_from(LETTERS), min_size=1)), min_size=1)
    )
)
def test_dialogues_come_back_as_they_were(speakers, lines):
    text = "\n".join(" ".join(words) for words in lines)
    (ids,) = speakers.encode([text])
    assert speakers.decode([ids]) == [text]
    for mark in MARKS:
        assert ids.count(speakers.token_id(mark)) == text.count(mark)


@FIXED
@given(parts=st.lists(st.sampled_from([*LETTERS, *" \t\x00", *MARKS * 5])))
def test_only_white_space_beside_a_special_token_is_lost(speakers, parts):
    text = "".join(parts)
    (ids,) = speakers.encode([text])
    assert "".join(speakers.decode([ids])[0].split()) == "".join(text.replace("\x00", "").split())
    assert ids.count(speakers.token_id("\n")) == text.count("\n")


def test_a_space_beside_a_special_token_is_made_up(speakers):
    assert both_ways(speakers, "dogs(#Person1#)near #Person2#Two") == "dogs( #Person1#)near #Person2# Two"
    assert both_ways(speakers, " #Person1#\t#Person2#\r\n  Two \n") == "#Person1# #Person2#\nTwo\n"


def test_without_a_line_feed_among_them_lines_are_joined():
    tokenizer = Tokenizer.train([*CORPUS, *DIALOGUES], special=MARKS[:2])
    text = "#Person1#: Two dogs\n#Person2#: Two\nNo"
    assert both_ways(tokenizer, text) == "#Person1#: Two dogs #Person2#: Two No"


def test_special_tokens_belong_to_the_vocabulary(speakers, tmp_path):
    assert speakers.special == MARKS
    assert Tokenizer.train(CORPUS).special == []
    assert Tokenizer.train([*CORPUS, *DIALOGUES], 100, MARKS).vocabulary_size == 100
    assert not any("Pers" in token for token in speakers.tokens(range(speakers.vocabulary_size - len(MARKS))))
    speakers.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    texts = [*CORPUS, *DIALOGUES, "</s> #Person2#\n"]
    assert loaded.encode(texts) == speakers.encode(texts)
    assert loaded.decode(loaded.encode(texts)) == speakers.decode(speakers.encode(texts))
    assert loaded.special == MARKS


@pytest.mark.parametrize("known", [[], MARKS[:1]], ids=["none", "one"])
def test_special_tokens_can_be_added_later(speakers, known):
    """Then texts are what they are to a tokenizer that knew them from the beginning."""
    tokenizer = Tokenizer.train([*CORPUS, *DIALOGUES], special=known)
    grown = tokenizer.with_special(MARKS)
    assert grown.special == MARKS
    assert tokenizer.special == known
    size = tokenizer.vocabulary_size
    assert [grown.token_id(mark) for mark in MARKS[len(known) :]] == list(range(size, size + len(MARKS) - len(known)))
    assert grown.tokens(range(size)) == tokenizer.tokens(range(size))
    for text in DIALOGUES:
        (ids,) = grown.encode([text])
        assert grown.decode([ids]) == speakers.decode(speakers.encode([text]))
    assert tokenizer.with_special(known).encode(DIALOGUES) == tokenizer.encode(DIALOGUES)


def test_a_special_token_inside_another_is_no_harm():
    tokenizer = Tokenizer.train(CORPUS, special=["<m>", "<m><x>"])
    (ids,) = tokenizer.encode(["Two <m><x> dogs <m>"])
    assert [token for token in tokenizer.tokens(ids) if "<" in token] == ["<m><x>", "<m>"]
    assert tokenizer.decode([ids]) == ["Two <m><x> dogs <m>"]


@pytest.mark.parametrize("special", [["<s>"], ["a", "a"], ["a b"], [" a"], [""], [" "]])
def test_what_can_be_no_special_token_is_refused(special):
    with pytest.raises(VocabularyError, match=rf"^special: {special[-1]!r}; it takes different texts without white"):
        Tokenizer.train(CORPUS, special=special)


def test_special_tokens_count_among_the_smallest_vocabulary():
    assert Tokenizer.train(CORPUS, 8, MARKS).vocabulary_size == 8
    with pytest.raises(VocabularyError, match=r"^vocabulary_size: 7 tokens asked; it is at least 8, or 0$"):
        Tokenizer.train(CORPUS, 7, MARKS)


# === Files ===


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "deep" / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "deep" / "tokenizer.json")
    texts = [*CORPUS, "</s> <s>", "😀", "x  y\x00", ""]
    ids = tokenizer.encode(texts)
    assert loaded.encode(texts) == ids
    assert loaded.decode(ids) == tokenizer.decode(ids)
    assert loaded.vocabulary_size == tokenizer.vocabulary_size
