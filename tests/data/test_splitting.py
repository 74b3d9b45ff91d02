"""Pieces of texts: nothing is lost, no word is cut, every window fits, and cuts are where a reader would cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.splitting import sentences, speakers, truncate, turns, windows
from zoo.data.tokenizers import Tokenizer

FIXED = settings(deadline=None, derandomize=True, max_examples=50)
DIALOGUE = (
    "#Person1#: Hello, Dr. Gray. Is it late?\n"
    "#Person2#: No. Sit down!\n"
    "#Person1#: I will ... then I go.\n"
    "#Person2#: Fine."
)
WORD = st.sampled_from(["Hello", "dear", "Dr.", "Gray", "well.", "No!", "what?", "#Person1#:", "so..."])
TEXTS = st.lists(st.lists(WORD, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=6).map("\n".join)


def words(text):
    """A tokenizer to count by hand: a word is a token."""
    return len(text.split())


# === Turns and sentences ===


def test_a_turn_is_a_line():
    assert turns(DIALOGUE)[1:3] == ["#Person2#: No. Sit down!", "#Person1#: I will ... then I go."]
    assert turns("  Ada: Hi \r\n\n \nBen: Bye\n") == ["Ada: Hi", "Ben: Bye"]
    assert turns(" \n") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. and Mrs. Holt met Dr. A. B. Gray. He left.", ["Mr. and Mrs. Holt met Dr. A. B. Gray.", "He left."]),
        ("So do I. You too.", ["So do I.", "You too."]),
        ('"Go!" he said. "Now." (Soon.) End.', ['"Go!" he said.', '"Now."', "(Soon.)", "End."]),
        ("At 3.30 p.m. we meet. 5 come.", ["At 3.30 p.m. we meet.", "5 come."]),
        ("Well... no. Well... No.", ["Well... no.", "Well...", "No."]),
        ("No end\nNext line. more", ["No end", "Next line. more"]),
        ("你好。 再见！走吧", ["你好。", "再见！", "走吧"]),
        ("what?! Why", ["what?!", "Why"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text, expected):
    assert sentences(text) == expected


@FIXED
@given(text=TEXTS)
def test_sentences_lose_nothing(text):
    assert " ".join(sentences(text)).split() == text.split()


def test_speakers_are_marks_that_lead_turns():
    texts = [DIALOGUE, "#Boss#: Ask #Person9#: now.\n #Boss#: No.\n#Person1#: Yes.\n#PErson1#: Oh.\nAda: Hi #Boss#:"]
    assert speakers(texts) == ["#Person1#", "#Boss#", "#Person2#"]
    assert speakers(texts, least=1) == ["#Person1#", "#Boss#", "#Person2#", "#PErson1#"]
    assert speakers(["Ada: Hi", ""]) == []


# === Windows ===


@FIXED
@given(text=TEXTS, most=st.integers(1, 80))
def test_windows_fit_and_are_the_text(text, most):
    found = windows(text, most, words)
    assert all(1 <= words(window) <= most for window in found)
    assert "\n".join(found).split() == text.split()


@FIXED
@given(text=TEXTS, most=st.integers(1, 30), overlap=st.integers(0, 3))
def test_windows_that_overlap_fit_and_hold_every_word_in_order(text, most, overlap):
    text = "\n".join(
        " ".join(f"{number}/{word}" for number, word in enumerate(line.split(), 100 * row))
        for row, line in enumerate(text.split("\n"))
    )
    found = windows(text, most, words, overlap)
    assert all(1 <= words(window) <= most for window in found)
    place = 0
    for window in found:
        start = text.split().index(window.split()[0])
        assert start <= place < start + words(window)
        assert window.split() == text.split()[start : start + words(window)]
        place = start + words(window)
    assert place == words(text)


def test_windows_are_cut_between_turns_then_sentences_then_words():
    assert windows(DIALOGUE, 11, words) == [
        "#Person1#: Hello, Dr. Gray. Is it late?\n#Person2#: No. Sit down!",
        "#Person1#: I will ... then I go.\n#Person2#: Fine.",
    ]
    assert windows(DIALOGUE, 6, words) == [
        "#Person1#: Hello, Dr. Gray.",
        "Is it late?",
        "#Person2#: No. Sit down!",
        "#Person1#: I will ... then I",
        "go.\n#Person2#: Fine.",
    ]


def test_windows_share_whole_turns():
    text = "\n".join(f"Turn {number}." for number in range(6))
    assert windows(text, 6, words, overlap=1) == [
        "Turn 0.\nTurn 1.\nTurn 2.",
        "Turn 2.\nTurn 3.\nTurn 4.",
        "Turn 4.\nTurn 5.",
    ]
    assert windows(text, 2, words, overlap=5) == turns(text)


def test_a_text_that_fits_stays_as_it_is():
    text = " Hello.\n\n  Bye. "
    assert windows(text, 2, words) == [text]
    assert truncate(text, 2, words) == text
    assert windows(" \n", 2, words) == []
    assert truncate("", 0, words) == ""


@pytest.mark.parametrize("cut", [windows, truncate])
def test_a_word_that_does_not_fit_is_named(cut):
    with pytest.raises(ValueError, match=r"^'abcdefgh' alone has 8 tokens, and 5 fit; a word is not cut$"):
        cut("abcdefgh ij", 5, len)


# === Truncation ===


@FIXED
@given(text=TEXTS, most=st.integers(1, 80))
def test_truncation_is_a_beginning_that_fits_and_ends_with_a_sentence(text, most):
    found = truncate(text, most, words)
    assert 1 <= words(found) <= most
    assert text.split()[: words(found)] == found.split()
    first = words(sentences(text)[0])
    if first <= most:
        ends = [sum(map(words, sentences(text)[: count + 1])) for count in range(len(sentences(text)))]
        assert words(found) == max(end for end in ends if end <= most)
    else:
        assert words(found) == most


def test_truncation_keeps_lines():
    assert truncate(DIALOGUE, 9, words) == "#Person1#: Hello, Dr. Gray. Is it late?\n#Person2#: No."


def test_tokens_are_counted_by_a_tokenizer():
    tokenizer = Tokenizer.train([DIALOGUE], special=speakers([DIALOGUE]))

    def length(text):
        return len(tokenizer.encode([text])[0])

    found = windows(DIALOGUE, 20, length)
    assert len(found) > 1
    assert all(length(window) <= 20 for window in found)
    assert "\n".join(found) == DIALOGUE
