"""Variables in and out of safetensors files, keyed by variable path."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy

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
        array = keras.ops.convert_to_numpy(variable)
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
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None
    problems = mismatches(variables, arrays)
    if problems:
        raise CheckpointError(f"{path}: does not fit the model: {'; '.join(problems)}")
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(variable.dtype))
    return metadata


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
