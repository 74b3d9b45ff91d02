"""Subword tokenizers, trained and run by the `tokenizers` library."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from zoo.files import replacing

SPECIAL = [PAD, START, END, UNKNOWN] = ["<pad>", "<s>", "</s>", "<unk>"]
# The special tokens and one character.
SMALLEST = 5
LARGEST_BY_DEFAULT = 8000
# Control characters that are no white space.
CONTROL = r"(?!\s)\p{Cc}"
# Stands for a space, at the beginning of words.
SPACE = "▁"
LINE = "\n"


class VocabularyError(ValueError):
    """Says how large a vocabulary the corpus allows."""


class Tokenizer:
    """Turns text into token ids and back; a text never yields <pad>, <s> or </s>, whatever it says.

    Args:
        tokenizer: A tokenizer of the `tokenizers` library that knows the special tokens <pad> <s> </s> <unk>.
        read_special: Whether a text yields special tokens that it names, after all.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, read_special: bool = False):
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = not read_special
        self._size: int | None = None
        self._left_out: Collection[int] = ()

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int = 0, special: Sequence[str] = ()) -> "Tokenizer":
        """Learns byte-pair encodings from texts.

        Words keep the space before them as a mark, punctuation stands alone, runs of white space become one space
        and control characters go; otherwise decode(encode(text)) == text.

        Args:
            texts: The corpus.
            vocabulary_size: How many tokens, the four special ones and `special` included; 0 is as many as the corpus
                allows, up to LARGEST_BY_DEFAULT.
            special: Texts that are one token each wherever they stand and are written out when decoded, such as the
                speakers' marks of a dialogue. Whether a space stands before one is not kept: decode writes one. A line
                feed may be among them, which is then no white space.

        Raises:
            VocabularyError: If the corpus does not allow that many tokens, and how many it allows; if it is empty; or
                if `special` holds something that cannot be a token.

        Source: Sennrich et al. 2016.
        """
        smallest = SMALLEST + len(special)
        if vocabulary_size and vocabulary_size < smallest:
            raise VocabularyError(f"vocabulary_size: {vocabulary_size} tokens asked; it is at least {smallest}, or 0")
        for number, token in enumerate(special):
            if (token != LINE and token.split() != [token]) or token in (*SPECIAL, *special[:number]):
                raise VocabularyError(
                    f"special: {token!r}; it takes different texts without white space, or a line feed, none of "
                    f"{' '.join(SPECIAL)}"
                )
        texts = list(texts)
        size = vocabulary_size or LARGEST_BY_DEFAULT
        # A quarter of the vocabulary is enough for characters, except where the corpus has too little to merge.
        room = size - len(SPECIAL) - len(special)
        for alphabet in (min(size // 4, room), room):
            tokenizer = cls._learn(texts, size, min(alphabet, 1000), special)
            learned = tokenizer.get_vocab_size()
            if learned >= vocabulary_size:
                return cls(tokenizer)
        raise VocabularyError(
            f"vocabulary_size: {vocabulary_size} tokens asked, the corpus allows {learned}; "
            f"ask for {learned} or fewer, or give more text"
        )

    @staticmethod
    def _learn(texts: Sequence[str], size: int, alphabet: int, special: Sequence[str]) -> tokenizers.Tokenizer:
        """Learns up to `size` tokens, of which up to `alphabet` single characters."""
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
        _set_up(tokenizer, special)
        if special:
            texts = [text for whole in texts for text in _between(whole, special)]
        # The trainer's own cut through equally frequent characters falls otherwise in every run.
        counts = Counter(SPACE)
        for text in texts:
            counts.update(tokenizer.normalizer.normalize_str(text).replace(" ", SPACE))
        if set(counts) == {SPACE}:
            raise VocabularyError(f"the corpus: no visible character in {len(texts)} texts; give some to learn from")
        characters = sorted(counts, key=lambda character: (-counts[character], character))[: max(1, alphabet)]
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(special),
            special_tokens=SPECIAL,
            initial_alphabet=characters,
            limit_alphabet=len(characters),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        _add(tokenizer, special)
        return tokenizer

    @classmethod
    def load(cls, path: str | Path, read_special: bool = False) -> "Tokenizer":
        """Reads a tokenizer.json."""
        return cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")), read_special)

    def save(self, path: str | Path) -> None:
        """Writes a tokenizer.json, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")

    def with_special(self, special: Sequence[str]) -> "Tokenizer":
        """Returns a tokenizer that knows more special tokens: see train(). Their ids follow those that there are."""
        tokenizer = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        new = [token for token in special if tokenizer.token_to_id(token) is None]
        if new:
            _set_up(tokenizer, [*self.special, *new])
            _add(tokenizer, new)
        return Tokenizer(tokenizer)

    @property
    def library_tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer of the `tokenizers` library behind this one."""
        return self._tokenizer

    @property
    def vocabulary_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def special(self) -> list[str]:
        """The special tokens that were asked for."""
        added = sorted(self._tokenizer.get_added_tokens_decoder().items())
        return [token.content for _, token in added if not token.special]

    def token_id(self, token: str) -> int:
        """Returns the id of a token, special ones included.

        Raises:
            KeyError: If there is no such token.
        """
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise KeyError(token)
        return token_id

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns the tokens behind ids, as text."""
        return [(self._tokenizer.id_to_token(int(i)) or UNKNOWN).removeprefix(" ") for i in ids]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turns each text into token ids, without special tokens."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        if self._size is None:
            return rows
        unknown = self.token_id(UNKNOWN)
        return [[i if i < self._size else unknown for i in row if i not in self._left_out] for row in rows]

    def restrict(self, size: int, left_out: Collection[int]) -> None:
        """Makes texts yield what a model knows.

        Args:
            size: V; ids from there on are unknown.
            left_out: Ids that texts never yield.
        """
        self._size = size
        self._left_out = left_out

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Turns token ids into texts; special tokens are left out."""
        return self._tokenizer.decode_batch([list(map(int, row)) for row in ids], skip_special_tokens=True)


def _set_up(tokenizer: tokenizers.Tokenizer, special: Sequence[str]) -> None:
    """Says what happens to a text before and after byte-pair encoding."""
    # What stands between two special tokens is normalized by itself: there, the space at its beginning counts, and
    # a word that follows a special token, or a line feed, directly is made to look like any other word.
    ends = [normalizers.Strip(left=False), normalizers.Replace(Regex(r"\A(?=\w)"), " ")]
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFC(),
            normalizers.Replace(Regex(CONTROL), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            *(ends if special else [normalizers.Strip()]),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never" if special else "always"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    if special:
        tokenizer.decoder = decoders.Sequence(
            [
                *(decoders.Replace(_exactly(token), SPACE + token) for token in special if token != LINE),
                tokenizer.decoder,
                decoders.Fuse(),
                decoders.Replace(f"{LINE} ", LINE),
            ]
        )


def _add(tokenizer: tokenizers.Tokenizer, special: Sequence[str]) -> None:
    # For the library they are not special: those are not found in texts, and not written out.
    tokenizer.add_tokens([AddedToken(token, lstrip=True, normalized=False) for token in special])


def _exactly(token: str) -> Regex:
    return Regex(rf"\A{re.escape(token)}\z")


def _between(text: str, special: Sequence[str]) -> list[str]:
    """Returns what is left of a text where special tokens are cut out."""
    return re.split("|".join(re.escape(token) for token in special), text)
