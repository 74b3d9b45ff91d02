"""Presets are found by name or folder, and what is no preset is named."""

import json

import pytest

import zoo
from zoo import presets
from zoo.config import ConfigError


def make(folder, task="translation"):
    folder.mkdir(parents=True)
    (folder / "preset.json").write_text(json.dumps({"recipe": {"task": task}, "note": "größer"}), encoding="utf-8")
    return folder


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two presets, a folder that is none, and a file, in the place of what is shipped."""
    folder = tmp_path / "presets"
    make(folder / "translation-b")
    make(folder / "captioning-a", task="captioning")
    (folder / "unfinished").mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(presets, "SHIPPED", folder)
    return folder


def test_shipped_lists_the_folders_with_a_card(shipped):
    assert presets.shipped() == {
        "captioning-a": shipped / "captioning-a",
        "translation-b": shipped / "translation-b",
    }


def test_a_name_finds_what_is_shipped(shipped):
    assert presets.find("translation-b") == shipped / "translation-b"


@pytest.mark.parametrize("as_type", [str, lambda path: path])
def test_a_folder_finds_itself(shipped, tmp_path, as_type):
    folder = make(tmp_path / "runs" / "mine")
    assert presets.find(as_type(folder)) == folder


def test_an_unknown_name_names_the_nearest(shipped):
    with pytest.raises(FileNotFoundError, match=r"no preset 'translation-c', .*; did you mean 'translation-b'\?"):
        presets.find("translation-c")
    with pytest.raises(FileNotFoundError, match="there is captioning-a, translation-b"):
        presets.find("zzz")


def test_a_folder_without_a_card_is_named(shipped, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty.*holds neither preset\.json nor config\.json"):
        presets.find(tmp_path / "empty")


def test_a_card_is_read(shipped):
    assert presets.read_card(shipped / "translation-b") == {"recipe": {"task": "translation"}, "note": "größer"}


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '"recipe"', "{}", '{"recipe": {}}', '{"recipe": []}'])
def test_a_file_that_is_no_card_is_named(tmp_path, text):
    (tmp_path / "preset.json").write_text(text)
    with pytest.raises(ConfigError, match=r"preset\.json: it takes JSON with a recipe that names its task"):
        presets.read_card(tmp_path)


def test_list_models_lists_all_or_those_of_a_task(shipped):
    assert zoo.list_models() == ["captioning-a", "translation-b"]
    assert zoo.list_models("translation") == ["translation-b"]
    assert zoo.list_models(task="none") == []


def test_load_names_the_nearest_preset(shipped):
    with pytest.raises(FileNotFoundError, match="did you mean 'translation-b'"):
        zoo.load("translatoin-b")


def test_every_shipped_preset_has_a_card_and_weights():
    for folder in presets.shipped().values():
        assert presets.read_card(folder)["recipe"]["task"]
        assert (folder / "weights.safetensors").stat().st_size > 0


def test_an_unknown_room_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'attentoin'"):
        zoo.attentoin  # noqa: B018
