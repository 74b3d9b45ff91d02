"""Variables in and out of safetensors files, keyed by variable path."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy
from keras import ops

from zoo.files import replacing


class CheckpointError(ValueError):
    """Says which tensors of a checkpoint do not fit, all of them at once."""


def by_path(variables: Iterable[keras.Variable]) -> dict[str, keras.Variable]:
    """Names variables by their paths.

    Raises:
        CheckpointError: If two variables have the same path.
    """
    named: dict[str, keras.Variable] = {}
    for variable in variables:
        if variable.path in named:
            raise CheckpointError(f"two variables are called {variable.path}")
        named[variable.path] = variable
    return named


def save(
    path: str | Path, variables: Mapping[str, keras.Variable], *, dtype: str | None = None, **metadata: str
) -> None:
    """Writes variables to a safetensors file, whole or not at all.

    Args:
        path: The file.
        variables: What to save, by the name it gets in the file.
        dtype: Floating-point variables are cast to it; each keeps its own where None.
        metadata: Short texts that are stored in the file's header.

    Raises:
        OSError: If the disk is full or the folder cannot be written to; an older file stays as it was.
    """
    arrays = {}
    for name, variable in variables.items():
        array = ops.convert_to_numpy(variable)
        if dtype is not None and keras.backend.is_float_dtype(variable.dtype):
            array = array.astype(dtype)
        # np.ascontiguousarray would turn a scalar into a vector.
        arrays[name] = np.asarray(array, order="C")
    with replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, metadata=metadata or None)
        except safetensors.SafetensorError as error:  # how the library reports a full disk
            raise OSError(f"{path}: cannot be written: {error}; what was there before is kept") from None


def load(path: str | Path, variables: Mapping[str, keras.Variable]) -> dict[str, str]:
    """Reads a safetensors file into variables that match it exactly.

    Args:
        path: The file.
        variables: What to fill, by its name in the file.

    Returns:
        The metadata of the file's header.

    Raises:
        CheckpointError: If the file is no safetensors file, or any tensor is missing, left over or misshapen: all
            of them are listed, and no variable is changed.
    """
    arrays, metadata = _read(path)
    problems = mismatches(variables, arrays)
    if problems:
        raise CheckpointError(f"{path}: does not fit the model: {'; '.join(problems)}")
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(variable.dtype))
    return metadata


def load_base(
    path: str | Path, variables: Mapping[str, keras.Variable], *, optional: Sequence[str] = (), growing: str = ""
) -> None:
    """Reads a safetensors file into the variables of a model that goes on from it, and may differ a little.

    Args:
        path: The file.
        variables: What to fill, by its name in the file.
        optional: Beginnings of names that the file or the model may lack; the model's own stay as they are.
        growing: Name of a table that may have more rows than the file's, which then are its first ones.

    Raises:
        CheckpointError: As for load().
    """
    arrays, _ = _read(path)
    known = {name: array for name, array in arrays.items() if not name.startswith(tuple(optional)) or name in variables}
    wanted = {name: v for name, v in variables.items() if not name.startswith(tuple(optional)) or name in arrays}
    if growing in known and growing in wanted:
        more = ops.convert_to_numpy(wanted[growing])[len(known[growing]) :]
        if more.shape[1:] == known[growing].shape[1:]:
            known[growing] = np.concatenate([known[growing], more])
    problems = mismatches(wanted, known)
    if problems:
        raise CheckpointError(f"{path}: does not fit the model: {'; '.join(problems)}")
    for name, variable in wanted.items():
        variable.assign(known[name].astype(variable.dtype))


def _read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads all arrays of a safetensors file, and the metadata of its header."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            return arrays, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None


def mismatches(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Lists every tensor that is missing, left over or misshapen."""
    problems = [f"missing {name} {tuple(v.shape)}" for name, v in variables.items() if name not in arrays]
    problems += [f"left over {name} {array.shape}" for name, array in arrays.items() if name not in variables]
    problems += [
        f"{name} is {arrays[name].shape}, the model's {tuple(variable.shape)}"
        for name, variable in variables.items()
        if name in arrays and arrays[name].shape != tuple(variable.shape)
    ]
    return problems
