"""From a run to a preset with a model card."""

import dataclasses
import json

import pytest
import safetensors.numpy

import zoo
from zoo.tasks.card import publish
from zoo.tasks.classification import Classification, ClassificationRecipe
from zoo.training import TrainingConfig

WRITTEN = {
    "title": "Tells good from bad.",
    "command": "zoo train classification --out runs/opinions",
    "machine": "two CPU cores",
    "data": "a toy",
    "licence": "none needed",
    "limits": "It knows a few words.",
    "biases": "It likes soup.",
    "needs": "Nothing is needed besides.",
    "demo": ["the soup was good"],
    "splits": ["test", "validation"],
    "headline": "accuracy",
    "scoring": "Of a hundred.",
    "recipe_changes": {"batching": {"buckets": [16, 48]}},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the handwritten part of a card, after publication; and the task that was published."""
    run, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("presets") / "opinions"
    recipe = ClassificationRecipe()
    sizes = dataclasses.replace(recipe.model.encoder, width=16, num_heads=2, feedforward_dim=16, num_layers=1)
    training = TrainingConfig(steps=3, evaluate_every=3, monitor="accuracy", label_smoothing=0.0, jit=False, seed=7)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, encoder=sizes), training=training)
    examples = zoo.data.load(recipe.source)[:64]
    task = Classification.from_examples(recipe, examples)
    task.fit(examples, examples[:8], out=run)
    folder.mkdir()
    (folder / "preset.json").write_text(json.dumps(WRITTEN), encoding="utf-8")
    publish(run, folder)
    return folder, zoo.load(run)


def test_a_card_holds_what_was_written_and_what_was_measured(published):
    folder, task = published
    card = json.loads((folder / "preset.json").read_text(encoding="utf-8"))
    assert {name: card[name] for name in WRITTEN} == WRITTEN
    assert (card["steps"], card["seed"]) == (3, 7)
    assert card["parameters"] == card["saved_parameters"] == task.model.count_params()
    assert len(card["samples"]) == 10


def test_scores_are_of_the_weights_that_are_shipped(published):
    folder, _ = published
    shipped = zoo.load(folder)
    assert {str(w.dtype) for w in safetensors.numpy.load_file(folder / "weights.safetensors").values()} == {"float16"}
    for split, scores in shipped.card["scores"].items():
        found = shipped.evaluate(zoo.data.load("toy:polarity", split))
        assert scores == {name: round(value, 2) for name, value in found.items()}
    assert shipped.card["score"] == {"accuracy (test)": shipped.card["scores"]["test"]["accuracy"]}
    assert shipped.recipe.batching.buckets == (16, 48)


def test_the_readme_tells_scores_and_how_to_repeat_them(published):
    folder, _ = published
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# opinions\n\nTells good from bad. Nothing is needed besides.\n")
    for said in ("Data: a toy", "Licence of the data: none needed", "Limits: It knows a few words.", "It likes soup."):
        assert said in readme
    megabytes = (folder / "weights.safetensors").stat().st_size / 1e6
    assert f"; {megabytes:.1f} MB in float16 on disk" in readme
    assert f"3 steps, {zoo.load(folder).card['minutes']} minutes on two CPU cores, seed 7" in readme
    assert "zoo evaluate opinions --data toy:polarity --split test --json" in readme
    assert "zoo train classification --out runs/opinions" in readme
    accuracies = " | ".join(f"{scores['accuracy']:.2f}" for scores in zoo.load(folder).card["scores"].values())
    assert f"| | test | validation |\n|---|---|---|\n| accuracy | {accuracies} |" in readme
