"""zoo: prebuilt Keras models for text and images, on one attention core.

    import zoo

    translator = zoo.load("translation-multi30k-en-de")
    translator(["Two dogs play in the snow."])

Importing zoo does no work: TensorFlow is loaded with the first model, data set or layer.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.tasks.task import Task

__version__ = "0.1.0"

__all__ = ["__version__", "list_models", "load"]

_ROOMS = (
    "attention", "checkpoints", "config", "data", "generation", "layers", "metrics", "models", "tasks", "training",
)  # fmt: skip


def load(name: str | Path) -> "Task":
    """Loads a preset as a task that is ready to use.

    Args:
        name: A shipped preset's name (see list_models); a folder that a task's save() or `zoo train --out` wrote; or a
            model of the Hugging Face hub, "hf://owner/name" or a folder that holds one.

    Returns:
        The task: callable, with its Keras model as `.model`.

    Raises:
        FileNotFoundError: If there is no such preset; it names the nearest.
        ValueError: If the folder's files do not fit together.
    """
    from zoo.presets import CARD, find, read_card
    from zoo.tasks import task_class

    folder = find(name)
    if not (folder / CARD).is_file():
        from zoo.tasks.hub import load_hub

        return load_hub(folder)
    return task_class(read_card(folder)["recipe"]["task"]).load(folder)


def list_models(task: str | None = None) -> list[str]:
    """Lists the shipped presets.

    Args:
        task: Only those of this task.

    Returns:
        Names that load() takes.
    """
    from zoo.presets import read_card, shipped

    return [name for name, folder in shipped().items() if task in (None, read_card(folder)["recipe"]["task"])]


def __getattr__(name: str) -> Any:
    """Imports zoo.attention, zoo.data ... when they are first asked for."""
    if name in _ROOMS:
        return importlib.import_module(f"zoo.{name}")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
