"""What tasks share whose models come trained, from the hub, and are not trained here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self, TypeVar

import keras

from zoo.config import ConfigError
from zoo.tasks.task import Task, TaskRecipe
from zoo.training import TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedRecipe(TaskRecipe):
    """A recipe without training data: see TaskRecipe."""

    source: str = ""
    training: TrainingConfig = TrainingConfig()


Recipe = TypeVar("Recipe", bound=TaskRecipe)


class Pretrained(Task[Recipe]):
    """A task that only uses its model; whoever wants to train it is told so."""

    @classmethod
    def refuse_training(cls, name: str) -> NoReturn:
        """Raises a ConfigError that says where the task's models come from."""
        raise ConfigError(f"{name}: it is not trained here; zoo.load() takes its models from the hub, hf://owner/name")

    @classmethod
    def from_examples(cls, recipe: Recipe, examples: Sequence[Mapping[str, Any]]) -> Self:
        cls.refuse_training(recipe.task)

    def fit(self, *arguments: Any, **settings: Any) -> NoReturn:
        self.refuse_training(self.recipe.task)

    def batches(self, examples: Sequence[Mapping[str, Any]], seed: int = 0) -> NoReturn:
        self.refuse_training(self.recipe.task)

    def batch_outline(self, rows: int) -> NoReturn:
        self.refuse_training(self.recipe.task)

    def loss(self, model: keras.Model, batch: Mapping[str, Any], training: bool) -> NoReturn:
        self.refuse_training(self.recipe.task)
