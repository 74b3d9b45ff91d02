"""Summarization: dialogues, or other texts, in; summaries out."""

import bisect
import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np

from zoo.config import ConfigError, nearest
from zoo.data import SourceError, references
from zoo.data.corruption import MASK, SENTINELS, TokenKinds
from zoo.data.pipeline import BatchingConfig, ChangingPairBatches, Pair, PairBatches
from zoo.data.splitting import speakers, truncate, turns, windows
from zoo.data.tokenizers import SPACE, Tokenizer
from zoo.generation import GenerationConfig
from zoo.metrics.summarization import baseline, summarization_scores, summary_diagnostics
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.tasks.base import begin
from zoo.tasks.text_to_text import TextToText, TextToTextRecipe
from zoo.training import TrainingConfig

# Behind these a word goes on: "Person's", "well-known".
JOINTS = {"'", "’", "-"}
DIAGNOSTICS = ("novel2", "repeated3", "words", "length_ratio", "empty")


@dataclasses.dataclass(frozen=True)
class SummaryConfig(GenerationConfig):
    """How a summary is found; what is not said here, GenerationConfig says.

    Args:
        window: Whether a text that is longer than the model reads is summarized in windows, one summary behind the
            other; else what is too much is cut off.
        length: About how many words a summary shall have, of a model that learned lengths; None leaves it to it.
    """

    max_length: int | None = 64
    window: bool = True
    length: int | None = None

    @property
    def search(self) -> GenerationConfig:
        """What of it concerns the search alone."""
        return GenerationConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(GenerationConfig)})


@dataclasses.dataclass(frozen=True)
class SummarizationRecipe(TextToTextRecipe):
    """Everything that makes a summarizer; what is not said here, TextToTextRecipe says.

    Args:
        base: A preset or a run's folder - a denoiser's, for example - or a model of the hub, "hf://owner/name", whose
            vocabulary, sizes and weights the model begins with; from `model` come dropout, copying, window,
            global_tokens and max_length alone, for a model of the hub dropout alone. None begins from nothing.
        lengths: Most words of a summary in each class of lengths but the last, rising. Half of the time in training
            the model is told the class of the summary it shall write, so that it can be asked for one; () for no
            classes.
        swap_speakers: Share of the examples, drawn anew in every pass of training, in which speakers have each other's
            marks, in the text and its summary alike: who says what is then in the marks, not in who begins.

    Source: lengths: Fan et al. 2018, section 3.1.
    """

    task: Literal["summarization"] = "summarization"
    source: str = "toy:meetings"
    base: str | None = None
    lengths: tuple[int, ...] = ()
    swap_speakers: float = 0.0
    model: EncoderDecoderConfig = EncoderDecoderConfig(vocabulary_size=400, max_length=192, copying=True)
    batching: BatchingConfig = BatchingConfig(buckets=((192, 64),))
    training: TrainingConfig = TrainingConfig(steps=1500, evaluate_every=500, monitor="rouge1")
    generation: SummaryConfig = SummaryConfig()

    def __post_init__(self):
        super().__post_init__()
        if list(self.lengths) != sorted(set(self.lengths)) or any(length < 1 for length in self.lengths):
            raise ConfigError(f"lengths: {list(self.lengths)}; it takes rising numbers of words, such as [15, 25, 40]")
        if not 0 <= self.swap_speakers <= 1:
            raise ConfigError(f"swap_speakers: {self.swap_speakers}; it takes a share between 0 and 1")
        if self.generation.length is not None and not self.lengths:
            raise ConfigError("generation.length: the model learns no lengths; set lengths too")
        if self.model.target_vocabulary_size is not None:
            raise ConfigError(
                "model.target_vocabulary_size: a text and its summary share one vocabulary; set it to null"
            )

    @property
    def length_tokens(self) -> list[str]:
        """The tokens that tell the model a class of lengths, shortest first."""
        return [f"<length_{number}>" for number in range(len(self.lengths) + 1)] if self.lengths else []


