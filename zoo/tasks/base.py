"""Going on from a trained model: its vocabulary, its sizes and its weights for another task from text to text."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from zoo.checkpoints import by_path, load_base
from zoo.checkpoints.hub import HubModel, open_hub_folder, read_config
from zoo.config import ConfigError
from zoo.data.hub_texts import read_hub_vocabulary, with_languages
from zoo.data.tokenizers import Tokenizer
from zoo.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from zoo.presets import CARD, find, read_card
from zoo.tasks import task_class
from zoo.tasks.task import WEIGHTS
from zoo.tasks.text_to_text import TextToText

# What a model may have that its base has not, or the other way around.
HEADS = ("copying/", "copy_context/")
AnyTask = TypeVar("AnyTask", bound=TextToText)


def begin(kind: type[AnyTask], recipe: Any, special: Sequence[str] = ()) -> AnyTask:
    """Makes a task that goes on from recipe.base.

    Args:
        kind: The task's class.
        recipe: Its recipe; of the model's sizes only those count that weights do not depend on.
        special: Special tokens that the vocabulary shall have; that of a model of the hub stays as it is.

    Raises:
        FileNotFoundError: If there is no such base.
        ConfigError: If it holds no encoder-decoder that can be gone on from.
    """
    folder = find(recipe.base)
    if not (folder / CARD).is_file():
        return begin_with_hub(kind, recipe, folder, open_hub_folder(folder))
    base = Base(recipe.base)
    task = kind(dataclasses.replace(recipe, model=base.model(recipe.model)), base.tokenizer(special))
    base.fill(task.model)
    return task


def begin_with_hub(kind: type[AnyTask], recipe: Any, folder: Path, hub: HubModel) -> AnyTask:
    """Makes a task that goes on from a model of the hub; see begin().

    Args:
        kind, recipe: As for begin().
        folder: The model's.
        hub: The model, as open_hub_folder() gives it.

    Raises:
        ConfigError: If the folder holds no model from text to text.
        CheckpointError: If its weights do not fit.
        VocabularyError: If it has no tokenizer.
    """
    family = read_config(folder)["model_type"]
    if not isinstance(hub.config, EncoderDecoderConfig):
        raise ConfigError(f"base {recipe.base!r}: {family} is no model from text to text")
    vocabulary = read_hub_vocabulary(folder, family)
    special = dataclasses.replace(
        hub.config.special_tokens, source_start=vocabulary.source_start, source_end=vocabulary.source_end
    )
    languages = (getattr(recipe, f"{side}_language", None) for side in ("source", "target"))
    special = with_languages(special, vocabulary.source, *languages)
    dropouts = {name: getattr(recipe.model, name) for name in ("dropout", "attention_dropout", "feedforward_dropout")}
    sizes = dataclasses.replace(hub.config, special_tokens=special, **dropouts)
    recipe = dataclasses.replace(recipe, model=sizes, hub=True)
    task = kind(recipe, vocabulary.source, vocabulary.target)
    hub.fill(task.model)
    return task


class Base:
    """A preset, or a run's folder, whose model is to be trained further.

    Args:
        name: The preset's name or the folder.

    Raises:
        FileNotFoundError: If there is none.
        ConfigError: If it holds no encoder-decoder of one vocabulary.
    """

    def __init__(self, name: str):
        self.name = name
        self.folder: Path = find(name)
        recipe = read_card(self.folder)["recipe"]
        sizes = getattr(task_class(recipe["task"]).recipe_class.from_dict(recipe), "model", None)
        if not isinstance(sizes, EncoderDecoderConfig) or sizes.target_vocabulary_size is not None:
            raise ConfigError(
                f"base {name!r}: its task is {recipe['task']!r}; it takes an encoder-decoder whose source and target "
                "share one vocabulary, such as a denoiser"
            )
        self.sizes: EncoderDecoderConfig = sizes

    def tokenizer(self, special: Sequence[str]) -> Tokenizer:
        """Reads the vocabulary, and adds special tokens that it lacks."""
        return Tokenizer.load(self.folder / "tokenizer.json").with_special(special)

    def model(self, wanted: EncoderDecoderConfig) -> EncoderDecoderConfig:
        """Returns the base's sizes, with what weights do not depend on, and the copying head, as wanted."""
        free = ["dropout", "attention_dropout", "feedforward_dropout", "copying", "window", "global_tokens"]
        free += ["max_length"] if self.sizes.positions == "sinusoidal" else []
        return dataclasses.replace(self.sizes, **{name: getattr(wanted, name) for name in free})

    def fill(self, model: EncoderDecoder) -> None:
        """Reads the weights; new tokens, and a head that the base has not, keep what they began with.

        Raises:
            CheckpointError: If a weight is missing, left over or misshapen.
        """
        load_base(self.folder / WEIGHTS, by_path(model.weights), optional=HEADS, growing="embedding/embeddings")
