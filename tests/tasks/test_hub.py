"""Folders of the hub become tasks: what a user writes gives what transformers gives; bad folders are named."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import cli
from zoo.checkpoints import CheckpointError
from zoo.config import ConfigError
from zoo.data.images import ImageError
from zoo.generation import GenerationConfig
from zoo.tasks.hub import generation_config
from zoo.tasks.hub_captioning import HubCaptioning
from zoo.tasks.image_classification import ImageClassification
from zoo.tasks.run import read_recipe
from zoo.tasks.text_generation import TextGeneration

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
TEXTS = ["two people sit at a table", "a black dog runs through the snow"]


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURES / "generative.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def tasks():
    """The task of each fixture, which generates without XLA: that spares compilations."""
    found = {name: zoo.load(FIXTURES / name) for name in ("vit-gpt2", "blip", "gpt2", "vit-label")}
    for task in found.values():
        if not isinstance(task, ImageClassification):
            task.generator.jit = False
    return found


@pytest.fixture(scope="module")
def photo(stored, tmp_path_factory):
    """A file with the picture that transformers was given."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(stored["blip/picture"]).save(path)
    return path


@pytest.fixture
def copied(tmp_path):
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


# === Captions ===


@pytest.mark.parametrize("name", ["vit-gpt2", "blip"])
def test_a_photo_becomes_the_caption_of_transformers(name, tasks, stored, photo):
    captioner = tasks[name]
    assert type(captioner) is HubCaptioning
    expected = str(stored[f"{name}/said"])
    assert captioner([str(photo)]) == [expected]
    assert captioner(stored[f"{name}/picture"]) == captioner(photo.read_bytes()) == expected
    assert len(expected) > 5


@pytest.mark.parametrize(("name", "beginning"), [("vit-gpt2", "a Black"), ("blip", "a dog")])
def test_a_caption_may_be_begun_and_looked_into(name, beginning, tasks, photo):
    captioner = tasks[name]
    caption = captioner(photo, beginnings=beginning)
    assert caption.startswith(beginning)
    maps = captioner.attention_maps(photo, beginning)
    assert maps.words == beginning.split()
    assert maps.maps.shape == (2, 3, 3)  # the class token's place is none of the picture's
    assert (maps.maps.sum(axis=(1, 2)) < 1).all()


def test_captions_are_scored(tasks, photo, stored):
    example = {"image": photo, "name": "photo.png", "captions": [str(stored["blip/said"])] * 2}
    assert tasks["blip"].evaluate([example])["bleu1"] == pytest.approx(100)


# === Texts ===


def test_a_language_model_goes_on_as_transformers_does(tasks, stored):
    writer = tasks["gpt2"]
    assert type(writer) is TextGeneration
    expected = str(stored["gpt2/said"])
    assert writer(TEXTS[0]) == expected
    assert expected.startswith(TEXTS[0])
    assert len(expected) > len(TEXTS[0])
    found = writer(TEXTS[0], sample=True, n_best=3, max_length=5)
    assert len(set(found)) > 1
    assert all(text.startswith(TEXTS[0]) for text in found)


def test_texts_are_as_likely_as_transformers_finds_them(tasks, stored):
    scores = tasks["gpt2"].evaluate([{"text": TEXTS[0]}])
    assert scores["loss"] == pytest.approx(float(stored["gpt2/loss"]), abs=1e-4)
    assert scores["perplexity"] == pytest.approx(np.exp(scores["loss"]))


def test_a_language_models_attention_looks_back_only(tasks):
    maps = tasks["gpt2"].attention_maps(TEXTS[0])
    assert len(maps.maps) == 2
    for heads in maps.maps.values():
        assert heads.shape == (2, len(maps.target_tokens), len(maps.target_tokens))
        assert np.triu(heads, 1).max() == 0


def test_a_beginning_that_is_too_long_is_named(tasks):
    with pytest.raises(ValueError, match=r"^input 2: 'a black dog .*' has \d+ tokens, the model takes 23; shorten it$"):
        tasks["gpt2"]([TEXTS[0], TEXTS[1] * 5])


# === Labels ===


def test_a_photo_is_classified_as_transformers_does(tasks, stored, photo, tmp_path):
    classifier = tasks["vit-label"]
    assert type(classifier) is ImageClassification
    expected = stored["vit-label/probabilities"]
    (found,) = classifier.probabilities([photo])
    np.testing.assert_allclose([found[f"LABEL_{i}"] for i in range(3)], expected, atol=1e-3)
    label = f"LABEL_{expected.argmax()}"
    assert classifier(photo) == label
    assert classifier.report([str(photo)])[0]["output"] == label
    others = [{"image": photo, "name": "photo", "label": name} for name in (label, "LABEL_0", "LABEL_1", "LABEL_2")]
    assert classifier.evaluate(others)["accuracy"] == 50
    with pytest.raises(ValueError, match=r"example 1: no class 'LABEL'; did you mean 'LABEL_\d'"):
        classifier.evaluate([{"image": photo, "label": "LABEL"}])
    classifier.attention_maps(photo).save(tmp_path / "label.html")
    assert label in (tmp_path / "label.html").read_text()


