"""Checkpoints: what was saved is what is loaded, or nothing is."""

import keras
import numpy as np
import pytest
import safetensors.numpy
from keras import ops

from zoo.checkpoints import CheckpointError, by_path, load, load_base, save


def variable(value, dtype="float32", **kwargs):
    return keras.Variable(np.array(value), dtype=dtype, **kwargs)


def values(variables):
    return {name: ops.convert_to_numpy(v).tolist() for name, v in variables.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "weights.safetensors"


def blank(variables):
    return {name: variable(np.zeros(v.shape), v.dtype) for name, v in variables.items()}


def test_what_was_saved_is_loaded(path):
    saved = {
        "matrix": variable([[1.5, -2.25, 3], [0, np.pi, 1e-30]]),
        "vector": variable([1, 2, 3], "int32"),
        "scalar": variable(7, "int32"),
        "seed": variable([2**32 - 1, 5], "uint32"),
        "half": variable([1.5, -2], "float16"),
        "brain": variable([1.5, 3e38], "bfloat16"),
        "flag": variable([True, False], "bool"),
        "empty": variable(np.zeros((0, 3))),
    }
    save(path, saved)
    loaded = blank(saved)
    assert load(path, loaded) == {}
    assert values(loaded) == values(saved)
    assert [v.dtype for v in loaded.values()] == [v.dtype for v in saved.values()]


def test_the_file_is_what_safetensors_reads(path):
    save(path, {"a/kernel": variable([[1, 2], [3, 4]]), "a/bias": variable([5])})
    arrays = safetensors.numpy.load_file(path)
    assert {name: array.tolist() for name, array in arrays.items()} == {"a/kernel": [[1, 2], [3, 4]], "a/bias": [5]}
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}


def test_what_safetensors_writes_is_loaded(path):
    path.parent.mkdir()
    safetensors.numpy.save_file({"a": np.array([1, 2], "float64")}, path, metadata={"from": "elsewhere"})
    variables = {"a": variable([0, 0])}
    assert load(path, variables) == {"from": "elsewhere"}
    assert values(variables) == {"a": [1, 2]}


def test_a_float16_file_rounds_floats_only(path, rng):
    weights = rng.normal(size=(8, 50)).astype("float32")
    saved = {"weights": variable(weights), "count": variable(123456789, "int32"), "brain": variable([0.1], "bfloat16")}
    save(path, saved, dtype="float16")
    arrays = safetensors.numpy.load_file(path)
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        "weights": "float16",
        "count": "int32",
        "brain": "float16",
    }
    loaded = blank(saved)
    load(path, loaded)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded["weights"]), weights.astype("float16").astype("float32"))
    assert loaded["weights"].dtype == "float32"
    assert int(loaded["count"].value) == 123456789
    assert values(saved)["weights"] == weights.tolist()


def test_metadata_comes_back(path):
    save(path, {"a": variable([1])}, position='{"step": 3}', note="größer")
    assert load(path, {"a": variable([0])}) == {"position": '{"step": 3}', "note": "größer"}


# === By path ===


def test_variables_are_named_by_their_path():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(keras.layers.Dense(4, name="hidden")(inputs)))
    named = by_path(model.weights)
    assert list(named) == ["hidden/kernel", "hidden/bias", "out/kernel", "out/bias"]
    assert all(a is b for a, b in zip(named.values(), model.weights))


def test_two_variables_of_one_path_are_refused():
    first, second = keras.layers.Dense(2, name="same"), keras.layers.Dense(2, name="same")
    first.build((None, 3))
    second.build((None, 3))
    with pytest.raises(CheckpointError, match="two variables are called same/kernel"):
        by_path(first.weights + second.weights)


# === What does not fit ===


