"""Captioning with models of the hub that see and write: ViT with GPT-2, BLIP."""

import dataclasses
from typing import Literal

from zoo.config import ConfigError
from zoo.data.tokenizers import Tokenizer
from zoo.models.decoder import DecoderConfig, DecoderModel, decoder
from zoo.models.vision_encoder import VisionEncoder, VisionEncoderConfig, vision_encoder
from zoo.tasks.captioner import Captioner, CaptionerRecipe
from zoo.tasks.pretrained import Pretrained, PretrainedRecipe


@dataclasses.dataclass(frozen=True)
class HubCaptioningRecipe(PretrainedRecipe, CaptionerRecipe):
    """Everything that makes a captioner of the hub.

    Args:
        task: "hub_captioning".
        vision: What sees the images.
        model: What writes, over the features of all of vision's places.
    """

    task: Literal["hub_captioning"] = "hub_captioning"
    vision: VisionEncoderConfig = VisionEncoderConfig(kind="vit")
    model: DecoderConfig = DecoderConfig(feature_width=768)

    def __post_init__(self):
        super().__post_init__()
        if self.images.size != self.vision.image_size:
            raise ConfigError(
                f"images.size: {list(self.images.size)}; vision.image_size is {list(self.vision.image_size)}"
            )


class HubCaptioning(Pretrained[HubCaptioningRecipe], Captioner[HubCaptioningRecipe]):
    """Describes images.

    >>> captioner = zoo.load("hf://nlpconnect/vit-gpt2-image-captioning")
    >>> captions = captioner(["photo.jpg"])
    """

    recipe_class = HubCaptioningRecipe

    @classmethod
    def build(
        cls, recipe: HubCaptioningRecipe, tokenizer: Tokenizer
    ) -> tuple[HubCaptioningRecipe, VisionEncoder, DecoderModel]:
        return recipe, vision_encoder(recipe.vision), decoder(recipe.model)
