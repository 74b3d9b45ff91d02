"""Positions against their formulas."""

import math

import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import Learned, Sinusoidal, sinusoidal


def test_the_formula_written_out():
    encoded = ops.convert_to_numpy(sinusoidal(np.array([[0, 1, 2], [7, 100, 4000]]), 8))
    assert encoded.shape == (2, 3, 8)
    for (b, t), position in np.ndenumerate([[0, 1, 2], [7, 100, 4000]]):
        for i in range(4):
            angle = position / 10000 ** (i / 3)
            # A float32 angle of 4,000 radians is exact to 2e-4.
            assert math.isclose(encoded[b, t, i], math.sin(angle), abs_tol=3e-4)
            assert math.isclose(encoded[b, t, 4 + i], math.cos(angle), abs_tol=3e-4)


def test_place_0_is_zeros_and_ones():
    assert ops.convert_to_numpy(sinusoidal(np.array(0), 6)).tolist() == [0, 0, 0, 1, 1, 1]


def test_two_places_match_by_their_distance_alone():
    encoded = ops.convert_to_numpy(sinusoidal(np.arange(50), 32))
    products = encoded @ encoded.T
    for distance in range(50):
        np.testing.assert_allclose(np.diagonal(products, distance), products[0, distance], atol=1e-3)
    assert products[0].argmax() == 0


def test_a_width_of_2_works():
    expected = [[math.sin(3), math.cos(3)]]
    np.testing.assert_allclose(ops.convert_to_numpy(sinusoidal(np.array([3]), 2)), expected, atol=1e-6)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width: 7 is odd"):
        sinusoidal(np.arange(3), 7)
    with pytest.raises(ValueError, match="width: 7 is odd"):
        Sinusoidal()(np.ones((1, 3, 7), "float32"))


@pytest.mark.parametrize("layer", [Sinusoidal, lambda: Learned(10)])
class TestBothLayers:
    def test_places_count_from_0(self, layer, rng):
        layer, x = layer(), rng.normal(size=(2, 5, 8)).astype("float32")
        counted = ops.convert_to_numpy(layer(x))
        for positions in (np.arange(5), np.tile(np.arange(5), (2, 1))):
            np.testing.assert_array_equal(ops.convert_to_numpy(layer(x, positions)), counted)

    def test_a_place_adds_the_same_wherever_it_stands(self, layer, rng):
        layer, x = layer(), rng.normal(size=(2, 5, 8)).astype("float32")
        added = ops.convert_to_numpy(layer(np.zeros((1, 10, 8), "float32")))[0]
        positions = np.array([[3, 3, 0, 9, 1], [0, 1, 2, 0, 1]])
        y = ops.convert_to_numpy(layer(x, positions))
        np.testing.assert_allclose(y, x + added[positions], atol=1e-6)
        assert not np.allclose(added[0], added[1])

    def test_bfloat16_stays_bfloat16(self, layer):
        layer = layer()
        layer.dtype_policy = "mixed_bfloat16"
        y = layer(np.zeros((1, 3, 8), "float32"))
        assert backend.standardize_dtype(y.dtype) == "bfloat16"

    def test_it_survives_its_configuration(self, layer, rng, reborn):
        layer, x = layer(), rng.normal(size=(2, 5, 8)).astype("float32")
        y = ops.convert_to_numpy(layer(x))
        np.testing.assert_array_equal(ops.convert_to_numpy(reborn(layer, x)(x)), y)


def test_learned_adds_its_table(rng, scramble):
    layer, x = Learned(6), rng.normal(size=(2, 4, 8)).astype("float32")
    layer(x)
    scramble(layer)
    assert layer.table.shape == (6, 8)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), x + ops.convert_to_numpy(layer.table)[:4], atol=1e-6)


def test_more_places_than_were_learned_are_refused():
    with pytest.raises(ValueError, match=r"x: 7 positions.*6 \(max_length\)"):
        Learned(6)(np.ones((1, 7, 8), "float32"))


def test_a_packed_row_may_be_longer_than_its_texts(rng, scramble):
    layer = Learned(4)
    layer(np.zeros((1, 1, 8), "float32"))
    scramble(layer)
    x, positions = rng.normal(size=(1, 6, 8)).astype("float32"), np.array([[0, 1, 2, 0, 1, 2]])
    expected = x + ops.convert_to_numpy(layer.table)[positions]
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x, positions)), expected, atol=1e-6)


def test_a_length_that_is_not_known_yet_is_accepted():
    import keras

    for positions in (None, keras.Input((None,), dtype="int32")):
        assert Learned(6)(keras.Input((None, 8)), positions).shape == (None, None, 8)
