"""Embedding: a text in; a vector out, near to those of texts that mean the same."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from zoo.data.texts import Encoding, TextPairBatches
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.pictures.attention import AttentionMaps
from zoo.tasks.text import TextRecipe, TextTask, only_head
from zoo.training import TrainingConfig
from zoo.training.losses import contrastive, share


@dataclasses.dataclass(frozen=True)
class EmbeddingRecipe(TextRecipe):
    """Everything that makes an embedder: see TextRecipe.

    Args:
        scale: What cosine similarities are multiplied by in the loss: the more, the sharper a text has to tell its own
            second from the others of a batch.
    """

    task: Literal["embedding"] = "embedding"
    model: EncoderHeadsConfig = EncoderHeadsConfig(
        encoder=EncoderConfig(vocabulary_size=0), heads={"vector": HeadConfig(kind="vector", pooling="mean")}
    )
    training: TrainingConfig = TrainingConfig(steps=2000, monitor="mrr", label_smoothing=0.0)
    scale: float = 20.0


class Embedding(TextTask[EmbeddingRecipe]):
    """Turns texts into vectors of length 1, whose dot product is their cosine similarity.

    >>> embed = zoo.load("hf://sentence-transformers/all-MiniLM-L6-v2")
    >>> embed(["How old are you?", "What is your age?"]).shape
    (2, 384)

    It learns from pairs of texts that mean the same: each has to find its own second among those of the batch.
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
        """Scores pairs.

        Args:
            examples: Mappings with "text" and "second"; all with "label" too, a number, or none.

        Returns:
            With labels "pearson", 0-100, how well similarity follows them. Without, how well each text finds its own
            second among the seconds of all: "recall1", how many have it first, and "mrr", one over its rank, averaged;
            both 0-100.
        """
        if all("label" in example for example in examples):
            first, second = (self([example[name] for example in examples]) for name in ("text", "second"))
            similarity = (first * second).sum(axis=1)
            return {"pearson": 100 * float(np.corrcoef(similarity, [float(e["label"]) for e in examples])[0, 1])}
        _, own, similarity = self._found(examples)
        ranks = 1 + (similarity > similarity[np.arange(len(own)), own][:, None]).sum(axis=1)
        return {"recall1": 100 * float((ranks == 1).mean()), "mrr": 100 * float((1 / ranks).mean())}

    def _found(self, examples: Sequence[Mapping[str, str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the different seconds, the number of each example's own, and similarities (texts, seconds)."""
        numbers: dict[str, int] = {}
        own = np.array([numbers.setdefault(example["second"], len(numbers)) for example in examples])
        return list(numbers), own, self.similarity([example["text"] for example in examples], list(numbers))

    def samples(self, examples: Sequence[Mapping[str, str]], **settings: Any) -> list[dict[str, str]]:
        seconds, _, similarity = self._found(examples)
        return [
            {"input": example["text"], "output": seconds[nearest], "reference": example["second"]}
            for example, nearest in zip(examples, similarity.argmax(axis=1))
        ]

    def picture(self, example: Mapping[str, Any], output: str = "") -> AttentionMaps:
        return self.attention_maps(example["text"])

    def _encoded(self, examples: Sequence[Mapping[str, str]]) -> list[Encoding]:
        return self.encode([example["text"] for example in examples])

    # === Training ===

    def check_examples(self, examples: Sequence[Mapping[str, str]]) -> None:
        self._pairs(examples)

    def _pairs(self, examples: Sequence[Mapping[str, str]]) -> tuple[list[Encoding], list[Encoding]]:
        """Encodes all texts, and all seconds."""
        for number, example in enumerate(examples, 1):
            if "text" not in example or "second" not in example:
                raise ValueError(f"example {number}: it has {', '.join(example)}; it takes text and second")
        texts, seconds = (self.encode([example[name] for example in examples]) for name in ("text", "second"))
        return texts, seconds

    def batches(self, examples: Sequence[Mapping[str, str]], seed: int = 0) -> TextPairBatches:
        for number, example in enumerate(examples, 1):
            if "label" in example:
                raise ValueError(f"example {number}: it has a label; texts are learned from that mean the same")
        texts, seconds = self._pairs(examples)
        return TextPairBatches(texts, seconds, self.recipe.batching, pad=self.recipe.model.encoder.pad, seed=seed)

    def batch_outline(self, rows: int) -> dict[str, keras.KerasTensor]:
        tokens = keras.KerasTensor((rows, 2, self.max_length), "int32")
        return {"tokens": tokens, "segments": tokens, "weights": keras.KerasTensor((rows,), "float32")}

    def products(self, batch: Mapping[str, Any]) -> int:
        return 2 * super().products({"tokens": batch["tokens"][:, 0]})

    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool):
        """Computes a batch's loss: how hard it is for each text to find its own second, and for each second its text.

        Pairs that have a text in common are no rivals. Where a batch is cut into parts, rivals are those of the part.
        """
        name, _ = only_head(self.recipe, ("vector",))
        tokens, weights = batch["tokens"], batch["weights"]
        flat = {field: ops.reshape(batch[field], (-1, tokens.shape[2])) for field in ("tokens", "segments")}
        vectors = ops.cast(self._logits(model, flat["tokens"], flat["segments"], training)[name], "float32")
        vectors = vectors * ops.rsqrt(ops.maximum(ops.sum(ops.square(vectors), axis=1, keepdims=True), 1e-24))
        texts, seconds = vectors[0::2], vectors[1::2]
        equal = ops.all(ops.equal(tokens[:, None, :, None], tokens[None, :, None]), axis=-1)  # (B, B, 2, 2)
        rivals = ~ops.any(equal, axis=(2, 3)) & (weights > 0) & (weights > 0)[:, None]
        losses = contrastive(self.recipe.scale * ops.matmul(texts, ops.transpose(seconds)), rivals)
        whole = batch.get("whole", batch)
        total = ops.sum(losses * weights) / share(weights, whole["weights"])
        padding = ops.cast(ops.equal(whole["tokens"], self.recipe.model.encoder.pad), "float32")
        return total, {"tokens": ops.sum(1 - padding), "padding": ops.mean(padding)}
