"""Image classification: an image in, a label out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import keras
import numpy as np

from zoo.attention import capture
from zoo.config import ConfigError, nearest
from zoo.data.images import Encoded, ImageConfig, decode, prepared
from zoo.generation.compile import Program
from zoo.metrics.classification import label_scores
from zoo.models.vision_encoder import VisionEncoderConfig, vision_encoder
from zoo.pictures.captions import CaptionMaps
from zoo.pictures.heads import Kind
from zoo.tasks.pretrained import Pretrained, PretrainedRecipe
from zoo.tasks.seeing import pixels, see


@dataclasses.dataclass(frozen=True)
class ImageClassificationRecipe(PretrainedRecipe):
    """Everything that makes a classifier of images.

    Args:
        task: "image_classification".
        model: What sees the images, with its classes.
        images: How images are prepared; the size is the model's.
    """

    task: Literal["image_classification"] = "image_classification"
    model: VisionEncoderConfig = VisionEncoderConfig(kind="vit", pooling="first", classes=("no", "yes"))
    images: ImageConfig = ImageConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.images.size != self.model.image_size:
            raise ConfigError(
                f"images.size: {list(self.images.size)}; model.image_size is {list(self.model.image_size)}"
            )
        if not self.model.classes:
            raise ConfigError("model.classes: there is none; a classifier has some")


class ImageClassification(Pretrained[ImageClassificationRecipe]):
    """Classifies images.

    >>> classifier = zoo.load("hf://google/vit-base-patch16-224")
    >>> label = classifier("photo.jpg")

    Args:
        recipe: The recipe.
        card: See Task.
    """

    recipe_class = ImageClassificationRecipe

    def __init__(self, recipe: ImageClassificationRecipe, card: Mapping[str, Any] | None = None):
        super().__init__(recipe, card)
        self.model = vision_encoder(recipe.model)

    def __call__(  # type: ignore[override]
        self, inputs: Encoded | np.ndarray | Sequence[Encoded | np.ndarray]
    ) -> Any:
        """Classifies.

        Args:
            inputs: An image, or several: paths, encoded bytes, or uint8 arrays (height, width, 3).

        Returns:
            The likeliest label, or a list of labels for several images.

        Raises:
            ImageError: For what is no image, or a damaged one.
        """
        if isinstance(inputs, (bytes, str, Path, np.ndarray, memoryview)):
            return self([inputs])[0]
        return [next(iter(found)) for found in self.probabilities(inputs)]

    def probabilities(self, images: Sequence[Encoded | np.ndarray]) -> list[dict[str, float]]:
        """Returns the probability of every class, likeliest first, for each image."""
        rows = self._values(images)
        return [
            dict(sorted(zip(self.recipe.model.classes, map(float, row)), key=lambda item: -item[1])) for row in rows
        ]

    def _values(self, images: Sequence[Encoded | np.ndarray]) -> np.ndarray:
        """Computes probabilities (images, classes)."""
        logits = [*see(self.model, images, self.recipe.images, batch_size=8)]
        return keras.ops.convert_to_numpy(keras.ops.softmax(np.concatenate(logits)))

    def programs(self, rows: int) -> dict[str, Program]:
        images = np.zeros((rows, *self.recipe.images.size, 3), np.float32)
        return {"answer": Program(lambda images: self.model(images, training=False), self.model, (images,))}

    def report(self, inputs: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        reports = []
        for found in self.probabilities(inputs):
            (output, probability), *_ = found.items()
            reports.append({"output": output, "probability": probability, "classes": found})
        return reports

    def check(self, text: str) -> None:
        """Tells whether a file can be classified.

        Raises:
            ImageError: If it is no image, or a damaged one.
        """
        decode(text)

    def attention_maps(self, image: Encoded | np.ndarray) -> CaptionMaps:
        """Shows where the label comes from.

        Args:
            image: As in a call.

        Returns:
            The class token's attention in the last block, averaged over its heads, over the image; and that of every
            head.

        Raises:
            ConfigError: If the model has no class token.
        """
        if self.recipe.model.pooling != "first":
            raise ConfigError(f"model.pooling: {self.recipe.model.pooling!r}; only a class token's attention is shown")
        seen = pixels(image)
        with capture() as maps:
            self.model(prepared(seen, self.recipe.images)[None], training=False)
        layers = {
            path: keras.ops.convert_to_numpy(weights)[0, :, :1, self.model.extra :] for path, weights in maps.items()
        }
        last = [*layers.values()][-1].mean(axis=0)
        label = [self(seen)]
        return CaptionMaps(seen, label, last.reshape(1, *self.model.grid), [Kind("encoder", label, None, layers)])

    def samples(self, examples: Sequence[Mapping[str, Any]], **settings: Any) -> list[dict[str, str]]:
        outputs = self([example["image"] for example in examples], **settings)
        return [{"input": e["name"], "output": out, "reference": e["label"]} for e, out in zip(examples, outputs)]

    def evaluate(self, examples: Sequence[Mapping[str, Any]], **settings: Any) -> dict[str, Any]:
        """Scores labelled images.

        Args:
            examples: Mappings with "image" and "label".

        Returns:
            "accuracy", "f1" and "ece" (0-100).

        Raises:
            ValueError: If a label is not one of the model's.
        """
        classes = self.recipe.model.classes
        for number, example in enumerate(examples, 1):
            label = example["label"]
            if label not in classes:
                raise ValueError(f"example {number}: no class {label!r}; {nearest(label, classes)}")
        labels = np.array([classes.index(example["label"]) for example in examples])
        return label_scores(self._values([example["image"] for example in examples]), labels)

    # === Folders ===

    def save_vocabulary(self, folder: Path) -> None:
        """Writes nothing: the classes are in the recipe."""

    @classmethod
    def from_vocabulary(cls, recipe: ImageClassificationRecipe, folder: Path, card: Mapping[str, Any]) -> Self:
        return cls(recipe, card)
