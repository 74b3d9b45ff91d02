"""Tables of mappings/: which of a hub checkpoint's fields, modules and weights are which of ours.

A table is JSON, and says

    config          our field -> theirs; "a.b" is field b of field a
    defaults        what theirs are where a checkpoint is silent
    fixed           what ours always are
    required        what theirs must be
    pairs           which of ours are pairs that theirs may write as one number
    special_tokens  in which of their fields token ids are found, the first first
    modules         our layer -> their module, {i} being every block; "x[1/3]" is the second third of x's outputs
    weights         our weight -> theirs, where it is no module's
    input_first     which of their modules have kernels that lie as ours; all others are transposed
    tied            which of their tensors must be equal to another
    unused          which of their tensors are left out
    heads           endings of architectures -> what is set, and which modules are added
"""

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from zoo.checkpoints.weights import CheckpointError
from zoo.config import nearest

MAPPINGS = Path(__file__).parent / "mappings"
Table = Mapping[str, Any]
# What a weight of ours is called in a torch module.
_NAMES = {
    "kernel": "weight",
    "embeddings": "weight",
    "table": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
}
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "swish": "silu"}


def read_table(family: Any, where: Path, model: str | None = None) -> Table:
    """Reads a family's table.

    Args:
        family: Its name, their model_type.
        where: What errors name.
        model: Only families that become this model of ours; all where None.

    Raises:
        CheckpointError: If there is none; the nearest is named.
    """
    tables = {path.stem: path for path in sorted(MAPPINGS.glob("*.json"))}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in tables.items()}
    found = {name: table for name, table in found.items() if model in (None, table.get("model"))}
    if family not in found:
        raise CheckpointError(f"{where}: no family {str(family)!r}; {nearest(str(family), found)}")
    return found[family]


def our_values(table: Table, theirs: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Turns a checkpoint's configuration into values of ours.

    Raises:
        CheckpointError: If a field has a value that is not known here.
    """
    said = {**table.get("defaults", {}), **{name: value for name, value in theirs.items() if value is not None}}
    for name, wanted in table.get("required", {}).items():
        if said.get(name, wanted) != wanted:
            raise CheckpointError(f"{where}: {name} is {said[name]!r}; only {wanted!r} is known")
    values: dict[str, Any] = {}
    for ours, name in table["config"].items():
        if name in said:
            value = said[name]
            if ours in table.get("pairs", ()) and isinstance(value, int):
                value = [value, value]
            _put(values, ours, _ACTIVATIONS.get(value, value) if isinstance(value, str) else value)
    for ours, value in table["fixed"].items():
        _put(values, ours, value)
    return values


def our_special_tokens(table: Table, *sources: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Finds a checkpoint's special tokens: fields of SpecialTokens.

    Args:
        table: The family's table.
        sources: What may say them; later ones count more.
        where: What errors name.

    Raises:
        CheckpointError: If one is nowhere said.
    """
    said = dict(table.get("defaults", {}))
    for source in sources:
        said |= {name: value for name, value in source.items() if value is not None}
    never = [token for token, *others in said.get("bad_words_ids", ()) if not others]
    values = {"never": [*never, *said.get("suppress_tokens", ())], "start_optional": table["start_optional"]}
    for ours, names in table["special_tokens"].items():
        ids = [said[name] for name in names if name in said]
        if not ids:
            raise CheckpointError(f"{where}: it says no {' and no '.join(names)}")
        values[ours] = ids[0][0] if isinstance(ids[0], list) else ids[0]
    return values


def our_arrays(
    table: Table,
    modules: Mapping[str, str],
    layers: int,
    tensors: Mapping[str, np.ndarray],
    variables: Mapping[str, keras.Variable],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Turns a checkpoint's tensors into arrays of ours.

    Args:
        table: The family's table.
        modules: Its modules and those of heads.
        layers: How many blocks there are.
        tensors: By their names.
        variables: Of our model, by their paths.

    Returns:
        Arrays by our paths, and the tensors that are left over.
    """
    named = dict(_unrolled({**modules, **table.get("weights", {})}, layers))
    arrays, used = {}, set()
    for path, variable in variables.items():
        layer, _, weight = path.rpartition("/")
        module, part, parts = _part(named.get(layer, layer))
        source = named.get(path, f"{module}.{_NAMES.get(weight, weight)}")
        if source not in tensors:
            continue
        used.add(source)
        array = tensors[source]
        if weight == "kernel" and not matches(module, table.get("input_first", ())):
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        width = array.shape[-1] // parts
        array = array[..., part * width : (part + 1) * width] if parts > 1 else array
        while array.ndim > len(variable.shape) and array.shape[0] == 1:
            array = array[0]
        arrays[path] = array
    return arrays, {name: array for name, array in tensors.items() if name not in used}


def without_prefix(tensors: Mapping[str, np.ndarray], prefixes: list[str]) -> dict[str, np.ndarray]:
    """Takes prefixes off tensors' names, and names old normalizations as new ones."""
    pattern = re.compile("|".join(f"^{re.escape(prefix)}" for prefix in prefixes if prefix) or "^")
    renamed = {pattern.sub("", name): array for name, array in tensors.items()}
    # Very old checkpoints say gamma and beta.
    return {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): array for name, array in renamed.items()}


def untied(table: Table, tensors: dict[str, np.ndarray]) -> list[str]:
    """Takes out tensors that repeat another; names those that should and do not."""
    problems = []
    for name, other in table.get("tied", {}).items():
        array = tensors.pop(name, None)
        if array is not None and not (other in tensors and np.array_equal(array, tensors[other])):
            problems.append(f"{name} is not {other}, and outputs of their own are not known")
    return problems


def matches(name: str, patterns: Any) -> bool:
    """Tells whether a name matches any of several patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def _unrolled(modules: Mapping[str, str], layers: int) -> Iterator[tuple[str, str]]:
    for ours, theirs in modules.items():
        for i in range(layers if "{i}" in ours else 1):
            yield ours.replace("{i}", str(i)), theirs.replace("{i}", str(i))


def _part(module: str) -> tuple[str, int, int]:
    """Reads "x[1/3]"; a whole module is the first of one part."""
    found = re.fullmatch(r"(.*)\[(\d+)/(\d+)\]", module)
    return (found[1], int(found[2]), int(found[3])) if found else (module, 0, 1)
