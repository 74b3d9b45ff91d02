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
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.models.vision_encoder import VisionEncoderConfig
from zoo.tasks import task_class
from zoo.tasks.base import begin_with_hub
from zoo.tasks.hub_captioning import HubCaptioning, HubCaptioningRecipe
from zoo.tasks.image_classification import ImageClassification, ImageClassificationRecipe
from zoo.tasks.task import Task
from zoo.tasks.text import VOCABULARY, TextTask
from zoo.tasks.text_generation import TextGeneration, TextGenerationRecipe
from zoo.tasks.text_to_text import TextToText

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
        The task that the model answers: captions, more text, what its head says, or, from text to text, what its family
        most often does; an embedding by the mean of its tokens where an encoder of texts has no head.

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
    if isinstance(hub.config, EncoderDecoderConfig):
        return _text_to_text(folder, hub)
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


def _text_to_text(folder: Path, hub: HubModel) -> Task:
    kind: type[TextToText] = task_class(hub.task)  # type: ignore[assignment]
    longest = hub.config.max_length
    recipe = {
        "base": str(folder),
        # Pairs of all lengths that the model takes are scored.
        "batching": {"buckets": [[min(64, longest)] * 2, [longest] * 2], "batch_tokens": max(4096, longest)},
        "generation": generation_config(folder, longest=None).to_dict(),
    }
    return begin_with_hub(kind, kind.recipe_class.from_dict(recipe), folder, hub)


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
_DEFAULTS: dict[str, Any] = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "renormalize_logits": False,
    "no_repeat_ngram_size": 0,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": (),
}
# What is not known here, and what it is where it does nothing.
_LEFT_OUT: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "typical_p": 1.0,
    "min_p": None,
}
# Our field -> theirs.
_GENERATION = {
    "beams": "num_beams",
    "length_penalty": "length_penalty",
    "renormalize": "renormalize_logits",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "sample": "do_sample",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}


def generation_config(folder: Path, longest: int | None = 20) -> GenerationConfig:
    """Reads how a hub folder's model generates; where it is silent, as transformers does.

    Args:
        folder: The model's.
        longest: Most tokens of a target where it does not say; None for the zoo's own.

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
    stops = {True: "full", False: "heuristic"}
    # Two of their lengths count the start token.
    most = theirs["max_length"] - 1 if "max_length" in theirs else longest
    return GenerationConfig.from_dict(
        {
            **values,
            "length_penalty_form": "power",
            "early_stopping": stops.get(theirs["early_stopping"], theirs["early_stopping"]),
            "late_ends": False,
            "min_length": max(theirs["min_length"] - 1, theirs["min_new_tokens"], 0),
            "max_length": theirs.get("max_new_tokens", most),
            "force_end": "forced_eos_token_id" in theirs,
            # Those of one token are special tokens that never occur.
            "bad_words": [word for word in theirs["bad_words_ids"] if len(word) > 1],
        }
    )
