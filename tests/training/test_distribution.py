"""Several devices and processes learn what one device learns; a lost worker ends a run that can be gone on with."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

import zoo
from zoo import cli
from zoo.config import ConfigError
from zoo.models.encoder_decoder import encoder_decoder
from zoo.tasks.task import CHECKPOINT, WEIGHTS
from zoo.training.distribution import check_rows, open_strategy

BACKEND = keras.backend.backend()
PROGRAM = Path(__file__).parent / "distributed_run.py"
SECONDS = 1200  # what a lost worker may take at the very most to be noticed


def start(backend, *arguments, **environment):
    """Starts the program that stands beside the tests, on the backend that it is for."""
    if BACKEND != "tensorflow":
        pytest.skip("what runs in processes of its own is the same wherever it is started from")
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(zoo.__file__).parents[1]),
        **environment,
    }
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    """Waits for a program; returns its exit status and what it said."""
    try:
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, said


def devices(backend, folder, *strategies, **environment):
    """Runs on one device and by each strategy; returns what it wrote."""
    status, said = finish(start(backend, "devices", folder, *strategies, **environment))
    assert status == 0, said
    return folder


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    """One device, and two replicas in one process, by TensorFlow."""
    return devices("tensorflow", tmp_path_factory.mktemp("tensorflow"), "mirrored", CPUS="2")


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory):
    """One device, and four of them, by JAX."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    folder = tmp_path_factory.mktemp("jax")
    return devices("jax", folder, "data-parallel", "model-parallel=2", XLA_FLAGS=flags)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """Two processes of which the second is killed before step 5; then the same two again, to the end."""
    folder = tmp_path_factory.mktemp("workers")
    # The second worker has a folder of its own: the chief alone needs the checkpoint.
    folders = folder / "chief", folder / "other"

    def run(*kill):
        with socket.socket() as first, socket.socket() as second:
            for free in (first, second):
                free.bind(("127.0.0.1", 0))
            workers = [f"127.0.0.1:{free.getsockname()[1]}" for free in (first, second)]
        told = [
            json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}) for index in (0, 1)
        ]
        chief = start("tensorflow", "worker", folders[0], TF_CONFIG=told[0])
        other = start("tensorflow", "worker", folders[1], *kill, TF_CONFIG=told[1])
        return finish(chief), finish(other)

    killed = run("--kill-before", "5")
    left = safetensors.numpy.load_file(folders[0] / CHECKPOINT)
    return {"killed": killed, "left": left, "rest": run(), "folders": folders}


def state(folder):
    """Everything that a run's checkpoint holds."""
    return safetensors.numpy.load_file(folder / CHECKPOINT)


def assert_scores_alike(folder, other):
    """Compares the best dev loss of two runs, and the loss that their programs find after them."""
    losses = []
    for run in (folder, other):
        with safetensors.safe_open(run / CHECKPOINT, framework="numpy") as file:
            best = -json.loads(file.metadata()["position"])["best"]
        after = json.loads((run / "after.json").read_text())["loss"]
        assert after == pytest.approx(best, rel=1e-4)  # a run ends with its best weights
        losses.append(best)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def assert_same(found, expected, tolerance=1e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


# === Replicas in one process ===


@pytest.mark.slow
def test_two_replicas_learn_what_one_device_learns(on_tensorflow):
    assert_same(state(on_tensorflow / "mirrored"), state(on_tensorflow / "one"))


@pytest.mark.slow
def test_evaluation_sees_the_weights_as_they_are_in_the_run_and_after_it(on_tensorflow):
    assert_scores_alike(on_tensorflow / "mirrored", on_tensorflow / "one")


@pytest.mark.slow
def test_ranks_loss_variables_parts_and_a_scaled_loss_are_those_of_one_device(on_tensorflow):
    one, two = (dict(np.load(on_tensorflow / name / "everything.npz")) for name in ("one", "mirrored"))
    assert one["metric_rank"] < 4  # some were taken away
    assert_same(two, one)


@pytest.mark.slow
def test_each_replica_drops_out_its_own_elements(on_tensorflow):
    left = json.loads((on_tensorflow / "mirrored" / "masks.json").read_text())
    # Two rows, one for each replica, keep 0 or 2 of each place: 1 is where one of them keeps it.
    assert {0.0, 1.0, 2.0} == set(left)


# === Workers ===


@pytest.mark.slow
def test_a_lost_worker_ends_the_run_with_what_to_do_and_a_whole_checkpoint(two_workers):
    (status, said), (other, _) = two_workers["killed"]
    assert other == -9
    assert status not in (0, None)
    assert "TrainingError: a worker of this run is gone" in said
    assert "the same command, given to all 2 workers again, goes on from the last checkpoint" in said
    assert int(two_workers["left"]["optimizer/iteration"]) == 3


@pytest.mark.slow
def test_two_workers_that_were_stopped_learn_what_one_process_learns(two_workers, on_tensorflow):
    for status, said in two_workers["rest"]:
        assert status == 0, said
        assert "goes on from step 3" in said
    assert_same(state(two_workers["folders"][0]), state(on_tensorflow / "one"))


@pytest.mark.slow
def test_only_the_chief_writes_and_the_others_stay_equal(two_workers):
    chief, other = two_workers["folders"]
    assert {path.name for path in other.iterdir()} == {"model.npz"}
    assert (chief / WEIGHTS).is_file()
    first, second = (np.load(folder / "model.npz") for folder in (chief, other))
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])


