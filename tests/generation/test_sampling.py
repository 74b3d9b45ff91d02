"""What may come next, against plain loops and NumPy; and draws, against the distribution that they come from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import stats

from zoo.generation import sampling

START = 1
IMPOSSIBLE = -1e30


def allowed(logits):
    """Tells which logits are possible; all others are exactly IMPOSSIBLE."""
    logits = ops.convert_to_numpy(logits)
    assert np.all((logits > -1e20) | (logits == np.float32(IMPOSSIBLE)))
    return logits > -1e20


@st.composite
def beginnings(draw):
    """Rows of tokens, start token first, of which only `length` places count; and an n."""
    places = draw(st.integers(2, 9))
    rows = draw(st.lists(st.lists(st.integers(0, 3), min_size=places - 1, max_size=places - 1), min_size=1, max_size=3))
    return [[START, *row] for row in rows], draw(st.integers(1, places - 1)), draw(st.integers(1, 5))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(beginnings())
def test_repeated_ngrams_are_those_of_a_plain_loop(drawn):
    rows, length, n = drawn
    vocabulary = 5
    logits = np.random.default_rng(0).normal(size=(len(rows), vocabulary)).astype(np.float32)
    found = sampling.forbid_repeated_ngrams(
        ops.convert_to_tensor(logits), ops.convert_to_tensor(rows), ops.convert_to_tensor(length), n
    )
    expected = np.ones_like(logits, bool)
    for row, tokens in enumerate(rows):
        said = tokens[1:length]
        ngrams = {tuple(said[i : i + n]) for i in range(len(said) - n + 1)}
        for token in range(vocabulary):
            expected[row, token] = tuple([*said, token][-n:]) not in ngrams
    np.testing.assert_array_equal(allowed(found), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[expected], logits[expected])


@pytest.mark.parametrize("vocabulary", [7, 300, 384, 385])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_largest_are_found_in_blocks_too(vocabulary, k, rng, monkeypatch):
    monkeypatch.setattr(sampling, "LARGE", 100)
    monkeypatch.setattr(sampling, "BLOCK", 10)
    # Many are equal, and some impossible.
    logits = rng.integers(-3, 4, (5, vocabulary)).astype(np.float32)
    logits[0] = IMPOSSIBLE
    logits[1, : vocabulary // 2] = IMPOSSIBLE
    logits[2] = np.arange(vocabulary)
    values, places = map(ops.convert_to_numpy, sampling.largest(ops.convert_to_tensor(logits), k))
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, expected, axis=1))
    found = ops.convert_to_numpy(sampling.likeliest(ops.convert_to_tensor(logits)))
    np.testing.assert_array_equal(found, logits.argmax(axis=1))


WORDS = [(3, 1), (0, 0), (1, 2, 3), (START, 2)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(beginnings())
def test_bad_words_are_those_of_a_plain_loop(drawn):
    rows, length, _ = drawn
    logits = np.random.default_rng(0).normal(size=(len(rows), 5)).astype(np.float32)
    tensors = (ops.convert_to_tensor(x) for x in (logits, rows, length))
    found = sampling.forbid_words(*tensors, WORDS)
    for row, tokens in enumerate(rows):
        # A word is looked for among as many tokens as it has; what it would begin with alone is not enough.
        said = [tuple(tokens[max(0, length - len(word) + 1) : length]) for word in WORDS]
        bad = {word[-1] for word, before in zip(WORDS, said) if word[:-1] == before and length >= len(word)}
        assert np.flatnonzero(~allowed(found)[row]).tolist() == sorted(bad)
    expected = np.where(allowed(found), logits, IMPOSSIBLE)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected.astype(np.float32))


@pytest.mark.parametrize("certain", [None, 0.0])
def test_a_token_is_forced_in_some_rows(rng, certain):
    logits = rng.normal(size=(3, 5)).astype(np.float32)
    where = np.array([[True], [False], [True]])
    wanted = np.arange(5) == 2
    found = ops.convert_to_numpy(sampling.force(ops.convert_to_tensor(logits), wanted, where, certain))
    np.testing.assert_array_equal(found[1], logits[1])
    for row in (0, 2):
        assert found[row, 2] == (logits[row, 2] if certain is None else certain)
        np.testing.assert_array_equal(allowed(found)[row], wanted)


@pytest.mark.parametrize("k", [1, 2, 7, 12, 50])
def test_keep_top_k(k, rng):
    logits = rng.normal(size=(6, 12)).astype(np.float32)
    found = sampling.keep_top_k(ops.convert_to_tensor(logits), k)
    expected = logits >= np.sort(logits, axis=1)[:, max(0, 12 - k)][:, None]
    np.testing.assert_array_equal(allowed(found), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[expected], logits[expected])


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_keep_top_p(p, rng):
    logits = rng.normal(0, 2, size=(20, 12)).astype(np.float32)
    found = sampling.keep_top_p(ops.convert_to_tensor(logits), p)
    expected = np.zeros_like(logits, bool)
    for row, values in enumerate(logits.astype(np.float64)):
        probabilities = np.exp(values) / np.exp(values).sum()
        total = 0.0
        for token in np.argsort(-values):
            expected[row, token] = total < p
            total += probabilities[token]
            assert p == 1 or abs(total - p) > 1e-5  # no row depends on rounding
    np.testing.assert_array_equal(allowed(found), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[expected], logits[expected])


def test_keep_top_p_leaves_what_was_impossible_impossible():
    logits = ops.convert_to_tensor([[0.0, IMPOSSIBLE, 0.1, IMPOSSIBLE]])
    assert allowed(sampling.keep_top_p(logits, 0.99)).tolist() == [[True, False, True, False]]
    assert allowed(sampling.keep_top_p(logits, 0.3)).tolist() == [[False, False, True, False]]


# === Draws ===

DRAWS = 20_000


def seeds(which):
    """Seeds as generation counts them: by source, by step, or by what the user gives."""
    numbers, still = np.arange(DRAWS), np.full(DRAWS, 3)
    pairs = {"source": (still, numbers), "step": (still + 65537 * numbers, still), "seed": (numbers, still)}[which]
    return ops.convert_to_tensor(np.stack(pairs, axis=1).astype(np.int32))


@pytest.mark.parametrize("which", ["source", "step", "seed"])
def test_draws_follow_the_softmax(which):
    logits = np.array([0.0, -1.0, 2.0, -3.0, 1.0, 0.5], np.float32)
    tokens = sampling.draw(ops.convert_to_tensor(np.tile(logits, (DRAWS, 1))), seeds(which))
    counts = np.bincount(ops.convert_to_numpy(tokens), minlength=len(logits))
    weights = np.exp(logits.astype(np.float64))
    assert stats.chisquare(counts, DRAWS * weights / weights.sum()).pvalue > 0.001


def test_two_draws_in_a_row_are_independent():
    logits = ops.zeros((DRAWS, 3))
    first, second = (
        ops.convert_to_numpy(sampling.draw(logits, seeds("source") + np.array([[65537 * step, 0]], np.int32)))
        for step in (1, 2)
    )
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_the_impossible_is_never_drawn():
    logits = np.full((DRAWS, 4), IMPOSSIBLE, np.float32)
    logits[:, 2] = -5
    assert set(ops.convert_to_numpy(sampling.draw(ops.convert_to_tensor(logits), seeds("source"))).tolist()) == {2}


def test_a_draw_depends_on_its_own_seed_alone(rng):
    logits = np.tile(rng.normal(size=9).astype(np.float32), (40, 1))
    pairs = rng.integers(0, 2**31 - 1, (40, 2)).astype(np.int32)

    def draw(rows):
        return ops.convert_to_numpy(
            sampling.draw(ops.convert_to_tensor(logits[rows]), ops.convert_to_tensor(pairs[rows]))
        )

    tokens = draw(np.arange(40))
    assert len(set(tokens.tolist())) > 3
    order = rng.permutation(40)
    np.testing.assert_array_equal(draw(order), tokens[order])
    np.testing.assert_array_equal(draw([7]), tokens[[7]])
    logits[8:] = 0
    np.testing.assert_array_equal(draw(np.arange(8)), tokens[:8])


def test_a_word_goes_on_as_it_does_in_the_source():
    # Tokens 5, 6 and 7 continue words; behind 4, an apostrophe, each of them may come.
    source = np.array([[2, 5, 6, 3, 5, 0], [3, 6, 2, 7, 2, 5]], np.int32)
    kinds = np.arange(8) >= 5, np.arange(8) == 4

    def possible(*latest):
        found = sampling.forbid_broken_words(ops.zeros((2, 8)), np.array(latest, np.int32), source, *kinds)
        return [(np.flatnonzero(row[5:]) + 5).tolist() for row in allowed(found)], allowed(found)[:, :5]

    for latest, continued in (
        ((2, 2), ([5], [5, 7])),
        ((5, 3), ([6], [6])),
        ((6, 6), ([], [])),
        ((4, 1), ([5, 6, 7], [])),
    ):
        found, others = possible(*latest)
        assert found == list(continued)
        assert others.all()
