"""What the tasks over one encoder share: texts in, heads read off, trained together."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import keras
import numpy as np
from keras import ops

from zoo.attention import capture
from zoo.checkpoints import by_path
from zoo.checkpoints.hub import open_hub_folder
from zoo.config import ConfigError, nearest
from zoo.data.augment import EdaConfig
from zoo.data.texts import Encoding, LabelledText, TextBatches, TextBatchingConfig, TextTokenizer
from zoo.generation.compile import Program, compiled
from zoo.metrics.classification import Guesses, describe_classes
from zoo.models import products
from zoo.models.encoder import EncoderHeadsConfig, HeadConfig, encoder
from zoo.pictures.attention import AttentionMaps
from zoo.presets.hub import find_hub_folder
from zoo.tasks import as_line
from zoo.tasks.augmentation import augmentation, check_augmentation
from zoo.tasks.labels import find_classes, read_label
from zoo.tasks.task import Task, TaskRecipe
from zoo.training import TrainingConfig
from zoo.training.adapt import AdaptConfig, adapt, learning_rates, merged_weights, rank_allocator
from zoo.training.heads import activate, head_loss
from zoo.training.ranks import RankAllocator
from zoo.training.weighting import UncertaintyWeighting

VOCABULARY = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class TextRecipe(TaskRecipe):
    """Everything that makes a task over one encoder.

    Args:
        task: The task's name.
        source: The training data, a SOURCE.
        base: A pretrained encoder, "hf://owner/name" or a folder; its sizes and vocabulary stand for the model's own.
        model: The encoder's sizes, and the heads. A vocabulary_size of 0 is as many tokens as the corpus allows.
        batching: How texts are laid out in batches.
        training: How the model is trained.
        adapt: Which weights of a pretrained encoder learn.
        augment: How training texts are changed, anew in every pass.
        loss_weights: Head -> factor of its loss; 1 where a head is not named.
        loss_weighting: "fixed", by these factors; "uncertainty", by factors that are learned.
    """

    task: str = ""
    source: str = ""
    base: str | None = None
    model: EncoderHeadsConfig = EncoderHeadsConfig()
    batching: TextBatchingConfig = TextBatchingConfig()
    training: TrainingConfig = TrainingConfig(steps=2000, monitor="accuracy", label_smoothing=0.0)
    adapt: AdaptConfig = AdaptConfig()
    augment: EdaConfig = EdaConfig()
    loss_weights: dict[str, float] = dataclasses.field(default_factory=dict)
    loss_weighting: Literal["fixed", "uncertainty"] = "fixed"

    def __post_init__(self):
        super().__post_init__()
        check_augmentation(self.augment, self.base, self.model.heads)
        if self.loss_weighting == "uncertainty" and self.loss_weights:
            raise ConfigError(f"loss_weights: {self.loss_weights}; they are learned by loss_weighting 'uncertainty'")


Recipe = TypeVar("Recipe", bound=TextRecipe)


class TextTask(Task[Recipe]):
    """A tokenizer, an encoder and its heads; each subclass says what goes in and what comes out.

    Args:
        recipe: The recipe, its heads with their classes.
        tokenizer: Reads texts.
        card: See Task.
    """

    recipe_class: ClassVar[type[TextRecipe]] = TextRecipe

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer, card: Mapping[str, Any] | None = None):
        sizes = dataclasses.replace(recipe.model.encoder, vocabulary_size=tokenizer.vocabulary_size)
        if recipe.base is None:
            recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, encoder=sizes))
        super().__init__(recipe, card)
        self.tokenizer = tokenizer
        keras.utils.set_random_seed(recipe.training.seed)
        self.model = encoder(recipe.model)
        adapt(self.model, recipe.adapt, self.head_layers)

    @property
    def heads(self) -> Mapping[str, HeadConfig]:
        return self.recipe.model.heads

    @property
    def head_layers(self) -> list[keras.layers.Layer]:
        """The layers behind the encoder, which every method of fine-tuning trains."""
        starts = tuple(f"{name}_" for name in (*self.heads, "task"))
        return [layer for layer in self.model.layers if layer.name.startswith(starts)]

    # === Making one ===

    @classmethod
    def complete(cls, recipe: Recipe, examples: Sequence[Mapping[str, str]]) -> Recipe:
        """Adds to a recipe what its training examples say: the classes of each head that names none yet."""
        heads = {
            name: dataclasses.replace(head, classes=find_classes(head, [e[name] for e in examples if name in e]))
            if head.has_classes and not head.classes
            else head
            for name, head in recipe.model.heads.items()
        }
        return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, heads=heads))

    @classmethod
    def from_examples(cls, recipe: Recipe, examples: Sequence[Mapping[str, str]]) -> Self:
        recipe = cls.complete(recipe, examples)
        if recipe.base is None:
            texts = [example[field] for example in examples for field in ("text", "second") if field in example]
            return cls(recipe, TextTokenizer.train(texts, recipe.model.encoder.vocabulary_size))
        folder = find_hub_folder(recipe.base)
        hub = open_hub_folder(folder)
        sizes = dataclasses.replace(hub.config.encoder, dropout=recipe.model.encoder.dropout, attention_dropout=0.0)
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, encoder=sizes))
        task = cls(recipe, TextTokenizer.load(folder / VOCABULARY))
        hub.fill(task.model, task._own_weights)
        return task

    @property
    def _own_weights(self) -> dict[str, keras.Variable]:
        """What a pretrained encoder does not have: the heads, and what fine-tuning added."""
        heads = {id(weight) for layer in self.head_layers for weight in layer.weights}
        named = by_path(self.model.weights)
        return {path: w for path, w in named.items() if id(w) in heads or "/lora_kernel_" in path}

    @property
    def saved_weights(self) -> dict[str, keras.Variable]:
        """Only what was learned, where the pretrained encoder stayed as it is."""
        if self.recipe.base is not None and self.recipe.adapt.method != "full":
            return self._own_weights
        return by_path(self.model.weights)

    def save_vocabulary(self, folder: Path) -> None:
        self.tokenizer.save(folder / VOCABULARY)

    @classmethod
    def from_vocabulary(cls, recipe: Recipe, folder: Path, card: Mapping[str, Any]) -> Self:
        task = cls(recipe, TextTokenizer.load(folder / VOCABULARY), card)
        if recipe.base is not None and recipe.adapt.method != "full":
            open_hub_folder(find_hub_folder(recipe.base)).fill(task.model, task._own_weights)
        return task

    def merged(self) -> Self:
        """Returns the same task with its low-rank additions in their kernels for good.

        What it says is the same. Its folder holds all weights and needs no base, and it computes no more than the base.
        """
        task = type(self)(dataclasses.replace(self.recipe, adapt=AdaptConfig()), self.tokenizer.copy())
        weights = merged_weights(self.model)
        for path, weight in by_path(task.model.weights).items():
            weight.assign(weights[path])
        return task

    # === Texts in, numbers out ===

    def check(self, text: str) -> None:
        """Tells whether an input, a text or a pair with a tab between, can be read.

        Raises:
            ValueError: If it is empty.
        """
        for part in text.split("\t", 1):
            if not any(character.isprintable() and not character.isspace() for character in part):
                raise ValueError(f"{part[:40]!r} is empty; give a text with at least one visible character")

    @property
    def max_length(self) -> int:
        """Tokens in the longest text that is read whole."""
        longest = self.recipe.batching.buckets[-1]
        sizes = self.recipe.model.encoder
        return min(longest, sizes.max_length) if sizes.positions == "learned" else longest

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> list[Encoding]:
        """Turns texts, or pairs of texts, into tokens.

        Warns:
            UserWarning: If some are longer than the model reads, and were cut; it says how many.

        Raises:
            ValueError: If one is empty; it says which.
        """
        self._check_all(texts)
        encodings = self.tokenizer.encode(texts, seconds, self.max_length)
        cut = sum(encoding.cut for encoding in encodings)
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts are longer than {self.max_length} tokens; the rest of each was cut off",
                stacklevel=2,
            )
        return encodings

    def _check_all(self, texts: Sequence[str]) -> None:
        for number, text in enumerate(texts, 1):
            try:
                TextTask.check(self, text)
            except ValueError as error:
                raise ValueError(f"input {number}: {error}") from None

    def run(self, encodings: Sequence[Encoding]) -> list[dict[str, np.ndarray]]:
        """Computes what every head says, texts of similar length together.

        Returns:
            For each text head -> probabilities of its classes (for tags and spans one row a token), a number, or a
            vector.
        """
        batches = self._unlabelled(encodings)
        results: list[dict[str, np.ndarray]] = [{} for _ in encodings]
        for bucket, rows in batches.plan(None):
            batch = batches.batch(bucket, rows)
            outputs = self._program(batch["tokens"], batch["segments"])
            for name, values in zip(self.heads, outputs, strict=True):
                values = keras.ops.convert_to_numpy(values)
                for row, number in enumerate(rows):
                    value = values[row]
                    per_token = not self.heads[name].pooled
                    results[number][name] = value[: len(encodings[number].ids)] if per_token else value
        return results

    def _unlabelled(self, encodings: Sequence[Encoding]) -> TextBatches:
        texts = [LabelledText(encoding, {}) for encoding in encodings]
        return TextBatches(texts, self.recipe.batching, {}, pad=self.recipe.model.encoder.pad)

    @cached_property
    def _program(self) -> Callable:
        return compiled(self._outputs, self.model)

    def _outputs(self, tokens: Any, segments: Any) -> tuple[Any, ...]:
        logits = self._logits(self.model, tokens, segments, training=False)
        return tuple(activate(head, logits[name], segments) for name, head in self.heads.items())

    def _logits(self, model: keras.Model, tokens: Any, segments: Any, training: bool) -> Mapping[str, Any]:
        inputs = {"tokens": tokens}
        if self.recipe.model.encoder.num_segments:
            inputs["segments"] = segments
        return model(inputs, training=training)

    def attention_maps(self, text: str, second: str | None = None) -> AttentionMaps:
        """Shows where every head of every block looks.

        Args:
            text: A text.
            second: The second text of a pair.

        Returns:
            The blocks' maps by layer path, with the tokens.
        """
        (encoding,) = self.encode([text], None if second is None else [second])
        with capture() as maps:
            self._logits(self.model, np.array([encoding.ids]), np.array([encoding.segments]), training=False)
        blocks = {path: weights for path, weights in maps.items() if path.startswith("encoder/")}
        tokens = self.tokenizer.tokens(encoding.ids)
        return AttentionMaps(tokens, [], {path: ops.convert_to_numpy(w)[0] for path, w in blocks.items()})

    def samples(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> list[dict[str, str]]:
        inputs = ["\t".join(e[name] for name in ("text", "second") if name in e) for e in examples]
        return [
            {
                "input": text,
                "output": as_line(report),
                "reference": as_line({"output": {name: example.get(name, "") for name in self.heads}})
                if len(self.heads) > 1
                else "".join(example.get(name, "") for name in self.heads),
            }
            for example, text, report in zip(examples, inputs, self.report(inputs, **settings))
        ]

    # === What TensorBoard shows of a run ===

    def picture(self, example: Mapping[str, Any], output: str = "") -> AttentionMaps:
        return self.attention_maps(example["text"], example.get("second"))

    def guesses(self, examples: Sequence[Mapping[str, str]]) -> dict[str, Guesses]:
        found = self.run(self._encoded(examples))
        guesses = {}
        for name, head in self.heads.items():
            if head.kind not in ("label", "labels"):
                continue
            rows = [
                i for i, e in enumerate(examples) if name in e and (head.kind == "labels" or e[name] in head.classes)
            ]
            if len(rows):
                labels = np.array([read_label(head, examples[i][name], examples[i], None) for i in rows])
                guesses[name] = Guesses(head.classes, np.array([found[i][name] for i in rows]), labels)
        return guesses

    def embeddings(self, examples: Sequence[Mapping[str, str]]) -> dict[str, tuple[np.ndarray, list[dict[str, str]]]]:
        """The mean of what the encoder says of each text's tokens."""
        inputs = {x.name: x for x in self.model.inputs}
        below = keras.Model(inputs, self.model.get_layer("encoder").output)
        encodings = self._encoded(examples)
        batches = self._unlabelled(encodings)
        vectors = np.zeros((len(examples), below.output.shape[-1]), np.float32)
        for bucket, rows in batches.plan(None):
            batch = batches.batch(bucket, rows)
            states = ops.convert_to_numpy(below({name: batch[name] for name in inputs}, training=False))
            for row, number in enumerate(rows):
                vectors[number] = states[row, : len(encodings[number].ids)].mean(axis=0)
        pooled = [name for name, head in self.heads.items() if head.pooled]
        labels = [{"text": e["text"], **{name: e.get(name, "") for name in pooled}} for e in examples]
        return {"texts": (vectors, labels)}

    def _encoded(self, examples: Sequence[Mapping[str, str]]) -> list[Encoding]:
        seconds = [example["second"] for example in examples] if "second" in examples[0] else None
        return self.encode([example["text"] for example in examples], seconds)

    # === Training ===

    def labels(self, example: Mapping[str, str], encoding: Encoding) -> dict[str, np.ndarray]:
        """Turns what an example says into a label for each head that it says something of.

        Raises:
            ValueError: If a class is not known (the nearest is named), or tags and words do not go together.
        """
        return {
            name: read_label(head, example[name], example, encoding)
            for name, head in self.heads.items()
            if name in example
        }

    def describe(self, examples: Sequence[Mapping[str, str]]) -> list[str]:
        """Says how often each class occurs."""
        counts = {
            name: describe_classes([example[name] for example in examples if name in example])
            for name, head in self.heads.items()
            if head.kind == "label"
        }
        return [f"{name}: {', '.join(f'{c} {n}' for c, n in found.items())}" for name, found in counts.items()]

    def source_number(self, example: Mapping[str, str]) -> int:
        """Numbers the sources that batches are mixed from; one where a task has one."""
        return 0

    def labelled(self, examples: Sequence[Mapping[str, str]]) -> list[LabelledText]:
        """Turns examples into what batches are made of.

        Raises:
            ValueError: If one cannot be used; it says which.
        """
        encodings = self._encoded(examples)
        texts = []
        for number, (example, encoding) in enumerate(zip(examples, encodings), 1):
            try:
                texts.append(LabelledText(encoding, self.labels(example, encoding), self.source_number(example)))
            except ValueError as error:
                raise ValueError(f"example {number}: {error}") from None
        return texts

    @property
    def _label_specs(self) -> dict[str, np.ndarray]:
        specs = {
            "label": np.zeros((), np.int32),
            "number": np.zeros((), np.float32),
            "tags": np.zeros((0,), np.int32),
            "span": np.zeros((2,), np.int32),
        }
        return {
            name: np.zeros(len(head.classes), np.float32) if head.kind == "labels" else specs[head.kind]
            for name, head in self.heads.items()
        }

    def batches(self, examples: Sequence[Mapping[str, str]], seed: int = 0) -> TextBatches:
        texts = self.labelled(examples)
        augment = augmentation(self.recipe.augment, self.recipe.base, examples, self.tokenizer, self.max_length)
        pad = self.recipe.model.encoder.pad
        return TextBatches(texts, self.recipe.batching, self._label_specs, pad=pad, seed=seed, augment=augment)

    def _empty_batch(self, rows: int, label_specs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a batch of the longest texts with nothing in it."""
        batching = dataclasses.replace(self.recipe.batching, batch_size=rows)
        texts = [LabelledText(Encoding([0] * self.max_length, [], [], False), {})]
        batches = TextBatches(texts, batching, label_specs)
        return batches.batch(batches.bucket[0], [])

    def batch_outline(self, rows: int) -> dict[str, keras.KerasTensor]:
        batch = self._empty_batch(rows, self._label_specs)
        return {name: keras.KerasTensor(x.shape, x.dtype.name) for name, x in batch.items()}

    def products(self, batch: Mapping[str, Any]) -> int:
        rows, length = batch["tokens"].shape
        outputs = sum(head.outputs or 0 for head in self.heads.values() if not head.pooled)
        passes = {"full": 3, "frozen": 1}.get(self.recipe.adapt.method, 2)
        return passes * rows * products.encoder(self.recipe.model.encoder, length, outputs)

    def programs(self, rows: int) -> dict[str, Program]:
        batch = self._empty_batch(rows, {})
        return {"answer": Program(self._outputs, self.model, (batch["tokens"], batch["segments"]))}

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        self.labelled(examples)

    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool):
        """Computes a batch's loss: the weighted sum over the heads."""
        logits = self._logits(model, batch["tokens"], batch["segments"], training)
        whole = batch.get("whole", batch)
        total, metrics = 0.0, {}
        for name, head in self.heads.items():
            value = head_loss(
                head,
                logits[name],
                batch[f"labels/{name}"],
                batch[f"weights/{name}"],
                batch["segments"],
                self.recipe.training.label_smoothing,
                (whole[f"labels/{name}"], whole[f"weights/{name}"]),
            )
            if self.weighting is None:
                total += self.recipe.loss_weights.get(name, 1.0) * value
            else:
                cost, metrics[f"loss_weight_{name}"] = self.weighting(name, value, whole[f"weights/{name}"])
                total += cost
            if len(self.heads) > 1:
                metrics[f"loss_{name}"] = value
        padding = ops.equal(whole["tokens"], self.recipe.model.encoder.pad)
        tokens = ops.sum(ops.cast(ops.logical_not(padding), "float32"))
        return total, {**metrics, "tokens": tokens, "padding": ops.mean(ops.cast(padding, "float32"))}

    @property
    def learning_rates(self) -> dict[str, float] | None:
        decay = self.recipe.adapt.layer_decay
        rates = learning_rates(self.model, decay) if decay < 1 else {}
        if self.weighting is not None:
            rates |= self.weighting.learning_rates(self.recipe.training.optimizer.learning_rate)
        return rates or None

    @cached_property
    def weighting(self) -> UncertaintyWeighting | None:
        """The weights of the heads' losses where they are learned."""
        return UncertaintyWeighting(self.heads) if self.recipe.loss_weighting == "uncertainty" else None

    @property
    def loss_variables(self) -> Sequence[keras.Variable]:
        return () if self.weighting is None else list(self.weighting.log_variances.values())

    def rank_allocator(self, steps: int) -> RankAllocator | None:
        return rank_allocator(self.model, self.recipe.adapt, steps)


def only_head(recipe: TextRecipe, kinds: Sequence[str]) -> tuple[str, HeadConfig]:
    """Returns the one head of a task that has one.

    Raises:
        ConfigError: If there is none, or several, or it is of another kind.
    """
    if len(recipe.model.heads) != 1:
        raise ConfigError(f"heads: {list(recipe.model.heads)}; the task {recipe.task!r} has one")
    ((name, head),) = recipe.model.heads.items()
    if head.kind not in kinds:
        raise ConfigError(f"heads.{name}.kind: {head.kind!r}; {nearest(head.kind, kinds)}")
    return name, head
