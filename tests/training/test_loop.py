"""A run that is stopped, killed, poisoned or without room on the disk, against the same run left alone."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from zoo.training import TrainingError


def tensors(checkpoint):
    return safetensors.numpy.load_file(checkpoint)


def position(checkpoint):
    """Where a checkpoint stands, without the time it took."""
    with safetensors.safe_open(checkpoint, framework="numpy") as file:
        found = json.loads(file.metadata()["position"])
    assert found.pop("seconds") > 0
    return found


def assert_same_state(checkpoint, other):
    """Weights, optimizer, average, seeds and position: bit for bit."""
    assert position(checkpoint) == position(other)
    mine, theirs = tensors(checkpoint), tensors(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(small, tmp_path_factory):
    """The checkpoint of a run that nothing happened to."""
    checkpoint = tmp_path_factory.mktemp("uninterrupted") / "checkpoint.safetensors"
    small.make_run(checkpoint).train()
    return checkpoint


# === Stopping and going on ===


def test_dropout_and_the_seed_matter(small, uninterrupted, tmp_path):
    # Otherwise the tests below could not tell whether the seeds are restored.
    run = small.make_run(tmp_path / "checkpoint")
    run.model.get_layer("dropout").seed_generator.state.assign([5, 6])
    run.train()
    assert not np.array_equal(
        tensors(tmp_path / "checkpoint")["hidden/kernel"], tensors(uninterrupted)["hidden/kernel"]
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", [1, 5, 8])
def test_an_interrupted_run_takes_a_checkpoint_and_goes_on(small, uninterrupted, step, signum, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(number):
        if number == step:
            os.kill(os.getpid(), signum)

    with pytest.raises(KeyboardInterrupt):
        small.make_run(checkpoint, before=interrupt).train()
    assert position(checkpoint)["step"] == step
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    small.make_run(checkpoint).train()
    assert_same_state(checkpoint, uninterrupted)


def test_a_second_interruption_does_not_wait(small, tmp_path):
    def interrupt_twice(number):
        if number == 2:
            signal.raise_signal(signal.SIGINT)  # heard before it returns
            signal.raise_signal(signal.SIGINT)

    # Shells start what they send to the background with SIGINT ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            small.make_run(tmp_path / "checkpoint", before=interrupt_twice).train()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert os.listdir(tmp_path) == []


def test_a_run_can_be_interrupted_again_and_again(small, uninterrupted, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def interrupt(number):
        if number % 4 == 0:
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            small.make_run(checkpoint, before=interrupt).train()
    small.make_run(checkpoint, before=interrupt).train()
    assert_same_state(checkpoint, uninterrupted)


def test_a_finished_run_has_nothing_left_to_do(small, uninterrupted, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(uninterrupted.read_bytes())
    run = small.make_run(checkpoint, evaluate=lambda: pytest.fail("it evaluates again"))
    assert run.train().step == 17
    assert checkpoint.read_bytes() == uninterrupted.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "saved"), [(("--kill-before", "9"), 6), (("--kill-while-saving", "3"), 6)], ids=["training", "saving"]
)
def test_a_killed_run_loses_at_most_what_came_after_its_checkpoint(small, uninterrupted, kill, saved, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    killed = subprocess.run(
        [sys.executable, small.__file__, checkpoint, *kill], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert position(checkpoint)["step"] == saved
    run = small.make_run(checkpoint)
    assert run.train().step == 17
    assert_same_state(checkpoint, uninterrupted)


# === What goes wrong ===


@pytest.mark.parametrize(
    ("bad", "name"),
    [({"scale": np.array(np.nan)}, "loss"), ({"scale": np.zeros(())}, "gradient_norm")],
    ids=["loss", "gradient"],
)
@pytest.mark.parametrize("step", [5, 6])
def test_what_is_not_a_number_is_reported_and_never_saved(small, uninterrupted, step, bad, name, tmp_path):
    # Step 6 is one after which a checkpoint is due.
    checkpoint = tmp_path / "checkpoint.safetensors"
    run = small.make_run(checkpoint, before=lambda number: bad if number == step else None)
    with pytest.raises(TrainingError, match=rf"^{name} is nan at step {step};.*learning_rate"):
        run.train()
    assert position(checkpoint)["step"] == 3
    assert all(np.isfinite(array).all() for array in tensors(checkpoint).values())
    small.make_run(checkpoint).train()
    assert_same_state(checkpoint, uninterrupted)


def test_weights_that_are_not_numbers_are_not_kept_as_the_best(small):
    bad = {"scale": np.array(np.nan)}
    run = small.make_run(
        before=lambda number: bad if number == 2 else None,
        keep_best=lambda: pytest.fail("it keeps bad weights"),
        evaluate_every=3,
        save_every=100,
        log_every=100,
    )
    with pytest.raises(TrainingError, match="at step 2"):
        run.train()


def test_a_full_disk_leaves_the_old_checkpoint(small, uninterrupted, tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.safetensors"
    save_file, saves = safetensors.numpy.save_file, []

    def fill_up(arrays, path, metadata):
        saves.append(path)
        save_file(arrays, path, metadata)
        if len(saves) == 2:
            os.truncate(path, 1000)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", fill_up)
        with pytest.raises(OSError, match="No space left on device"):
            small.make_run(checkpoint).train()
    assert len(saves) == 2
    assert os.listdir(tmp_path) == [checkpoint.name]
    assert position(checkpoint)["step"] == 3
    small.make_run(checkpoint).train()
    assert_same_state(checkpoint, uninterrupted)


def test_a_checkpoint_of_another_model_is_refused(small, uninterrupted, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(uninterrupted.read_bytes())
    run = small.make_run(checkpoint, width=9)
    before = [np.array(weight) for weight in run.model.weights]
    with pytest.raises(TrainingError, match=r"^cannot go on with this run: .*hidden/kernel is \(6, 8\).*\(6, 9\)"):
        run.train()
    for weight, value in zip(run.model.weights, before):
        np.testing.assert_array_equal(weight, value)
    assert checkpoint.read_bytes() == uninterrupted.read_bytes()


def test_a_broken_checkpoint_is_refused(small, uninterrupted, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(uninterrupted.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: not a whole safetensors file"):
        small.make_run(checkpoint).train()


# === Evaluation ===


def scripted(scores):
    """An evaluation that says these scores, one after the other, and counts how often it was asked."""
    asked = iter(scores)
    return lambda: {"score": next(asked), "loss": 10.0, "other": 1.0}


def test_the_run_stops_when_its_patience_is_over(small, tmp_path):
    kept = []
    checkpoint = tmp_path / "checkpoint.safetensors"

    def make(scores):
        return small.make_run(
            checkpoint,
            evaluate=scripted(scores),
            keep_best=lambda: kept.append(True),
            evaluate_every=2,
            patience=2,
        )

    found = make([1.0, 3.0, 2.0, 3.0, 4.0]).train()
    assert (found.step, found.best, found.worse, len(kept)) == (8, 3.0, 2, 2)
    assert position(checkpoint)["step"] == 8
    # The same command again does not train on.
    assert make([]).train().step == 8


def test_a_better_evaluation_renews_the_patience(small):
    run = small.make_run(evaluate=scripted([2.0, 1.0, 3.0, 1.0, 4.0, 0.0]), evaluate_every=2, patience=2, steps=12)
    found = run.train()
    assert (found.step, found.best, found.worse) == (12, 4.0, 1)


def test_the_best_weights_are_the_averaged_ones_of_their_step(small):
    kept, seen = [], []
    run = small.make_run(
        evaluate=lambda: {"score": seen.append(weights(run)) or {4: 5.0}.get(run.position.step, 1.0)},
        keep_best=lambda: kept.append((run.position.step, weights(run))),
        evaluate_every=2,
        steps=6,
    )

    def weights(run):
        return [np.array(variable) for variable in run.model.trainable_variables]

    run.train()
    assert [step for step, _ in kept] == [2, 4]
    for mine, evaluated in zip(kept[-1][1], seen[1], strict=True):
        np.testing.assert_array_equal(mine, evaluated)
    # Afterwards the trained weights are back in place; the average holds what the last evaluation saw.
    for average, evaluated, trained in zip(run.average.variables, seen[2], weights(run), strict=True):
        np.testing.assert_array_equal(average, evaluated)
        assert not np.array_equal(trained, evaluated)


def test_evaluating_does_not_change_the_training(small, uninterrupted, tmp_path):
    run = small.make_run(tmp_path / "checkpoint", evaluate_every=2)
    run.train()
    mine, theirs = tensors(tmp_path / "checkpoint"), tensors(uninterrupted)
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_a_low_loss_is_the_best(small):
    losses = iter([3.0, 1.0, 2.0])
    kept = []
    run = small.make_run(
        evaluate=lambda: {"loss": next(losses)},
        keep_best=lambda: kept.append(run.position.step),
        monitor="loss",
        evaluate_every=2,
        steps=6,
    )
    found = run.train()
    assert kept == [2, 4]
    assert (abs(found.best), found.worse) == (1.0, 1)


def test_an_unknown_metric_to_monitor_is_an_error(small):
    run = small.make_run(evaluate=scripted([1.0]), monitor="blue", steps=1)
    with pytest.raises(TrainingError, match=r"^monitor: no dev metric 'blue'; there is loss, other, score$"):
        run.train()


# === Reports ===


def test_without_a_terminal_plain_lines_tell_the_time_left(small, capsys):
    small.make_run(log_every=5, steps=10).train()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 5/10", "step 10/10", "step 10/10"]
    assert all("left " in line for line in lines)
    assert "loss " in lines[0]
    assert "score 1" in lines[-1]