def test_all_that_does_not_fit_is_listed_and_nothing_is_changed(path):
    save(path, {name: variable(np.ones(shape)) for name, shape in FILE.items()})
    variables = {name: variable(np.zeros(shape)) for name, shape in MODEL.items()}
    with pytest.raises(CheckpointError) as caught:
        load(path, variables)
    message = str(caught.value)
    assert message.startswith(f"{path}: does not fit the model: ")
    problems = set(message.partition("the model: ")[2].split("; "))
    assert problems == {
        "missing new (4,)",
        "missing newer (2, 3)",
        "left over old (5,)",
        "left over older ()",
        "wide is (2, 3), the model's (3, 2)",
        "flat is (6,), the model's (2, 3)",
    }
    assert not any(np.any(value) for value in values(variables).values())


FILE = {"fits": (2, 2), "old": (5,), "older": (), "wide": (2, 3), "flat": (6,)}
MODEL = {"fits": (2, 2), "new": (4,), "newer": (2, 3), "wide": (3, 2), "flat": (2, 3)}


def test_a_model_of_another_size_is_refused(path, tiny_model, tiny_config):
    from zoo.models.encoder_decoder import encoder_decoder

    save(path, by_path(tiny_model.weights))
    other = encoder_decoder(tiny_config(num_decoder_layers=3, feedforward_dim=20))
    before = [weight.copy() for weight in other.get_weights()]
    with pytest.raises(CheckpointError) as caught:
        load(path, by_path(other.weights))
    message = str(caught.value)
    assert "missing decoder/block_2/cross_attention/query/kernel (16, 16)" in message
    assert "encoder/block_1/feedforward/hidden/kernel is (16, 24), the model's (16, 20)" in message
    assert "left over" not in message
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), before))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 20, -100, -1])
def test_a_truncated_file_is_refused_and_nothing_is_changed(path, length):
    save(path, {"a": variable(np.ones(100)), "b": variable(np.ones(100))})
    path.write_bytes(path.read_bytes()[:length])
    variables = {"a": variable(np.zeros(100)), "b": variable(np.zeros(100))}
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a whole safetensors file"):
        load(path, variables)
    assert not any(np.any(value) for value in values(variables).values())


@pytest.mark.parametrize("content", [b"hello, this is a text", b'{"a": 1}', bytes(100), b"\xff" * 100])
def test_another_kind_of_file_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a whole safetensors file"):
        load(path, {"a": variable([0])})


def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors"):
        load(path, {"a": variable([0])})


def test_a_failing_save_leaves_the_old_file(path, monkeypatch):
    save(path, {"a": variable([1])})

    def half_of_it(arrays, file, metadata=None):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", half_of_it)
    with pytest.raises(OSError, match="no space left"):
        save(path, {"a": variable([2])})
    variables = {"a": variable([0])}
    load(path, variables)
    assert values(variables) == {"a": [1]}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# === Going on from another model ===


def test_a_model_that_goes_on_may_have_more_rows_and_another_head(path):
    save(path, {"table": variable([[1, 2], [3, 4]]), "kernel": variable([5]), "old_head/bias": variable([6])})
    model = {"table": variable(np.zeros((3, 2)) - 1), "kernel": variable([0]), "new_head/bias": variable([9])}
    load_base(path, model, optional=("old_head/", "new_head/"), growing="table")
    assert values(model) == {"table": [[1, 2], [3, 4], [-1, -1]], "kernel": [5], "new_head/bias": [9]}


def test_a_head_that_both_have_is_read(path):
    save(path, {"head/bias": variable([6])})
    model = {"head/bias": variable([9])}
    load_base(path, model, optional=("head/",))
    assert values(model) == {"head/bias": [6]}


def test_what_does_not_fit_a_model_that_goes_on_is_listed_and_nothing_changes(path):
    save(path, {"table": variable(np.ones((4, 2))), "kernel": variable([5]), "wide": variable([[1, 2]])})
    model = {"table": variable(np.zeros((3, 2))), "other": variable([0]), "wide": variable([[7], [8]])}
    with pytest.raises(CheckpointError) as error:
        load_base(path, model, optional=("head/",), growing="table")
    for says in (
        "missing other (1,)",
        "left over kernel (1,)",
        "table is (4, 2), the model's (3, 2)",
        "wide is (1, 2)",
    ):
        assert says in str(error.value)
    assert values(model) == {"table": [[0, 0]] * 3, "other": [0], "wide": [[7], [8]]}
