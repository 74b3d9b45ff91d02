"""Embedding: a text in; a vector out, near to those of texts that mean the same."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.text import TextRecipe, TextTask, only_head


@dataclasses.dataclass(frozen=True)
class EmbeddingRecipe(TextRecipe):
    """Everything that makes an embedder: see TextRecipe."""

    task: Literal["embedding"] = "embedding"
    model: EncoderHeadsConfig = EncoderHeadsConfig(
        encoder=EncoderConfig(vocabulary_size=0), heads={"vector": HeadConfig(kind="vector", pooling="mean")}
    )


class Embedding(TextTask[EmbeddingRecipe]):
    """Turns texts into vectors of length 1, whose dot product is their cosine similarity.

    >>> embed = zoo.load("hf://sentence-transformers/all-MiniLM-L6-v2")
    >>> embed(["How old are you?", "What is your age?"]).shape
    (2, 384)
    """

    recipe_class = EmbeddingRecipe

    def __call__(self, inputs: str | Sequence[str]) -> Any:  # type: ignore[override]
        """Embeds.

        Args:
            inputs: One text, or several.

        Returns:
            float32 (D,) for one text, (texts, D) for several, of length 1.

        Raises:
            ValueError: For an empty text.
        """
        if isinstance(inputs, str):
            return self([inputs])[0]
        name, _ = only_head(self.recipe, ("vector",))
        vectors = np.array([found[name] for found in self.run(self.encode(inputs))], np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """Returns the cosine similarity of each text with each other, (texts, others), from -1 to 1."""
        return self(list(texts)) @ self(list(others)).T

    def evaluate(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> dict[str, Any]:
        """Scores pairs by how well their similarity follows a number.

        Args:
            examples: Mappings with "text", "second" and "label", a number.

        Returns:
            "pearson", 0-100.
        """
        first, second = (self([example[name] for example in examples]) for name in ("text", "second"))
        similarity = (first * second).sum(axis=1)
        return {"pearson": 100 * float(np.corrcoef(similarity, [float(e["label"]) for e in examples])[0, 1])}
