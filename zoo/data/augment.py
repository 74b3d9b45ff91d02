"""Easy data augmentation: words of a training text replaced, inserted, swapped and deleted."""

import dataclasses
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from zoo.config import Config, ConfigError
from zoo.data.files import SourceError, read_lines
from zoo.data.texts import TextTokenizer

# From a word in lower case to its synonyms.
Synonyms = Callable[[str], Sequence[str]]
# Function words: they carry a sentence's grammar, and with "not" its sense.
_FUNCTION_WORDS = """
    a about above after again against all also although am an and any are as at be because been before being below
    between both but by can cannot could did do does doing down during each either else ever every few for from further
    had has have having he her here hers herself him himself his how however i if in into is it its itself just least
    less many may me might more most much must my myself neither never no nobody none nor not nothing now of off on once
    one only onto or other our ours ourselves out over own quite rather same shall she should since so some still such
    than that the their theirs them themselves then there these they this those though through thus to too toward under
    until up upon us very was we were what when where whether which while who whom whose why will with within without
    would yet you your yours yourself yourselves n't 's 're 've 'll 'd 'm
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
PUNCTUATION = string.punctuation + "¡¿«»“”„‘’–—…"


@dataclasses.dataclass(frozen=True)
class EdaConfig(Config):
    """How training texts are changed.

    Args:
        share: Of a pass' texts that are changed, each by one operation; 0 changes none.
        alpha: Share of a text's words that an operation changes, at least one; for delete, the probability of each.
        operations: Those to draw from. Without synonyms, replace and insert are left out.
        synonyms: "embeddings", the nearest words in a pretrained encoder's table of tokens, which may say the opposite
            (good, bad); a file with a word and its synonyms on each line, separated by tabs; None for none.
        neighbours: Most synonyms that "embeddings" gives a word.
        similarity: Least cosine between a word and such a synonym.

    Source: Wei & Zou 2019.
    """

    share: float = 0.0
    alpha: float = 0.1
    operations: tuple[Literal["replace", "insert", "swap", "delete"], ...] = ("replace", "insert", "swap", "delete")
    synonyms: str | None = None
    neighbours: int = 5
    similarity: float = 0.55

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.share <= 1 or not 0 < self.alpha <= 1:
            raise ConfigError(f"share, alpha: {self.share}, {self.alpha}; shares, of which alpha is above 0")
        if not self.operations or (self.synonyms is None and set(self.operations) <= {"replace", "insert"}):
            raise ConfigError(
                f"operations: {list(self.operations)}; there must be one, and replace and insert take synonyms"
            )
        if self.neighbours < 1:
            raise ConfigError(f"neighbours: {self.neighbours}; it is at least 1")


class Eda:
    """Changes texts by one operation each; white space between words becomes one space.

    Args:
        config: What is done, and how often.
        synonyms: Of words in lower case; None for none.

    Source: Wei & Zou 2019, section 2.
    """

    def __init__(self, config: EdaConfig, synonyms: Synonyms | None = None):
        self.config = config
        self.synonyms: Synonyms = synonyms or (lambda word: ())
        self.operations = [
            name for name in config.operations if synonyms is not None or name not in ("replace", "insert")
        ]

    def __call__(self, text: str, random: np.random.Generator) -> str:
        """Changes a text, or leaves it as it is."""
        words = text.split()
        if not words or random.random() >= self.config.share:
            return text
        operation = getattr(self, _drawn(self.operations, random))
        return " ".join(operation(words, random))

    def replace(self, words: Sequence[str], random: np.random.Generator) -> list[str]:
        """Replaces words by synonyms; stop words stay, and punctuation around a word."""
        words = list(words)
        places = [place for place, word in enumerate(words) if self._of(word)]
        for place in random.permutation(places)[: self._count(words)].tolist():
            core = words[place].strip(PUNCTUATION)
            words[place] = words[place].replace(core, self._synonym(words[place], random), 1)
        return words

    def insert(self, words: Sequence[str], random: np.random.Generator) -> list[str]:
        """Inserts synonyms of words of the text at random places."""
        words = list(words)
        known = [word for word in words if self._of(word)]
        for _ in range(self._count(words) if known else 0):
            synonym = self._synonym(_drawn(known, random), random)
            words.insert(int(random.integers(len(words) + 1)), synonym)
        return words

    def swap(self, words: Sequence[str], random: np.random.Generator) -> list[str]:
        """Exchanges two words, again and again."""
        words = list(words)
        for _ in range(self._count(words) if len(words) > 1 else 0):
            one, other = random.choice(len(words), 2, replace=False)
            words[one], words[other] = words[other], words[one]
        return words

    def delete(self, words: Sequence[str], random: np.random.Generator) -> list[str]:
        """Leaves words out; one of them stays."""
        kept = [word for word in words if random.random() >= self.config.alpha]
        return kept or [_drawn(words, random)]

    def _count(self, words: Sequence[str]) -> int:
        return max(1, int(self.config.alpha * len(words)))

    def _of(self, word: str) -> Sequence[str]:
        """Finds the synonyms of a word as it stands in a text."""
        core = word.strip(PUNCTUATION).lower()
        return () if not core or {core, word.lower()} & STOP_WORDS else self.synonyms(core)

    def _synonym(self, word: str, random: np.random.Generator) -> str:
        """Draws a synonym, with a capital where the word has one."""
        synonym = _drawn(self._of(word), random)
        return synonym[0].upper() + synonym[1:] if word.strip(PUNCTUATION)[0].isupper() else synonym


def _drawn(items: Sequence[str], random: np.random.Generator) -> str:
    return items[int(random.integers(len(items)))]


# === Synonyms ===


def read_synonyms(path: str | Path) -> Synonyms:
    """Reads synonyms from a file.

    Args:
        path: A word and its synonyms on each line, separated by tabs; blank lines are skipped, and a word may have
            several lines.

    Raises:
        SourceError: If the file cannot be read, or a line has no synonym.
    """
    found: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        word, *synonyms = (cell.strip() for cell in line.split("\t"))
        if not line.strip():
            continue
        if not word or not all(synonyms) or not synonyms:
            raise SourceError(f"{path}, line {number}: {line[:40]!r}; it takes a word TAB synonym TAB synonym ...")
        found.setdefault(word.lower(), []).extend(synonyms)
    return lambda word: found.get(word, ())


def token_words(texts: Iterable[str], tokenizer: TextTokenizer) -> dict[str, int]:
    """Finds the words of texts that are one token each; no stop words, and letters only.

    Args:
        texts: The texts.
        tokenizer: Reads them.

    Returns:
        Word in lower case -> token id.
    """
    seen = {core.lower() for text in texts for word in text.split() if (core := word.strip(PUNCTUATION)).isalpha()}
    words = sorted(seen - STOP_WORDS)
    found = {}
    # Behind a space, as in the middle of a text: some tokenizers make another token of a text's first word.
    for word, encoding in zip(words, tokenizer.encode([f" {word}" for word in words])):
        ids = [i for i, (begin, end) in zip(encoding.ids, encoding.offsets) if begin < end]
        # What is not spelled like the word is the unknown token, or the same letters without their accents.
        if len(ids) == 1 and tokenizer.tokens(ids)[0].lstrip("▁Ġ") == word:
            found[word] = ids[0]
    return found


def nearest_words(words: Mapping[str, int], embeddings: np.ndarray, count: int, similarity: float) -> Synonyms:
    """Takes the words whose embeddings point the same way for synonyms.

    Args:
        words: Word -> token id; only these have synonyms and are some.
        embeddings: (V, D).
        count: Most synonyms of a word.
        similarity: Least cosine.
    """
    spellings, rows = list(words), 512  # so many words at once, or all cosines would lie in memory together
    vectors = np.asarray(embeddings, np.float32)[list(words.values())]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: dict[str, list[str]] = {}
    for start in range(0, len(vectors), rows):
        cosines = vectors[start : start + rows] @ vectors.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        best = np.argpartition(-cosines, min(count, len(spellings) - 1), axis=1)[:, :count]
        for row, places in enumerate(best):
            near = sorted(
                (place for place in places if cosines[row, place] >= similarity), key=lambda p: -cosines[row, p]
            )
            found[spellings[start + row]] = [spellings[place] for place in near]
    return lambda word: found.get(word, ())
