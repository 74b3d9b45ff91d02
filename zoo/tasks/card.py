"""Model cards: from a finished run to a preset that can be shipped, with its scores and a README.

python -m zoo.tasks.card runs/en-de zoo/presets/translation-multi30k-en-de
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

import zoo
from zoo.files import replacing
from zoo.presets import read_card
from zoo.tasks.task import CHECKPOINT

SAMPLES = 10


def publish(run: Path, folder: Path) -> dict[str, Any]:
    """Makes a preset of a run: float16 weights, scores of those very weights, samples, README.

    What people wrote into the folder's preset.json is kept: title, command, machine, data, licence, limits, demo,
    "splits", which names what is scored, "headline", the metric that stands for the preset, "scoring", what is to be
    known of the scores, "recipe_changes", fields of the recipe that were chosen on the dev examples after training
    (such as "generation"), and "steps" and "minutes" where the run counts not all of them; all else is measured here.

    Args:
        run: A folder that `zoo train --out` wrote.
        folder: The preset's folder, which holds at least the handwritten part of preset.json.

    Returns:
        The card.
    """
    written = json.loads((folder / "preset.json").read_text(encoding="utf-8"))
    task = zoo.load(run)
    for field, changes in written.get("recipe_changes", {}).items():
        changed = dataclasses.replace(getattr(task.recipe, field), **changes)
        task.recipe = dataclasses.replace(task.recipe, **{field: changed})
    task.card = {name: value for name, value in written.items() if name != "recipe"}
    task.save(folder, dtype="float16")
    task = zoo.load(folder)
    with safetensors.safe_open(run / CHECKPOINT, framework="numpy") as file:
        position = json.loads(file.metadata()["position"])

    task.card = {
        **task.card,
        "parameters": task.model.count_params(),
        "saved_parameters": sum(math.prod(weight.shape) for weight in task.saved_weights.values()),
        "seed": task.recipe.training.seed,
        "steps": written.get("steps", position["step"]),
        "minutes": written.get("minutes", round(position["seconds"] / 60)),
    }
    scores: dict[str, dict[str, float]] = {}
    signatures: dict[str, str] = {}
    for split in written["splits"]:
        examples = zoo.data.load(task.recipe.source, split)
        for name, settings in task.ways.items():
            metrics = task.evaluate(examples, **settings)
            signatures = metrics.pop("signatures", {})
            column = f"{split}, {name}" if name else split
            scores[column] = {metric: round(value, 2) for metric, value in metrics.items()}
            print(column, scores[column], flush=True)
        for name in task.baselines:
            metrics = task.evaluate_baseline(name, examples)
            scores[f"{split}, {name}"] = {m: round(v, 2) for m, v in metrics.items() if m != "signatures"}
    best = f"{written['splits'][0]}, {list(task.ways)[-1]}".removesuffix(", ")
    task.card = {
        **task.card,
        "score": {f"{written['headline']} ({written['splits'][0]})": scores[best][written["headline"]]},
        "scores": scores,
        "signatures": signatures,
        "samples": task.samples(zoo.data.load(task.recipe.source, written["splits"][0])[:SAMPLES]),
    }
    task.save(folder, dtype="float16")
    write_readme(folder)
    return read_card(folder)


def write_readme(folder: Path) -> None:
    """Writes a preset's README.md from its preset.json."""
    card = read_card(folder)
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(_readme(folder.name, card), encoding="utf-8")


def _readme(name: str, card: Mapping[str, Any]) -> str:
    parameters = f"{card['parameters'] / 1e6:.2f} M parameters"
    if card["saved_parameters"] < card["parameters"]:
        parameters += f", of which {card['saved_parameters'] / 1e6:.2f} M were learned here and are shipped"
    return f"""# {name}

{card["title"]}

```python
import zoo

task = zoo.load("{name}")
task({json.dumps(card.get("example", card["demo"][0]), ensure_ascii=False)})
```

- {parameters}, float16 on disk
- Model: {_sizes(card["recipe"]["model"])}
- Data: {card["data"]}
- Licence of the data: {card["licence"]}
- Limits: {card["limits"]}

## Scores

{_table(card["scores"])}

Of the float16 weights shipped here. {card["scoring"]} Nothing was tuned on a test split. To repeat a column:

```sh
zoo evaluate {name} --data {card["recipe"]["source"].partition("+")[0]} --split {card["splits"][0]} --json
```

{"".join(f"- {metric}: `{signature}`" + chr(10) for metric, signature in card["signatures"].items())}
## Training

{card["steps"]} steps, {card["minutes"]} minutes on {card["machine"]}, seed {card["seed"]}:

```sh
{card["command"]}
```

## The first {len(card["samples"])} examples of {card["splits"][0]}, uncurated

| input | output | reference |
|---|---|---|
{chr(10).join(f"| {_cell(s['input'])} | {_cell(s['output'])} | {_cell(s['reference'])} |" for s in card["samples"])}
"""


def _sizes(model: Mapping[str, Any]) -> str:
    """Names the sizes of a model's configuration."""
    found = []
    for name, value in model.items():
        if isinstance(value, dict) and name != "heads":
            found.append(_sizes(value))
        elif name == "vocabulary_size" or (name.endswith(("width", "layers", "heads")) and isinstance(value, int)):
            found.append(f"{name.replace('num_', '').replace('_', ' ')} {value}")
    return ", ".join(found)


def _table(scores: Mapping[str, Mapping[str, float]]) -> str:
    metrics = list(dict.fromkeys(metric for column in scores.values() for metric in column))
    rows = [f"| {m} | " + " | ".join(f"{c[m]:.2f}" if m in c else "" for c in scores.values()) + " |" for m in metrics]
    return "\n".join([f"| | {' | '.join(scores)} |", "|---|" + "---|" * len(scores), *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    publish(options.run, options.folder)
