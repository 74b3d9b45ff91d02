"""What the tasks from text to text share: an encoder-decoder between two tokenizers."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import keras
import numpy as np

from zoo.attention import capture
from zoo.config import ConfigError
from zoo.data.pipeline import BatchingConfig, ChangingPairBatches, Pair, PairBatches
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig, Generator
from zoo.generation.compile import Program, compiled
from zoo.models import products
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder
from zoo.pictures.attention import AttentionMaps
from zoo.tasks.showing import token_embeddings
from zoo.tasks.task import Task, TaskRecipe
from zoo.training import TrainingConfig, token_mean, vocabulary_loss
from zoo.training.losses import coverage, share, token_counts

VOCABULARY, TARGET_VOCABULARY = "tokenizer.json", "target_tokenizer.json"


@dataclasses.dataclass(frozen=True)
class TextToTextRecipe(TaskRecipe):
    """Everything that makes a task from text to text.

    Args:
        task: The task's name.
        source: The training data, a SOURCE.
        model: The model's sizes. A vocabulary_size of 0 is as many tokens as the corpus allows, up to 8,000; where
            target_vocabulary_size is None, both sides share one vocabulary.
        batching: How pairs are laid out in batches.
        training: How the model is trained.
        generation: How targets are found.
        hub: Whether vocabulary and special tokens are those of a model of the hub; found out, not to be asked.
        coverage: Factor of the coverage loss, which keeps the decoder from looking at the same places again; 0 for
            none.

    Source: coverage: See et al. 2017, section 2.3.
    """

    task: str = ""
    source: str = ""
    model: EncoderDecoderConfig = EncoderDecoderConfig(vocabulary_size=0)
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig = TrainingConfig()
    generation: GenerationConfig = GenerationConfig()
    hub: bool = False
    coverage: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        longest = max(max(bucket) for bucket in self.batching.buckets)
        if self.model.positions == "learned" and longest > self.model.max_length:
            raise ConfigError(
                f"batching.buckets: texts of up to {longest} tokens, and model.max_length {self.model.max_length} "
                "learned positions; make the buckets smaller or max_length larger"
            )
        if self.model.chunk is not None and self.batching.pack:
            raise ConfigError(
                "batching.pack: true, and model.chunk cuts rows, not the texts packed into them; set it to false"
            )
        if self.coverage < 0 or (self.coverage and not self.model.num_decoder_layers):
            raise ConfigError(f"coverage: {self.coverage}; it is 0, or above 0 with at least one decoder layer")


Recipe = TypeVar("Recipe", bound=TextToTextRecipe)


class TextToText(Task[Recipe]):
    """Two tokenizers and an encoder-decoder; each subclass says what its pairs are and how they are scored.

    Args:
        recipe: The recipe.
        source_tokenizer: Reads sources.
        target_tokenizer: Writes targets; None, or the same object, where the two sides share a vocabulary.
        card: See Task.
    """

    recipe_class: ClassVar[type[TextToTextRecipe]] = TextToTextRecipe

    def __init__(
        self,
        recipe: Recipe,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer | None = None,
        card: Mapping[str, Any] | None = None,
    ):
        target_tokenizer = target_tokenizer or source_tokenizer
        sizes = recipe.model
        if recipe.hub:
            left_out = {sizes.special_tokens.pad, sizes.special_tokens.end}
            source_tokenizer.restrict(sizes.vocabulary_size, left_out)
            target_tokenizer.restrict(sizes.target_vocabulary_size or sizes.vocabulary_size, left_out)
        else:
            separate = sizes.target_vocabulary_size is not None
            sizes = dataclasses.replace(
                sizes,
                vocabulary_size=source_tokenizer.vocabulary_size,
                target_vocabulary_size=target_tokenizer.vocabulary_size if separate else None,
            )
        recipe = dataclasses.replace(recipe, model=sizes)
        super().__init__(recipe, card)
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        keras.utils.set_random_seed(recipe.training.seed)
        self.model = encoder_decoder(recipe.model)
        self.generator = Generator(self.model)

    # === Text in, text out ===

    def __call__(self, inputs: str | Sequence[str], **generation: Any) -> Any:
        """Turns texts into texts.

        Args:
            inputs: One text, or several.
            generation: Fields of the recipe's generation that differ: beams=1, n_best=3 ...

        Returns:
            One text for a text, a list for several. With n_best above 1 each is a list, best first.

        Raises:
            ValueError: For an empty text, or one longer than the model takes.
        """
        if isinstance(inputs, str):
            return self([inputs], **generation)[0]
        config = dataclasses.replace(self.recipe.generation, **generation)
        found = self.write(self.encode_inputs(inputs), config)
        return found if config.n_best > 1 else [text for (text,) in found]

    def write(self, sources: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[str]]:
        """Finds the config.n_best texts for each source, given as token ids."""
        hypotheses = self.generator(sources, config)
        return [self.target_tokenizer.decode([h.tokens for h in found]) for found in hypotheses]

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        return self.recipe.generation.override(assignments).to_dict()

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        return {"beams=1": {"beams": 1}, f"beams={self.recipe.generation.beams}": {}}

    def check(self, text: str) -> None:
        """Tells whether a text can be worked on.

        Raises:
            ValueError: If it is empty, or longer than the model takes.
        """
        (ids,) = self.source_tokenizer.encode([text])
        longest = self.recipe.model.max_length - self.model.special_tokens.around_source
        if not ids:
            raise ValueError(f"{text[:40]!r} is empty; give a text with at least one visible character")
        if len(ids) > longest:
            raise ValueError(f"{text[:40] + '...'!r} has {len(ids)} tokens, the model takes {longest}; split it up")

    def encode_inputs(self, inputs: Sequence[str]) -> list[list[int]]:
        """Turns texts into token ids.

        Raises:
            ValueError: If one cannot be worked on; it says which.
        """
        self.check_inputs(inputs)
        return self.source_tokenizer.encode(inputs)

    def check_inputs(self, inputs: Sequence[str]) -> None:
        """Tells whether all of the texts can be worked on, or else which cannot."""
        for number, text in enumerate(inputs, 1):
            try:
                self.check(text)
            except ValueError as error:
                raise ValueError(f"input {number}: {error}") from None

    def attention_maps(self, text: str, target: str | None = None) -> AttentionMaps:
        """Shows where every head of every layer looks.

        Args:
            text: A source.
            target: A target; what the task makes of the source where None.

        Returns:
            The maps by layer path, with the tokens of both sides. Those of an encoder that reads windows or chunks are
            left out: they are no maps of the whole source.
        """
        (source,) = self.encode_inputs([text])
        (written,) = self.target_tokenizer.encode([self(text, n_best=1) if target is None else target])
        return self._attention_maps(Pair(source, written))

    def _attention_maps(self, pair: Pair) -> AttentionMaps:
        source, written = pair
        special = self.model.special_tokens
        read = [*special.source_start, *source, *special.source_ending]
        written = [special.start, *special.beginning, *written]
        with capture() as maps:
            self.model({"source": np.array([read]), "target": np.array([written])}, training=False)
        return AttentionMaps(
            self.source_tokenizer.tokens(read),
            self.target_tokenizer.tokens(written),
            {
                path: keras.ops.convert_to_numpy(weights)[0]
                for path, weights in maps.items()
                if not (path.startswith("encoder/") and self.recipe.model.reads_in_parts)
            },
        )

    # === Training ===

    def pairs(self, examples: Sequence[Mapping[str, str]]) -> list[Pair]:
        """Turns examples into pairs of token ids."""
        sources = self.source_tokenizer.encode([example["source"] for example in examples])
        targets = self.target_tokenizer.encode([example["target"] for example in examples])
        return [Pair(source, target) for source, target in zip(sources, targets)]

    def batches(self, examples: Sequence[Mapping[str, str]], seed: int = 0) -> PairBatches | ChangingPairBatches:
        return PairBatches(self.pairs(examples), self.recipe.batching, seed, self.model.special_tokens)

    def batch_outline(self, rows: int) -> dict[str, keras.KerasTensor]:
        source, target = self.recipe.batching.buckets[-1]
        places = {"source": source, "target": target, "labels": target}
        return {name: keras.KerasTensor((rows, length), "int32") for name, length in places.items()}

    def products(self, batch: Mapping[str, Any]) -> int:
        (rows, source), (_, target) = batch["source"].shape, batch["target"].shape
        return 3 * rows * products.encoder_decoder(self.recipe.model, source, target)

    def programs(self, rows: int) -> dict[str, Program]:
        longest = self.recipe.batching.buckets[-1][0] - self.model.special_tokens.around_source
        return {"generate": self.generator.uncompiled([[0] * longest] * rows, self.recipe.generation)}

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        self.encode_inputs([example["source"] for example in examples])
        self.batches(examples)

    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool):
        """Computes a batch's loss, and how full the batch is."""
        with contextlib.ExitStack() as looking:
            maps = looking.enter_context(capture()) if self.recipe.coverage else {}
            smoothing = self.recipe.training.smoothing(batch)
            loss, metrics = self._token_loss(model, batch, smoothing, training)
        pad = self.model.special_tokens.pad
        places = keras.ops.concatenate([batch["source"], batch["labels"]], axis=1)
        metrics["padding"] = keras.ops.mean(keras.ops.cast(keras.ops.equal(places, pad), "float32"))
        if self.recipe.coverage:
            attention = maps[model.get_layer("decoder").pointer]
            again, _ = token_mean(
                coverage(keras.ops.mean(attention, axis=1)), batch["labels"], pad, batch.get("whole", batch)["labels"]
            )
            loss, metrics["coverage"] = loss + self.recipe.coverage * again, again
        return loss, metrics

    def _token_loss(self, model: keras.Model, batch: Mapping[str, Any], smoothing: Any, training: bool):
        counts, whole = (
            token_counts(part["labels"], self.model.special_tokens.pad) for part in (batch, batch.get("whole", batch))
        )
        total = vocabulary_loss(
            model,
            {"source": batch["source"], "target": batch["target"]},
            batch["labels"],
            counts,
            smoothing,
            fused=self.recipe.training.fused_loss,
            normalized=self.recipe.model.copying,
            training=training,
        )
        return total / share(counts, whole), {"tokens": keras.ops.sum(whole)}

    def dev_loss(self, pairs: Sequence[Pair]) -> float:
        """Computes the mean loss of pairs, unsmoothed, in nats a token."""
        batches = PairBatches(pairs, self.recipe.batching, special=self.model.special_tokens)
        total = tokens = 0.0
        for batch in batches.epoch(None):
            loss, metrics = self._compiled_loss({name: batch[name] for name in ("source", "target", "labels")})
            count = float(metrics["tokens"])
            total, tokens = total + float(loss) * count, tokens + count
        return total / tokens

    @cached_property
    def _compiled_loss(self) -> Callable:
        return compiled(lambda batch: self._token_loss(self.model, batch, 0.0, training=False), self.model)

    # === What TensorBoard shows of a run ===

    def samples_while_training(self, examples: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        return self.samples(examples, beams=1, n_best=1)

    def picture(self, example: Mapping[str, Any], output: str = "") -> AttentionMaps:
        # Of the label, not of the output: then pictures of one example compare from step to step.
        return self._attention_maps(self.pairs([example])[0])

    def embeddings(self, examples: Sequence[Mapping[str, str]]) -> dict[str, tuple[np.ndarray, list[dict[str, str]]]]:
        tokenizers = {"embedding": self.source_tokenizer}
        if self.recipe.model.target_vocabulary_size is not None:
            tokenizers["target_embedding"] = self.target_tokenizer
        return {
            name: token_embeddings(
                self.model.get_layer(name).embeddings, tokenizer.tokens(range(tokenizer.vocabulary_size))
            )
            for name, tokenizer in tokenizers.items()
        }

    # === Folders ===

    def save_vocabulary(self, folder: Path) -> None:
        self.source_tokenizer.save(folder / VOCABULARY)
        if self.target_tokenizer is not self.source_tokenizer:
            self.target_tokenizer.save(folder / TARGET_VOCABULARY)

    @classmethod
    def from_vocabulary(cls, recipe: Recipe, folder: Path, card: Mapping[str, Any]) -> Self:
        source = target = Tokenizer.load(folder / VOCABULARY, recipe.hub)
        if recipe.model.target_vocabulary_size is not None or (folder / TARGET_VOCABULARY).is_file():
            target = Tokenizer.load(folder / TARGET_VOCABULARY, recipe.hub)
        return cls(recipe, source, target, card)
