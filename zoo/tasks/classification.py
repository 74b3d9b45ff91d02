"""Classification: a text, or a pair of texts, in; a label, several, or a number out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from zoo.config import Config
from zoo.data.texts import split_pairs
from zoo.metrics.classification import label_scores, multi_label_scores
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.labels import read_label
from zoo.tasks.text import TextRecipe, TextTask, only_head
from zoo.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ClassificationRecipe(TextRecipe):
    """Everything that makes a classifier: see TextRecipe. Examples have "text", maybe "second", and "label"."""

    task: Literal["classification"] = "classification"
    source: str = "toy:polarity"
    model: EncoderHeadsConfig = EncoderHeadsConfig(
        encoder=EncoderConfig(vocabulary_size=0), heads={"label": HeadConfig(pooling="mean")}
    )
    training: TrainingConfig = TrainingConfig(steps=2000, monitor="accuracy", label_smoothing=0.0)


@dataclasses.dataclass(frozen=True)
class Reading(Config):
    """How texts are read.

    Args:
        window: Whether a text that is longer than the model reads is read in overlapping windows, whose outputs are
            averaged, instead of being cut off.
    """

    window: bool = False


class Classification(TextTask[ClassificationRecipe]):
    """Classifies texts.

    >>> classifier = zoo.load("sentiment-sst2")
    >>> classifier("A moving, funny film.")
    'positive'
    >>> classifier.probabilities(["A moving, funny film."])
    [{'positive': 0.9..., 'negative': 0.0...}]
    """

    recipe_class = ClassificationRecipe

    @property
    def head(self) -> HeadConfig:
        return only_head(self.recipe, ("label", "labels", "number"))[1]

    def _values(self, texts: Sequence[str], seconds: Sequence[str] | None, window: bool) -> np.ndarray:
        """Computes what the head says of each text: (texts, classes), or (texts, 1) for numbers."""
        name, _ = only_head(self.recipe, ("label", "labels", "number"))
        if not window:
            return np.array([found[name] for found in self.run(self.encode(texts, seconds))])
        self._check_all(texts)
        pairs = zip(texts, seconds, strict=True) if seconds else ((text, None) for text in texts)
        length, stride = self.max_length, self.max_length // 4
        windows = [self.tokenizer.windows(text, second, length, stride) for text, second in pairs]
        found = iter(self.run([window for group in windows for window in group]))
        return np.array([np.mean([next(found)[name] for _ in group], axis=0) for group in windows])

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        return Reading().override(assignments).to_dict()

    def __call__(  # type: ignore[override]
        self, inputs: str | Sequence[str], seconds: str | Sequence[str] | None = None, window: bool = False
    ) -> Any:
        """Classifies.

        Args:
            inputs: One text, or several.
            seconds: The second text of each pair, for models of pairs.
            window: See Reading.

        Returns:
            For each text its likeliest label, all labels of probability 0.5 or more, or its number.

        Raises:
            ValueError: For an empty text.
        """
        if isinstance(inputs, str):
            return self([inputs], None if seconds is None else [str(seconds)], window)[0]
        values = self._values(inputs, seconds, window)
        if self.head.kind == "number":
            return [float(value[0]) for value in values]
        if self.head.kind == "labels":
            return [[c for c, p in zip(self.head.classes, row) if p >= 0.5] for row in values]
        return [self.head.classes[row.argmax()] for row in values]

    def probabilities(
        self, inputs: Sequence[str], seconds: Sequence[str] | None = None, window: bool = False
    ) -> list[dict[str, float]]:
        """Returns the probability of every class, likeliest first, for each text."""
        values = self._values(inputs, seconds, window)
        return [dict(sorted(zip(self.head.classes, map(float, row)), key=lambda item: -item[1])) for row in values]

    def report(self, inputs: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        texts, seconds = split_pairs(inputs)
        if self.head.kind == "number":
            return [{"output": number} for number in self(texts, seconds, **settings)]
        found = self.probabilities(texts, seconds, **settings)
        outputs: list[Any] = [next(iter(row)) for row in found]
        if self.head.kind == "labels":
            outputs = [[name for name, p in row.items() if p >= 0.5] for row in found]
        return [
            {"output": output, "probability": next(iter(row.values())), "classes": row}
            for output, row in zip(outputs, found)
        ]

    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores labelled texts.

        Args:
            examples: Mappings with "text", maybe "second", and "label".
            settings: As in a call.

        Returns:
            "accuracy", "f1" and "ece" (0-100) and "loss"; for several labels see multi_label_scores(); for numbers
            "pearson" (0-100) and "loss".

        Raises:
            ValueError: If a label is not one of the model's.
        """
        seconds = [example["second"] for example in examples] if "second" in examples[0] else None
        values = self._values([example["text"] for example in examples], seconds, Reading(**settings).window)
        name, head = only_head(self.recipe, ("label", "labels", "number"))
        read = []
        for number, example in enumerate(examples, 1):
            try:
                read.append(read_label(head, example[name], example, None))
            except ValueError as error:
                raise ValueError(f"example {number}: {error}") from None
        labels = np.array(read)
        if head.kind == "number":
            correlation = np.corrcoef(values[:, 0], labels)[0, 1]
            return {"pearson": 100 * float(correlation), "loss": float(np.mean((values[:, 0] - labels) ** 2))}
        small = 1e-12
        if head.kind == "labels":
            losses = -np.log(np.where(labels == 1, values, 1 - values) + small)
            return {**multi_label_scores(values, labels), "loss": float(losses.mean())}
        losses = -np.log(values[np.arange(len(labels)), labels] + small)
        return {**label_scores(values, labels), "loss": float(losses.mean())}
