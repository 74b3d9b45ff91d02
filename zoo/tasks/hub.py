"""From a folder of the Hugging Face hub to a task that is ready to use."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from zoo.checkpoints import CheckpointError
from zoo.checkpoints.hub import HubModel, is_hub_captioner, open_hub_captioner, open_hub_folder, read_generation
from zoo.data.hub_images import read_image_config
from zoo.data.texts import TextTokenizer
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig
from zoo.models.decoder import DecoderConfig
from zoo.models.encoder import HeadConfig
from zoo.models.vision_encoder import VisionEncoderConfig
from zoo.tasks import task_class
from zoo.tasks.hub_captioning import HubCaptioning, HubCaptioningRecipe
from zoo.tasks.image_classification import ImageClassification, ImageClassificationRecipe
from zoo.tasks.task import Task
from zoo.tasks.text import VOCABULARY, TextTask
from zoo.tasks.text_generation import TextGeneration, TextGenerationRecipe

# Which task answers with a head of each kind.
_TASKS = {
    "label": "classification",
    "labels": "classification",
    "number": "classification",
    "tags": "tagging",
    "span": "question_answering",
    "vector": "embedding",
}


def load_hub(folder: Path) -> Task:
    """Makes a task of a hub model.

    Args:
        folder: Holds config.json and weights; of models of texts tokenizer.json, of models of images
            preprocessor_config.json.

    Returns:
        The task that the model answers: captions, more text, or what its head says; an embedding by the mean of its
        tokens where an encoder of texts has no head.

    Raises:
        CheckpointError: If the family is not known, the weights do not fit, or there is no tokenizer.
        ConfigError: If images are prepared in a way that is not known.
    """
    if is_hub_captioner(folder):
        return _captioner(folder)
    hub = open_hub_folder(folder)
    if isinstance(hub.config, VisionEncoderConfig):
        return _image_classifier(folder, hub)
    if isinstance(hub.config, DecoderConfig):
        return _text_generator(folder, hub)
    return _text_task(folder, hub)


def _captioner(folder: Path) -> HubCaptioning:
    hub = open_hub_captioner(folder)
    images = read_image_config(folder, hub.vision.config.image_size)
    recipe = HubCaptioningRecipe(
        vision=hub.vision.config, model=hub.text.config, images=images, generation=generation_config(folder)
    )
    task = HubCaptioning(recipe, Tokenizer.load(_vocabulary(folder)))
    hub.vision.fill(task.vision)
    hub.text.fill(task.model)
    return task


def _image_classifier(folder: Path, hub: HubModel) -> ImageClassification:
    if not hub.config.classes:
        raise CheckpointError(
            f"{folder}: it has features and no classes, and no task for them; zoo.checkpoints.hub.open_hub_folder() "
            "gives the model"
        )
    images = read_image_config(folder, hub.config.image_size)
    task = ImageClassification(ImageClassificationRecipe(model=hub.config, images=images))
    hub.fill(task.model)
    return task


def _text_generator(folder: Path, hub: HubModel) -> TextGeneration:
    recipe = TextGenerationRecipe(model=hub.config, generation=generation_config(folder))
    task = TextGeneration(recipe, Tokenizer.load(_vocabulary(folder)))
    hub.fill(task.model)
    return task


def _text_task(folder: Path, hub: HubModel) -> TextTask:
    config = hub.config
    if not config.heads:
        config = dataclasses.replace(config, heads={"vector": HeadConfig(kind="vector", pooling="mean")})
    ((_, head),) = config.heads.items()
    kind: type[TextTask] = task_class(_TASKS[head.kind])  # type: ignore[assignment]
    recipe = kind.recipe_class.from_dict({"base": str(folder), "model": config.to_dict()})
    task = kind(recipe, TextTokenizer.load(_vocabulary(folder)))
    hub.fill(task.model)
    return task


def _vocabulary(folder: Path) -> Path:
    """Returns where a folder's tokenizer is.

    Raises:
        CheckpointError: If there is none.
    """
    path = folder / VOCABULARY
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {VOCABULARY}")
    return path


# Theirs where a checkpoint is silent, as transformers has it.
_DEFAULTS = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_length": 0,
}
_NEW_TOKENS = 20
# What is not known here, and what it is where it does nothing.
_LEFT_OUT = {"repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "typical_p": 1.0, "min_p": None}
# Our field -> theirs.
_GENERATION = {
    "beams": "num_beams",
    "length_penalty": "length_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "sample": "do_sample",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}


def generation_config(folder: Path) -> GenerationConfig:
    """Reads how a hub folder's model generates; where it is silent, as transformers does.

    Warns:
        UserWarning: If it asks for something that is not known here, which is left out.
    """
    theirs = _DEFAULTS | {name: value for name, value in read_generation(folder).items() if value is not None}
    for name, value in _LEFT_OUT.items():
        if theirs.get(name, value) != value:
            warnings.warn(f"{folder}: {name} is {theirs[name]!r}; it is not known here and left out", stacklevel=2)
    values: dict[str, Any] = {ours: theirs[name] for ours, name in _GENERATION.items()}
    if values["sample"]:
        values["beams"] = 1
    # Their min_length and max_length count the start token, ours do not; where theirs stop, ours have an end token yet.
    values["min_length"] = theirs.get("min_new_tokens", max(0, theirs["min_length"] - 1))
    values["max_length"] = theirs.get("max_length", _NEW_TOKENS + 1)
    if "max_new_tokens" in theirs:
        values["max_length"] = theirs["max_new_tokens"] + 1
    return GenerationConfig.from_dict({**values, "length_penalty_form": "power"})
