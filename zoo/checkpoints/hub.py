"""Checkpoints of the Hugging Face hub: found, read without torch, and mapped to the zoo's models by tables.

Each file in mappings/ describes one model family, see zoo/checkpoints/tables.py.
"""

import functools
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import safetensors

from zoo.checkpoints.tables import (
    Table,
    matches,
    our_arrays,
    our_special_tokens,
    our_values,
    read_table,
    tie,
    untied,
    without_prefix,
)
from zoo.checkpoints.torch_files import read_torch
from zoo.checkpoints.weights import CheckpointError, by_path, mismatches
from zoo.config import Config
from zoo.models.decoder import DecoderConfig
from zoo.models.encoder import EncoderHeadsConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.models.vision_encoder import VisionEncoderConfig

_CONFIGS: dict[str, type[Config]] = {
    "encoder": EncoderHeadsConfig,
    "decoder": DecoderConfig,
    "encoder_decoder": EncoderDecoderConfig,
    "vision_encoder": VisionEncoderConfig,
}

# Types of numbers by their names in safetensors files.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": ml_dtypes.bfloat16,
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "BOOL": "bool",
}


class HubModel(NamedTuple):
    """A model of the hub, ready to be built here.

    Attributes:
        config: The model's sizes and heads: of an `encoder`, a `decoder`, an `encoder_decoder` or a `vision_encoder`.
        fill: Puts the checkpoint's weights into a model that was built from `config`, or from its encoder with other
            heads; these heads' weights, by path, are its second argument and stay as they are.
        task: What an `encoder_decoder` of this family most often does; empty for other models.
    """

    config: Any
    fill: Callable[..., None]
    task: str = ""


class HubCaptioner(NamedTuple):
    """A model of the hub that sees and writes, in its two halves.

    Attributes:
        vision: A `vision_encoder`, whose features the text's half attends to.
        text: A `decoder` over features.
    """

    vision: HubModel
    text: HubModel


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


def read_generation(folder: Path) -> dict[str, Any]:
    """Reads what a hub folder says of generation: in generation_config.json, or as older ones do in config.json.

    Raises:
        CheckpointError: If a file is no JSON object.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        theirs = read_config(folder)
        return {**read_table(theirs["model_type"], folder).get("defaults", {}), **theirs}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise CheckpointError(f"{path}: it takes a JSON object") from None


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a hub folder: safetensors where there is one, else files of torch; in parts or whole.

    Raises:
        CheckpointError: If there is none, or one is damaged or refused.
    """
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        names = [whole]
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise CheckpointError(f"{index}: it takes a JSON object with a weight_map") from None
            if any(Path(name).name != name for name in names):
                raise CheckpointError(f"{index}: it names files outside its folder")
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise CheckpointError(f"{index}: {', '.join(missing)} of its {len(names)} files not in the folder")
        if index.is_file() or (folder / whole).is_file():
            return functools.reduce(lambda tensors, name: tensors | _read_file(folder / name), names, {})
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin")


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix != ".safetensors":
        return read_torch(path)
    return _view_safetensors(path)


