"""Translation: sentences in one language in, sentences in another out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import keras
import numpy as np

from zoo.attention import capture
from zoo.config import ConfigError
from zoo.data.pipeline import BatchingConfig, Pair, PairBatches
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig, Generator
from zoo.generation.compile import compiled
from zoo.metrics.translation import translation_scores
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder
from zoo.pictures.attention import AttentionMaps
from zoo.tasks.task import Task, TaskRecipe
from zoo.training import TrainingConfig, cross_entropy, token_mean

START, END = 1, 2


@dataclasses.dataclass(frozen=True)
class TranslationRecipe(TaskRecipe):
    """Everything that makes a translator.

    Args:
        task: "translation".
        source: The training data, a SOURCE.
        model: The model's sizes. A vocabulary_size of 0 is as many tokens as the corpus allows, up to 8,000; where
            target_vocabulary_size is None, both languages share one vocabulary.
        batching: How pairs are laid out in batches.
        training: How the model is trained.
        generation: How translations are found.
    """

    task: Literal["translation"] = "translation"
    source: str = "toy:numbers/en-de"
    model: EncoderDecoderConfig = EncoderDecoderConfig(vocabulary_size=0)
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig = TrainingConfig()
    generation: GenerationConfig = GenerationConfig()

    def __post_init__(self):
        super().__post_init__()
        longest = max(max(bucket) for bucket in self.batching.buckets)
        if self.model.positions == "learned" and longest > self.model.max_length:
            raise ConfigError(
                f"batching.buckets: texts of up to {longest} tokens, and model.max_length {self.model.max_length} "
                "learned positions; make the buckets smaller or max_length larger"
            )


class Translation(Task[TranslationRecipe]):
    """Translates texts.

        translator = zoo.load("translation-multi30k-en-de")
        translator(["Two dogs play in the snow."])

    Args:
        recipe: The recipe.
        source_tokenizer: Reads sources.
        target_tokenizer: Writes targets; the same object where the languages share a vocabulary.
        card: See Task.
    """

    recipe_class = TranslationRecipe

    def __init__(
        self,
        recipe: TranslationRecipe,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        card: Mapping[str, Any] | None = None,
    ):
        separate = recipe.model.target_vocabulary_size is not None
        model = dataclasses.replace(
            recipe.model,
            vocabulary_size=source_tokenizer.vocabulary_size,
            target_vocabulary_size=target_tokenizer.vocabulary_size if separate else None,
        )
        recipe = dataclasses.replace(recipe, model=model)
        super().__init__(recipe, card)
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        keras.utils.set_random_seed(recipe.training.seed)
        self.model = encoder_decoder(recipe.model)
        self.generator = Generator(self.model)

    # === Text in, text out ===

    def __call__(self, inputs: str | Sequence[str], **generation: Any) -> Any:
        """Translates.

        Args:
            inputs: One text, or several.
            generation: Fields of GenerationConfig that differ from the recipe's: beams=1, n_best=3 ...

        Returns:
            One translation for a text, a list for several. With n_best above 1 each is a list, best first.

        Raises:
            ValueError: For an empty text, or one longer than the model takes.
        """
        if isinstance(inputs, str):
            return self([inputs], **generation)[0]
        config = dataclasses.replace(self.recipe.generation, **generation)
        hypotheses = self.generator(self._encode_inputs(inputs), config)
        texts = [self.target_tokenizer.decode([h.tokens for h in found]) for found in hypotheses]
        return texts if config.n_best > 1 else [text for (text,) in texts]

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        return self.recipe.generation.override(assignments).to_dict()

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        return {"beams=1": {"beams": 1}, f"beams={self.recipe.generation.beams}": {}}

    def samples(self, examples: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        outputs = self([example["source"] for example in examples])
        return [{"input": e["source"], "output": out, "reference": e["target"]} for e, out in zip(examples, outputs)]

    def check(self, text: str) -> None:
        """Tells whether a text can be translated.

        Raises:
            ValueError: If it is empty, or longer than the model takes.
        """
        (ids,) = self.source_tokenizer.encode([text])
        longest = self.recipe.model.max_length - 1
        if not ids:
            raise ValueError(f"{text[:40]!r} is empty; give a text with at least one visible character")
        if len(ids) > longest:
            raise ValueError(f"{text[:40] + '...'!r} has {len(ids)} tokens, the model takes {longest}; split it up")

    def _encode_inputs(self, inputs: Sequence[str]) -> list[list[int]]:
        for number, text in enumerate(inputs, 1):
            try:
                self.check(text)
            except ValueError as error:
                raise ValueError(f"input {number}: {error}") from None
        return self.source_tokenizer.encode(inputs)

    def attention_maps(self, text: str, translation: str | None = None) -> AttentionMaps:
        """Shows where every head of every layer looks.

        Args:
            text: A source.
            translation: A target; the model's own translation where None.

        Returns:
            The maps by layer path, with the tokens of both sides.
        """
        (source,) = self._encode_inputs([text])
        (target,) = self.target_tokenizer.encode([self(text) if translation is None else translation])
        with capture() as maps:
            self.model({"source": np.array([[*source, END]]), "target": np.array([[START, *target]])}, training=False)
        return AttentionMaps(
            self.source_tokenizer.tokens([*source, END]),
            self.target_tokenizer.tokens([START, *target]),
            {path: keras.ops.convert_to_numpy(weights)[0] for path, weights in maps.items()},
        )

    # === Scores ===

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
        return {**scores, "loss": self._dev_loss(self._pairs(examples))}

    def _pairs(self, examples: Sequence[Mapping[str, str]]) -> list[Pair]:
        sources = self.source_tokenizer.encode([example["source"] for example in examples])
        targets = self.target_tokenizer.encode([example["target"] for example in examples])
        return [Pair(source, target) for source, target in zip(sources, targets)]

    def _dev_loss(self, pairs: Sequence[Pair]) -> float:
        batches = PairBatches(pairs, self.recipe.batching)
        total = tokens = 0.0
        for batch in batches.epoch(None):
            loss, count = self._compiled_loss(batch["source"], batch["target"], batch["labels"])
            total, tokens = total + float(loss) * float(count), tokens + float(count)
        return total / tokens

    @property
    def _compiled_loss(self):
        if not hasattr(self, "_loss_program"):

            def loss(source, target, labels):
                logits = self.model({"source": source, "target": target}, training=False)
                return token_mean(cross_entropy(logits, labels), labels)

            self._loss_program = compiled(loss, self.model)
        return self._loss_program

    # === Training ===

    @classmethod
    def from_examples(cls, recipe: TranslationRecipe, examples: Sequence[Mapping[str, str]]) -> Self:
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

    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool):
        """Computes a batch's loss, and how full the batch is."""
        logits = model({"source": batch["source"], "target": batch["target"]}, training=training)
        losses = cross_entropy(logits, batch["labels"], self.recipe.training.smoothing(batch))
        loss, tokens = token_mean(losses, batch["labels"])
        places = keras.ops.concatenate([batch["source"], batch["labels"]], axis=1)
        padding = keras.ops.mean(keras.ops.cast(keras.ops.equal(places, 0), "float32"))
        return loss, {"tokens": tokens, "padding": padding}

    def batches(self, examples: Sequence[Mapping[str, str]], seed: int = 0) -> PairBatches:
        return PairBatches(self._pairs(examples), self.recipe.batching, seed)

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        self._encode_inputs([example["source"] for example in examples])
        self.batches(examples)

    def score_while_training(self, examples: Sequence[Mapping[str, str]]) -> dict[str, float]:
        return {k: v for k, v in self.evaluate(examples, beams=1, n_best=1).items() if k != "signatures"}

    # === Folders ===

    def save_vocabulary(self, folder: Path) -> None:
        self.source_tokenizer.save(folder / "tokenizer.json")
        if self.target_tokenizer is not self.source_tokenizer:
            self.target_tokenizer.save(folder / "target_tokenizer.json")

    @classmethod
    def from_vocabulary(cls, recipe: TranslationRecipe, folder: Path, card: Mapping[str, Any]) -> Self:
        source = target = Tokenizer.load(folder / "tokenizer.json")
        if recipe.model.target_vocabulary_size is not None:
            target = Tokenizer.load(folder / "target_tokenizer.json")
        return cls(recipe, source, target, card)
