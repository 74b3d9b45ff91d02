"""Tasks: text in, text or label out. TASKS maps each name to where its class lives; nothing is imported before use."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config import ConfigError, nearest
from zoo.presets import shipped

if TYPE_CHECKING:
    from zoo.tasks.task import Task

TASKS = {
    "translation": "zoo.tasks.translation:Translation",
    "classification": "zoo.tasks.classification:Classification",
    "tagging": "zoo.tasks.tagging:Tagging",
    "question_answering": "zoo.tasks.question_answering:QuestionAnswering",
    "embedding": "zoo.tasks.embedding:Embedding",
    "multitask": "zoo.tasks.multitask:Multitask",
    "summarization": "zoo.tasks.summarization:Summarization",
    "denoising": "zoo.tasks.denoising:Denoising",
    "captioning": "zoo.tasks.captioning:Captioning",
    "hub_captioning": "zoo.tasks.hub_captioning:HubCaptioning",
    "image_classification": "zoo.tasks.image_classification:ImageClassification",
    "text_generation": "zoo.tasks.text_generation:TextGeneration",
}


def task_class(name: str) -> "type[Task]":
    """Imports the class of a task.

    Raises:
        ConfigError: For an unknown task, naming the nearest.
    """
    if name not in TASKS:
        raise ConfigError(f"task: no task {name!r}; {nearest(name, TASKS)}")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_recipe_name(name: str) -> None:
    """Tells whether there is such a recipe, without importing TensorFlow.

    Raises:
        ConfigError: If there is none; it names the nearest.
    """
    if name not in TASKS and name not in shipped() and not name.endswith(".json") and not Path(name).is_dir():
        raise ConfigError(
            f"no recipe {name!r}: {nearest(name, [*TASKS, *shipped()])} (a recipe file's name ends with .json)"
        )


def as_line(report: Mapping[str, Any]) -> str:
    """Writes what a task reports of one input as a line: columns are separated by tabs."""
    output = report.get("output", "")
    if isinstance(output, dict):
        return "\t".join(f"{name}={' '.join(v) if isinstance(v, list) else v}" for name, v in output.items())
    columns = output if isinstance(output, list) else [str(output)]
    if "probability" in report:
        columns = [*columns, f"{report['probability']:.3f}"]
    return "\t".join(columns)
