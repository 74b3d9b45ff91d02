"""Masks against their definitions, place by place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import backend, ops

from zoo.attention import masks

examples = settings(max_examples=25, deadline=None, derandomize=True)


def array(mask):
    assert backend.standardize_dtype(mask.dtype) == "bool"
    return ops.convert_to_numpy(mask)


def test_padding_hides_the_padding():
    ids = np.array([[5, 6, 0], [7, 0, 0]])
    expected = [[[[True, True, False]]], [[[True, False, False]]]]
    assert array(masks.padding(ids)).tolist() == expected


def test_padding_takes_another_id():
    assert array(masks.padding(np.array([[0, 9, 3]]), pad_id=9)).tolist() == [[[[True, False, True]]]]


def test_causal_hides_the_future():
    assert array(masks.causal(3)).tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]


@examples
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 5))
def test_causal_by_its_definition(queries, keys, offset):
    mask = array(masks.causal(queries, keys, offset))
    assert mask.shape == (1, 1, queries, keys)
    for t in range(queries):
        for s in range(keys):
            assert mask[0, 0, t, s] == (s <= t + offset)


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_the_offset_may_be_traced(jit, offset):
    traced = jit(lambda offset: masks.causal(2, 7, offset))(ops.convert_to_tensor(offset, "int32"))
    assert array(traced).tolist() == array(masks.causal(2, 7, offset)).tolist()


@examples
@given(st.data(), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_segment_by_its_definition(data, batch, queries, keys):
    def numbers(length):
        return st.lists(
            st.lists(st.integers(0, 3), min_size=length, max_size=length), min_size=batch, max_size=batch
        ).map(np.array)

    of_queries, of_keys = data.draw(numbers(queries)), data.draw(numbers(keys))
    mask = array(masks.segment(of_queries, of_keys))
    assert mask.shape == (batch, 1, queries, keys)
    for b, _, t, s in np.ndindex(*mask.shape):
        assert mask[b, 0, t, s] == (of_queries[b, t] == of_keys[b, s] > 0)


def test_masks_combine():
    ids = np.array([[5, 6, 7, 0]])
    segments = np.array([[1, 1, 2, 0]])
    mask = masks.padding(ids) & masks.causal(4) & masks.segment(segments, segments)
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert array(mask).tolist() == [[expected]]
