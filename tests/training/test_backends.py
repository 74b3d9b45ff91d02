"""The same run on both backends, begun on one and gone on with on the other; and what a step is on JAX."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from zoo.config import ConfigError
from zoo.tasks.task import CHECKPOINT
from zoo.training import make_train_step

ON_JAX = keras.backend.backend() == "jax"
on_jax = pytest.mark.skipif(not ON_JAX, reason="of the jax backend")
# From one side is enough: it takes long.
compared = pytest.mark.skipif(
    ON_JAX or importlib.util.find_spec("jax") is None, reason="jax is compared with from tensorflow, where it is there"
)


@pytest.fixture(scope="module")
def runs(load_beside, tmp_path_factory):
    """What TensorFlow and JAX say of the same run, begun on TensorFlow."""
    toy, folder = load_beside("toy_run"), tmp_path_factory.mktemp("runs")
    task, half, output = toy.begin(folder / "begun"), folder / "half.safetensors", folder / "other.json"

    def keep(step):
        if step == toy.STEPS // 2 + 1:
            shutil.copy(folder / "run" / CHECKPOINT, half)

    here = {"whole": toy.train(task, folder / "run", keep), **toy.show(task)}
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(Path(zoo.__file__).parents[1])
    command = [sys.executable, toy.__file__, folder / "begun", half, output]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = json.loads(output.read_text())
    assert there["backend"] == "jax"
    return here, there


def curve(said, name="loss", run="train"):
    return [values[name] for values in said if values["run"] == run]


@pytest.mark.slow
@compared
def test_both_backends_learn_the_same_dropout_included(runs):
    here, there = (found["whole"] for found in runs)
    for name in ("loss", "learning_rate", "gradient_norm", "padding"):
        np.testing.assert_allclose(curve(there, name), curve(here, name), rtol=1e-3, err_msg=name)
    assert curve(here)[0] > 1.2 * curve(here)[-1]


@pytest.mark.slow
@compared
def test_what_was_learned_is_scored_and_shown_alike(runs):
    here, there = runs
    assert curve(there["whole"], "loss", "dev") == pytest.approx(curve(here["whole"], "loss", "dev"), rel=1e-3)
    assert there["texts"] == here["texts"]
    assert there["maps"].keys() == here["maps"].keys()
    for path, weights in here["maps"].items():
        np.testing.assert_allclose(there["maps"][path], weights, atol=1e-2, err_msg=path)


@pytest.mark.slow
@compared
def test_jax_goes_on_with_tensorflows_run(runs):
    here, rest = curve(runs[0]["whole"]), curve(runs[1]["rest"])
    assert len(rest) == len(here) // 2
    np.testing.assert_allclose(rest, here[-len(rest) :], rtol=1e-3)


# === JAX ===


def small():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])


def squares(model, batch, training):
    return keras.ops.mean(keras.ops.square(model(batch["x"], training=training) - 1.0)), {}


BATCH = {"x": np.ones((2, 4), "float32")}


@on_jax
def test_a_steps_state_is_taken_over():
    model = small()
    step = make_train_step(model, keras.optimizers.Adam(0.1), squares, clip_norm=1.0)
    step(BATCH)
    before = [variable.value for variable in step.variables]
    step(BATCH)
    assert all(value.is_deleted() for value in before)
    assert not any(variable.value.is_deleted() for variable in step.variables)


@on_jax
def test_the_pure_step_is_the_step():
    import jax

    found = []
    for pure in (False, True):
        model = small()
        step = make_train_step(model, keras.optimizers.Adam(0.1), squares, clip_norm=1.0)
        assert [(x.shape, x.dtype) for x in step.abstract_state] == [(v.shape, v.dtype) for v in step.variables]
        if pure:
            program = jax.jit(step.function, donate_argnums=0).lower(step.abstract_state, BATCH).compile()
            before = [variable.value + 0 for variable in step.variables]
            state, metrics = program(before, BATCH)
            state, metrics = program(state, BATCH)
        else:
            step(BATCH)
            metrics = step(BATCH)
            state = [variable.value for variable in step.variables]
        found.append(([np.array(value) for value in state], {name: float(value) for name, value in metrics.items()}))
    assert found[0][1] == found[1][1]
    for mine, theirs in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@on_jax
def test_tensorflows_products_are_refused():
    with pytest.raises(ConfigError, match=r"^training.matmul: 'bfloat16'.*tensorflow.*training.precision"):
        make_train_step(small(), keras.optimizers.SGD(0.1), squares, clip_norm=1.0, matmul="bfloat16")


@pytest.mark.skipif(ON_JAX, reason="of the tensorflow backend")
def test_bfloat16_products_are_refused_where_tensorflow_was_not_told_of_them(monkeypatch):
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    with pytest.raises(RuntimeError, match=r"training.matmul.*--bfloat16.*'float32' needs nothing"):
        make_train_step(small(), keras.optimizers.SGD(0.1), squares, clip_norm=1.0, matmul="bfloat16")
