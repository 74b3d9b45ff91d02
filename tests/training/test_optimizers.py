"""Optimizers by name: what decays, what resumes, and against the papers where that takes a few lines."""

import keras
import numpy as np
import pytest
import safetensors.numpy
from keras import ops

from zoo.config import ConfigError
from zoo.training import OptimizerConfig, make_optimizer

NAMES = ("adamw", "adafactor", "lion", "muon")


def variables():
    """One of each kind: two matrices, an embedding, a bias and a normalization, all ones."""
    shapes = {"kernel": (4, 3), "embeddings": (5, 4), "bias": (3,), "gamma": (3,)}
    made = []
    for name, shape in shapes.items():
        with keras.name_scope("embedding" if name == "embeddings" else "dense"):
            made.append(keras.Variable(np.ones(shape, "float32"), name=name))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_matrices_decay_with_the_schedule_and_vectors_do_not(name):
    # Without a gradient, decay is all that an optimizer does.
    config = OptimizerConfig(name=name, learning_rate=0.5, warmup_steps=2, weight_decay=0.2)
    made = variables()
    optimizer = make_optimizer(config, steps=10)
    expected = 1.0
    for rate in (0.25, 0.5):
        optimizer.apply([ops.zeros(variable.shape) for variable in made], made)
        expected *= 1 - 0.2 * rate
    for variable in made:
        want = expected if len(variable.shape) == 2 else 1.0
        np.testing.assert_allclose(variable, np.full(variable.shape, want), rtol=1e-5, err_msg=variable.path)


def one_step(name, rng):
    """Takes one step at a rate of 0.1 without decay; returns gradients and moves."""
    config = OptimizerConfig(name=name, learning_rate=0.1, warmup_steps=1, weight_decay=0.0)
    made = variables()
    gradients = [rng.normal(size=variable.shape).astype("float32") for variable in made]
    make_optimizer(config, steps=10).apply([ops.convert_to_tensor(gradient) for gradient in gradients], made)
    return gradients, [np.array(variable) - 1 for variable in made]


def test_lion_goes_the_same_way_everywhere(rng):
    for gradient, move in zip(*one_step("lion", rng)):
        np.testing.assert_allclose(move, -0.1 * np.sign(gradient), rtol=1e-4)


def test_adafactor_moves_by_a_share_of_the_size(rng):
    # At the first step the squares' factors are those of one gradient: Shazeer & Stern 2018, algorithms 4 and 5.
    gradients, moves = one_step("adafactor", rng)
    gradient = gradients[0].astype("float64")
    squares = np.outer((gradient**2).mean(1), (gradient**2).mean(0)) / (gradient**2).mean()
    update = gradient / np.sqrt(squares)
    update /= max(1, np.sqrt((update**2).mean()))
    np.testing.assert_allclose(moves[0], -0.1 * update, rtol=1e-3)


def test_muon_moves_hidden_matrices_along_orthogonal_ones_and_leaves_the_rest_to_adamw(rng):
    gradients, moves = one_step("muon", rng)
    # Jordan et al. 2024: singular values near 1, at the size of AdamW's updates (Liu et al. 2025, equation 4).
    values = np.linalg.svd(moves[0], compute_uv=False) / (0.1 * 0.2 * np.sqrt(4))
    assert values.min() > 0.6
    assert values.max() < 1.3
    for gradient, move in zip(gradients[1:], moves[1:]):
        np.testing.assert_allclose(move, -0.1 * np.sign(gradient), rtol=1e-3)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match=r"^OptimizerConfig.name: 'adam_w'; did you mean 'adamw'\?$"):
        OptimizerConfig(name="adam_w")


@pytest.mark.parametrize(
    "settings",
    [
        *({"optimizer": OptimizerConfig(name=name, learning_rate=0.05, warmup_steps=4)} for name in NAMES[1:]),
        {"precision": "mixed_float16"},
        {"accumulate": 2},
    ],
    ids=[*NAMES[1:], "mixed_float16", "in parts"],
)
def test_a_run_goes_on_bit_for_bit(small, settings, tmp_path):
    settings = {**settings, "steps": 7}
    small.make_run(tmp_path / "whole", **settings).train()
    run = small.make_run(tmp_path / "stopped", before=lambda number: stop(number), **settings)

    def stop(number):
        if number == 4:  # behind a checkpoint
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run.train()
    small.make_run(tmp_path / "stopped", **settings).train()
    mine, theirs = (safetensors.numpy.load_file(tmp_path / name) for name in ("stopped", "whole"))
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
