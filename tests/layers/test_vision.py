"""Patches and positions in two dimensions, against torch's numbers and against what they are defined to be."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from zoo.layers.vision import (
    ClassToken,
    DepthwiseConvolution,
    GridPositions,
    PatchEmbedding,
    SinusoidalGrid,
    StoredNormalization,
    bicubic_weights,
    depthwise_by_shifts,
    sinusoidal_grid,
)

VIT = np.load(Path(__file__).parents[1] / "models" / "fixtures" / "vit.npz")


def test_a_patch_is_projected_row_by_row(rng):
    layer = PatchEmbedding(4, 6)
    images = rng.normal(size=(2, 9, 14, 3)).astype("float32")  # the last row and two columns fill no patch
    found = ops.convert_to_numpy(layer(images))
    kernel, bias = layer.get_weights()
    patches = [images[:, y : y + 4, x : x + 4].reshape(2, -1) for y in (0, 4) for x in (0, 4, 8)]
    expected = np.stack(patches, axis=1) @ kernel.reshape(-1, 6) + bias
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_class_token_stands_before_the_others(rng):
    layer = ClassToken()
    x = rng.normal(size=(2, 3, 4)).astype("float32")
    found = ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(found[:, 1:], x)
    np.testing.assert_array_equal(found[:, 0], np.tile(layer.get_weights()[0], (2, 1)))


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("size", "padding"), [((8, 6), "same"), ((7, 9), "same"), ((2, 1), "same"), ((8, 7), "valid")])
def test_a_depthwise_convolution_by_shifts_is_the_same(kernel_size, strides, size, padding, rng):
    x = rng.normal(size=(2, *size, 4)).astype("float32")
    settings = {"padding": padding, "activation": "relu6", "bias_initializer": "normal"}
    plain = keras.layers.DepthwiseConv2D(kernel_size, strides, **settings)
    expected = ops.convert_to_numpy(plain(x))
    layer = DepthwiseConvolution(kernel_size, strides, **settings)
    layer(x)
    layer.set_weights(plain.get_weights())
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=1e-5)
    with depthwise_by_shifts():
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=1e-5)


def test_shifts_are_what_is_traced_inside_the_block(jit, monkeypatch, rng):
    layer = DepthwiseConvolution(3, padding="same")
    x = rng.normal(size=(1, 4, 4, 2)).astype("float32")
    layer(x)
    called = []
    monkeypatch.setattr(keras.layers.DepthwiseConv2D, "call", lambda self, inputs: called.append(1) or inputs)
    with depthwise_by_shifts():
        jit(lambda x: layer(x))(x)
    assert not called
    layer(x)
    assert bool(called) == (keras.backend.backend() != "jax")


@pytest.mark.parametrize(("name", "grid"), [("same", None), ("other", (3, 7))])
def test_positions_are_interpolated_as_in_transformers(name, grid):
    layer = GridPositions((4, 4), grid, extra=1)
    expected = VIT[f"{name}/positions"]
    x = np.zeros((2, *expected.shape), "float32")
    layer(x)
    layer.set_weights([VIT["weights/embeddings.position_embeddings"][0].astype("float32")])
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x))[1], expected, atol=1e-5)


def test_learned_positions_learn_through_interpolation(gradients, rng):
    layer = GridPositions((2, 2), (3, 3))
    layer.build((None, 9, 4))

    def added(table):
        rows, columns = bicubic_weights(2, 3), bicubic_weights(2, 3)
        return ops.einsum("ih,jw,hwd->ijd", rows, columns, ops.reshape(table, (2, 2, 4)))

    (found,) = gradients(added, np.asarray(layer.get_weights()[0]))
    assert (np.abs(found) > 0.1).all()


@pytest.mark.parametrize(("old", "new"), [(4, 4), (4, 9), (14, 5), (1, 3), (3, 1)])
def test_interpolation_keeps_an_even_plane_and_the_known_points(old, new):
    weights = bicubic_weights(old, new)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    if old == new:
        np.testing.assert_allclose(weights, np.eye(old), atol=1e-6)


def test_a_grid_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"x: 16 vectors; grid \(4, 4\) and extra 1 give another number"):
        GridPositions((4, 4), extra=1)(np.zeros((1, 16, 8), "float32"))


def test_rows_and_columns_have_half_of_the_elements_each():
    found = ops.convert_to_numpy(sinusoidal_grid(3, 5, 16)).reshape(3, 5, 16)
    for row in range(3):
        np.testing.assert_array_equal(found[row, :, :8], np.tile(found[row, 0, :8], (5, 1)))
    for column in range(5):
        np.testing.assert_array_equal(found[:, column, 8:], np.tile(found[0, column, 8:], (3, 1)))
    # The slowest and the fastest sine, by the formula.
    np.testing.assert_allclose(found[2, 0, 0], np.sin(2), atol=1e-6)
    np.testing.assert_allclose(found[0, 3, 8], np.sin(3), atol=1e-6)
    np.testing.assert_allclose(found[0, 3, 11], np.sin(3 / 10000), atol=1e-6)
    assert len(np.unique(found.reshape(15, 16).round(4), axis=0)) == 15


def test_sinusoidal_positions_leave_the_class_token_alone(rng):
    x = rng.normal(size=(2, 7, 8)).astype("float32")
    found = ops.convert_to_numpy(SinusoidalGrid((2, 3), extra=1)(x))
    np.testing.assert_array_equal(found[:, 0], x[:, 0])
    np.testing.assert_allclose(found[0, 1:] - x[0, 1:], ops.convert_to_numpy(sinusoidal_grid(2, 3, 8)), atol=1e-6)


def test_an_odd_width_is_named():
    with pytest.raises(ValueError, match="dim: 6; "):
        sinusoidal_grid(2, 2, 6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: PatchEmbedding(4, 6), (1, 8, 8, 3)),
        (lambda: ClassToken(), (1, 3, 4)),
        (lambda: GridPositions((2, 2), (2, 3), 1), (1, 7, 4)),
        (lambda: SinusoidalGrid((2, 3), 1), (1, 7, 4)),
        (lambda: DepthwiseConvolution(3, padding="same"), (1, 4, 4, 2)),
        (lambda: StoredNormalization(epsilon=1e-3), (1, 4, 4, 2)),
    ],
)
def test_layers_survive_json(layer, shape, reborn, rng):
    x = rng.normal(size=shape).astype("float32")
    made = layer()
    y = made(x)
    np.testing.assert_array_equal(ops.convert_to_numpy(reborn(made, x)(x)), ops.convert_to_numpy(y))
