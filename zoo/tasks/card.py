"""Model cards: from a finished run to a preset that can be shipped, with its scores and a README.

python -m zoo.tasks.card runs/en-de zoo/presets/translation-multi30k-en-de
"""

import argparse
import dataclasses
import json
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

    What people wrote into the folder's preset.json is kept: title, command, data, licence, limits, demo, "generation",
    the settings that were chosen on the dev examples, and "splits", which names what is scored; all else is measured
    here.

    Args:
        run: A folder that `zoo train --out` wrote.
        folder: The preset's folder, which holds at least the handwritten part of preset.json.

    Returns:
        The card.
    """
    written = json.loads((folder / "preset.json").read_text(encoding="utf-8"))
    task = zoo.load(run)
    generation = dataclasses.replace(task.recipe.generation, **written.get("generation", {}))
    task.recipe = dataclasses.replace(task.recipe, generation=generation)
    task.save(folder, dtype="float16")
    task = zoo.load(folder)
    with safetensors.safe_open(run / CHECKPOINT, framework="numpy") as file:
        position = json.loads(file.metadata()["position"])

    scores: list[dict[str, Any]] = []
    samples: list[dict[str, str]] = []
    for split in written["splits"]:
        examples = zoo.data.load(task.recipe.source, split)
        for search in ({"beams": 1}, {}):
            metrics = task.evaluate(examples, **search)
            signatures = metrics.pop("signatures")
            row = {name: round(value, 2) for name, value in metrics.items()}
            scores.append({"split": split, "beams": search.get("beams", task.recipe.generation.beams), **row})
        if not samples:
            first = examples[:SAMPLES]
            outputs = task([example["source"] for example in first])
            samples = [{**example, "output": output} for example, output in zip(first, outputs)]

    best = scores[1]
    task.card = {
        **{name: value for name, value in written.items() if name != "recipe"},
        "parameters": task.model.count_params(),
        "seed": task.recipe.training.seed,
        "steps": position["step"],
        "minutes": written.get("minutes", round(position["seconds"] / 60)),
        "score": {f"bleu ({best['split']})": best["bleu"]},
        "scores": scores,
        "signatures": signatures,
        "samples": samples,
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
    size = card["recipe"]["model"]
    metrics = [key for key in card["scores"][0] if key not in ("split", "beams")]
    rows = "\n".join(
        f"| {row['split']} | {row['beams']} | " + " | ".join(f"{row[m]:.2f}" for m in metrics) + " |"
        for row in card["scores"]
    )
    signatures = "\n".join(f"- {metric}: `{signature}`" for metric, signature in card["signatures"].items())
    samples = "\n".join(
        f"| {_cell(s['source'])} | {_cell(s['output'])} | {_cell(s['target'])} |" for s in card["samples"]
    )
    return f"""# {name}

{card["title"]}

```python
import zoo

task = zoo.load("{name}")
task({json.dumps(card["demo"][0], ensure_ascii=False)})
```

- {card["parameters"] / 1e6:.2f} M parameters, float16 on disk: {size["num_encoder_layers"]} + \
{size["num_decoder_layers"]} layers, width {size["width"]}, {size["num_heads"]} heads, vocabulary \
{size["vocabulary_size"]}
- Data: {card["data"]}
- Licence of the data: {card["licence"]}
- Limits: {card["limits"]}

## Scores

| split | beams | {" | ".join(metrics)} |
|---|---|{"---|" * len(metrics)}
{rows}

Of the float16 weights shipped here; beams and length penalty ({card["recipe"]["generation"]["length_penalty"]}) were
chosen on the validation split. BLEU and chrF from 0 to 100, the loss in nats a token. Nothing was tuned on a
test split. To repeat a row:

```sh
zoo evaluate {name} --data {card["recipe"]["source"]} --split {card["scores"][0]["split"]} --set beams=1 --json
```

{signatures}

## Training

{card["steps"]} steps, {card["minutes"]} minutes on {card["machine"]}, seed {card["seed"]}:

```sh
{card["command"]}
```

## The first {len(card["samples"])} sentences of {card["scores"][0]["split"]}, uncurated

| source | output | reference |
|---|---|---|
{samples}
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(json.dumps(publish(options.run, options.folder)["scores"], indent=2))
