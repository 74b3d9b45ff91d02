"""Going on from a trained model: its vocabulary, its sizes and its weights for another task from text to text."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints import by_path, load_base
from zoo.config import ConfigError
from zoo.data.tokenizers import Tokenizer
from zoo.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from zoo.presets import find, is_hub_folder, read_card
from zoo.tasks import task_class
from zoo.tasks.task import WEIGHTS

# What a model may have that its base has not, or the other way around.
HEADS = ("copying/", "copy_context/")


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
        if is_hub_folder(self.folder):
            raise ConfigError(
                f"base {name!r}: a model of the hub; give a preset, or a folder that `zoo train --out` wrote"
            )
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
        free = ["dropout", "attention_dropout", "feedforward_dropout", "copying"]
        free += ["max_length"] if self.sizes.positions == "sinusoidal" else []
        return dataclasses.replace(self.sizes, **{name: getattr(wanted, name) for name in free})

    def fill(self, model: EncoderDecoder) -> None:
        """Reads the weights; new tokens, and a head that the base has not, keep what they began with.

        Raises:
            CheckpointError: If a weight is missing, left over or misshapen.
        """
        load_base(self.folder / WEIGHTS, by_path(model.weights), optional=HEADS, growing="embedding/embeddings")
