"""scaled_dot against sums written out."""

import numpy as np
import pytest
from keras import ops

from zoo.attention import scaled_dot


def by_hand(query, key):
    """Sums products element by element, in float64."""
    batch, length, heads, width = query.shape
    groups = heads // key.shape[2]
    logits = np.zeros((batch, heads, length, key.shape[1]))
    for b, n, t, s in np.ndindex(*logits.shape):
        logits[b, n, t, s] = sum(float(query[b, t, n, h]) * float(key[b, s, n // groups, h]) for h in range(width))
    return logits / np.sqrt(width)


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_the_sums_written_out(rng, num_kv_heads):
    query = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    key = rng.normal(size=(2, 6, num_kv_heads, 5)).astype("float32")
    logits = ops.convert_to_numpy(scaled_dot(query, key))
    assert logits.shape == (2, 4, 3, 6)
    np.testing.assert_allclose(logits, by_hand(query, key), atol=1e-5)


def test_ones_of_width_16_score_4():
    ones = np.ones((1, 2, 1, 16), "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(scaled_dot(ones, ones)), np.full((1, 1, 2, 2), 4.0), rtol=1e-6)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 3])
def test_a_group_shares_its_key_head(rng, num_kv_heads):
    query = rng.normal(size=(2, 3, 6, 4)).astype("float32")
    key = rng.normal(size=(2, 5, num_kv_heads, 4)).astype("float32")
    repeated = np.repeat(key, 6 // num_kv_heads, axis=2)
    np.testing.assert_allclose(
        ops.convert_to_numpy(scaled_dot(query, key)), ops.convert_to_numpy(scaled_dot(query, repeated)), atol=1e-6
    )


def test_queries_of_unit_variance_give_logits_of_unit_variance(rng):
    query, key = rng.normal(size=(2, 1, 64, 4, 256)).astype("float32")
    assert abs(ops.convert_to_numpy(scaled_dot(query, key)).std() - 1) < 0.05
