"""Every task with a small model, and its programs, compiled once for each slice of chips.

`make test-tpu` runs these tests, in an environment of their own; no TPU is needed.
"""

import functools
import importlib.util
from pathlib import Path

import pytest

from zoo.ahead.programs import abstractly, compile_programs, compile_training_step, training_step
from zoo.data import load_train_and_dev
from zoo.data.tokenizers import Tokenizer
from zoo.tasks import TASKS, task_class
from zoo.tasks.pretrained import Pretrained

ONE_LAYER = ["model.width=128", "model.num_encoder_layers=1", "model.num_decoder_layers=1"]
ONE_VIT_LAYER = ["vit.width=128", "vit.num_heads=4", "vit.feedforward_dim=512", "vit.num_layers=1"]
ONE_VISION_LAYER = [f"vision.{size}" for size in ONE_VIT_LAYER]
# Of each task what makes it small; rows of its batches are as long as ever.
SMALL = {
    "translation": ONE_LAYER,
    "summarization": ONE_LAYER,
    "denoising": ONE_LAYER,
    "captioning": [*ONE_LAYER, *ONE_VISION_LAYER],
    "hub_captioning": ["model.width=128", "model.num_layers=1", "model.feature_width=128", *ONE_VISION_LAYER],
    "image_classification": [f"model.{size}" for size in ONE_VIT_LAYER],
    "text_generation": ["model.width=128", "model.num_layers=1", "model.max_length=128"],
}
ROWS = 64


def pytest_collection_modifyitems(items):
    """Lets one process run all tests of a task, so that none is compiled twice."""
    for item in items:
        name = item.callspec.params.get("name") if hasattr(item, "callspec") else None
        if name is not None:
            item.add_marker(pytest.mark.xdist_group(name))


@functools.cache
def made(name):
    """A task, and the step that trains it where there is one."""
    kind = task_class(name)
    recipe = kind.recipe_class().override(SMALL.get(name, ["model.encoder.num_layers=1"]))

    def make():
        if not issubclass(kind, Pretrained):
            task = kind.from_examples(recipe, examples)
            return task, training_step(task) if name != "embedding" else None
        return kind(recipe, tokenizer) if name != "image_classification" else kind(recipe), None

    if issubclass(kind, Pretrained):
        tokenizer = Tokenizer.train(["a few words for a small vocabulary"], 0)
        if hasattr(recipe.model, "vocabulary_size"):
            recipe = recipe.override([f"model.vocabulary_size={tokenizer.vocabulary_size}"])
        task, _ = abstractly(make)
        return task, None
    examples, _ = load_train_and_dev(recipe.source or "toy:polarity")
    return abstractly(make)


@functools.cache
def step_found(name, topology):
    task, step = made(name)
    return compile_training_step(topology, step, task.batch_outline(ROWS))


@functools.cache
def programs_found(name, topology):
    return compile_programs(topology, made(name)[0], 32)


@pytest.fixture(scope="session")
def small():
    """From a task's name to the task, and its step."""
    return made


@pytest.fixture(scope="session")
def step_of():
    """From a task's name and a slice to what was found of its training step."""
    return step_found


@pytest.fixture(scope="session")
def programs_of():
    """From a task's name and a slice to what was found of the programs that work on inputs."""
    return programs_found


@pytest.fixture(scope="session")
def counting():
    path = Path(__file__).parent / "counting.py"
    spec = importlib.util.spec_from_file_location("counting", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


assert set(SMALL) <= set(TASKS)
