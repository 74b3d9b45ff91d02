"""Corrupting token ids, so that a model can learn from text alone: denoising, span corruption, masked language models.

Every function takes the ids of one text, without start and end tokens, and a numpy Generator that decides: the same
Generator gives the same corruption. What comes in is never changed.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zoo.config import Config, ConfigError
from zoo.data.tokenizers import LINE, PAD, SPACE, SPECIAL, Tokenizer

MASK = "<mask>"
# As T5's checkpoints call them.
SENTINELS = [f"<extra_id_{number}>" for number in range(100)]

_SENTENCE_ENDS = {".", "!", "?", "…", "。", "！", "？", LINE}


class TokenKinds(NamedTuple):
    """What corruption must know of a vocabulary.

    Attributes:
        fixed: Boolean (V,): tokens that are never hidden, deleted or drawn, which are the special ones.
        starts_word: Boolean (V,): tokens that begin a word or are punctuation.
        ends_sentence: Boolean (V,).
        mask: Stands for what is hidden; None where there is no such token.
        sentinels: Stand for the first, second, third ... hidden span.
    """

    fixed: np.ndarray
    starts_word: np.ndarray
    ends_sentence: np.ndarray
    mask: int | None = None
    sentinels: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenKinds":
        """Reads the kinds from a vocabulary, whose special tokens include MASK, or SENTINELS, or some of these."""
        tokens = tokenizer.tokens(range(tokenizer.vocabulary_size))
        fixed = {*SPECIAL, *tokenizer.special}
        number = {token: i for i, token in enumerate(tokens)}
        return cls(
            fixed=np.array([token in fixed for token in tokens]),
            starts_word=np.array([token.startswith(SPACE) or not token[0].isalnum() for token in tokens]),
            ends_sentence=np.array([token in _SENTENCE_ENDS for token in tokens]),
            mask=number.get(MASK),
            sentinels=tuple(number[token] for token in SENTINELS if token in number),
        )


# === Denoising, as BART learns it ===


@dataclasses.dataclass(frozen=True)
class DenoisingConfig(Config):
    """How a text is corrupted for a model that writes it out again, whole.

    Args:
        permute: Whether sentences are put in another order.
        infill: Share of the text that is hidden in spans, each behind a single mask.
        mean_span: Mean length of such a span. Spans of length 0 are masks that hide nothing.
        mask: Share of what is left that is masked token by token.
        delete: Share of what is left that is deleted.
        rotate: Whether the text begins at any of its tokens, and ends with what was before it.
        whole_words: Whether lengths and shares are counted in words, and words are hidden whole.

    Source: Lewis et al. 2020, section 2.2; the defaults are those of section 5.1.
    """

    permute: bool = True
    infill: float = 0.3
    mean_span: float = 3.0
    mask: float = 0.0
    delete: float = 0.0
    rotate: bool = False
    whole_words: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_shares(self, "infill", "mask", "delete")
        _check_span(self.mean_span)


def denoise(ids: Sequence[int], kinds: TokenKinds, config: DenoisingConfig, rng: np.random.Generator) -> np.ndarray:
    """Corrupts a text in each of the ways that the configuration names, in its order.

    Args:
        ids: The text.
        kinds: The vocabulary; its `mask` is what stands for hidden tokens.
        config: How much of what.
        rng: Decides.

    Returns:
        The corrupted text, int32. What the model shall write is `ids`.

    Raises:
        ValueError: If the vocabulary has no mask.
    """
    text = np.asarray(ids, np.int32)
    if config.permute:
        text = permute_sentences(text, kinds, rng)
    if config.infill:
        text = infill(text, kinds, config.infill, config.mean_span, rng, config.whole_words)
    if config.mask:
        text = np.where(_chosen(text, kinds, config.mask, rng, config.whole_words), _mask(kinds), text)
    if config.delete:
        text = text[~_chosen(text, kinds, config.delete, rng, config.whole_words)]
    if config.rotate and len(text):
        text = np.roll(text, -rng.integers(len(text)))
    return text.astype(np.int32)


def permute_sentences(ids: np.ndarray, kinds: TokenKinds, rng: np.random.Generator) -> np.ndarray:
    """Puts the sentences of a text in a random order; special tokens move with theirs.

    Args:
        ids: The text.
        kinds: The vocabulary: a sentence ends behind a token that ends one, or behind several.
        rng: Decides.
    """
    ends = kinds.ends_sentence[ids]
    sentences = np.split(ids, np.flatnonzero(ends[:-1] & ~ends[1:]) + 1)
    return np.concatenate([sentences[number] for number in rng.permutation(len(sentences))])


def infill(
    ids: np.ndarray,
    kinds: TokenKinds,
    share: float,
    mean_span: float,
    rng: np.random.Generator,
    whole_words: bool = False,
) -> np.ndarray:
    """Replaces spans, whose lengths are Poisson distributed, by one mask each.

    A span of length 0 puts a mask where nothing is missing. A special token inside a span stays, between two masks.

    Args:
        ids: The text.
        kinds: The vocabulary.
        share: How much of the text is hidden, to the nearest token.
        mean_span: The distribution's mean.
        rng: Decides.
        whole_words: Whether to count, and to hide, whole words.
    """
    unit = _units(ids, kinds, whole_words)
    count = unit.max(initial=-1) + 1
    left, lengths = round(share * count), []
    while left > 0:
        lengths.append(min(int(rng.poisson(mean_span)), left))
        left -= lengths[-1]
    spans = np.array([length for length in lengths if length], int)
    # What stays and the spans, shuffled like cards: every arrangement is equally likely.
    hidden = np.arange(count - spans.sum() + len(spans)) < len(spans)
    sizes = np.concatenate([spans, np.ones(count - spans.sum(), int)])
    order = rng.permutation(len(sizes))
    filled, _ = _replaced(ids, _spread(np.where(hidden, np.arange(len(sizes)), -1)[order], sizes[order], unit), kinds)
    empty = len(lengths) - len(spans)
    return np.insert(filled, rng.integers(len(filled) + 1, size=empty), _mask(kinds) if empty else 0)


# === Span corruption, as T5 learns it ===


@dataclasses.dataclass(frozen=True)
class SpanCorruptionConfig(Config):
    """How much of a text is hidden for a model that writes what was hidden, and nothing else.

    Args:
        share: Share of the text that is hidden.
        mean_span: Mean length of a hidden span.
        whole_words: Whether both are counted in words, and words are hidden whole.

    Source: Raffel et al. 2020, section 3.1.4; the defaults are those of section 3.3.4. There every text begins with a
    token that stays and ends with a hidden one, which short texts would show; here all places are equally likely.
    """

    share: float = 0.15
    mean_span: float = 3.0
    whole_words: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_shares(self, "share")
        _check_span(self.mean_span)


def corrupt_spans(
    ids: Sequence[int], kinds: TokenKinds, config: SpanCorruptionConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hides spans of a text behind sentinels.

        "Two dogs play in the snow ." -> "Two <0> in the <1> ." and "<0> dogs play <1> snow <2>"

    A special token inside a span stays, between two sentinels.

    Args:
        ids: The text.
        kinds: The vocabulary, with its sentinels.
        config: How much.
        rng: Decides.

    Returns:
        The text with a sentinel in place of each span, and what the model shall write: each sentinel followed by its
        span, and one more sentinel; both int32.

    Raises:
        ValueError: If there are more spans than the vocabulary has sentinels for.
    """
    text = np.asarray(ids, np.int32)
    unit = _units(text, kinds, config.whole_words)
    count = unit.max(initial=-1) + 1
    span = np.full(len(text), -1)
    if count > 1:
        hidden = min(max(round(config.share * count), 1), count - 1)
        spans = min(max(round(hidden / config.mean_span), 1), hidden, count - hidden + 1)
        gaps = _parts(count - hidden + 2, spans + 1, rng)
        gaps[[0, -1]] -= 1  # spans lie apart, and may be the first and the last of the text
        sizes, numbers = np.zeros(2 * spans + 1, int), np.full(2 * spans + 1, -1)
        sizes[::2], sizes[1::2], numbers[1::2] = gaps, _parts(hidden, spans, rng), np.arange(spans)
        span = _spread(numbers, sizes, unit)
    corrupted, first = _replaced(text, span, kinds, sentinels=True)
    starts = np.flatnonzero(first[span >= 0])
    target = np.insert(text[span >= 0], starts, kinds.sentinels[: len(starts)])
    return corrupted, np.append(target, kinds.sentinels[len(starts)]).astype(np.int32)


