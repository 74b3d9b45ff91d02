"""Positions against their formulas, and against what transformers computes (fixtures/make_positions.py)."""

import math
from pathlib import Path

import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import ALiBi, Learned, RelativeBias, Rotary, Sinusoidal, rotate, sinusoidal
from zoo.attention.positions import distances, relative_buckets


@pytest.fixture(scope="module")
def theirs():
    """What transformers computes."""
    with np.load(Path(__file__).parent / "fixtures" / "positions.npz") as arrays:
        return dict(arrays)


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(("inclusive", "steps"), [(True, 3), (False, 4)])
def test_the_formula_written_out(inclusive, steps):
    encoded = ops.convert_to_numpy(sinusoidal(np.array([[0, 1, 2], [7, 100, 4000]]), 8, inclusive))
    assert encoded.shape == (2, 3, 8)
    for (b, t), position in np.ndenumerate([[0, 1, 2], [7, 100, 4000]]):
        for i in range(4):
            angle = position / 10000 ** (i / steps)
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


@pytest.mark.parametrize("layer", [Sinusoidal, lambda: Sinusoidal(inclusive=False), lambda: Learned(10)])
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


# === Rotary ===


@pytest.mark.parametrize(("base", "scaling"), [(10000.0, 1.0), (500000.0, 1.0), (100.0, 2.5)])
@pytest.mark.parametrize("positions", [[0, 1, 2, 50], [[3, 1, 4, 1], [0, 0, 700, 2]]])
def test_turning_is_multiplying_complex_numbers(rng, base, scaling, positions):
    x = rng.normal(size=(2, 4, 3, 6)).astype("float32")
    numbers = x[..., :3] + 1j * x[..., 3:]
    for b, t, n, i in np.ndindex(numbers.shape):
        position = np.broadcast_to(positions, (2, 4))[b, t]
        numbers[b, t, n, i] *= np.exp(1j * position / scaling / base ** (2 * i / 6))
    expected = np.concatenate([numbers.real, numbers.imag], axis=-1)
    np.testing.assert_allclose(array(rotate(x, np.array(positions), base, scaling)), expected, atol=2e-4)
    np.testing.assert_allclose(array(Rotary(base, scaling)(x, np.array(positions))), expected, atol=2e-4)


@pytest.mark.parametrize(("base", "scaling"), [(10000, 1), (500000, 1), (10000, 4)])
def test_turning_is_that_of_llama(theirs, base, scaling):
    y = array(Rotary(base, scaling)(theirs["rotary_x"], theirs["rotary_positions"]))
    np.testing.assert_allclose(y, theirs[f"rotary_{base}_{scaling}"], atol=3e-4)


def test_place_0_is_not_turned_and_no_place_changes_a_length(rng):
    x = rng.normal(size=(2, 4, 3, 8)).astype("float32")
    y = array(Rotary()(x, np.array([0, 1, 20, 300])))
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert not np.allclose(y[:, 1], x[:, 1], atol=0.01)


def test_turned_products_see_the_distance_alone(rng):
    query, key = rng.normal(size=(2, 1, 1, 1, 16)).astype("float32")
    layer, shifts = Rotary(), np.arange(0, 60, 10)
    queries = array(layer(np.repeat(query, 6, axis=1), 5 + shifts))
    keys = array(layer(np.repeat(key, 6, axis=1), 2 + shifts))
    products = (queries * keys).sum(axis=-1)
    np.testing.assert_allclose(products, products[0, 0, 0], atol=1e-4)
    assert not np.allclose((queries * keys[:, :1]).sum(axis=-1), products, atol=0.01)


