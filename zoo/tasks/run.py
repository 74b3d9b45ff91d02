"""From a recipe's name to a task that is ready to be trained."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.config import ConfigError
from zoo.files import replacing
from zoo.presets import find, read_card
from zoo.tasks import TASKS, check_recipe_name, task_class
from zoo.tasks.pretrained import Pretrained
from zoo.tasks.task import CHECKPOINT, Task, TaskRecipe

# What a run was asked for, and what its task made of that: the classes, and the sizes of a pretrained model.
RECIPE = "recipe.json"


def read_recipe(name: str, source: str | None = None, assignments: Sequence[str] = ()) -> TaskRecipe:
    """Finds a recipe and changes fields of it.

    Args:
        name: A task (its default recipe), a preset (the recipe it was made with), or a JSON file.
        source: The training data, instead of the recipe's own.
        assignments: Texts such as "training.steps=100".

    Raises:
        ConfigError: If there is no such recipe or field (it names the nearest), or its task is not trained here.
    """
    check_recipe_name(name)
    values: dict[str, Any]
    if name in TASKS:
        values = {"task": name}
    elif name.endswith(".json"):
        values = _read_json(name)
        values = values.get("recipe", values)
    else:
        values = read_card(find(name))["recipe"]
    if "task" not in values:
        raise ConfigError(f'{name}: it names no task; add "task": one of {", ".join(TASKS)}')
    kind = task_class(values["task"])
    if issubclass(kind, Pretrained):
        kind.refuse_training(values["task"])
    recipe = kind.recipe_class.from_dict(values)
    return recipe.override([*([f"source={json.dumps(source)}"] if source else []), *assignments])


def _read_json(name: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{name}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: it takes a JSON object")
    return values


def open_run(
    recipe: TaskRecipe,
    examples: Sequence[Mapping[str, str]],
    out: Path | None = None,
    init: str | None = None,
    writes: bool = True,
) -> Task:
    """Makes the task that a run trains, or opens the run that `out` already holds.

    Args:
        recipe: What to make.
        examples: The training examples, from which a new vocabulary is learned.
        out: The run's folder; nothing is written where None.
        init: A preset whose vocabulary and weights the run begins with.
        writes: Whether `out` is begun where it is new, or left to another process.

    Raises:
        ConfigError: If `out` holds a run of another recipe, or `init` is of other sizes.
    """
    task_type = task_class(recipe.task)
    recorded = None if out is None else out / RECIPE
    if out is not None and recorded is not None and recorded.exists():
        earlier = _read_json(str(recorded))
        if task_type.recipe_class.from_dict(earlier["recipe"]) != recipe:
            field = _first_difference(earlier["recipe"], recipe.to_dict())
            raise ConfigError(f"--out {out}: it holds a run of another recipe ({field}); give another folder")
        if (out / CHECKPOINT).exists():
            return task_type.from_vocabulary(task_type.recipe_class.from_dict(earlier["completed"]), out, {})
        # Nothing was learned yet: begun anew, the run also has what it was to begin with.
    if init is None:
        task = task_type.from_examples(recipe, examples)
    else:
        task = task_type.load(find(init))
        if task.recipe.model != recipe.model:
            field = _first_difference(task.recipe.model.to_dict(), recipe.model.to_dict(), "model.")
            raise ConfigError(f"--init {init}: its model has other sizes ({field}); train the recipe {init!r} itself")
        task.recipe = recipe
    if out is not None and recorded is not None and writes:
        out.mkdir(parents=True, exist_ok=True)
        task.save_vocabulary(out)
        with replacing(recorded) as temporary:
            both = {"recipe": recipe.to_dict(), "completed": task.recipe.to_dict()}
            temporary.write_text(json.dumps(both, indent=2) + "\n", encoding="utf-8")
    return task


def _first_difference(earlier: dict, now: dict, prefix: str = "") -> str:
    for name, value in now.items():
        if earlier.get(name) != value:
            if isinstance(value, dict):
                return _first_difference(earlier[name], value, f"{prefix}{name}.")
            return f"{prefix}{name} was {earlier.get(name)!r}, is {value!r}"
    raise ValueError("the two are equal")