# === Masked language models, as BERT learns ===


@dataclasses.dataclass(frozen=True)
class MaskingConfig(Config):
    """How much of a text an encoder has to guess.

    Args:
        share: Share of the text that is guessed, at least one token.
        masked: Share of these that is masked.
        random: Share of these that is replaced by random tokens; the rest stays as it is.
        whole_words: Whether words are guessed whole.

    Source: Devlin et al. 2019, section 3.1.
    """

    share: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    whole_words: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_shares(self, "share", "masked", "random")
        if self.masked + self.random > 1:
            raise ConfigError(f"masked, random: {self.masked} and {self.random}; together they are at most 1")


def mask_tokens(
    ids: Sequence[int], kinds: TokenKinds, config: MaskingConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hides single tokens of a text.

    Args:
        ids: The text.
        kinds: The vocabulary, with its mask.
        config: How much.
        rng: Decides.

    Returns:
        The corrupted text, and labels: the token itself where it is to be guessed, PAD elsewhere; both int32 and as
        long as the text.

    Raises:
        ValueError: If the vocabulary has no mask.
    """
    text = np.asarray(ids, np.int32)
    chosen = _chosen(text, kinds, config.share, rng, config.whole_words, least=1)
    labels = np.where(chosen, text, SPECIAL.index(PAD))
    draw = rng.random(len(text))
    others = rng.choice(np.flatnonzero(~kinds.fixed), len(text))
    corrupted = np.where(chosen & (draw < config.masked + config.random), others, text)
    corrupted = np.where(chosen & (draw < config.masked), _mask(kinds), corrupted)
    return corrupted.astype(np.int32), labels.astype(np.int32)


# === What they share ===


def _units(ids: np.ndarray, kinds: TokenKinds, whole_words: bool) -> np.ndarray:
    """Numbers what is hidden at once, tokens or whole words: (T,), -1 for special tokens."""
    free = ~kinds.fixed[ids]
    starts = free.copy()
    if whole_words:
        starts[1:] &= kinds.starts_word[ids[1:]] | ~free[:-1]
    return np.where(free, np.cumsum(starts) - 1, -1)


def _chosen(
    ids: np.ndarray, kinds: TokenKinds, share: float, rng: np.random.Generator, whole_words: bool, least: int = 0
) -> np.ndarray:
    """Chooses a share of the tokens, to the nearest one: boolean (T,)."""
    unit = _units(ids, kinds, whole_words)
    count = unit.max(initial=-1) + 1
    return np.isin(unit, rng.permutation(count)[: max(round(share * count), least)])


def _spread(numbers: np.ndarray, sizes: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Tells each token the number of its span, -1 outside, from the numbers and sizes of consecutive stretches."""
    of_unit = np.append(np.repeat(numbers, sizes), -1)  # the last is for special tokens, whose unit is -1
    return of_unit[unit]


def _replaced(
    ids: np.ndarray, span: np.ndarray, kinds: TokenKinds, sentinels: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Puts one token in place of each unbroken run of a span; tells also where runs begin, boolean (T,)."""
    hidden = span >= 0
    first = hidden & (span != np.concatenate([[-1], span[:-1]]))
    runs = np.count_nonzero(first)
    if sentinels:
        if runs >= len(kinds.sentinels):
            raise ValueError(
                f"kinds.sentinels: {len(kinds.sentinels)}, and a text of {len(ids)} tokens takes {runs + 1}; "
                "give the vocabulary more of them, or shorter texts"
            )
        instead = np.array(kinds.sentinels, np.int32)[np.cumsum(first) - 1]
    else:
        instead = np.full(len(ids), _mask(kinds) if runs else 0, np.int32)
    return np.where(first, instead, ids)[first | ~hidden], first


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts a length into so many random lengths, none of them 0."""
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _mask(kinds: TokenKinds) -> int:
    if kinds.mask is None:
        raise ValueError(f"kinds.mask: the vocabulary has no {MASK}; train it with special=[..., {MASK!r}]")
    return kinds.mask


def _check_shares(config: Config, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name}: {getattr(config, name)}; it takes a share between 0 and 1")


def _check_span(mean: float) -> None:
    if mean < 1:
        raise ConfigError(f"mean_span: {mean}; it takes a length of 1 or more")
