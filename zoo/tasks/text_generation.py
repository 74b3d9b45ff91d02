"""Text generation: a language model goes on from a text."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from keras import ops

from zoo.attention import capture
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig, Generator
from zoo.generation.compile import Program, compiled
from zoo.generation.layout import rounded_up
from zoo.models.decoder import DecoderConfig, DecoderModel, decoder
from zoo.pictures.attention import AttentionMaps
from zoo.tasks.pretrained import Pretrained, PretrainedRecipe
from zoo.training import cross_entropy

VOCABULARY = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class TextGenerationRecipe(PretrainedRecipe):
    """Everything that makes a text generator.

    Args:
        task: "text_generation".
        model: The language model's sizes.
        generation: How texts are gone on with.
    """

    task: Literal["text_generation"] = "text_generation"
    model: DecoderConfig = DecoderConfig()
    generation: GenerationConfig = GenerationConfig()


class TextGeneration(Pretrained[TextGenerationRecipe]):
    """Goes on with texts.

    >>> writer = zoo.load("hf://openai-community/gpt2")
    >>> text = writer("Once upon a time")
    >>> text = writer("Once upon a time", beams=1, sample=True, top_p=0.9, max_length=60, seed=1)

    Args:
        recipe: The recipe.
        tokenizer: Reads beginnings and writes texts.
        card: See Task.
    """

    recipe_class = TextGenerationRecipe
    model: DecoderModel

    def __init__(self, recipe: TextGenerationRecipe, tokenizer: Tokenizer, card: Mapping[str, Any] | None = None):
        super().__init__(recipe, card)
        self.tokenizer = tokenizer
        self.model = decoder(recipe.model)
        self.generator = Generator(self.model)

    # === Text in, text out ===

    def __call__(self, inputs: str | Sequence[str], **generation: Any) -> Any:
        """Goes on with texts.

        Args:
            inputs: A beginning, or several; an empty one is gone on with, too.
            generation: Fields of GenerationConfig that differ from the recipe's: sample=True, max_length=60 ...

        Returns:
            One whole text, beginning included, for a beginning; a list for several. With n_best above 1 each is a list.

        Raises:
            ValueError: For a beginning that is longer than the model takes.
        """
        if isinstance(inputs, str):
            return self([inputs], **generation)[0]
        config = dataclasses.replace(self.recipe.generation, **generation)
        hypotheses = self.generator(self._encoded(inputs), config)
        texts = [self.tokenizer.decode([h.tokens for h in found]) for found in hypotheses]
        return texts if config.n_best > 1 else [text for (text,) in texts]

    def programs(self, rows: int) -> dict[str, Program]:
        # Beginnings of half of the places leave as many for what is generated.
        beginning = [0] * (self.recipe.model.max_length // 2)
        return {"generate": self.generator.uncompiled([beginning] * rows, self.recipe.generation)}

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        return self.recipe.generation.override(assignments).to_dict()

    def check(self, text: str) -> None:
        """Tells whether a text can be gone on with.

        Raises:
            ValueError: If it is longer than the model takes.
        """
        (ids,) = self.tokenizer.encode([text])
        longest = self.recipe.model.max_length - 1
        if len(ids) > longest:
            raise ValueError(f"{text[:40] + '...'!r} has {len(ids)} tokens, the model takes {longest}; shorten it")

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        for number, text in enumerate(texts, 1):
            try:
                self.check(text)
            except ValueError as error:
                raise ValueError(f"input {number}: {error}") from None
        return self.tokenizer.encode(texts)

    def attention_maps(self, text: str) -> AttentionMaps:
        """Shows where every head of every block looks.

        Args:
            text: A text, which is not gone on with.

        Returns:
            The maps by layer path, with the tokens.
        """
        (ids,) = self._encoded([text])
        row = [self.recipe.model.special_tokens.start, *ids]
        with capture() as maps:
            self.model({"target": np.array([row])}, training=False)
        found = {path: ops.convert_to_numpy(weights)[0] for path, weights in maps.items()}
        return AttentionMaps([], self.tokenizer.tokens(row), found)

    def samples(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> list[dict[str, str]]:
        texts = [example["text"] for example in examples]
        return [{"input": text, "output": out, "reference": text} for text, out in zip(texts, self(texts, **settings))]

    # === Scores ===

    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores texts by how likely the model finds them, each from its start token to its end token.

        Args:
            examples: Mappings with "text".

        Returns:
            "loss" (nats a token) and "perplexity".

        Raises:
            ValueError: For a text that is longer than the model takes.
        """
        special = self.recipe.model.special_tokens
        total = tokens = 0.0
        for ids in self._encoded([example["text"] for example in examples]):
            row = [special.start, *ids, special.end]
            places = min(rounded_up(len(row) - 1), self.recipe.model.max_length)
            padded = np.full((1, places + 1), special.pad, np.int32)
            padded[0, : len(row)] = row
            losses = ops.convert_to_numpy(self._losses(padded[:, :-1], padded[:, 1:]))
            total, tokens = total + float(losses[0, : len(row) - 1].sum()), tokens + len(row) - 1
        return {"loss": total / tokens, "perplexity": float(np.exp(total / tokens))}

    @cached_property
    def _losses(self) -> Callable:
        def losses(target, labels):
            return cross_entropy(self.model({"target": target}, training=False), labels)

        return compiled(losses, self.model)

    # === Folders ===

    def save_vocabulary(self, folder: Path) -> None:
        self.tokenizer.save(folder / VOCABULARY)

    @classmethod
    def from_vocabulary(cls, recipe: TextGenerationRecipe, folder: Path, card: Mapping[str, Any]) -> Self:
        return cls(recipe, Tokenizer.load(folder / VOCABULARY), card)
