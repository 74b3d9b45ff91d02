"""Denoising: corrupted texts in, whole texts out; a model that learns from text alone, for others to go on from."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from zoo.config import ConfigError, nearest
from zoo.data.corruption import (
    MASK,
    SENTINELS,
    DenoisingConfig,
    SpanCorruptionConfig,
    TokenKinds,
    corrupt_spans,
    denoise,
)
from zoo.data.pipeline import BatchingConfig, ChangingPairBatches, Pair
from zoo.data.splitting import speakers, windows
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig
from zoo.tasks.text_to_text import TextToText, TextToTextRecipe
from zoo.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class DenoisingRecipe(TextToTextRecipe):
    """Everything that makes a denoiser; what is not said here, TextToTextRecipe says.

    Args:
        fields: Fields of the examples that are texts to learn from; an example need not have all of them.
        objective: "denoise" corrupts a text, and the model writes all of it; "spans" hides parts of it, and the model
            writes only those.
        noise: How a text is corrupted.
        spans: How much of it is hidden.
    """

    task: Literal["denoising"] = "denoising"
    source: str = "toy:meetings"
    fields: tuple[str, ...] = ("text", "source", "captions")
    objective: Literal["denoise", "spans"] = "denoise"
    noise: DenoisingConfig = DenoisingConfig()
    spans: SpanCorruptionConfig = SpanCorruptionConfig()
    batching: BatchingConfig = BatchingConfig(buckets=((128, 128),))
    training: TrainingConfig = TrainingConfig(monitor="loss")
    generation: GenerationConfig = GenerationConfig(beams=1)


class Denoising(TextToText[DenoisingRecipe]):
    """Restores texts.

    >>> denoiser = zoo.load("runs/denoising")
    >>> text = denoiser("Two <mask> in the snow.")
    """

    recipe_class = DenoisingRecipe

    @cached_property
    def kinds(self) -> TokenKinds:
        """What corruption must know of the vocabulary."""
        return TokenKinds.of(self.source_tokenizer)

    @classmethod
    def from_examples(cls, recipe: DenoisingRecipe, examples: Sequence[Mapping[str, Any]]) -> Self:
        if recipe.model.target_vocabulary_size is not None:
            raise ConfigError(
                "model.target_vocabulary_size: a text and what it was share one vocabulary; set it to null"
            )
        texts = texts_of(examples, recipe.fields)
        stand_ins = [MASK] if recipe.objective == "denoise" else SENTINELS
        tokenizer = Tokenizer.train(texts, recipe.model.vocabulary_size, [*stand_ins, *speakers(texts)])
        return cls(recipe, tokenizer)

    # === Training ===

    def pieces(self, examples: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Turns examples into token ids of texts, cut into windows where they are longer than the largest bucket."""
        places = self.recipe.batching.buckets[-1]
        most = min(places if self.recipe.objective == "denoise" else places[:1]) - 1
        texts = texts_of(examples, self.recipe.fields)
        tokenizer = self.source_tokenizer
        found: list[list[int]] = []
        for text, ids in zip(texts, tokenizer.encode(texts)):
            if len(ids) <= most:
                found.append(ids)
            else:
                found += tokenizer.encode(windows(text, most, lambda part: len(tokenizer.encode([part])[0])))
        return [ids for ids in found if ids]

    def corrupted(self, ids: Sequence[int], random: np.random.Generator) -> Pair:
        """Makes a pair of a text: what the model reads, and what it shall write."""
        if self.recipe.objective == "spans":
            source, target = corrupt_spans(ids, self.kinds, self.recipe.spans, random)
            return Pair(source.tolist(), target.tolist())
        source = denoise(ids, self.kinds, self.recipe.noise, random)
        # Masks that hide nothing can make a text longer than it was.
        return Pair(source[: self.recipe.batching.buckets[-1][0] - 1].tolist(), ids)

    def pairs(self, examples: Sequence[Mapping[str, Any]]) -> list[Pair]:
        random = np.random.default_rng(self.recipe.training.seed)
        return [self.corrupted(ids, random) for ids in self.pieces(examples)]

    def batches(self, examples: Sequence[Mapping[str, Any]], seed: int = 0) -> ChangingPairBatches:
        pieces = self.pieces(examples)

        def anew(random: np.random.Generator | None) -> list[Pair]:
            random = random or np.random.default_rng(seed)
            return [self.corrupted(ids, random) for ids in pieces]

        return ChangingPairBatches(anew, self.recipe.batching, seed)

    def check_examples(self, examples: Sequence[Mapping[str, Any]]) -> None:
        self.batches(examples)

    # === Scores ===

    def samples(self, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        pairs = self.pairs(examples)
        outputs = self.write([source for source, _ in pairs], self.recipe.generation)
        inputs, references = (self.target_tokenizer.decode([pair[side] for pair in pairs]) for side in (0, 1))
        return [
            {"input": text, "output": output, "reference": reference}
            for text, (output,), reference in zip(inputs, outputs, references)
        ]

    def evaluate(self, examples: Sequence[Mapping[str, Any]], **settings: Any) -> dict[str, Any]:
        """Scores the model on texts that are corrupted always in the same way.

        Args:
            examples: Mappings with some of the recipe's fields.
            settings: Of generation, which is not looked at here.

        Returns:
            "loss", nats a token, unsmoothed.
        """
        return {"loss": self.dev_loss(self.pairs(examples))}


def texts_of(examples: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[str]:
    """Returns all texts, and all of lists of texts, that examples have in some fields.

    Raises:
        ValueError: If there is none.
    """
    found = [example[field] for example in examples for field in fields if field in example]
    texts = [text for value in found for text in ([value] if isinstance(value, str) else value)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        present = sorted({field for example in examples for field in example})
        raise ValueError(f"fields: no text in {', '.join(fields)}; {nearest(fields[0] if fields else '', present)}")
    return texts
