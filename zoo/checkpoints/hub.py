"""Checkpoints of the Hugging Face hub: found, read without torch, and mapped to the zoo's models by tables.

Each file in mappings/ describes one model family: which of its configuration's fields is which of ours, and which of
its modules is which of our layers. Kernels are transposed and weights renamed by rule, so a table names modules only.
"""

import fnmatch
import functools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import safetensors

from zoo.checkpoints.torch_files import read_torch
from zoo.checkpoints.weights import CheckpointError, by_path, mismatches
from zoo.config import nearest
from zoo.models.encoder import EncoderHeadsConfig

MAPPINGS = Path(__file__).parent / "mappings"
# What a weight of ours is called in a torch module.
_NAMES = {
    "kernel": "weight",
    "embeddings": "weight",
    "table": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
}


class HubModel(NamedTuple):
    """A model of the hub, ready to be built here.

    Attributes:
        config: The model's sizes and heads.
        fill: Puts the checkpoint's weights into a model that was built from `config`, or from its encoder with other
            heads; these heads' weights, by path, are its second argument and stay as they are.
    """

    config: EncoderHeadsConfig
    fill: Callable[..., None]


# === Reading ===


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a hub folder's config.json.

    Raises:
        CheckpointError: If it is no JSON object that names its family.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["model_type"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / 'config.json'}: it takes JSON that names its model_type") from None
    return config


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a hub folder: safetensors where there is one, else files of torch; in parts or whole.

    Raises:
        CheckpointError: If there is none, or one is damaged or refused.
    """
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        names = [whole]
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise CheckpointError(f"{index}: it names files outside its folder")
        if (folder / names[0]).is_file():
            return functools.reduce(lambda tensors, name: tensors | _read_file(folder / name), names, {})
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin")


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix != ".safetensors":
        return read_torch(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None


# === Mapping ===


def open_hub_folder(folder: Path) -> HubModel:
    """Maps a hub folder to one of the zoo's models.

    Args:
        folder: Holds config.json and weights.

    Returns:
        The model's configuration, and how its weights are filled in.

    Raises:
        CheckpointError: If the family is not known (the nearest is named), or the weights do not fit; then all that
            is missing, left over or misshapen is listed.
    """
    theirs = read_config(folder)
    families = sorted(path.stem for path in MAPPINGS.glob("*.json"))
    family = str(theirs["model_type"])
    if family not in families:
        raise CheckpointError(f"{folder}: no family {family!r}; {nearest(family, families)}")
    table = json.loads((MAPPINGS / f"{family}.json").read_text(encoding="utf-8"))
    modules = dict(table["modules"])
    values: dict[str, Any] = {"heads": _pooled_vector(folder)}
    for ours, name in table["config"].items():
        if name in theirs and theirs[name] is not None:
            _put(values, ours, theirs[name])
    for ours, value in table["fixed"].items():
        _put(values, ours, value)
    first_position = 0
    if "first_position" in table:
        first_position = values["encoder"]["pad"] + 1
        values["encoder"]["max_length"] -= first_position
    if values["encoder"].get("embedding_width") == values["encoder"]["width"]:
        values["encoder"]["embedding_width"] = None
    for architecture in theirs.get("architectures") or ():
        for ending, head in table["heads"].items():
            if architecture.endswith(ending):
                name, completed = _head(head["head"], theirs)
                values["heads"] = {name: completed}
                modules |= head["modules"]
    config = EncoderHeadsConfig.from_dict(values)

    def fill(model: keras.Model, own: Collection[str] = ()) -> None:
        tensors = _without_prefix(read_tensors(folder), table["prefixes"])
        variables = {path: weight for path, weight in by_path(model.weights).items() if path not in own}
        layers = dict(_unrolled(modules, config.encoder.num_layers))
        arrays: dict[str, np.ndarray] = {}
        for path in variables:
            layer, _, weight = path.rpartition("/")
            source = f"{layers.get(layer, layer)}.{_NAMES.get(weight, weight)}"
            if source not in tensors:
                continue
            array = tensors.pop(source)
            arrays[path] = array.T if weight == "kernel" else array
            if layer == "positions":
                arrays[path] = array[first_position:]
        unused = [f"{name}*" for name in table["unused"]]
        if own:  # the checkpoint's heads are not wanted
            unused += [f"{theirs}.*" for head in table["heads"].values() for theirs in head["modules"].values()]
        arrays |= {name: array for name, array in tensors.items() if not _matches(name, unused)}
        problems = mismatches(variables, arrays)
        if problems:
            raise CheckpointError(f"{folder}: does not fit: {'; '.join(problems)}")
        for path, variable in variables.items():
            variable.assign(arrays[path].astype(variable.dtype))

    return HubModel(config, fill)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def _head(head: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Completes a head by what the checkpoint says of its classes."""
    names = theirs.get("id2label") or {str(i): f"LABEL_{i}" for i in range(theirs.get("num_labels", 2))}
    classes = [names[number] for number in sorted(names, key=int)]
    if head["kind"] == "span":
        return "span", dict(head)
    kind = head["kind"]
    if kind == "label" and (theirs.get("problem_type") == "regression" or len(classes) == 1):
        return "label", {**head, "kind": "number"}
    if theirs.get("problem_type") == "multi_label_classification":
        kind = "labels"
    return head["kind"], {**head, "kind": kind, "classes": classes}


def _pooled_vector(folder: Path) -> dict[str, Any]:
    """Reads how a folder of sentence-transformers pools its tokens; no head where it is none."""
    pooling = folder / "1_Pooling" / "config.json"
    if not pooling.is_file():
        return {}
    settings = json.loads(pooling.read_text(encoding="utf-8"))
    for name, ours in (("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "first")):
        if settings.get(name):
            return {"vector": {"kind": "vector", "pooling": ours}}
    raise CheckpointError(f"{pooling}: a pooling that is neither the mean nor the first token's")


def _unrolled(modules: Mapping[str, str], layers: int) -> Iterator[tuple[str, str]]:
    for ours, theirs in modules.items():
        for i in range(layers if "{i}" in ours else 1):
            yield ours.replace("{i}", str(i)), theirs.replace("{i}", str(i))


def _without_prefix(tensors: Mapping[str, np.ndarray], prefixes: list[str]) -> dict[str, np.ndarray]:
    pattern = re.compile("|".join(f"^{re.escape(prefix)}" for prefix in prefixes if prefix))
    renamed = {pattern.sub("", name): array for name, array in tensors.items()}
    # Very old checkpoints say gamma and beta.
    return {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): array for name, array in renamed.items()}


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