class Summarization(TextToText[SummarizationRecipe]):
    """Summarizes texts.

        summarizer = zoo.load("runs/meetings")
        summarizer("#Person1#: Hi, Karion.\\n#Person2#: Hello! Shall we go to Nolifield on Monday? ...")

    The turns of a dialogue stand on lines of their own, or each behind its speaker's mark.
    """

    recipe_class = SummarizationRecipe
    baselines = ("lead-3", "longest-3")

    def __init__(
        self,
        recipe: SummarizationRecipe,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer | None = None,
        card: Mapping[str, Any] | None = None,
    ):
        super().__init__(recipe, source_tokenizer, target_tokenizer, card)
        self.tokenizer = source_tokenizer
        # What is no text is never written, not even copied from the source.
        signs = {MASK, *SENTINELS, *recipe.length_tokens}.intersection(self.tokenizer.special)
        special = self.model.special_tokens
        never = (*special.never, *sorted(map(self.tokenizer.token_id, signs)))
        continuing = tuple(np.flatnonzero(~TokenKinds.of(self.tokenizer).starts_word).tolist())
        joining = tuple(
            number
            for number, token in enumerate(self.tokenizer.tokens(range(self.tokenizer.vocabulary_size)))
            if token.strip(SPACE) in JOINTS
        )
        kinds = {"never": never, "continuing": continuing, "joining": joining}
        self.model.special_tokens = dataclasses.replace(special, **kinds)

    @classmethod
    def from_examples(cls, recipe: SummarizationRecipe, examples: Sequence[Mapping[str, str]]) -> Self:
        sources = [source_of(example, number) for number, example in enumerate(examples, 1)]
        special = [*recipe.length_tokens, *speakers(sources)]
        if recipe.base is None:
            texts = sources + [text for number, e in enumerate(examples, 1) for text in references_of(e, number)]
            return cls(recipe, Tokenizer.train(texts, recipe.model.vocabulary_size, special))
        return begin(cls, recipe, special)

    # === Text in, summary out ===

    def __call__(self, inputs: str | Sequence[str], **generation: Any) -> Any:
        """Summarizes.

        Args:
            inputs: One text, or several.
            generation: Fields of SummaryConfig that differ from the recipe's: beams=1, length=20 ...

        Returns:
            One summary for a text, a list for several. With n_best above 1 each is a list, best first.

        Warns:
            UserWarning: If some are longer than the model reads; it says how many, and what was done.

        Raises:
            ValueError: For an empty text, or a length where the model learned none.
        """
        if isinstance(inputs, str):
            return self([inputs], **generation)[0]
        config = dataclasses.replace(self.recipe.generation, **generation)
        self.check_inputs(inputs)
        sign = self._sign(config.length)
        parts = self._parts(inputs, config.window, "texts")
        found = iter(self.write([[*sign, *ids] for group in parts for ids in group], config.search))
        summaries = [[" ".join(texts) for texts in zip(*(next(found) for _ in group))] for group in parts]
        return summaries if config.n_best > 1 else [text for (text,) in summaries]

    def check(self, text: str) -> None:
        """Tells whether a text can be summarized.

        Raises:
            ValueError: If it is empty, or has a word that is longer than the model reads.
        """
        said = text
        for mark in self.tokenizer.special:
            said = said.replace(mark, " ")
        if not any(character.isalnum() for character in said):
            raise ValueError(f"{text[:40]!r} is empty; give a text, or a dialogue in which somebody says something")
        self._windows(self._plain(text), self.longest)

    @property
    def longest(self) -> int:
        """The most tokens of a text that are read at once."""
        places = min(self.recipe.model.max_length, self.recipe.batching.buckets[-1][0])
        return places - self.model.special_tokens.around_source - bool(self.recipe.lengths)

    def encode_inputs(self, inputs: Sequence[str]) -> list[list[int]]:
        self.check_inputs(inputs)
        return [ids for (ids,) in self._parts(inputs, window=False, noun="texts")]

    def _plain(self, text: str) -> str:
        """Puts every turn of a dialogue on a line of its own."""
        marks = "|".join(re.escape(mark) for mark in self.tokenizer.special if mark.startswith("#"))
        return re.sub(rf"\s+(?=(?:{marks}):)", "\n", text) if marks else text

    def _sign(self, length: int | None) -> list[int]:
        """Returns what is to stand before a source whose summary shall have so many words."""
        if length is None:
            return []
        if not self.recipe.lengths:
            raise ConfigError(
                f"length: {length}, and this model learned no lengths; max_length and min_length bound tokens"
            )
        number = bisect.bisect_left(self.recipe.lengths, length)
        return [self.tokenizer.token_id(self.recipe.length_tokens[number])]

    def _parts(self, texts: Sequence[str], window: bool, noun: str) -> list[list[list[int]]]:
        """Turns each text into token ids of one part, or of several windows where it is too long."""
        texts = [self._plain(text) for text in texts]
        parts = [[ids] for ids in self.tokenizer.encode(texts)]
        long = [number for number, (ids,) in enumerate(parts) if len(ids) > self.longest]
        for number in long:
            found = self._windows(texts[number], self.longest) if window else [self._beginning(texts[number])]
            parts[number] = self.tokenizer.encode(found)
        if long:
            done = "each is summarized window by window" if window else "the rest of each was cut off"
            warnings.warn(
                f"{len(long)} of {len(texts)} {noun} are longer than {self.longest} tokens; {done}", stacklevel=3
            )
        return parts

    def _windows(self, text: str, most: int) -> list[str]:
        return windows(text, most, self._count)

    def _beginning(self, text: str) -> str:
        return truncate(text, self.longest, self._count)

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode([text])[0])

    # === Scores ===

    def samples(self, examples: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        sources = [source_of(example, number) for number, example in enumerate(examples, 1)]
        return [
            {"input": source, "output": output, "reference": " / ".join(references(example))}
            for example, source, output in zip(examples, sources, self(sources))
        ]

    def evaluate(self, examples: Sequence[Mapping[str, str]], **generation: Any) -> dict[str, Any]:
        """Scores summaries.

        Args:
            examples: Mappings with "source" and "target", and more references in "target2", "target3" ...
            generation: As in a call.

        Returns:
            What summarization_scores() does; of summary_diagnostics() novel2, repeated3, words, length_ratio and empty;
            "loss" (nats a token of the references, unsmoothed); and "signatures".

        Raises:
            ValueError: If an example has no source or no reference; it says which.
        """
        sources, targets = _both(examples)
        summaries = self(sources, **generation)
        loss = self.dev_loss(self.pairs(examples))
        return {**scores_of(summaries, sources, targets), "loss": loss}

    @classmethod
    def evaluate_baseline(cls, name: str, examples: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        sources, targets = _both(examples)
        summarize = baseline(name)
        return scores_of([summarize(turns(source)) for source in sources], sources, targets)

    def score_while_training(self, examples: Sequence[Mapping[str, str]]) -> dict[str, float]:
        return {k: v for k, v in self.evaluate(examples, beams=1, n_best=1).items() if k != "signatures"}

    # === Training ===

    def pairs(self, examples: Sequence[Mapping[str, str]]) -> list[Pair]:
        """Turns examples into pairs of token ids, one for each reference; sources that are too long are cut."""
        return [pair for pair, _ in self._pairs_and_words(examples)]

    def _pairs_and_words(self, examples: Sequence[Mapping[str, str]]) -> list[tuple[Pair, int]]:
        """Pairs, and how many words each summary has."""
        sources, targets = _both(examples)
        encoded = [ids for (ids,) in self._parts(sources, window=False, noun="examples")]
        return [
            (Pair(source, target), len(text.split()))
            for source, texts in zip(encoded, targets)
            for text, target in zip(texts, self.tokenizer.encode(texts))
        ]

    def batches(self, examples: Sequence[Mapping[str, str]], seed: int = 0) -> PairBatches | ChangingPairBatches:
        found = self._pairs_and_words(examples)
        most = self.recipe.batching.buckets[-1][1] - 1 - len(self.model.special_tokens.beginning)
        long = sum(len(pair.target) > most for pair, _ in found)
        if long:
            warnings.warn(
                f"{long} of {len(found)} summaries are longer than {most} tokens; they are left out", stacklevel=2
            )
        if not self.recipe.lengths and not self.recipe.swap_speakers:
            return PairBatches([pair for pair, _ in found], self.recipe.batching, seed, self.model.special_tokens)
        marks = [self.tokenizer.token_id(mark) for mark in self.tokenizer.special if mark.startswith("#")]

        def changed(random: np.random.Generator | None) -> list[Pair]:
            told, swapped = np.zeros((2, len(found))) if random is None else random.random((2, len(found)))
            pairs = []
            for (pair, words), tells, swaps in zip(found, told < 0.5, swapped < self.recipe.swap_speakers):
                source, target = exchanged(pair, marks) if swaps and random is not None else pair
                sign = self._sign(words) if tells and self.recipe.lengths else []
                pairs.append(Pair([*sign, *source], target))
            return pairs

        return ChangingPairBatches(changed, self.recipe.batching, seed, self.model.special_tokens)

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        self.check_inputs(_both(examples)[0])
        self.batches(examples)


def exchanged(pair: Pair, marks: Sequence[int]) -> Pair:
    """Gives each speaker of a text the mark of the next one, in the text and its summary alike.

    Args:
        pair: The two.
        marks: Tokens that stand for speakers; those that the text does not have stay as they are.
    """
    present = [mark for mark in marks if mark in pair.source]
    others = dict(zip(present, present[1:] + present[:1]))
    return Pair(*([others.get(token, token) for token in ids] for ids in pair))


def source_of(example: Mapping[str, str], number: int) -> str:
    """Returns what is to be summarized.

    Raises:
        SourceError: If there is none.
    """
    if "source" not in example:
        raise SourceError(f"example {number}: no field 'source'; {nearest('source', example)}")
    return example["source"]


def references_of(example: Mapping[str, str], number: int) -> list[str]:
    """Returns an example's summaries.

    Raises:
        SourceError: If there is none.
    """
    try:
        return references(example)
    except SourceError as error:
        raise SourceError(f"example {number}: {error}") from None


def scores_of(summaries: Sequence[str], sources: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Scores summaries, and describes them."""
    scores = summarization_scores(summaries, targets)
    found = summary_diagnostics(summaries, sources, targets)
    signatures = {"rouge": scores.pop("signature")}
    return {**scores, **{name: found[name] for name in DIAGNOSTICS}, "signatures": signatures}


def _both(examples: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Returns the sources and, for each, its references."""
    numbered = list(enumerate(examples, 1))
    return [source_of(e, number) for number, e in numbered], [references_of(e, number) for number, e in numbered]
