"""Captioning: images in, sentences about them out."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import keras
import numpy as np

from zoo.checkpoints import by_path
from zoo.checkpoints.backbones import load_backbone
from zoo.config import ConfigError
from zoo.data.augmentation import AugmentationConfig, augmented
from zoo.data.caption_batches import CaptionBatches, CaptionBatchingConfig
from zoo.data.features import image_features
from zoo.data.image_stream import without_damaged
from zoo.data.images import ImageConfig, decode, normalized, prepared
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig
from zoo.metrics.captioning import bleu_rewards, caption_scores, cider_rewards, document_frequencies
from zoo.models import products
from zoo.models.vision_encoder import VisionEncoder, VisionEncoderConfig, ViTConfig, vision_encoder
from zoo.models.vision_encoder_decoder import VisionEncoderDecoder, VisionEncoderDecoderConfig, vision_encoder_decoder
from zoo.tasks.captioner import Captioner, CaptionerRecipe
from zoo.tasks.reward import RewardConfig, RewardedBatches
from zoo.tasks.seeing import CHUNK
from zoo.tasks.showing import token_embeddings
from zoo.training import TrainingConfig, vocabulary_loss
from zoo.training.losses import share, token_counts


@dataclasses.dataclass(frozen=True)
class CaptioningRecipe(CaptionerRecipe):
    """Everything that makes a captioner.

    Args:
        task: "captioning".
        source: The training data, a SOURCE of images with captions.
        vision: What sees the images.
        weights: Its pretrained weights: "imagenet", or a file; none where None.
        images: How images are prepared; the size is vision's.
        trained: Which part of the vision encoder learns with the text: "none"; "top", the last blocks; or "all". With a
            reward nothing of it learns any more.
        augmentation: How images are changed in training. With None, and a vision encoder that does not learn, its
            features are computed once and kept on disk.
        mirrored: Whether half of the images are mirrored, where features are kept and no caption tells left from right.
        model: The text's side. A vocabulary_size of 0 is as many tokens as the corpus allows, up to 8,000; grid and
            feature_width follow from vision.
        batching: How images and captions are laid out in batches.
        reward: For a last stage that learns from captions of its own instead of people's; None for none.
        training: How the model is trained.
        generation: How captions are found.
    """

    task: Literal["captioning"] = "captioning"
    source: str = "toy:shapes"
    vision: VisionEncoderConfig = VisionEncoderConfig(
        kind="vit", image_size=(64, 64), vit=ViTConfig(8, 96, 4, 192, 3, epsilon=1e-6, class_token=False)
    )
    weights: str | None = None
    images: ImageConfig = ImageConfig(size=(64, 64))
    trained: Literal["none", "top", "all"] = "all"
    augmentation: AugmentationConfig | None = None
    mirrored: bool = True
    model: VisionEncoderDecoderConfig = VisionEncoderDecoderConfig(vocabulary_size=0, width=96, num_heads=4)
    batching: CaptionBatchingConfig = CaptionBatchingConfig()
    reward: RewardConfig | None = None
    training: TrainingConfig = TrainingConfig(steps=2000, monitor="cider")
    generation: GenerationConfig = GenerationConfig(max_length=40)

    def __post_init__(self):
        super().__post_init__()
        if self.images.size != self.vision.image_size:
            raise ConfigError(
                f"images.size: {list(self.images.size)}; vision.image_size is {list(self.vision.image_size)}"
            )
        if self.vision.pooling != "none":
            raise ConfigError(f"vision.pooling: {self.vision.pooling!r}; captions are written from a grid: 'none'")

    @property
    def vision_rests(self) -> bool:
        """Whether the vision encoder stays as it is while the model learns."""
        return self.trained == "none" or self.reward is not None


class Captioning(Captioner[CaptioningRecipe]):
    """Describes images.

    >>> captioner = zoo.load("captioning-flickr8k")
    >>> caption = captioner("photo.jpg")

    Args:
        recipe: The recipe.
        tokenizer: Writes captions.
        card: See Task.

    Attributes:
        vision: The model that sees, from images to features.
        model: The model that writes, from features and the words so far to the next word.
    """

    recipe_class = CaptioningRecipe
    model: VisionEncoderDecoder

    @classmethod
    def build(
        cls, recipe: CaptioningRecipe, tokenizer: Tokenizer
    ) -> tuple[CaptioningRecipe, VisionEncoder, VisionEncoderDecoder]:
        vision = vision_encoder(recipe.vision)
        if vision.extra:
            raise ConfigError("vision.vit.class_token: true; captions are written from the grid alone")
        if recipe.weights is not None:
            load_backbone(vision, recipe.weights)
        _set_trained(vision, recipe.trained)
        sizes = dataclasses.replace(
            recipe.model,
            vocabulary_size=tokenizer.vocabulary_size,
            grid=vision.grid,
            feature_width=vision.output_shape[-1],
        )
        return dataclasses.replace(recipe, model=sizes), vision, vision_encoder_decoder(sizes)

    @property
    def batch_size(self) -> int:
        return self.recipe.batching.batch_size

    @staticmethod
    def spelled(text: str) -> str:
        return plain(text)

    # === Training ===

    @classmethod
    def from_examples(cls, recipe: CaptioningRecipe, examples: Sequence[Mapping[str, Any]]) -> Self:
        texts = [plain(caption) for example in examples for caption in example["captions"]]
        return cls(recipe, Tokenizer.train(texts, recipe.model.vocabulary_size))

    def batches(self, examples: Sequence[Mapping[str, Any]], seed: int = 0) -> CaptionBatches | RewardedBatches:
        batches = self._caption_batches(without_damaged(examples), seed)
        config = self.recipe.reward
        if config is None:
            return batches
        references = [example["captions"] for example in without_damaged(examples)]
        frequencies = document_frequencies(references, ending=True)

        def sample(features: np.ndarray, seed: int) -> list[list[list[int]]]:
            draws = config.generation(self.recipe.generation.max_length, seed)
            return [[h.tokens for h in found] for found in self.generator(list(features), draws)]

        def rewards(numbers: Sequence[int], captions: Sequence[Sequence[int]]) -> np.ndarray:
            texts, wanted = self.tokenizer.decode(captions), [references[number] for number in numbers]
            worth = config.cider * cider_rewards(texts, wanted, frequencies)
            return worth + config.bleu * bleu_rewards(texts, wanted) if config.bleu else worth

        return RewardedBatches(batches, config, sample, rewards, self.recipe.model.max_length)

    def _caption_batches(self, examples: Sequence[Mapping[str, Any]], seed: int) -> CaptionBatches:
        captions = [self.tokenizer.encode([plain(text) for text in example["captions"]]) for example in examples]

        def images(numbers: Sequence[int], epoch: int) -> np.ndarray:
            return np.stack([self._training_image(examples[i], (seed, epoch, i)) for i in numbers])

        def features(numbers: Sequence[int], epoch: int) -> np.ndarray:
            return np.asarray(self.vision.predict_on_batch(images(numbers, epoch)))

        if not self.recipe.vision_rests:
            return CaptionBatches(captions, images, self.recipe.batching, name="images", seed=seed)
        found = self._kept_features(examples, seed) if self.recipe.augmentation is None else features
        return CaptionBatches(captions, found, self.recipe.batching, seed=seed)

    def _kept(self, examples: Sequence[Mapping[str, Any]], mirrored: bool = False) -> np.ndarray:
        """Computes features of all images, or finds them where they were computed before."""
        images, names = ([example[field] for example in examples] for field in ("image", "name"))
        folder = features_folder()
        return image_features(self.vision, images, self.recipe.images, folder, names=names, mirrored=mirrored).array

    def _kept_features(self, examples: Sequence[Mapping[str, Any]], seed: int):
        """Returns how the features of training images are looked up, some of them mirrored."""
        sides = AugmentationConfig().sides
        both = [self._kept(examples, mirrored) for mirrored in (False, True)[: 1 + self.recipe.mirrored]]
        one_sided = np.array([any(side in text.lower() for side in sides for text in e["captions"]) for e in examples])

        def features(numbers: Sequence[int], epoch: int) -> np.ndarray:
            mirrored = np.random.default_rng((seed, epoch, numbers[0])).random(len(numbers)) < 0.5
            mirrored &= ~one_sided[np.array(numbers)]
            which = mirrored.astype(int) if self.recipe.mirrored else np.zeros(len(numbers), int)
            return np.stack([both[k][i] for k, i in zip(which, numbers)]).astype(np.float32)

        return features

    def _training_image(self, example: Mapping[str, Any], seed: tuple[int, ...]) -> np.ndarray:
        pixels = decode(example["image"], example["name"])
        if self.recipe.augmentation is None:
            return prepared(pixels, self.recipe.images)
        changed = augmented(pixels, example["captions"], self.recipe.augmentation, self.recipe.images, seed)
        return normalized(changed, self.recipe.images)

    def batch_outline(self, rows: int) -> dict[str, keras.KerasTensor]:
        rests, reward, length = self.recipe.vision_rests, self.recipe.reward, self.recipe.batching.buckets[-1]
        if reward is not None:
            length = max(length, reward.samples * self.recipe.model.max_length)
        shape = self.vision.output_shape[1:] if rests else (*self.recipe.images.size, 3)
        outline = {"features" if rests else "images": keras.KerasTensor((rows, *shape), "float32")}
        outline |= {name: keras.KerasTensor((rows, length), "int32") for name in ("target", "labels")}
        return outline if reward is None else outline | {"advantages": keras.KerasTensor((rows, length), "float32")}

    def products(self, batch: Mapping[str, Any]) -> int | None:
        if "features" not in batch:
            return None
        (rows, places, _), (_, target) = batch["features"].shape, batch["target"].shape
        return 3 * rows * products.vision_encoder_decoder(self.recipe.model, places, target)

    def check_examples(self, examples: Sequence[Mapping[str, Any]]) -> None:
        for example in examples:
            decode(example["image"], example["name"])

    def score_while_training(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        if self.recipe.vision_rests:
            features = self._kept(examples)
            chunks = (features[start : start + CHUNK] for start in range(0, len(features), CHUNK))
            captions = self._write(chunks, beams=1, n_best=1)
        else:
            captions = self([example["image"] for example in examples], beams=1, n_best=1)
        return caption_scores(captions, [example["captions"] for example in examples])

    def samples_while_training(self, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        return self.samples(examples, beams=1, n_best=1)

    def embeddings(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, list[dict[str, str]]]]:
        tokens = self.tokenizer.tokens(range(self.tokenizer.vocabulary_size))
        return {"embedding": token_embeddings(self.model.get_layer("embedding").embeddings, tokens)}

    @cached_property
    def joint_model(self) -> keras.Model:
        """The model from {"images", "target"} to logits: both halves, for training them together."""
        images = keras.Input((*self.recipe.images.size, 3), name="images")
        target = keras.Input((None,), dtype="int32", name="target")
        logits = self.model.decode(target, *self.model.encode(self.vision(images, training=False)))
        return keras.Model({"images": images, "target": target}, logits, name="captioner")

    @property
    def trained_model(self) -> keras.Model:
        return self.model if self.recipe.vision_rests else self.joint_model

    @property
    def saved_weights(self) -> dict[str, keras.Variable]:
        """What was learned: pretrained weights of the vision encoder that stayed as they are come from elsewhere."""
        learned = [*self.model.weights]
        if self.recipe.weights is None:
            learned += self.vision.weights
        else:
            learned += self.vision.trainable_weights
        return by_path(learned)

    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool):
        """Computes a batch's loss, and how full the batch is."""
        inputs = {name: batch[name] for name in ("features", "images", "target") if name in batch}
        labels, config = batch["labels"], self.recipe.training
        counts, whole = (token_counts(part["labels"]) for part in (batch, batch.get("whole", batch)))
        # A caption that earned more than the others becomes likelier.
        rewarded = "advantages" in batch
        weights, smoothing = (counts * batch["advantages"], 0.0) if rewarded else (counts, config.smoothing(batch))
        total = vocabulary_loss(model, inputs, labels, weights, smoothing, fused=config.fused_loss, training=training)
        images = keras.ops.convert_to_tensor(float(whole.shape[0]))
        metrics = {"tokens": keras.ops.sum(whole), "images": images, "padding": 1 - keras.ops.mean(whole)}
        return total / share(counts, whole), metrics


def plain(caption: str) -> str:
    """Writes a caption as it is learned: in small letters, without the stop at its end."""
    return caption.lower().rstrip(" .")


def features_folder() -> Path:
    """Returns where features of images are kept: $ZOO_CACHE/features, or the user's cache."""
    return Path(os.environ.get("ZOO_CACHE") or "~/.cache/zoo").expanduser() / "features"


def _set_trained(vision: keras.Model, trained: str) -> None:
    """Chooses which layers of a vision encoder learn; "top" is the last quarter of its layers with weights."""
    layers = [layer for layer in vision._flatten_layers(include_self=False) if layer.weights and not layer._layers]
    learning = {"none": 0, "top": len(layers) // 4, "all": len(layers)}[trained]
    for layer in layers[: len(layers) - learning]:
        layer.trainable = False
