"""Dropout drops the right share, each element on its own, and only while training."""

import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import Dropout

ROWS, COLUMNS = 256, 512
SIZE = ROWS * COLUMNS
ONES = np.ones((ROWS, COLUMNS), "float32")


def kept(layer, x=ONES):
    return ops.convert_to_numpy(layer(x, training=True)) != 0


def correlation(x, y):
    return np.corrcoef(x.ravel().astype("float64"), y.ravel().astype("float64"))[0, 1]


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_the_share_that_is_dropped(rate):
    drops = ~kept(Dropout(rate, seed=1))
    error = np.sqrt(rate * (1 - rate) / SIZE)
    assert abs(drops.mean() - rate) < 4 * error


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_what_is_kept_is_scaled_so_that_mean_and_variance_are_right(rate, rng):
    x = rng.normal(2, 1, (ROWS, COLUMNS)).astype("float32")
    y = ops.convert_to_numpy(Dropout(rate, seed=2)(x, training=True))
    keeps = y != 0
    np.testing.assert_allclose(y[keeps], x[keeps] / (1 - rate), rtol=1e-6)
    # Var(y) = E(x^2) / (1 - rate) - E(x)^2 = 5 / (1 - rate) - 4
    deviation = np.sqrt(5 / (1 - rate) - 4)
    assert abs(y.mean() - 2) < 4 * deviation / np.sqrt(SIZE)
    assert abs(y.std() / deviation - 1) < 0.02


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_lose_no_more_and_no_less_than_chance(axis):
    counts = (~kept(Dropout(0.3, seed=3))).sum(axis=axis)
    n, groups = SIZE // len(counts), len(counts)
    # The variance of `groups` binomial counts has a relative error of sqrt(2 / groups).
    assert abs(counts.var() / (n * 0.3 * 0.7) - 1) < 4 * np.sqrt(2 / groups)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 16, 31, 32, 64, 100, 512, 1024, 4096])
def test_neighbours_drop_out_independently(distance):
    flat = kept(Dropout(0.3, seed=4)).ravel()
    assert abs(correlation(flat[distance:], flat[:-distance])) < 4.5 / np.sqrt(SIZE - distance)


def test_successive_steps_and_layers_drop_independently():
    layers = [Dropout(0.3, seed=seed) for seed in (10, 11, 12, 13)]
    keeps = [kept(layer) for layer in layers for _ in range(3)]
    for i, x in enumerate(keeps):
        for y in keeps[:i]:
            assert abs(correlation(x, y)) < 4.5 / np.sqrt(SIZE)
            # Nor is one mask the other, shifted.
            for shift in (1, 2, COLUMNS):
                assert abs(correlation(np.roll(x, shift), y)) < 5 / np.sqrt(SIZE)


def test_layers_without_a_seed_differ():
    first, second = kept(Dropout(0.5)), kept(Dropout(0.5))
    assert abs(correlation(first, second)) < 4.5 / np.sqrt(SIZE)


def test_the_seed_decides():
    first, again, other = Dropout(0.5, seed=7), Dropout(0.5, seed=7), Dropout(0.5, seed=8)
    sequence = [kept(first) for _ in range(3)]
    np.testing.assert_array_equal(sequence, [kept(again) for _ in range(3)])
    assert not np.array_equal(sequence[0], kept(other))
    assert not np.array_equal(sequence[0], sequence[1])


@pytest.mark.parametrize("training", [False, None])
def test_nothing_happens_outside_training(rng, training):
    layer, x = Dropout(0.9, seed=1), rng.normal(size=(3, 4)).astype("float32")
    before = ops.convert_to_numpy(layer.seed_generator.state)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x, training=training)), x)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.seed_generator.state), before)


def test_a_rate_of_0_does_nothing_and_holds_no_state(rng):
    layer, x = Dropout(0), rng.normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x, training=True)), x)
    assert layer.variables == []


def test_gradients_pass_where_elements_do(gradients):
    layer = Dropout(0.25, seed=5)
    keeps = kept(Dropout(0.25, seed=5))
    (found,) = gradients(lambda x: layer(x, training=True), ONES)
    np.testing.assert_allclose(found, keeps / 0.75, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (2, 3, 4, 5), ()])
def test_any_shape(shape):
    y = ops.convert_to_numpy(Dropout(0.5, seed=1)(np.ones(shape, "float32"), training=True))
    assert y.shape == shape
    assert set(y.ravel().tolist()) <= {0.0, 2.0}


def test_bfloat16_stays_bfloat16():
    layer = Dropout(0.5, seed=1, dtype="mixed_bfloat16")
    y = layer(ONES, training=True)
    assert backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(y, "float32")) != 0, kept(Dropout(0.5, seed=1)))


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="under JAX a compiled function may not change variables")
def test_a_compiled_function_draws_a_new_mask_at_each_call_the_same_as_eager():
    import tensorflow as tf

    layer, eager = Dropout(0.5, seed=9), Dropout(0.5, seed=9)
    specs = [tf.TensorSpec((None, None))]
    step = tf.function(lambda x: layer(x, training=True), input_signature=specs, jit_compile=True)
    masks = [step(ONES).numpy() != 0 for _ in range(3)]
    np.testing.assert_array_equal(masks, [kept(eager) for _ in range(3)])
    assert not np.array_equal(masks[0], masks[1])


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=f"rate: {rate}"):
        Dropout(rate)


def test_it_survives_its_configuration(reborn):
    layer = Dropout(0.5, seed=3)
    layer(ONES)
    np.testing.assert_array_equal(kept(reborn(layer, ONES)), kept(Dropout(0.5, seed=3)))
