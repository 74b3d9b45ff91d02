"""ROUGE, by rouge-score; summaries without a model to compare with; and signs that summaries are no good."""

import functools
import importlib.metadata
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.config import nearest

_ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_BASELINE = re.compile(r"(?P<kind>\w+)-(?P<count>[1-9]\d*)")


def summarization_scores(
    summaries: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    stemmer: bool = True,
    split: Callable[[str], Sequence[str]] = str.splitlines,
) -> dict[str, Any]:
    """Scores summaries against one or several references each.

    The ROUGE-L that is published for DialogSum and SAMSum is "rougeL_py_rouge".

    Args:
        summaries: The summaries. All but the letters a to z and digits separates words.
        references: For each summary what it could be: a text, or several.
        stemmer: Whether words count as their English stems, as they do in what is published.
        split: Cuts a text into the sentences of rougeLsum; by default its lines are its sentences.

    Returns:
        F-scores, 0-100, means over the summaries: "rouge1" (words), "rouge2" (pairs), "rougeL" (longest common
        subsequence), "rougeLsum" (the same, sentence by sentence) and "rougeL_py_rouge" (rougeL with precision and
        recall raised to the power 1 / 1.2, which is what py-rouge makes of it when its weight_factor is 1.2). Each is
        the mean over a summary's references; "rouge1_best" ... take the best. "signature" says how they came about.

    Raises:
        ValueError: If summaries and references differ in number, or one has no reference.

    Source: Lin 2004.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    if len(summaries) != len(references):
        raise ValueError(f"{len(summaries)} summaries, references for {len(references)}; they go together")
    several = [[texts] if isinstance(texts, str) else list(texts) for texts in references]
    if not several or not all(several):
        raise ValueError(f"references: none for summary {[*map(bool, several), False].index(False) + 1}; it takes one")
    scorer = RougeScorer(list(_ROUGES), tokenizer=_Tokens(DefaultTokenizer(use_stemmer=stemmer).tokenize))
    names = [*_ROUGES, "rougeL_py_rouge"]
    means, bests = [], []
    for summary, texts in zip(summaries, several):
        found = [_by_name(scorer.score("\n".join(split(text)), "\n".join(split(summary)))) for text in texts]
        means.append(np.mean(found, axis=0))
        bests.append(np.max(found, axis=0))
    scores: dict[str, Any] = {name: 100 * float(mean) for name, mean in zip(names, np.mean(means, axis=0))}
    scores |= {f"{name}_best": 100 * float(best) for name, best in zip(names, np.mean(bests, axis=0))}
    counts = sorted({len(texts) for texts in several})
    scores["signature"] = (
        f"rouge-score {importlib.metadata.version('rouge-score')}|nrefs:{'-'.join(map(str, counts))}"
        f"|stemmer:{'yes' if stemmer else 'no'}|f1|mean over references"
    )
    return scores


def baseline(name: str, seed: int = 0) -> Callable[[Sequence[str]], str]:
    """Returns a function that makes a summary of some of a text's turns, or sentences, in their order.

    Args:
        name: "lead-3" takes the first three, "longest-3" those with most words, "random-3" any.
        seed: With the text itself decides what "random-3" takes.

    Raises:
        ValueError: For another name.

    Source: longest-3: Gliwa et al. 2019.
    """
    match = _BASELINE.fullmatch(name)
    if not match or match["kind"] not in _CHOICES:
        raise ValueError(f"baseline {name!r}: {nearest(name, [f'{kind}-3' for kind in _CHOICES])}")
    choose, count = _CHOICES[match["kind"]], int(match["count"])

    def summarize(parts: Sequence[str]) -> str:
        chosen = choose(parts, min(count, len(parts)), seed)
        return " ".join(parts[number] for number in sorted(chosen))

    return summarize


_CHOICES: dict[str, Callable[[Sequence[str], int, int], Sequence[int]]] = {
    "lead": lambda parts, count, seed: range(count),
    "longest": lambda parts, count, seed: sorted(range(len(parts)), key=lambda i: -len(parts[i].split()))[:count],
    "random": lambda parts, count, seed: random.Random(f"{seed} {parts}").sample(range(len(parts)), count),
}


def summary_diagnostics(
    summaries: Sequence[str], sources: Sequence[str], references: Sequence[str | Sequence[str]] | None = None
) -> dict[str, float]:
    """Describes summaries without judging what they say.

    Args:
        summaries: The summaries.
        sources: What they summarize.
        references: What they could be.

    Returns:
        "novel1", "novel2", "novel3", the share of a summary's words, pairs and triples that its source does not have,
        and "repeated3", the share of its triples that it has said before, both 0-100 and means over the summaries;
        "words", the mean length; "length_ratio", all words over those of the references, where there are some;
        "compression", words of the sources over those of the summaries; and "empty", the number of summaries without a
        word.

    Source: novel: See et al. 2017, section 7.2.
    """
    found = [_words(summary) for summary in summaries]
    originals = [_words(source) for source in sources]
    total = sum(map(len, found))
    scores: dict[str, float] = {}
    for n in (1, 2, 3):
        novel = []
        for words, original in zip(found, originals, strict=True):
            known = set(_grams(original, n))
            novel += [np.mean([gram not in known for gram in _grams(words, n)])] if len(words) >= n else []
        scores[f"novel{n}"] = 100 * float(np.mean(novel)) if novel else 0.0
    repeated = [1 - len(set(_grams(words, 3))) / (len(words) - 2) for words in found if len(words) > 2]
    scores["repeated3"] = 100 * float(np.mean(repeated)) if repeated else 0.0
    scores["words"] = total / max(len(found), 1)
    if references is not None:
        several = [[texts] if isinstance(texts, str) else texts for texts in references]
        wanted = sum(float(np.mean([len(_words(text)) for text in texts])) for texts in several)
        scores["length_ratio"] = total / wanted if wanted else 0.0
    scores["compression"] = sum(map(len, originals)) / total if total else 0.0
    scores["empty"] = float(sum(not words for words in found))
    return scores


class _Tokens:
    """Tokenizes word by word and remembers: stemming takes two thirds of the time, and words are few."""

    def __init__(self, tokenize: Callable[[str], list[str]]):
        self._tokenize = functools.cache(tokenize)

    def tokenize(self, text: str) -> list[str]:
        return [token for word in text.split() for token in self._tokenize(word)]


def _by_name(scores: Mapping[str, Any]) -> list[float]:
    """Returns F-scores in the order of _ROUGES, then rougeL's as py-rouge has it."""
    precision, recall = (value ** (1 / 1.2) for value in scores["rougeL"][:2])
    weighted = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return [*(scores[name].fmeasure for name in _ROUGES), weighted]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(n))))