# === Devices of JAX ===


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data-parallel", "model-parallel=2"])
def test_four_devices_learn_what_one_learns_dropout_included(strategy, on_jax):
    assert_same(state(on_jax / strategy), state(on_jax / "one"))
    assert_scores_alike(on_jax / strategy, on_jax / "one")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data-parallel", "model-parallel=2"])
def test_on_jax_too_everything_takes_part(strategy, on_jax):
    one, four = (dict(np.load(on_jax / name / "everything.npz")) for name in ("one", strategy))
    assert_same(four, one)


@pytest.mark.skipif(BACKEND != "jax", reason="Keras lays variables out on JAX alone")
def test_heads_hidden_units_and_words_are_divided_up(tiny_config):
    from zoo.training.distribution_jax import model_layout

    model = encoder_decoder(tiny_config(vocabulary_size=40, tied_output=False))
    layout = model_layout(model, 2)
    columns, rows = (None, "model"), ("model", None)
    attention, feedforward = "encoder/block_0/self_attention", "decoder/block_1/feedforward"
    expected = {
        f"{attention}/query/kernel": columns,
        f"{attention}/value/bias": ("model",),
        f"{attention}/output/kernel": rows,
        f"{feedforward}/hidden/kernel": columns,
        f"{feedforward}/output/kernel": rows,
        "embedding/embeddings": rows,
        "output/kernel": columns,
    }
    assert {path: layout.get(path) for path in expected} == expected
    # What is added behind a sum belongs to no device's share, and two heads are not divided up among four.
    assert f"{attention}/output/bias" not in layout
    assert not [path for path in model_layout(model, 4) if "attention" in path]


# === What cannot be ===


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("mirored", "mirrored"),
        ("data-parallel", "it is for the jax backend; on tensorflow there is mirrored, multi-worker, tpu"),
        ("mirrored=2", "it is mirrored, multi-worker, tpu"),
    ]
    if BACKEND == "tensorflow"
    else [
        ("data-paralel", "data-parallel"),
        ("multi-worker", "it is for the tensorflow backend; on jax there is data-parallel, model-parallel=N"),
        ("model-parallel", "model-parallel=N, where N is a number"),
        ("model-parallel=two", "model-parallel=N, where N is a number"),
        ("model-parallel=7", "it divides the number of devices"),
    ],
)
def test_a_word_that_does_not_fit_is_one_error(word, complaint, capsys):
    assert cli.main(["train", "translation", "--data", "toy:numbers/en-de", "--strategy", word]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"zoo: --strategy {word!r}: ") or said.startswith(f"zoo: --strategy {word}: ")
    assert complaint in said


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TF_CONFIG is TensorFlow's")
@pytest.mark.parametrize(
    "told",
    [
        "",
        "{",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_workers_that_nobody_names_are_one_error(told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(ConfigError, match=r"TF_CONFIG is .*each worker has its own"):
        open_strategy("multi-worker")


def test_a_batch_that_cannot_be_divided_up_is_one_error():
    check_rows(6, 3)
    with pytest.raises(ConfigError, match="7 rows cannot be divided up among 3 replicas"):
        check_rows(7, 3)
