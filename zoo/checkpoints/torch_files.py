"""Tensors out of files that torch wrote, without torch and without running what such a file may contain.

A .bin, .pt or .pth file is a pickle, and a pickle is a program. This reader knows the few names that a dictionary of
tensors needs and refuses every other one before anything of it is called.
"""

import collections
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from zoo.checkpoints.weights import CheckpointError

# The first object in a file of torch before version 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGE_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
        path: A file that torch.save() wrote, in today's format (zip) or the one before torch 1.6.

    Returns:
        Name -> array; bfloat16 comes as float32. A dictionary under "state_dict" or "model" is looked into.

    Raises:
        CheckpointError: If the file is damaged, holds something else than tensors by name, or names anything that a
            state dict does not need.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            found = _read_zip(file) if zipped else _read_legacy(file)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(f"{path}: not a whole torch file: {type(error).__name__}: {error}") from None
    for name in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds {type(found).__name__}; it takes a state dict, tensors by name")
    tensors = {name: value for name, value in found.items() if isinstance(value, _Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise CheckpointError(f"{path}: no tensors by name")
    return {name: tensor.array() for name, tensor in tensors.items()}


# === What a state dict is made of ===


class _Storage:
    """A run of numbers that tensors are views of; its bytes may come later than its name."""

    def __init__(self, dtype: str, size: int):
        self.dtype = dtype
        self.size = size
        self.numbers: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        width = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        if len(data) < self.size * width:
            raise CheckpointError(f"a storage of {self.size} numbers has {len(data)} bytes; the file is cut short")
        if self.dtype == "bfloat16":  # the upper half of a float32
            upper = np.frombuffer(data, "<u2", self.size).astype("<u4") << 16
            self.numbers = upper.view("<f4")
        else:
            self.numbers = np.frombuffer(data, self.dtype, self.size)


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        numbers = self.storage.numbers
        if numbers is None:
            raise CheckpointError("a tensor without its numbers; the file is cut short")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if min((self.offset, *self.shape, *self.strides), default=0) < 0 or (all(self.shape) and last >= numbers.size):
            raise CheckpointError(f"a tensor of shape {self.shape} reaches beyond its {numbers.size} numbers")
        strides = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)
        return np.array(view)


def _rebuild_tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise CheckpointError("a tensor that is not a view of a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


class _StorageType(NamedTuple):
    dtype: str


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_TYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that can make nothing but dictionaries, lists, numbers, texts and tensors."""

    def __init__(self, file: BinaryIO, find_storage: Callable[[str, _Storage], _Storage]):
        super().__init__(file, encoding="utf-8")
        self.find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise CheckpointError(
                f"it asks for {module}.{name}, which no state dict needs; the file is refused, nothing of it was run"
            ) from None

    def persistent_load(self, identity: Any) -> Any:
        kind, storage_type, key, _, size = identity[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise CheckpointError(f"it refers to {kind!r} outside itself; only storages are known")
        storage = self.find_storage(str(key), _Storage(storage_type.dtype, int(size)))
        view = identity[5] if len(identity) > 5 else None
        if view is not None:
            raise CheckpointError("views of storages are not known; save the file again with a newer torch")
        return storage


# === The two formats ===


def _read_zip(file: BinaryIO) -> Any:
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise CheckpointError("it was written on a big-endian machine")

        def find_storage(key: str, storage: _Storage) -> _Storage:
            if key not in storages:
                storage.fill(archive.read(f"{folder}data/{key}"))
                storages[key] = storage
            return storages[key]

        with archive.open(pickled) as opened:
            return _Unpickler(opened, find_storage).load()  # type: ignore[arg-type]


def _read_legacy(file: BinaryIO) -> Any:
    storages: dict[str, _Storage] = {}

    def find_storage(key: str, storage: _Storage) -> _Storage:
        return storages.setdefault(key, storage)

    def load() -> Any:
        return _Unpickler(file, find_storage).load()

    if load() != _LEGACY_MAGIC:
        raise CheckpointError("not a file of torch")
    load()  # the protocol's version
    load()  # the writer's machine
    found = load()
    for key in load():
        storage = storages[str(key)]
        (size,) = struct.unpack("<q", file.read(8))
        if size != storage.size:
            raise CheckpointError(f"a storage of {storage.size} numbers says that it has {size}")
        width = 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize
        storage.fill(file.read(size * width))
    return found
