"""Tables of mappings/: which of a hub checkpoint's fields, modules and weights are which of ours.

A table is JSON, and says

    task            what models from text to text of this family most often do
    like            the family whose table this one is, but for what it says itself
    config          our field -> theirs, or several of theirs, the first first; "a.b" is field b of field a
    defaults        what theirs are where a checkpoint is silent
    fixed           what ours always are
    choices         their field -> its values, written as JSON -> what ours are then
    required        what theirs must be
    pairs           which of ours are pairs that theirs may write as one number
    special_tokens  in which of their fields token ids are found, the first first
    modules         our layer -> their module, or several, the first that there is; {i} is a block's number, and
                    "x[1/3]" the second third of x's outputs
    weights         our weight -> theirs, where it is no module's
    optional        which of ours stay zero where a checkpoint has none
    input_first     which of their modules have kernels that lie as ours; all others are transposed
    tied            their tensor -> others that may stand for it, the first first, and are equal where both are there
    unused          which of their tensors are left out
    heads           endings of architectures -> what is set, and which modules are added
"""

import fnmatch
import json
import re
from collections.abc import Mapping
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
    "scale": "weight",
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
        CheckpointError: If there is none; the known ones are named, the nearest first.
    """
    tables = {path.stem: path for path in sorted(MAPPINGS.glob("*.json"))}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in tables.items()}
    found = {name: _merged(found[table["like"]], table) if "like" in table else table for name, table in found.items()}
    found = {name: table for name, table in found.items() if model in (None, table.get("model"))}
    if family not in found:
        hint = nearest(str(family), found)
        known = f" (known: {', '.join(found)})" if hint.startswith("did") else ""
        raise CheckpointError(f"{where}: no family {str(family)!r}; {hint}{known}")
    return found[family]


def _merged(table: Table, changes: Table) -> Table:
    """Changes a table, and the tables in it."""
    inner = {name: _merged(table[name], value) for name, value in changes.items() if isinstance(table.get(name), dict)}
    return {**table, **changes, **inner}


def our_values(table: Table, theirs: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Turns a checkpoint's configuration into values of ours.

    Raises:
        CheckpointError: If a field has a value that is not known here.
    """
    said = _said(table, theirs)
    for name, wanted in table.get("required", {}).items():
        if said.get(name, wanted) != wanted:
            raise CheckpointError(f"{where}: {name} is {said[name]!r}; only {wanted!r} is known")
    values: dict[str, Any] = {}
    for ours, names in table["config"].items():
        found = [said[name] for name in ([names] if isinstance(names, str) else names) if name in said]
        if found:
            value = found[0]
            if ours in table.get("pairs", ()) and isinstance(value, int):
                value = [value, value]
            _put(values, ours, _ACTIVATIONS.get(value, value) if isinstance(value, str) else value)
    for ours, value in table["fixed"].items():
        _put(values, ours, value)
    for name, choices in table.get("choices", {}).items():
        chosen = json.dumps(said[name]).strip('"') if name in said else None
        if chosen is not None and chosen not in choices:
            raise CheckpointError(f"{where}: {name} is {said[name]!r}; {nearest(chosen, choices)}")
        for ours, value in choices.get(chosen, {}).items():
            _put(values, ours, value)
    return values


def our_special_tokens(table: Table, *sources: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Finds a checkpoint's special tokens: fields of SpecialTokens.

    Args:
        table: The family's table.
        sources: What may say them; later ones count more. The last is what is said of generation, which alone says
            what a target begins with, and what never occurs in it.
        where: What errors name.

    Raises:
        CheckpointError: If one is nowhere said.
    """
    said = _said(table, *sources)
    generation = _said({}, sources[-1])
    never = [token for token, *others in generation.get("bad_words_ids", ()) if not others]
    never += generation.get("suppress_tokens", ())
    values: dict[str, Any] = {"never": never, "start_optional": table["start_optional"]}
    for ours, names in table["special_tokens"].items():
        ids = [said[name] for name in names if name in said]
        if not ids:
            raise CheckpointError(f"{where}: it says no {' and no '.join(names)}")
        values[ours] = ids[0][0] if isinstance(ids[0], list) else ids[0]
    if "forced_bos_token_id" in generation:
        values["beginning"] = [generation["forced_bos_token_id"]]
    return values


def _said(table: Table, *sources: Mapping[str, Any]) -> dict[str, Any]:
    """Joins a family's defaults and what a checkpoint says; later sources count more, and null says nothing."""
    said: dict[str, Any] = {}
    for source in (table.get("defaults", {}), *sources):
        said |= {name: value for name, value in source.items() if value is not None}
    return said


def our_arrays(
    table: Table,
    modules: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    variables: Mapping[str, keras.Variable],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Turns a checkpoint's tensors into arrays of ours.

    Args:
        table: The family's table.
        modules: Its modules and those of heads.
        tensors: By their names.
        variables: Of our model, by their paths.

    Returns:
        Arrays by our paths, and the tensors that are left over.
    """
    named = {**modules, **table.get("weights", {})}
    arrays, used = {}, set()
    for path, variable in variables.items():
        layer, _, weight = path.rpartition("/")
        found = [
            (module, part, parts, source)
            for module, part, parts in map(_part, _theirs(named, layer) or [layer])
            for source in _theirs(named, path) or [f"{module}.{_NAMES.get(weight, weight)}"]
            if source in tensors
        ]
        if not found:
            if path in table.get("optional", ()):
                arrays[path] = np.zeros(tuple(variable.shape), "float32")
            continue
        module, part, parts, source = found[0]
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


def tie(table: Table, tensors: dict[str, np.ndarray]) -> None:
    """Adds tensors that are stored under another's name alone."""
    for name, others in table.get("tied", {}).items():
        present = [other for other in others if other in tensors]
        if name not in tensors and present:
            tensors[name] = tensors[present[0]]


def untied(table: Table, tensors: Mapping[str, np.ndarray], left: dict[str, np.ndarray]) -> list[str]:
    """Takes tensors that repeat another out of those that are left; names those that should and do not."""
    problems = []
    groups = [{name, *others} for name, others in table.get("tied", {}).items()]
    for name in list(left):
        others = {other for group in groups if name in group for other in group if other in tensors} - {*left}
        if any(np.array_equal(left[name], tensors[other]) for other in others):
            del left[name]
        elif others:
            problems.append(f"{name} is not {' or '.join(sorted(others))}, and one of its own is not known")
            del left[name]
    return problems


def matches(name: str, patterns: Any) -> bool:
    """Tells whether a name matches any of several patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def _theirs(named: Mapping[str, Any], path: str) -> list[str]:
    """Returns what a layer or weight of ours may be called."""
    block = re.search(r"(?<=block_)\d+", path)
    theirs = named.get(path if block is None else f"{path[: block.start()]}{{i}}{path[block.end() :]}", [])
    names = [theirs] if isinstance(theirs, str) else theirs
    return [name if block is None else name.replace("{i}", block[0]) for name in names]


def _part(module: str) -> tuple[str, int, int]:
    """Reads "x[1/3]"; a whole module is the first of one part."""
    found = re.fullmatch(r"(.*)\[(\d+)/(\d+)\]", module)
    return (found[1], int(found[2]), int(found[3])) if found else (module, 0, 1)
