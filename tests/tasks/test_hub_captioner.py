"""A captioner of the hub in its parts: from a picture to a caption."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.checkpoints import CheckpointError
from zoo.data.images import prepared
from zoo.generation import GenerationConfig, Generator
from zoo.tasks.hub import generation_config, load_hub_captioner

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURES / "vit-gpt2", tmp_path / "captioner"))


@pytest.mark.parametrize("name", ["vit-gpt2", "blip"])
def test_a_picture_becomes_a_caption(name, rng):
    parts = load_hub_captioner(FIXTURES / name)
    picture = rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)
    features = np.asarray(parts.vision(prepared(picture, parts.images)[None]))[0]
    assert len(features) == parts.vision.extra + np.prod(parts.vision.grid)
    beginning = "a dog" if name == "blip" else "a black"
    ids = parts.tokenizer.encode([beginning])
    ((found,),) = Generator(parts.text, jit=False)([features], parts.generation, ids)
    (caption,) = parts.tokenizer.decode([found.tokens])
    assert caption.startswith(beginning)
    assert len(found.tokens) <= 19


def test_generation_is_as_the_checkpoint_says(folder):
    assert generation_config(folder) == GenerationConfig(max_length=13, length_penalty_form="power")
    said = {"num_beams": 3, "min_length": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0, "max_new_tokens": 9}
    (folder / "generation_config.json").write_text(json.dumps({**said, "top_k": None, "bos_token_id": 0}))
    assert generation_config(folder) == GenerationConfig(
        beams=3, min_length=3, no_repeat_ngram=2, length_penalty=2.0, max_length=9, length_penalty_form="power"
    )
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "top_p": 0.9, "num_beams": 4}))
    found = generation_config(folder)
    assert (found.sample, found.beams, found.top_p, found.max_length) == (True, 1, 0.9, 19)
    (folder / "generation_config.json").unlink()
    assert generation_config(folder).max_length == 19


def test_what_is_missing_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer.json"):
        load_hub_captioner(folder)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config.json: not JSON"):
        load_hub_captioner(folder)


@pytest.mark.parametrize("name", ["gpt2", "vit-label"])
def test_a_model_without_a_task_is_named(name):
    with pytest.raises(CheckpointError, match="no task for it"):
        zoo.load(FIXTURES / name)
