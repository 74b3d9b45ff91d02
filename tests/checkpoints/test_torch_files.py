"""Files of torch are read to the last number, and run nothing."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zoo.checkpoints import CheckpointError
from zoo.checkpoints.torch_files import read_torch

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("name", ["new.pt", "old.pt"])
def test_every_tensor_has_torchs_numbers(name):
    tensors = read_torch(FIXTURES / name)
    with np.load(FIXTURES / "torch_files.npz") as expected:
        assert set(tensors) == set(expected)
        for key, array in expected.items():
            assert tensors[key].shape == array.shape
            np.testing.assert_array_equal(tensors[key].astype("float32"), array)
    types = {key: tensors[key].dtype.name for key in ("plain", "integers", "half", "bfloat16", "booleans")}
    assert types == {
        "plain": "float32",
        "integers": "int64",
        "half": "float16",
        "bfloat16": "float32",
        "booleans": "bool",
    }


def test_a_state_dict_inside_a_training_checkpoint_is_found():
    assert set(read_torch(FIXTURES / "nested.pt")) == {"plain"}


def test_a_whole_module_is_refused():
    with pytest.raises(CheckpointError, match=r"module.pt: it asks for torch.nn.modules.linear.Linear, which no state"):
        read_torch(FIXTURES / "module.pt")


class Hostile:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


def legacy(path, pickled):
    start = b"".join(pickle.dumps(x, protocol=2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(start + pickled)
    return path


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", ["system", "open", "eval", "getattr"])
def test_a_pickle_that_calls_something_is_refused_before_the_call(tmp_path, write, protocol, call):
    witness = tmp_path / "witness"
    hostile = {
        "system": Hostile(os.system, f"touch {witness}"),
        "open": Hostile(open, str(witness), "w"),
        "eval": Hostile(eval, f"open({str(witness)!r}, 'w')"),
        "getattr": Hostile(getattr, "text", "upper"),
    }[call]
    pickled = pickle.dumps({"weight": hostile}, protocol=protocol)
    with pytest.raises(CheckpointError, match=r"it asks for .*; the file is refused, nothing of it was run"):
        read_torch(write(tmp_path / "hostile.pt", pickled))
    assert not witness.exists()


@pytest.mark.parametrize("name", ["new.pt", "old.pt"])
def test_a_file_that_was_cut_short_is_refused_wherever_it_was_cut(tmp_path, name):
    data = (FIXTURES / name).read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        path = tmp_path / name
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CheckpointError, match=name):
            read_torch(path)


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path):
    # torch._utils._rebuild_tensor_v2(storage, offset, shape, strides) over four numbers.
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    for shape in (b"K\x05\x85", b"J\xff\xff\xff\xff\x85"):
        pickled = b"\x80\x02}X\x01\x00\x00\x00w" + name + b"(" + storage + b"K\x00" + shape + b"K\x01\x85tRs."
        path = tmp_path / "beyond.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
        with pytest.raises(CheckpointError, match="reaches beyond its 4 numbers"):
            read_torch(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    for thing in ({"epoch": 3}, [1, 2], {}):
        with pytest.raises(CheckpointError):
            read_torch(zipped(tmp_path / "none.pt", pickle.dumps(thing, protocol=2)))
