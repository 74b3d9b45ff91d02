"""Translation: sentences in one language in, sentences in another out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from zoo.data.hub_texts import with_languages
from zoo.data.tokenizers import Tokenizer
from zoo.metrics.translation import translation_scores
from zoo.tasks.base import begin
from zoo.tasks.text_to_text import TextToText, TextToTextRecipe

LANGUAGES = ("source_language", "target_language")


@dataclasses.dataclass(frozen=True)
class TranslationRecipe(TextToTextRecipe):
    """Everything that makes a translator; what is not said here, TextToTextRecipe says.

    Args:
        base: A model of the hub, "hf://owner/name" or a folder, or a preset, whose vocabulary, sizes and weights the
            model begins with; of `model` then only dropout counts. None begins from nothing.
        source_language, target_language: Of a model of the hub that knows several: their names among its tokens, such
            as "eng_Latn"; its own default where None.
    """

    task: Literal["translation"] = "translation"
    source: str = "toy:numbers/en-de"
    base: str | None = None
    source_language: str | None = None
    target_language: str | None = None


class Translation(TextToText[TranslationRecipe]):
    """Translates texts.

    >>> translator = zoo.load("translation-multi30k-en-de")
    >>> translator(["Two dogs play in the snow."])
    ['Zwei Hunde spielen im Schnee.']
    """

    recipe_class = TranslationRecipe

    def __call__(
        self,
        inputs: str | Sequence[str],
        *,
        source_language: str | None = None,
        target_language: str | None = None,
        **generation: Any,
    ) -> Any:
        """Translates texts.

        Args:
            inputs: One text, or several.
            source_language, target_language: Of a model that knows several: see with_languages().
            generation: Fields of the recipe's generation that differ: beams=1, n_best=3 ...

        Returns:
            One text for a text, a list for several. With n_best above 1 each is a list, best first.

        Raises:
            ValueError: For an empty text, one longer than the model takes, or a language that it does not know.
        """
        special = self.model.special_tokens
        self.model.special_tokens = with_languages(special, self.source_tokenizer, source_language, target_language)
        try:
            return super().__call__(inputs, **generation)
        finally:
            self.model.special_tokens = special

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        split = [assignment.partition("=") for assignment in assignments]
        languages = {name.strip(): value for name, _, value in split if name.strip() in LANGUAGES}
        others = ["".join(parts) for parts in split if parts[0].strip() not in LANGUAGES]
        return {**super().settings(others), **languages}

    @classmethod
    def from_examples(cls, recipe: TranslationRecipe, examples: Sequence[Mapping[str, str]]) -> Self:
        if recipe.base is not None:
            return begin(cls, recipe)
        sources = [example["source"] for example in examples]
        targets = [example["target"] for example in examples]
        if recipe.model.target_vocabulary_size is None:
            tokenizer = Tokenizer.train(sources + targets, recipe.model.vocabulary_size)
            return cls(recipe, tokenizer, tokenizer)
        return cls(
            recipe,
            Tokenizer.train(sources, recipe.model.vocabulary_size),
            Tokenizer.train(targets, recipe.model.target_vocabulary_size),
        )

    def samples(self, examples: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        outputs = self([example["source"] for example in examples])
        return [{"input": e["source"], "output": out, "reference": e["target"]} for e, out in zip(examples, outputs)]

    def evaluate(self, examples: Sequence[Mapping[str, str]], **generation: Any) -> dict[str, Any]:
        """Scores translations of labelled pairs.

        Args:
            examples: Mappings with "source" and "target".
            generation: As in a call.

        Returns:
            "bleu", "bleu_lowercase", "chrf" (0-100), "loss" (nats a token, unsmoothed) and "signatures".
        """
        translations = self([example["source"] for example in examples], **generation)
        scores = translation_scores(translations, [example["target"] for example in examples])
        return {**scores, "loss": self.dev_loss(self.pairs(examples))}

    def score_while_training(self, examples: Sequence[Mapping[str, str]]) -> dict[str, float]:
        return {k: v for k, v in self.evaluate(examples, beams=1, n_best=1).items() if k != "signatures"}
