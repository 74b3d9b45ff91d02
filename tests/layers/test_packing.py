"""Segments and PackedMask against the definition, token by token."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from zoo.layers import PackedMask, Segments

examples = settings(max_examples=25, deadline=None, derandomize=True)


def run(layer, ids):
    segments, places = map(ops.convert_to_numpy, layer(np.array(ids)))
    assert segments.dtype == places.dtype == np.int32
    return segments.tolist(), places.tolist()


def by_hand(row, start=None, end=None, pad=None):
    """Reads one token after the other."""
    text, segments, places = int(end is not None), [], []
    for token in row:
        text += token == start
        segments.append(0 if token == pad or text == 0 else text)
        places.append(segments[:-1].count(segments[-1]) if segments[-1] else 0)
        text += token == end
    return segments, places


def test_sources_end_with_a_token():
    assert run(Segments(end=2, pad=0), [[5, 6, 2, 7, 2, 0, 0]]) == ([[1, 1, 1, 2, 2, 0, 0]], [[0, 1, 2, 0, 1, 0, 0]])


def test_more_tokens_may_stand_behind_the_end_of_a_source():
    found = run(Segments(end=2, pad=0, trailing=1), [[5, 6, 2, 9, 7, 2, 9, 0]])
    assert found == ([[1, 1, 1, 1, 2, 2, 2, 0]], [[0, 1, 2, 3, 0, 1, 2, 0]])


def test_targets_begin_with_a_token():
    assert run(Segments(start=1, pad=0), [[1, 5, 1, 6, 7, 0]]) == ([[1, 1, 2, 2, 2, 0]], [[0, 1, 0, 1, 2, 0]])


def test_what_stands_before_the_first_start_belongs_to_no_text():
    assert run(Segments(start=1), [[5, 6, 1, 7]]) == ([[0, 0, 1, 1]], [[0, 0, 0, 1]])


def test_an_unfinished_source_is_a_text_too():
    assert run(Segments(end=2, pad=0), [[5, 2, 6, 7]]) == ([[1, 1, 2, 2]], [[0, 1, 0, 1]])


@examples
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=12, max_size=12), min_size=2, max_size=2),
    st.sampled_from(["start", "end"]),
    st.sampled_from([None, 0]),
)
def test_any_tokens(rows, side, pad):
    segments, places = run(Segments(**{side: 2}, pad=pad), rows)
    for row, found_segments, found_places in zip(rows, segments, places):
        assert (found_segments, found_places) == by_hand(row, **{side: 2}, pad=pad)


@pytest.mark.parametrize("tokens", [{}, {"start": 1, "end": 2}])
def test_start_and_end_exclude_each_other(tokens):
    with pytest.raises(ValueError, match=r"start, end: .*give one of the two"):
        Segments(**tokens)


@examples
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=2, max_size=2),
    st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=2),
)
def test_a_query_sees_the_keys_of_its_text(queries, keys):
    mask = ops.convert_to_numpy(PackedMask()(np.array(queries), np.array(keys)))
    assert mask.dtype == bool
    assert mask.shape == (2, 1, 6, 4)
    for b, _, t, s in np.ndindex(*mask.shape):
        assert mask[b, 0, t, s] == (queries[b][t] == keys[b][s] > 0)


def test_a_causal_mask_hides_the_texts_future_too():
    segments = np.array([[1, 1, 2, 2, 0]])
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert ops.convert_to_numpy(PackedMask(causal=True)(segments, segments)).tolist() == [[expected]]


def test_symbolic_shapes_are_the_real_ones():
    ids = keras.Input((None,), dtype="int32")
    segments, places = Segments(end=2, pad=0)(ids)
    assert segments.shape == places.shape == (None, None)
    assert segments.dtype == places.dtype == "int32"
    memory = keras.Input((7,), dtype="int32")
    mask = PackedMask()(segments, memory)
    assert mask.shape == (None, 1, None, 7)
    assert mask.dtype == "bool"


def test_xla_gives_the_same(jit):
    layer, mask, ids = Segments(end=2, pad=0), PackedMask(causal=True), np.array([[5, 2, 6, 7, 2, 0]], "int32")

    def both(ids):
        segments, places = layer(ids)
        return segments, places, mask(segments, segments)

    for compiled, eager in zip(jit(both)(ops.convert_to_tensor(ids)), both(ids)):
        np.testing.assert_array_equal(ops.convert_to_numpy(compiled), ops.convert_to_numpy(eager))


@pytest.mark.parametrize("arguments", [{"end": 2, "pad": 0}, {"start": 1, "pad": None}])
def test_segments_survive_their_configuration(reborn, arguments):
    layer, ids = Segments(**arguments), np.array([[1, 5, 2, 1, 6, 2, 0]])
    assert run(reborn(layer, ids), ids) == run(layer, ids)


@pytest.mark.parametrize("causal", [True, False])
def test_a_mask_survives_its_configuration(reborn, causal):
    layer, segments = PackedMask(causal), np.array([[1, 1, 2, 0]])
    copy = reborn(layer, segments, segments)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(copy(segments, segments)), ops.convert_to_numpy(layer(segments, segments))
    )
