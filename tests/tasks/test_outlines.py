"""What tasks say of the shapes of their batches, against batches."""

import copy
import dataclasses

import numpy as np
import pytest

from zoo.data import load_train_and_dev
from zoo.tasks import task_class
from zoo.tasks.reward import RewardConfig

SMALL = {
    "translation": ["model.width=16", "model.num_encoder_layers=1", "model.num_decoder_layers=1"],
    "multitask": ["model.encoder.width=16", "model.encoder.num_layers=1"],
    "captioning": ["model.width=16", "model.num_decoder_layers=1", "vision.vit.num_layers=1", "images.size=[64,64]"],
}


@pytest.fixture(scope="module", params=SMALL)
def made(request):
    """A task, and the examples that it was made from."""
    kind = task_class(request.param)
    recipe = kind.recipe_class().override(SMALL[request.param])
    examples = load_train_and_dev(recipe.source)[0][:32]
    return kind.from_examples(recipe, examples), examples


def test_an_outline_is_a_batch_of_the_longest_rows_without_its_numbers(made):
    task, examples = made
    batches = task.batches(examples)
    rows = batches.batch_rows[-1] if hasattr(batches, "batch_rows") else batches.config.batch_size
    batch = batches.batch(len(batches.config.buckets) - 1, [0] if "captions" in examples[0] else [])
    outline = task.batch_outline(rows)
    assert {name: (x.shape, str(x.dtype)) for name, x in outline.items()} == {
        name: (x.shape, str(x.dtype)) for name, x in batch.items()
    }


def test_programs_come_with_arguments_for_as_many_inputs_as_asked(made):
    task, _ = made
    for program in task.programs(8).values():
        first = program.arguments[0]
        assert isinstance(first, np.ndarray)
        assert len(first) == 8


def test_products_are_those_of_weights_and_places_and_those_of_attention(made, monkeypatch):
    task, _ = made
    if hasattr(task, "vision"):
        assert task.products(task.batch_outline(4)) is None  # of what sees nobody has counted any
        monkeypatch.setattr(task, "recipe", dataclasses.replace(task.recipe, trained="none"))
    batch = task.batch_outline(4)
    writes = "target" in batch
    seen = next(batch[name] for name in ("source", "features", "tokens") if name in batch).shape[1]
    places = {"encoder": seen, "feature_encoder": seen, "feature_projection": seen}
    places["decoder"] = places["embedding"] = batch["target"].shape[1] if writes else 0  # the table scores too
    expected = 0
    for weight in task.model.weights:
        part, _, rest = weight.path.partition("/")
        if weight.path.endswith("_logits/kernel"):
            expected += 2 * np.prod(weight.shape) * (seen if part == "slots_logits" else 0)
        elif len(weight.shape) == 2:
            over = seen if "cross_attention/key" in rest or "cross_attention/value" in rest else places[part]
            expected += 2 * np.prod(weight.shape) * over
        if rest.endswith("attention/query/kernel"):
            looked_at = seen if "cross_attention" in rest else places[part]
            expected += 2 * 2 * weight.shape[1] * places[part] * looked_at
    assert task.products(batch) == 3 * 4 * expected


@pytest.mark.parametrize("made", ["multitask"], indirect=True)
def test_frozen_weights_need_no_gradients_and_adapted_ones_only_what_goes_through(made):
    task, _ = made
    batch, passes = task.batch_outline(4), {}
    for method in ("full", "lora", "frozen"):
        other = copy.copy(task)
        other.recipe = dataclasses.replace(task.recipe, adapt=dataclasses.replace(task.recipe.adapt, method=method))
        passes[method] = other.products(batch)
    assert [passes["full"] / count for count in passes.values()] == [1, 1.5, 3]


@pytest.mark.parametrize("made", ["captioning"], indirect=True)
def test_the_outline_of_rewarded_captions_holds_all_draws(made, monkeypatch):
    task, _ = made
    monkeypatch.setattr(task, "recipe", dataclasses.replace(task.recipe, reward=RewardConfig(samples=5)))
    outline = task.batch_outline(4)
    assert outline["advantages"].shape == (4, 5 * task.recipe.model.max_length)
    assert outline["features"].shape == (4, *task.vision.output_shape[1:])
