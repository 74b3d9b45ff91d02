"""BLEU, ROUGE-L and CIDEr-D of captions, by pycocoevalcap; and rewards, fast enough for training."""

import functools
import itertools
import math
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# === Words ===

# What the COCO evaluation drops behind its tokenizer; a quotation mark is `` or '' there.
_DROPPED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": " -- ", "—": " -- "})
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ENDINGS = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|m|d))\b(?!-)")
_JOINED = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(lem|gim)(me)\b")
_WORDS = re.compile(
    r"""
    \d+(?:[.,:/]\d+)+                                            # 1,000  10:30  1/2
  | (?:[a-z]\.){2,} | ph\.d\.                                    # a.m.  u.s.
  | \b(?:mr|mrs|ms|dr|st|jr|sr|prof|gen|vs|etc|no|co|inc|ltd|ft|mt|ave|dept)\.(?!\.)
  | n't\b | '(?:s|re|ve|ll|m|d)\b                                # split off by _ENDINGS
  | \w+ (?: (?:[-/&.] | (?<=[^\W\d])'(?=[^\W\d])) \w+ )*         # black-and-white  o'clock  at&t
  | \.{2,} | --+ | [?!]+ | \S
    """,
    re.VERBOSE,
)


def caption_words(caption: str) -> list[str]:
    """Splits a caption as the COCO evaluation does: Penn Treebank words in lower case, without punctuation.

    A rule that needs no Java: it splits all but 25 of the 72,470 captions of Flickr8k and Multi30k as Stanford's
    tokenizer does with the evaluation's settings; the others differ in an abbreviation or an escaped ampersand.

    Source: Chen et al. 2015, section 4.1.
    """
    return [word for chunk in caption.lower().split() for word in _split(chunk)]


@functools.lru_cache(maxsize=2**16)
def _split(chunk: str) -> tuple[str, ...]:
    """Splits what stands between two spaces; few of these are ever new."""
    text = _JOINED.sub(
        lambda match: " ".join(filter(None, match.groups())), _ENDINGS.sub(r" \1", chunk.translate(_PLAIN))
    )
    return tuple(_BRACKETS.get(word, word) for word in _WORDS.findall(text) if word not in _DROPPED)


# === Scores ===

# Words in the longest n-grams.
_LONGEST = 4


def caption_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], java: bool | None = False
) -> dict[str, Any]:
    """Scores one caption an image against any number of references.

    Args:
        candidates: The captions.
        references: For each of them, what people said of the image.
        java: Whether METEOR, and SPICE where its parser is installed, are added: Java takes half a minute for 1,000
            captions, and 2 GB of memory. None: where there is Java.

    Returns:
        "bleu1" ... "bleu4" and "rougeL", 0-100; "length", how many words the captions have for 100 of the references
        that are nearest in length, below 100 of which BLEU is lower by exp(1 - 100 / length); "cider", CIDEr-D times
        100, which identical captions lift up to 1000; "distinct", the share of captions that differ from all before,
        0-100; "vocabulary", the number of different words in them; and "meteor" and "spice", 0-100, where Java is used.

    Raises:
        ValueError: If there are no captions, or not as many lists of references, or one holds no word.

    Source: BLEU: Papineni et al. 2002; ROUGE-L: Lin 2004; CIDEr-D: Vedantam et al. 2015, section 8; METEOR: Denkowski &
        Lavie 2014; SPICE: Anderson et al. 2016; all as computed by the COCO evaluation, Chen et al. 2015.
    """
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    _check(candidates, references)
    found = {i: [" ".join(caption_words(caption))] for i, caption in enumerate(candidates)}
    wanted = {i: [" ".join(caption_words(text)) for text in texts] for i, texts in enumerate(references)}
    for i, texts in wanted.items():
        if not any(texts):
            raise ValueError(f"references of caption {i + 1}: no word in {list(references[i])!r}; give at least one")
    bleu = _bleu(found.values(), wanted.values())
    scores: dict[str, Any] = {f"bleu{n}": 100 * value for n, value in enumerate(bleu.compute_score("closest")[0], 1)}
    scores["length"] = 100 * bleu.testlen("closest") / bleu.reflen("closest")
    scores["rougeL"] = 100 * float(Rouge().compute_score(wanted, found)[0])
    scores["cider"] = 100 * float(Cider().compute_score(wanted, found)[0])
    if java or (java is None and shutil.which("java")):
        scores |= _java_scores(wanted, found)
    texts = [caption for (caption,) in found.values()]
    scores["distinct"] = 100 * len(set(texts)) / len(texts)
    scores["vocabulary"] = len({word for text in texts for word in text.split()})
    return scores