def _view_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Shows the arrays of a safetensors file where they are: a model's size is not held twice to fill the model.

    Source: the format is 8 bytes with the header's length, the header in JSON, and the arrays.
    """
    try:
        with safetensors.safe_open(path, framework="numpy"):  # tells whether the header is sound and the file whole
            pass
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None
    content = np.memmap(path, mode="r")
    begin = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, tensor in json.loads(bytes(content[8:begin])).items():
        if name != "__metadata__":
            if tensor["dtype"] not in _TYPES:
                raise CheckpointError(f"{path}: {name} is of type {tensor['dtype']}; it takes {', '.join(_TYPES)}")
            start, end = tensor["data_offsets"]
            array = content[begin + start : begin + end].view(_TYPES[tensor["dtype"]])
            arrays[name] = array.reshape(tensor["shape"])
    return arrays


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
    table = read_table(theirs["model_type"], folder)
    if "vision" in table:
        raise CheckpointError(f"{folder}: {theirs['model_type']} is two models; open_hub_captioner() opens it")
    values = our_values(table, theirs, folder)
    if "special_tokens" in table:
        values["special_tokens"] = our_special_tokens(table, theirs, read_generation(folder), where=folder)
    tensors = functools.cache(functools.partial(read_tensors, folder))
    if table["model"] == "encoder_decoder":
        _complete_encoder_decoder(table, values, tensors())
    return _model(folder, table, theirs, values, tensors)


def is_hub_captioner(folder: Path) -> bool:
    """Tells whether a hub folder holds a vision encoder and a decoder: whether open_hub_captioner() opens it."""
    return "vision" in read_table(read_config(folder)["model_type"], folder)


def open_hub_captioner(folder: Path) -> HubCaptioner:
    """Maps a hub folder that holds a vision encoder and a decoder to the zoo's two models.

    Args:
        folder: Holds config.json and weights.

    Returns:
        Both models' configurations, and how their weights are filled in.

    Raises:
        CheckpointError: As open_hub_folder() does.
    """
    theirs = read_config(folder)
    table = read_table(theirs["model_type"], folder)
    if "vision" not in table:
        raise CheckpointError(f"{folder}: {theirs['model_type']} does not describe images; open_hub_folder() opens it")
    # Whoever fills both halves reads the files once.
    tensors = functools.cache(functools.partial(read_tensors, folder))
    eyes, mouth = (_half(theirs, table[part]["config"], folder) for part in ("vision", "text"))
    prefix, text_prefix = (table[part]["prefix"] for part in ("vision", "text"))

    def seen() -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in tensors().items() if name.startswith(prefix)}

    def written() -> dict[str, np.ndarray]:
        found = {name: array for name, array in tensors().items() if not name.startswith(prefix)}
        return {name.removeprefix(text_prefix): array for name, array in found.items()}

    vision_table = read_table(eyes["model_type"], folder, "vision_encoder")
    vision = _model(folder, vision_table, {}, our_values(vision_table, eyes, folder), seen)
    text_table = read_table(mouth["model_type"], folder, "decoder")
    values = our_values(text_table, mouth, folder)
    special = our_special_tokens(text_table, mouth, theirs, read_generation(folder), where=folder)
    values["special_tokens"] = {**special, "start_optional": False}
    values["feature_width"] = width = vision.config.vit.width
    differs = width != values["width"] and mouth.get("cross_attention_hidden_size") is None
    values["feature_projection"] = table["projected"] and differs
    return HubCaptioner(vision, _model(folder, text_table, {}, values, written))


def _half(theirs: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    half = theirs.get(name)
    if not isinstance(half, Mapping) or "model_type" not in half:
        raise CheckpointError(f"{folder / 'config.json'}: {name} is {half!r}; it takes an object with a model_type")
    return half


def _model(
    folder: Path,
    table: Table,
    theirs: Mapping[str, Any],
    values: dict[str, Any],
    read: Callable[[], dict[str, np.ndarray]],
) -> HubModel:
    """Makes a model of values that a table gave; `read` gives its tensors."""
    modules = dict(table["modules"])
    first_position = _complete_encoder(folder, table, values) if table["model"] == "encoder" else 0
    for architecture in theirs.get("architectures") or ():
        for ending, head in table["heads"].items():
            if architecture.endswith(ending):
                modules |= head["modules"]
                values |= head.get("fixed", {})
                if "classes" in head:
                    values[head["classes"]] = _classes(theirs)
                if "head" in head:
                    name, completed = _head(head["head"], theirs)
                    values["heads"] = {name: completed}
    config = _CONFIGS[table["model"]].from_dict(values)

    def fill(model: keras.Model, own: Collection[str] = ()) -> None:
        tensors = without_prefix(read(), table["prefixes"])
        tie(table, tensors)
        variables = {path: weight for path, weight in by_path(model.weights).items() if path not in own}
        arrays, others = our_arrays(table, modules, tensors, variables)
        problems = untied(table, tensors, others)
        if first_position and "positions/table" in arrays:
            arrays["positions/table"] = arrays["positions/table"][first_position:]
        unused = [f"{name}*" for name in table["unused"]]
        if own:  # the checkpoint's heads are not wanted
            unused += [f"{theirs}.*" for head in table["heads"].values() for theirs in head["modules"].values()]
        arrays |= {name: array for name, array in others.items() if not matches(name, unused)}
        problems += mismatches(variables, arrays)
        if problems:
            raise CheckpointError(f"{folder}: does not fit: {'; '.join(problems)}")
        for path, variable in variables.items():
            variable.assign(arrays.pop(path).astype(variable.dtype, copy=False))

    return HubModel(config, fill, table.get("task", ""))


def _complete_encoder(folder: Path, table: Table, values: dict[str, Any]) -> int:
    """Completes an encoder's values; returns how many positions its checkpoint has before the first token's."""
    values["heads"] = _pooled_vector(folder)
    sizes = values["encoder"]
    if sizes.get("embedding_width") == sizes["width"]:
        sizes["embedding_width"] = None
    if "first_position" not in table:
        return 0
    first_position = sizes["pad"] + 1
    sizes["max_length"] -= first_position
    return first_position


def _complete_encoder_decoder(table: Table, values: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Finds out of the tensors themselves whether the target has embeddings, and the output weights, of its own.

    What a configuration says of it differs from family to family, and is not always true.
    """
    tensors = without_prefix(tensors, table["prefixes"])
    tie(table, tensors)
    layers = ("embedding", "target_embedding", "output")
    source, target, output = (tensors.get(f"{table['modules'][layer]}.weight") for layer in layers)
    if source is not None and target is not None and not np.array_equal(source, target):
        values["target_vocabulary_size"] = len(target)
    values["tied_output"] = output is None or (target is not None and np.array_equal(output, target))


def _head(head: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Completes a head by what the checkpoint says of its classes."""
    if head["kind"] == "span":
        return "span", dict(head)
    classes = _classes(theirs)
    kind = head["kind"]
    if kind == "label" and (theirs.get("problem_type") == "regression" or len(classes) == 1):
        return "label", {**head, "kind": "number"}
    if theirs.get("problem_type") == "multi_label_classification":
        kind = "labels"
    return head["kind"], {**head, "kind": kind, "classes": classes}


def _classes(theirs: Mapping[str, Any]) -> list[str]:
    names = theirs.get("id2label") or {str(i): f"LABEL_{i}" for i in range(theirs.get("num_labels", 2))}
    return [names[number] for number in sorted(names, key=int)]


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
