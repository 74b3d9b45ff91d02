"""What tasks share that describe images: images in; captions, maps and scores out."""

import abc
import dataclasses
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import keras
import numpy as np

from zoo.attention import capture
from zoo.checkpoints import by_path
from zoo.data.images import Encoded, ImageConfig, decode
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig, Generator
from zoo.generation.compile import Program
from zoo.metrics.captioning import caption_scores
from zoo.models.generative import Generative
from zoo.models.vision_encoder import VisionEncoder
from zoo.pictures.captions import CaptionMaps
from zoo.tasks.seeing import pixels, see
from zoo.tasks.task import Task, TaskRecipe

VOCABULARY = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class CaptionerRecipe(TaskRecipe):
    """What the recipes of all captioners hold; see TaskRecipe for the rest.

    Args:
        images: How images are prepared.
        generation: How captions are found.
    """

    images: ImageConfig = ImageConfig()
    generation: GenerationConfig = GenerationConfig()


Recipe = TypeVar("Recipe", bound=CaptionerRecipe)


class Captioner(Task[Recipe]):
    """Describes images with two models; each subclass says which.

    Args:
        recipe: The recipe.
        tokenizer: Reads beginnings and writes captions.
        card: See Task.

    Attributes:
        vision: The model that sees, from images to features; the first vision.extra places are no part of the grid.
        model: The model that writes, from features and the words so far to the next word.
    """

    vision: VisionEncoder
    model: Generative

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, card: Mapping[str, Any] | None = None):
        keras.utils.set_random_seed(recipe.training.seed)
        recipe, self.vision, self.model = self.build(recipe, tokenizer)
        super().__init__(recipe, card)
        self.tokenizer = tokenizer
        self.generator = Generator(self.model)

    @classmethod
    @abc.abstractmethod
    def build(cls, recipe: Recipe, tokenizer: Tokenizer) -> tuple[Recipe, VisionEncoder, Generative]:
        """Builds both models; returns the recipe too, with the sizes that follow from tokenizer and images."""

    @property
    def batch_size(self) -> int:
        """How many images are seen at once."""
        return 8

    @staticmethod
    def spelled(text: str) -> str:
        """Spells a text as captions are spelled."""
        return text

    # === Image in, text out ===

    def __call__(
        self,
        inputs: Encoded | np.ndarray | Sequence[Encoded | np.ndarray],
        beginnings: str | Sequence[str] | None = None,
        **generation: Any,
    ) -> Any:
        """Describes images.

        Args:
            inputs: An image, or several: paths, encoded bytes, or uint8 arrays (height, width, 3).
            beginnings: What the captions begin with.
            generation: Fields of GenerationConfig that differ from the recipe's: beams=1, n_best=3 ...

        Returns:
            One caption for an image, a list for several. With n_best above 1 each is a list, best first.

        Raises:
            ImageError: For what is no image, or a damaged one.
        """
        if isinstance(inputs, (bytes, str, Path, np.ndarray, memoryview)):
            return self([inputs], None if beginnings is None else [str(beginnings)], **generation)[0]
        return self._write(self._features_of(inputs), beginnings, **generation)

    def _features_of(self, images: Sequence[Encoded | np.ndarray]) -> Iterable[np.ndarray]:
        return see(self.vision, images, self.recipe.images, self.batch_size)

    def _write(
        self, chunks: Iterable[np.ndarray], beginnings: Sequence[str] | None = None, **generation: Any
    ) -> list[Any]:
        """Writes captions from features of images, some images at a time."""
        config = dataclasses.replace(self.recipe.generation, **generation)
        started = None if beginnings is None else self.tokenizer.encode([self.spelled(text) for text in beginnings])
        captions: list[Any] = []
        for features in chunks:
            begun = None if started is None else started[len(captions) : len(captions) + len(features)]
            for found in self.generator(list(features), config, begun):
                texts = self.tokenizer.decode([hypothesis.tokens for hypothesis in found])
                captions.append([text.strip() for text in texts])
        return captions if config.n_best > 1 else [texts[0] for texts in captions]

    def programs(self, rows: int) -> dict[str, Program]:
        images = np.zeros((rows, *self.recipe.images.size, 3), np.float32)
        places, width = self.vision.output_shape[1:]
        features = np.zeros((places, width), np.float32)
        return {
            "see": Program(lambda images: self.vision(images, training=False), self.vision, (images,)),
            "write": self.generator.uncompiled([features] * rows, self.recipe.generation),
        }

    def settings(self, assignments: Sequence[str]) -> dict[str, Any]:
        return self.recipe.generation.override(assignments).to_dict()

    def attention_maps(self, image: Encoded | np.ndarray, caption: str | None = None) -> CaptionMaps:
        """Shows where each word of a caption looks.

        Args:
            image: As in a call.
            caption: A caption; the model's own where None.

        Returns:
            The cross-attention of the last block, averaged over its heads, over the image; and that of every head.
        """
        (features,) = self._features_of([image])
        text = self(image) if caption is None else self.spelled(caption)
        (tokens,) = self.tokenizer.encode([text])
        target = np.array([[self.model.special_tokens.start, *tokens]])
        with capture() as maps:
            self.model({"features": features, "target": target}, training=False)
        found = {path: keras.ops.convert_to_numpy(weights)[0] for path, weights in maps.items()}
        start, *words = self.tokenizer.tokens(target[0])
        grid, first = self.vision.grid, self.vision.extra
        return CaptionMaps.from_tokens(pixels(image), words, found, grid, first=first, start=start)

    def check(self, text: str) -> None:
        """Tells whether a file can be described.

        Raises:
            ImageError: If it is no image, or a damaged one.
        """
        decode(text)

    @property
    def demo(self) -> list[str]:
        """Paths of photographs that installed packages carry, named "package/path"."""
        named = (name.partition("/") for name in self.card["demo"])
        return [str(importlib.resources.files(package) / path) for package, _, path in named]

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        return {"beams=1": {"beams": 1}, f"beams={self.recipe.generation.beams}": {}}

    def samples(self, examples: Sequence[Mapping[str, Any]], **generation: Any) -> list[dict[str, str]]:
        outputs = self([example["image"] for example in examples], **generation)
        return [
            {"input": e["name"], "output": output, "reference": e["captions"][0]}
            for e, output in zip(examples, outputs)
        ]

    def picture(self, example: Mapping[str, Any], output: str = "") -> CaptionMaps:
        return self.attention_maps(example["image"], output or example["captions"][0])

    # === Scores ===

    def evaluate(self, examples: Sequence[Mapping[str, Any]], **generation: Any) -> dict[str, Any]:
        """Scores captions of images.

        Args:
            examples: Mappings with "image" and "captions".
            generation: As in a call.

        Returns:
            What caption_scores() does; METEOR and SPICE where there is Java.

        Raises:
            ImageError: For a damaged image.
        """
        captions = self([example["image"] for example in examples], **generation)
        return caption_scores(captions, [example["captions"] for example in examples], java=None)

    # === Folders ===

    @property
    def saved_weights(self) -> dict[str, keras.Variable]:
        return by_path([*self.model.weights, *self.vision.weights])

    def save_vocabulary(self, folder: Path) -> None:
        self.tokenizer.save(folder / VOCABULARY)

    @classmethod
    def from_vocabulary(cls, recipe: Recipe, folder: Path, card: Mapping[str, Any]) -> Self:
        return cls(recipe, Tokenizer.load(folder / VOCABULARY), card)