def _bleu(candidates: Iterable[list[str]], references: Iterable[list[str]]) -> Any:
    """Returns a scorer that has counted n-grams of texts whose words stand between spaces."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_LONGEST)
    for (candidate,), texts in zip(candidates, references):
        scorer += (candidate, texts)
    return scorer


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise ValueError(
            f"candidates, references: {len(candidates)} captions and {len(references)} lists of references; each "
            "caption takes a list, and there is at least one"
        )


def _java_scores(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> dict[str, float]:
    import pycocoevalcap.spice.spice
    from pycocoevalcap.meteor.meteor import Meteor

    scorers: dict[str, Any] = {"meteor": Meteor}
    # The package would download its parser, hundreds of megabytes, unasked.
    if any((Path(pycocoevalcap.spice.spice.__file__).parent / "lib").glob("stanford-corenlp-*-models.jar")):
        scorers["spice"] = pycocoevalcap.spice.spice.Spice
    scores = {}
    for name, scorer in scorers.items():
        try:
            scores[name] = 100 * float(scorer().compute_score(references, candidates)[0])
        except Exception as error:  # a process of its own may fail in any way; the other scores stand
            warnings.warn(f"{name} is left out, Java fails: {type(error).__name__}: {error}", stacklevel=3)
    return scores


# === Rewards ===

_SIGMA = 6.0
_END = "</s>"


class DocumentFrequencies(NamedTuple):
    """In how many images' references each n-gram occurs.

    Attributes:
        counts: By n-gram; each of 1 to 4 words.
        images: How many images there are.
        ending: Whether the end of a caption counts as a word, so that a reward sees captions that break off.
    """

    counts: Counter[tuple[str, ...]]
    images: int
    ending: bool = False


def document_frequencies(references: Sequence[Sequence[str]], ending: bool = False) -> DocumentFrequencies:
    """Counts in how many images' references each n-gram occurs; fields and arguments are DocumentFrequencies'."""
    counts: Counter[tuple[str, ...]] = Counter()
    for texts in references:
        counts.update({ngram for text in texts for ngram in _ngrams(text, ending)})
    return DocumentFrequencies(counts, len(references), ending)


def cider_rewards(
    candidates: Sequence[str], references: Sequence[Sequence[str]], frequencies: DocumentFrequencies
) -> np.ndarray:
    """Computes each caption's CIDEr-D, with words weighed by what is said of other images.

    Args:
        candidates: The captions; several may be of the same image.
        references: For each of them, what people said of the image.
        frequencies: Of the training references.

    Returns:
        float32 (captions,), 0 to 10; a mean of 0.5 is a "cider" of 50 in caption_scores.

    Raises:
        ValueError: If there are no captions, or not as many lists of references.

    Source: Vedantam et al. 2015, section 8; as a reward: Rennie et al. 2017.
    """
    _check(candidates, references)
    known: dict[tuple[str, ...], list[_Vector]] = {}
    rewards = []
    for candidate, texts in zip(candidates, references):
        key = tuple(texts)
        if key not in known:
            known[key] = [_vector(text, frequencies) for text in texts]
        vector = _vector(candidate, frequencies)
        rewards.append(10 * sum(_similarity(vector, other) for other in known[key]) / max(1, len(texts)))
    return np.array(rewards, np.float32)


def bleu_rewards(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Computes each caption's BLEU, the mean of BLEU-1 to BLEU-4; the end of a caption counts as a word.

    Args:
        candidates: The captions; several may be of the same image.
        references: For each of them, what people said of the image.

    Returns:
        float32 (captions,), 0 to 1.

    Raises:
        ValueError: If there are no captions, or not as many lists of references.

    Source: Papineni et al. 2002, for single sentences, without smoothing.
    """
    _check(candidates, references)

    def ended(text: str) -> str:
        return " ".join([*caption_words(text), _END])

    known = {tuple(texts): [ended(text) for text in texts] for texts in references}
    scorer = _bleu(([ended(text)] for text in candidates), (known[tuple(texts)] for texts in references))
    return np.mean(scorer.compute_score("closest")[1], axis=0).astype(np.float32)


class _Vector(NamedTuple):
    weights: dict[tuple[str, ...], float]
    norms: list[float]  # for n-grams of each length
    length: int  # of the caption, counted as the evaluation does, in pairs of words


def _ngrams(text: str, ending: bool) -> Counter[tuple[str, ...]]:
    words = caption_words(text) + [_END] * ending
    shifted = [words[i:] for i in range(_LONGEST)]
    return Counter(itertools.chain.from_iterable(zip(*shifted[:n]) for n in range(1, _LONGEST + 1)))


def _vector(text: str, frequencies: DocumentFrequencies) -> _Vector:
    counts = _ngrams(text, frequencies.ending)
    weights, squares, length = {}, [0.0] * _LONGEST, 0
    for ngram, count in counts.items():
        weight = count * math.log(frequencies.images / max(1, frequencies.counts[ngram]))
        weights[ngram] = weight
        squares[len(ngram) - 1] += weight * weight
        length += count * (len(ngram) == 2)
    return _Vector(weights, [math.sqrt(square) for square in squares], length)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Averages the cosines of n-grams of each length, repeated ones clipped, other lengths punished."""
    products = [0.0] * _LONGEST
    for ngram in candidate.weights.keys() & reference.weights.keys():
        other = reference.weights[ngram]
        products[len(ngram) - 1] += min(candidate.weights[ngram], other) * other
    norms = [mine * theirs for mine, theirs in zip(candidate.norms, reference.norms)]
    cosines = sum(product / norm for product, norm in zip(products, norms) if norm)
    return cosines / _LONGEST * math.exp(-((candidate.length - reference.length) ** 2) / (2 * _SIGMA**2))
