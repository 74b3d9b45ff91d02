"""From a folder of the Hugging Face hub to a task that is ready to use."""

import dataclasses
from pathlib import Path

from zoo.checkpoints import CheckpointError
from zoo.checkpoints.hub import open_hub_folder
from zoo.data.texts import TextTokenizer
from zoo.models.encoder import HeadConfig
from zoo.tasks import task_class
from zoo.tasks.task import Task
from zoo.tasks.text import VOCABULARY, TextTask

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
        folder: Holds config.json, tokenizer.json and weights.

    Returns:
        The task that the model's head answers; an embedding by the mean of its tokens where it has none.

    Raises:
        CheckpointError: If the family is not known, the weights do not fit, or there is no tokenizer.
    """
    hub = open_hub_folder(folder)
    if not (folder / VOCABULARY).is_file():
        raise CheckpointError(f"{folder}: no {VOCABULARY}")
    config = hub.config
    if not config.heads:
        config = dataclasses.replace(config, heads={"vector": HeadConfig(kind="vector", pooling="mean")})
    ((_, head),) = config.heads.items()
    kind: type[TextTask] = task_class(_TASKS[head.kind])  # type: ignore[assignment]
    recipe = kind.recipe_class.from_dict({"base": str(folder), "model": config.to_dict()})
    task = kind(recipe, TextTokenizer.load(folder / VOCABULARY))
    hub.fill(task.model)
    return task
