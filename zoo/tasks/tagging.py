"""Tagging: a text in; a tag for each of its words out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from zoo.metrics.classification import tag_scores
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.labels import read_tags
from zoo.tasks.text import TextRecipe, TextTask, only_head
from zoo.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class TaggingRecipe(TextRecipe):
    """Everything that makes a tagger: see TextRecipe. Examples have "text", and "tags", one a word."""

    task: Literal["tagging"] = "tagging"
    source: str = "toy:numbers/tags"
    model: EncoderHeadsConfig = EncoderHeadsConfig(
        encoder=EncoderConfig(vocabulary_size=0), heads={"tags": HeadConfig(kind="tags")}
    )
    training: TrainingConfig = TrainingConfig(steps=2000, monitor="slot_f1", label_smoothing=0.0)


class Tagging(TextTask[TaggingRecipe]):
    """Tags the words of texts.

    >>> tagger = zoo.load("runs/numbers")
    >>> tags = tagger("a train at nine")
    """

    recipe_class = TaggingRecipe

    def __call__(self, inputs: str | Sequence[str]) -> Any:  # type: ignore[override]
        """Tags.

        Args:
            inputs: One text, or several; words are what white space separates.

        Returns:
            For each text a list of tags, one a word; "O" for words beyond the longest text that is read.

        Raises:
            ValueError: For an empty text.
        """
        if isinstance(inputs, str):
            return self([inputs])[0]
        name, head = only_head(self.recipe, ("tags",))
        encodings = self.encode(inputs)
        return [
            read_tags(head, found[name], text, encoding)
            for found, text, encoding in zip(self.run(encodings), inputs, encodings)
        ]

    def report(self, inputs: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        return [
            {"output": " ".join(tags), "words": [{"word": w, "tag": t} for w, t in zip(text.split(), tags)]}
            for text, tags in zip(inputs, self(inputs))
        ]

    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores labelled texts.

        Args:
            examples: Mappings with "text" and "tags".

        Returns:
            "slot_f1" and "tag_accuracy", 0-100.
        """
        name, _ = only_head(self.recipe, ("tags",))
        return tag_scores(self([e["text"] for e in examples]), [e[name].split() for e in examples])