def test_scaling_divides_the_positions(rng):
    x = rng.normal(size=(2, 4, 3, 8)).astype("float32")
    np.testing.assert_allclose(
        array(rotate(x, np.array([0, 4, 8, 40]), scaling=4.0)), array(rotate(x, np.array([0, 1, 2, 10]))), atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_turning_keeps_the_type(rng, dtype):
    x = ops.cast(rng.normal(size=(1, 2, 1, 4)), dtype)
    for y in (rotate(x, np.arange(2)), Rotary()(x, np.arange(2))):
        assert backend.standardize_dtype(y.dtype) == dtype


def test_an_odd_head_width_is_refused():
    with pytest.raises(ValueError, match="x: head width 5 is odd"):
        Rotary()(np.ones((1, 2, 1, 5), "float32"), np.arange(2))


@pytest.mark.parametrize("arguments", [{"base": 0}, {"base": -1.0}, {"scaling": 0.0}])
def test_base_and_scaling_are_positive(arguments):
    with pytest.raises(ValueError, match=r"base, scaling: .*; both are positive"):
        Rotary(**arguments)


# === Biases ===


def test_distances_count_from_the_query_to_the_key():
    assert array(distances(np.array([0, 3]), np.array([1, 2, 5]))).tolist() == [[1, 2, 5], [-2, -1, 2]]
    assert array(distances(np.array([[0], [3]]), np.array([1, 2]))).tolist() == [[[1, 2]], [[-2, -1]]]


def test_the_buckets_are_those_of_t5(theirs, jit):
    cases = [name.split("_")[1:] for name in theirs if name.startswith("buckets")]
    assert len(cases) == 10

    def sort(distance):
        return [relative_buckets(distance, int(number), int(far), kind == "both") for number, far, kind in cases]

    distance = ops.arange(-300, 301, dtype="int32")
    for found in (sort(distance), jit(sort)(distance)):
        for buckets, case in zip(found, cases, strict=True):
            assert backend.standardize_dtype(buckets.dtype) == "int32"
            np.testing.assert_array_equal(array(buckets), theirs["_".join(["buckets", *case])], str(case))


@pytest.mark.parametrize("arguments", [(2, 128, True), (1, 128, False), (32, 8, True), (32, 16, False)])
def test_buckets_that_leave_no_room_for_far_or_near_are_refused(arguments):
    with pytest.raises(ValueError, match=r"num_buckets, max_distance: \d+ near distances"):
        relative_buckets(np.arange(3), *arguments)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_bias_looks_its_buckets_up(scramble, bidirectional):
    layer = RelativeBias(3, 8, 20, bidirectional)
    queries, keys = np.array([0, 5, 40]), np.array([0, 1, 7, 30])
    layer(queries, keys)
    table = array(scramble(layer).table)
    bias = array(layer(queries, keys))
    assert table.shape == (8, 3)
    assert bias.shape == (1, 3, 3, 4)
    for n, t, s in np.ndindex(3, 3, 4):
        bucket = array(relative_buckets(np.array(keys[s] - queries[t]), 8, 20, bidirectional))
        assert bias[0, n, t, s] == table[bucket, n]


@pytest.mark.parametrize("num_heads", [1, 2, 3, 5, 6, 8, 12, 16])
def test_alibi_is_that_of_bloom(theirs, num_heads):
    """BLOOM adds slope * place of the key: the same but for a number that all keys of a query share."""
    bias = array(ALiBi(num_heads)(np.arange(6), np.arange(6)))
    assert bias.shape == (1, num_heads, 6, 6)
    bloom = theirs[f"alibi_{num_heads}"]
    for t in range(6):
        difference = bias[0, :, t, : t + 1] - bloom[:, : t + 1]
        np.testing.assert_allclose(difference, difference[:, :1] + np.zeros(t + 1), atol=1e-6)
        assert not bias[0, :, t, t].any()


def test_alibi_written_out():
    queries, keys = np.array([0, 4]), np.array([0, 1, 9])
    bias = array(ALiBi(4)(queries, keys))
    for n, t, s in np.ndindex(4, 2, 3):
        assert bias[0, n, t, s] == -(2.0 ** (-2 * (n + 1))) * abs(queries[t] - keys[s])


@pytest.mark.parametrize(
    "layer", [lambda: RelativeBias(3, 8, 20), lambda: RelativeBias(3, 9, 30, False), lambda: ALiBi(3)]
)
class TestBothBiases:
    def test_each_row_may_have_positions_of_its_own(self, layer, scramble):
        layer = layer()
        queries, keys = np.array([[0, 1, 2], [7, 0, 3]]), np.array([[0, 1, 2, 3], [5, 9, 0, 50]])
        layer(queries, keys)
        scramble(layer)
        bias = array(layer(queries, keys))
        assert bias.shape == (2, 3, 3, 4)
        for b in range(2):
            np.testing.assert_array_equal(bias[b : b + 1], array(layer(queries[b], keys[b])))
        np.testing.assert_array_equal(array(layer(queries, keys[1])), array(layer(queries, keys[[1, 1]])))

    def test_a_shift_of_all_places_is_not_seen(self, layer):
        layer, places = layer(), np.arange(5)
        np.testing.assert_array_equal(array(layer(places, places)), array(layer(places + 90, places + 90)))

    def test_it_survives_its_configuration(self, layer, scramble, reborn):
        layer, places = layer(), np.arange(5)
        layer(places, places)
        expected = array(scramble(layer)(places, places))
        np.testing.assert_array_equal(array(reborn(layer, places, places)(places, places)), expected)


def test_rotary_survives_its_configuration(rng, reborn):
    layer, x, places = Rotary(500.0, 2.0), rng.normal(size=(2, 4, 3, 8)).astype("float32"), np.arange(4)
    np.testing.assert_array_equal(array(reborn(layer, x, places)(x, places)), array(layer(x, places)))
