"""Model cards: from a finished run to a preset that can be shipped, with its scores and a README.

python -m zoo.tasks.card runs/en-de zoo/presets/translation-multi30k-en-de
python -m zoo.tasks.card zoo/presets/translation-multi30k-en-de    writes the README.md again and measures nothing
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
from zoo.presets import read_card, shipped, stored_bytes
from zoo.tasks.task import CHECKPOINT

SAMPLES = 10


def publish(run: Path, folder: Path) -> dict[str, Any]:
    """Makes a preset of a run: float16 weights, scores of those very weights, samples, README.

    What people wrote into the folder's preset.json is kept: title, command, machine, data, licence, limits, biases,
    demo, "needs", what is not shipped, "splits", which names what is scored, "headline", the metric that stands for
    the preset, "scoring", what is to be known of the scores, "recipe_changes", fields of the recipe that were chosen
    on the dev examples after training (such as "generation"), and "steps" and "minutes" where the run counts not all
    of them; all else is measured here.

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
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(readme(folder), encoding="utf-8")


def presets_table(link: str) -> str:
    """Writes the shipped presets as a table in Markdown.

    Args:
        link: Where a preset's card is, with "NAME" for its name.

    Returns:
        The table's lines.
    """
    rows = ["| preset | what it does | parameters | on disk | trained in | score |", "|---|---|---|---|---|---|"]
    for name, folder in shipped().items():
        card = read_card(folder)
        metric, split = card["headline"], card["splits"][0]
        cells = (
            f"[`{name}`]({link.replace('NAME', name)})",
            card["title"],
            _count(card),
            _megabytes(folder),
            f"{card['minutes']} minutes",
            f"{card['score'][f'{metric} ({split})']:.1f} `{metric}` on {split}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _count(card: Mapping[str, Any]) -> str:
    """Says how many parameters there are, and how many are new where a pretrained model stays as it is."""
    count = f"{card['parameters'] / 1e6:.2f} M"
    if card["saved_parameters"] < card["parameters"]:
        count += f", {card['saved_parameters'] / 1e6:.2f} M learned here"
    return count


def _megabytes(folder: Path) -> str:
    return f"{stored_bytes(folder) / 1e6:.1f} MB"


def readme(folder: Path) -> str:
    """Writes what the README.md of a preset says."""
    name, card = folder.name, read_card(folder)
    return f"""# {name}

{card["title"]}{" " + card["needs"] if "needs" in card else ""}

<!-- not run: make demo runs every preset -->
```python
import zoo

task = zoo.load("{name}")
task({json.dumps(card.get("example", card["demo"][0]), ensure_ascii=False)})
```

- Parameters: {_count(card)}; {_megabytes(folder)} in float16 on disk
- Model: {_sizes(card["recipe"]["model"])}
- Data: {card["data"]}
- Licence of the data: {card["licence"]}
- Limits: {card["limits"]}
- Biases: {card["biases"]}

## Scores

{_table(card["scores"])}

Of the float16 weights shipped here. {card["scoring"]} Nothing was tuned on a test split.

To repeat the scores of {card["splits"][0]} with the preset's own settings (`--split` and `--set` give the others):

<!-- not run: it needs the data -->
```sh
zoo evaluate {name} --data {card["recipe"]["source"].partition("+")[0]} --split {card["splits"][0]} --json
```

{"".join(f"- {metric}: `{signature}`" + chr(10) for metric, signature in card["signatures"].items())}
## Training

{card["steps"]} steps, {card["minutes"]} minutes on {card["machine"]}, seed {card["seed"]}:

<!-- not run: it needs the data and {card["minutes"]} minutes -->
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
    return ", ".join(filter(None, found))


def _table(scores: Mapping[str, Mapping[str, float]]) -> str:
    metrics = list(dict.fromkeys(metric for column in scores.values() for metric in column))
    rows = [f"| {m} | " + " | ".join(f"{c[m]:.2f}" if m in c else "" for c in scores.values()) + " |" for m in metrics]
    return "\n".join([f"| | {' | '.join(scores)} |", "|---|" + "---|" * len(scores), *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("\t", ", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.run is None:
        write_readme(options.folder)
    else:
        publish(options.run, options.folder)
