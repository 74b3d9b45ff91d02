"""Masks against their definitions, place by place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import backend, ops

from zoo.attention import attend, masks

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


def test_the_offset_may_be_traced(jit):
    def make(offset):
        return masks.causal(2, 7, offset), masks.sliding_window(2, 3, 7, offset), masks.block(2, 3, 7, offset)

    traced = jit(make)
    for offset in (0, 2, 5):
        for mask, expected in zip(traced(ops.convert_to_tensor(offset, "int32")), make(offset), strict=True):
            assert array(mask).tolist() == array(expected).tolist()


@examples
@given(st.sampled_from([1, 4]), st.sampled_from([1, 7]), st.integers(0, 5), st.integers(1, 5))
def test_window_and_block_by_their_definitions(queries, keys, offset, size):
    window = array(masks.sliding_window(queries, size, keys, offset))
    block = array(masks.block(queries, size, keys, offset))
    assert window.shape == block.shape == (1, 1, queries, keys)
    for t, s in np.ndindex(queries, keys):
        assert window[0, 0, t, s] == (abs(t + offset - s) < size)
        assert block[0, 0, t, s] == ((t + offset) // size == s // size)


def test_there_are_as_many_keys_as_queries_unless_told():
    for mask in (masks.causal(3), masks.sliding_window(3, 2), masks.block(3, 2)):
        assert tuple(mask.shape) == (1, 1, 3, 3)


def test_a_causal_window_sees_itself_and_what_came_just_before():
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert array(masks.causal(4) & masks.sliding_window(4, 2)).tolist() == [[expected]]


@pytest.mark.parametrize(
    "make",
    [
        masks.causal,
        lambda length, *rest: masks.sliding_window(length, 3, *rest),
        lambda length, *rest: masks.block(length, 4, *rest),
    ],
)
def test_the_rows_of_one_token_after_the_other_are_those_of_the_whole(make):
    rows = [array(make(1, 9, t)) for t in range(9)]
    assert np.concatenate(rows, axis=2).tolist() == array(make(9)).tolist()


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


# === Documents in one row ===


@examples
@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3).map(np.array))
def test_packed_by_its_definition(segments):
    mask = array(masks.packed(segments))
    assert mask.shape == (len(segments), 1, 5, 5)
    for b, _, t, s in np.ndindex(*mask.shape):
        assert mask[b, 0, t, s] == (segments[b, t] == segments[b, s] > 0 and s <= t)


@pytest.mark.filterwarnings("ignore:You are using a softmax")
@pytest.mark.parametrize("lengths", [[3, 1, 3], [1, 5]])
def test_packed_documents_are_attended_separately(rng, lengths):
    segments = np.array([[*np.repeat(range(1, len(lengths) + 1), lengths), 0, 0]])
    query, key, value = rng.normal(size=(3, 1, segments.size, 2, 4)).astype("float32")
    y = ops.convert_to_numpy(attend(query, key, value, mask=masks.packed(segments)))
    for number, length in enumerate(lengths, start=1):
        here = segments[0] == number
        alone = attend(query[:, here], key[:, here], value[:, here], mask=masks.causal(length))
        np.testing.assert_allclose(y[:, here], ops.convert_to_numpy(alone), atol=1e-6)
    assert not y[:, segments[0] == 0].any()


# === BigBird and Longformer ===


@examples
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=3).map(np.array))
def test_global_tokens_by_their_definition(is_global):
    mask = array(masks.global_tokens(is_global))
    assert mask.shape == (len(is_global), 1, 5, 5)
    for b, _, t, s in np.ndindex(*mask.shape):
        assert mask[b, 0, t, s] == (is_global[b, t] or is_global[b, s])


def test_a_window_with_global_tokens():
    mask = masks.sliding_window(4, 1) | masks.global_tokens(np.array([[True, False, False, False]]))
    expected = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]
    assert array(mask).tolist() == [[expected]]


@examples
@given(st.integers(1, 20), st.integers(1, 6), st.data(), st.integers(0, 99))
def test_each_block_sees_as_many_random_blocks_as_asked(length, size, data, seed):
    blocks = -(-length // size)
    count = data.draw(st.integers(0, blocks))
    mask = array(masks.random_blocks(length, size, count, seed))
    assert mask.shape == (1, 1, length, length)
    firsts = mask[0, 0, ::size, ::size]
    assert (firsts.sum(axis=1) == count).all()
    for t, s in np.ndindex(length, length):
        assert mask[0, 0, t, s] == firsts[t // size, s // size]


def test_the_seed_decides_the_draw():
    draws = [array(masks.random_blocks(32, 2, 3, seed)) for seed in (1, 1, 2)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    assert len({tuple(row) for row in draws[0][0, 0]}) > 1


@pytest.mark.parametrize("count", [-1, 4])
def test_more_random_blocks_than_there_are_are_refused(count):
    message = f"count: {count} random blocks; 5 places make 3 blocks of 2"
    for make in (masks.random_blocks, masks.big_bird):
        with pytest.raises(ValueError, match=message):
            make(5, 2, count)


@examples
@given(st.sampled_from([1, 9, 14]), st.integers(1, 4), st.integers(0, 1), st.integers(0, 2), st.integers(0, 99))
def test_big_bird_by_its_definition(length, size, num_random, num_global, seed):
    mask = array(masks.big_bird(length, size, num_random, num_global, seed))
    random = array(masks.random_blocks(length, size, num_random, seed))[0, 0]
    assert mask.shape == (1, 1, length, length)
    for t, s in np.ndindex(length, length):
        of_t, of_s = t // size, s // size
        near = abs(of_t - of_s) <= 1
        assert mask[0, 0, t, s] == (near or of_t < num_global or of_s < num_global or random[t, s])


def test_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="size: 0 places; it is at least 1"):
        masks.block(4, 0)