# === All of them ===


def test_the_command_line_takes_photos_and_texts(tasks, stored, photo, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "load", lambda name: tasks[Path(name).name])
    assert cli.main(["predict", str(FIXTURES / "vit-gpt2"), str(photo)]) == 0
    assert capsys.readouterr().out == f"{stored['vit-gpt2/said']}\n"
    assert cli.main(["predict", str(FIXTURES / "blip"), str(photo), "nowhere.jpg"]) == 2
    out, err = capsys.readouterr()
    assert out == f"{stored['blip/said']}\n\n"
    assert err == "zoo: input 2: nowhere.jpg: no such file\n"
    assert cli.main(["predict", str(FIXTURES / "gpt2"), TEXTS[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"input": TEXTS[0], "output": str(stored["gpt2/said"])}
    assert cli.main(["predict", str(FIXTURES / "vit-label"), str(photo)]) == 0
    assert capsys.readouterr().out.startswith(f"LABEL_{stored['vit-label/probabilities'].argmax()}\t0.")


def test_what_is_no_image_is_named(tasks, photo, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("blip", "vit-label"):
        with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
            tasks[name]([photo, str(tmp_path / "text.jpg")])
        with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
            tasks[name].check(str(tmp_path / "text.jpg"))


@pytest.mark.parametrize("name", ["blip", "gpt2", "vit-label"])
def test_a_task_survives_its_folder(name, tasks, tmp_path):
    task = tasks[name]
    task.save(tmp_path / "saved")
    loaded = zoo.load(tmp_path / "saved")
    assert type(loaded) is type(task)
    assert loaded.recipe == task.recipe
    for path, weight in task.saved_weights.items():
        np.testing.assert_array_equal(np.array(loaded.saved_weights[path]), np.array(weight))


@pytest.mark.parametrize("name", ["blip", "gpt2", "vit-label"])
def test_who_wants_to_train_it_is_told(name, tasks):
    task = tasks[name]
    message = f"{task.recipe.task}: it is not trained here; zoo.load"
    with pytest.raises(ConfigError, match=message):
        read_recipe(task.recipe.task)
    with pytest.raises(ConfigError, match=message):
        task.fit([{}])


# === What a folder says, or does not ===


def test_generation_is_as_the_checkpoint_says(copied):
    folder = copied("vit-gpt2")
    path = folder / "generation_config.json"
    silent = GenerationConfig(
        beams=1,
        top_k=50,
        max_length=20,
        length_penalty_form="power",
        early_stopping="heuristic",
        late_ends=False,
        renormalize=False,
        force_end=False,
    )
    assert generation_config(folder) == dataclasses.replace(silent, max_length=13)
    said = {"num_beams": 3, "min_length": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0, "max_new_tokens": 9}
    path.write_text(json.dumps({**said, "top_k": None, "bos_token_id": 0}))
    assert generation_config(folder) == dataclasses.replace(
        silent, beams=3, min_length=3, no_repeat_ngram=2, length_penalty=2.0, max_length=9
    )
    stops = {"early_stopping": True, "forced_eos_token_id": 0, "renormalize_logits": True, "min_new_tokens": 5}
    path.write_text(json.dumps({**stops, "bad_words_ids": [[7], [8, 9]]}))
    assert generation_config(folder) == dataclasses.replace(
        silent, early_stopping="full", force_end=True, renormalize=True, min_length=5, bad_words=((8, 9),)
    )
    path.write_text(json.dumps({"early_stopping": "never"}))
    assert generation_config(folder) == dataclasses.replace(silent, early_stopping="never")
    path.write_text(json.dumps({"do_sample": True, "top_p": 0.9, "num_beams": 4, "repetition_penalty": 1.2}))
    with pytest.warns(UserWarning, match=r"repetition_penalty is 1.2; it is not known here and left out"):
        assert generation_config(folder) == dataclasses.replace(silent, sample=True, top_p=0.9)
    path.unlink()
    assert generation_config(folder) == silent
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_beams": 2}))
    assert generation_config(folder).beams == 2  # as older folders say it


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("vit-gpt2", "tokenizer.json", None, "no tokenizer.json"),
        ("vit-gpt2", "preprocessor_config.json", None, "no preprocessor_config.json"),
        ("vit-gpt2", "generation_config.json", "{", "generation_config.json: it takes a JSON object"),
        ("vit-gpt2", "config.json", '{"model_type": "vision-encoder-decoder"}', "encoder is None; it takes an object"),
        ("vit-label", "preprocessor_config.json", None, "no preprocessor_config.json"),
        ("vit-label", "config.json", '{"model_type": "vitt"}', r"no family 'vitt'; did you mean 'vit'"),
        ("gpt2", "tokenizer.json", None, "no tokenizer.json"),
        ("gpt2", "model.safetensors", None, "no model.safetensors and no pytorch_model.bin"),
    ],
)
def test_what_is_missing_or_broken_is_named(name, file, text, message, copied):
    folder = copied(name)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        zoo.load(folder)


def test_features_without_classes_are_no_task():
    with pytest.raises(CheckpointError, match=r"it has features and no classes"):
        zoo.load(FIXTURES / "vit")
