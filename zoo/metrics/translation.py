"""BLEU and chrF, by sacrebleu."""

from collections.abc import Sequence
from typing import Any


def translation_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Scores translations against one reference each.

    Args:
        hypotheses: The translations.
        references: What they should be.

    Returns:
        "bleu" (cased, tokenizer 13a), "bleu_lowercase" (the same, lowercased) and "chrf", all 0-100, and
        "signatures", which say how each was computed.

    Source: Post 2018; BLEU: Papineni et al. 2002; chrF: Popović 2015.
    """
    from sacrebleu.metrics import BLEU, CHRF

    metrics = {"bleu": BLEU(), "bleu_lowercase": BLEU(lowercase=True), "chrf": CHRF()}
    scores: dict[str, Any] = {
        name: metric.corpus_score(list(hypotheses), [list(references)]).score for name, metric in metrics.items()
    }
    scores["signatures"] = {name: str(metric.get_signature()) for name, metric in metrics.items()}
    return scores
