"""KVCache against plain arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import backend, ops

from zoo.attention import KVCache


def arrays(cache):
    return [ops.convert_to_numpy(tensor) for tensor in cache.tensors]


def test_an_empty_cache_is_zeros():
    cache = KVCache.empty(2, 5, 3, 4, 6, "float16")
    assert [x.shape for x in arrays(cache)] == [(2, 5, 3, 4), (2, 5, 3, 6)]
    assert not any(x.any() for x in arrays(cache))
    assert [backend.standardize_dtype(x.dtype) for x in cache.tensors] == ["float16", "float16"]
    assert cache.max_length == 5
    assert cache.length == 0
    assert not cache.frozen


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 2))
def test_pieces_of_any_size_add_up(pieces, spare):
    length = sum(pieces)
    rng = np.random.default_rng(length)
    key = rng.normal(size=(2, length, 2, 3)).astype("float32")
    value = rng.normal(size=(2, length, 2, 4)).astype("float32")
    cache, start = KVCache.empty(2, length + spare, 2, 3, 4, "float32"), 0
    for piece in pieces:
        here = slice(start, start + piece)
        returned = cache.update(ops.convert_to_tensor(key[:, here]), ops.convert_to_tensor(value[:, here]))
        assert all(a is b for a, b in zip(returned, cache.tensors))
        start += piece
        assert cache.length == start
    for held, whole in zip(arrays(cache), (key, value)):
        np.testing.assert_array_equal(held[:, :length], whole)
        assert not held[:, length:].any()


def test_the_length_may_be_traced(jit, rng):
    old, new = rng.normal(size=(1, 5, 2, 3)).astype("float32"), rng.normal(size=(1, 2, 2, 3)).astype("float32")

    def step(key, value, length):
        cache = KVCache(key, value, length)
        cache.update(ops.convert_to_tensor(new), ops.convert_to_tensor(2 * new))
        return *cache.tensors, cache.length

    key, value, length = jit(step)(*map(ops.convert_to_tensor, (old, old)), ops.convert_to_tensor(3, "int32"))
    assert int(length) == 5
    for held, written in ((key, new), (value, 2 * new)):
        np.testing.assert_array_equal(ops.convert_to_numpy(held), np.concatenate([old[:, :3], written], axis=1))


def test_what_is_written_takes_the_caches_dtype():
    cache = KVCache.empty(1, 2, 1, 3, 3, "bfloat16")
    cache.update(ops.ones((1, 1, 1, 3)), ops.ones((1, 1, 1, 3)))
    assert [backend.standardize_dtype(x.dtype) for x in cache.tensors] == ["bfloat16", "bfloat16"]


def test_reorder_moves_whole_rows(rng):
    key, value = rng.normal(size=(2, 4, 3, 2, 2)).astype("float32")
    cache = KVCache(ops.convert_to_tensor(key), ops.convert_to_tensor(value), 2)
    cache.reorder(ops.convert_to_tensor([2, 2, 0, 3], "int32"))
    for held, before in zip(arrays(cache), (key, value)):
        np.testing.assert_array_equal(held, before[[2, 2, 0, 3]])
    assert cache.length == 2


def test_too_many_places_are_refused():
    cache = KVCache.empty(1, 3, 1, 2, 2, "float32")
    cache.update(ops.ones((1, 2, 1, 2)), ops.ones((1, 2, 1, 2)))
    with pytest.raises(ValueError, match=r"cache: 2 \+ 2 places do not fit into max_length 3"):
        cache.update(ops.ones((1, 2, 1, 2)), ops.ones((1, 2, 1, 2)))
    assert cache.length == 2
    assert not arrays(cache)[0][:, 2:].any()


def test_a_frozen_cache_takes_nothing():
    cache = KVCache(ops.ones((1, 3, 1, 2)), ops.ones((1, 3, 1, 2)))
    assert cache.frozen
    with pytest.raises(ValueError, match="cache: a frozen cache"):
        cache.update(ops.ones((1, 1, 1, 2)), ops.ones((1, 1, 1, 2)))
