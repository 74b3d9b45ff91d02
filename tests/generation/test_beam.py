"""Beam search against a search through everything, and against beams kept in plain lists."""

import itertools

import numpy as np
import pytest
from keras import ops

from zoo.generation import beam

PAD, START, END = 0, 1, 2
WORDS = (3, 4, 5)
VOCABULARY = 6
IMPOSSIBLE = -1e30


class Language:
    """Random next-token logits for every beginning of up to `places` tokens, a table of its own for each source."""

    def __init__(self, limits, seed=0, end_bonus=0.0):
        self.limits = list(limits)
        self.places = max(limits) + 1
        self.table = np.random.default_rng(seed).normal(
            0, 2, (len(limits), VOCABULARY ** (self.places - 1), VOCABULARY)
        )
        self.table[..., END] += end_bonus
        self.table[..., [PAD, START]] = IMPOSSIBLE
        self.calls = 0

    def logits(self, source, tokens):
        """Returns the logits behind a beginning, start token included."""
        logits = self.table[source, sum(token * VOCABULARY**i for i, token in enumerate(tokens[1:]))].copy()
        if len(tokens) >= self.limits[source]:
            logits[np.arange(VOCABULARY) != END] = IMPOSSIBLE
        return logits

    def log_probabilities(self, source, tokens):
        logits = self.logits(source, tokens)
        return logits - np.logaddexp.reduce(logits)

    def logits_of(self, state, tensors):
        """What beam.search() asks for."""
        self.calls += 1
        live, length = ops.convert_to_numpy(state.live), int(state.length)
        # A source that is done may be looked at behind its limit; what is said of it there must not matter.
        rows = [
            self.logits(source, row[:length].tolist()) if length <= self.limits[source] else np.zeros(VOCABULARY)
            for source, rows in enumerate(live)
            for row in rows
        ]
        return ops.convert_to_tensor(np.array(rows, np.float32)), tensors

    def search(self, beams, alpha, form="gnmt", rules=beam.Rules()):
        state = beam.start(first(len(self.limits), self.places), beams)
        limits = ops.convert_to_tensor(self.limits)
        return beam.search(self.logits_of, [], state, limits, END, alpha, form, rules=rules)


def first(sources, places):
    """Rows that hold the start token alone."""
    return ops.convert_to_tensor(np.eye(1, places, dtype=np.int32).repeat(sources, axis=0) * START)


def penalized(score, tokens, alpha):
    """Wu et al. 2016, equation 14, over the generated tokens, end token included."""
    return score / ((5 + len(tokens) - 1) / 6) ** alpha


def everything(language, source, alpha):
    """All sequences that can be said, best first: (score, tokens without padding)."""
    found = []
    for length in range(language.limits[source]):
        for words in itertools.product(WORDS, repeat=length):
            tokens = (START, *words, END)
            score = sum(language.log_probabilities(source, tokens[:i])[tokens[i]] for i in range(1, len(tokens)))
            found.append((penalized(score, tokens, alpha), tokens))
    return sorted(found, reverse=True)


def beams_in_lists(language, source, beams, alpha):
    """Beam search as one writes it down: no early stop, nothing frozen, no fixed shapes."""
    live, ended = [(0.0, (START,))], []
    for _ in range(language.limits[source]):
        choices = [
            (score + gain, (*tokens, token))
            for score, tokens in live
            for token, gain in enumerate(language.log_probabilities(source, tokens))
            if gain > IMPOSSIBLE / 2
        ]
        best = sorted(choices, reverse=True)[: 2 * beams]
        ended += [(penalized(score, tokens, alpha), tokens) for score, tokens in best if tokens[-1] == END]
        live = [choice for choice in best if choice[1][-1] != END][:beams]
    return sorted(ended, reverse=True)[:beams]


def beams_in_lists_as_transformers(language, source, beams, alpha, early_stopping):
    """The same as transformers has it: ends count among the best `beams` only, and it may stop earlier."""
    live, ended = [(0.0, (START,))], []
    for length in range(1, language.limits[source] + 1):
        choices = [
            (score + gain, (*tokens, token))
            for score, tokens in live
            for token, gain in enumerate(language.log_probabilities(source, tokens))
            if gain > IMPOSSIBLE / 2
        ]
        best = sorted(choices, reverse=True)[: 2 * beams]
        ended += [(score / length**alpha, tokens) for score, tokens in best[:beams] if tokens[-1] == END]
        ended = sorted(ended, reverse=True)[:beams]
        live = [choice for choice in best if choice[1][-1] != END][:beams]
        full = len(ended) == beams
        if full and (early_stopping == "full" or not live or live[0][0] / length**alpha <= ended[-1][0]):
            break
    return ended


def hypotheses(state, source):
    """The ended hypotheses of a source: (score, tokens without padding); nothing but padding follows the end."""
    found = []
    for tokens, score in zip(ops.convert_to_numpy(state.ended)[source].tolist(), state.ended_scores[source]):
        if float(score) > IMPOSSIBLE / 2:
            end = tokens.index(END)
            assert not any(tokens[end + 1 :])
            found.append((float(score), tuple(tokens[: end + 1])))
    return found


def assert_same(found, expected):
    assert [tokens for _, tokens in found] == [tokens for _, tokens in expected]
    np.testing.assert_allclose([score for score, _ in found], [score for score, _ in expected], rtol=1e-4)


ALPHAS = [0.0, 0.6, 1.0, 2.0, -0.5]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_beams_for_all_find_all_in_order(alpha):
    language = Language([4, 4], seed=1)
    state = language.search(40, alpha)
    for source in range(2):
        expected = everything(language, source, alpha)
        assert len(expected) == 40
        assert_same(hypotheses(state, source), expected)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("end_bonus", [-2.0, 0.0, 3.0])
def test_the_early_stop_loses_none_of_the_best(alpha, end_bonus):
    # 27 beams hold all that is alive in any step, so only stopping too early could miss one of the 27 best of 40.
    language = Language([4, 4, 4], seed=2, end_bonus=end_bonus)
    state = language.search(27, alpha)
    for source in range(3):
        assert_same(hypotheses(state, source), everything(language, source, alpha)[:27])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_few_beams_are_those_of_the_textbook(beams, alpha):
    for seed in range(3):
        language = Language([5, 2, 4], seed, end_bonus=2 * seed - 2)
        state = language.search(beams, alpha)
        for source in range(3):
            found = hypotheses(state, source)
            expected = beams_in_lists(language, source, beams, alpha)
            assert_same(found, expected)
            assert len(set(found)) == len(found)


@pytest.mark.parametrize("early_stopping", ["heuristic", "full"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, -0.5])
def test_a_search_may_stop_as_transformers_does(early_stopping, alpha):
    rules = beam.Rules(early_stopping, late_ends=False)
    differs = 0
    for seed in range(4):
        language = Language([6, 2, 5], seed, end_bonus=seed - 1)
        state, zoos = language.search(3, alpha, "power", rules), language.search(3, alpha, "power")
        for source in range(3):
            expected = beams_in_lists_as_transformers(language, source, 3, alpha, early_stopping)
            assert_same(hypotheses(state, source), expected)
            differs += hypotheses(zoos, source) != hypotheses(state, source)
    # Where scores only fall with the length, the heuristic is right.
    assert bool(differs) == ((early_stopping, alpha) != ("heuristic", 0.0))


def test_a_target_may_be_cut_where_its_limit_is():
    language = Language([3, 2], seed=1, end_bonus=-30.0)
    limits, language.limits = language.limits, [4, 4]  # nothing makes the end the only token
    language.places = 5
    language.table = np.random.default_rng(1).normal(0, 2, (2, VOCABULARY**4, VOCABULARY)) + np.eye(6)[END] * -30
    language.table[..., [PAD, START]] = IMPOSSIBLE
    state = beam.start(first(2, 5), 2)
    rules = beam.Rules(cut=True)
    state = beam.search(language.logits_of, [], state, ops.convert_to_tensor(limits), END, 0.0, rules=rules)
    for source, limit in enumerate(limits):
        tokens = ops.convert_to_numpy(state.ended)[source, 0].tolist()
        assert END not in tokens[: limit + 1]
        assert all(token in WORDS for token in tokens[1 : limit + 1])
        score = sum(language.log_probabilities(source, tokens[:i])[tokens[i]] for i in range(1, limit + 1))
        assert float(state.ended_scores[source, 0]) == pytest.approx(score, rel=1e-4)


def test_log_probabilities_are_taken_as_they_are():
    language = Language([3], seed=2)

    def less(state, tensors):
        logits, tensors = language.logits_of(state, tensors)
        return logits - ops.logsumexp(logits, axis=-1, keepdims=True) - 1.0, tensors

    state = beam.start(first(1, language.places), 2)
    rules = beam.Rules(normalized=True)
    found = beam.search(less, [], state, ops.convert_to_tensor([3]), END, 0.0, rules=rules)
    for score, tokens in hypotheses(found, 0):
        expected = sum(language.log_probabilities(0, tokens[:i])[tokens[i]] for i in range(1, len(tokens)))
        assert score == pytest.approx(expected - (len(tokens) - 1), rel=1e-4)


def test_the_search_stops_as_soon_as_nothing_better_can_come():
    calls = {}
    for end_bonus in (-1.0, 12.0):
        language = Language([6], seed=3, end_bonus=end_bonus)
        language.search(1, 1.0)
        calls[end_bonus] = language.calls
    assert calls[12.0] == 1
    assert 1 < calls[-1.0] <= 6


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_where_an_end_never_comes_second(seed):
    language = Language([5], seed)
    # An end is either the likeliest token or the unlikeliest.
    ends = language.table[..., END]
    language.table[..., END] = np.where(ends > 1, 50.0, -50.0)
    tokens, score = [START], 0.0
    while tokens[-1] != END:
        gains = language.log_probabilities(0, tokens)
        tokens.append(int(np.argmax(gains)))
        score += gains[tokens[-1]]
    assert_same(hypotheses(language.search(1, 0.0), 0), [(score, tuple(tokens))])


# === Many sources ===


def test_a_source_finds_the_same_alone_and_among_others():
    limits = [2, 6, 4, 1]
    together = Language(limits, seed=4)
    state = together.search(3, 1.0)
    for source, limit in enumerate(limits):
        alone = Language([max(limits)], seed=0)
        alone.table, alone.limits = together.table[source : source + 1], [limit]
        lone = alone.search(3, 1.0)
        assert_same(hypotheses(state, source), hypotheses(lone, 0))
        # Even its live beams stopped where they stop when there is nobody else to wait for.
        np.testing.assert_array_equal(state.live[source], lone.live[0])
        np.testing.assert_allclose(state.live_scores[source], lone.live_scores[0], rtol=1e-5)


def test_each_source_has_its_own_limit():
    language = Language([1, 3, 5], seed=5, end_bonus=-20.0)
    state = language.search(2, 0.0)
    assert [hypotheses(state, 0)[0][1], len(hypotheses(state, 0))] == [(START, END), 1]
    assert {len(tokens) - 1 for _, tokens in hypotheses(state, 1)} == {3}
    assert {len(tokens) - 1 for _, tokens in hypotheses(state, 2)} == {5}


# === One step ===


def test_ended_hypotheses_are_frozen_and_only_better_ones_displace_them():
    language = Language([5, 5], seed=6)
    state = beam.start(first(2, language.places), 4)
    for _ in range(4):
        logits, _ = language.logits_of(state, [])
        new, parents = beam.advance(state, logits, END, 0.7)
        for source in range(2):
            old, now = hypotheses(state, source), hypotheses(new, source)
            assert now == sorted(now, reverse=True)
            displaced = set(old) - set(now)
            assert not displaced or (len(now) == 4 and max(displaced) < now[-1])
            # A live beam continues the one that it names.
            for number, tokens in zip(parents[source], new.live[source]):
                parent = ops.convert_to_numpy(state.live)[source, int(number)]
                np.testing.assert_array_equal(tokens[: int(state.length)], parent[: int(state.length)])
        state = new


def test_what_the_decoder_carries_follows_its_beam():
    # The carried tensor repeats each beam's own tokens: it stays equal to them only if rows are reordered alike.
    language = Language([5, 5], seed=7)
    checked = 0

    def logits_of(state, tensors):
        nonlocal checked
        (carried,) = tensors
        length = int(state.length)
        live = ops.convert_to_numpy(ops.reshape(state.live, (-1, language.places)))
        reachable = ops.convert_to_numpy(ops.reshape(state.live_scores, (-1,))) > IMPOSSIBLE / 2
        np.testing.assert_array_equal(
            ops.convert_to_numpy(carried)[reachable, : length - 1], live[reachable, : length - 1]
        )
        checked += reachable.sum()
        logits, _ = language.logits_of(state, [])
        return logits, [ops.convert_to_tensor(np.where(np.arange(language.places) < length, live, 0))]

    state = beam.start(first(2, language.places), 3)
    carried = ops.zeros((6, language.places), "int32")
    beam.search(logits_of, [carried], state, ops.convert_to_tensor([5, 5]), END, 0.0)
    assert checked > 12


@pytest.mark.parametrize(("length", "alpha", "expected"), [(1, 1.0, 1.0), (7, 1.0, 2.0), (7, 0.0, 1.0), (19, 0.5, 2.0)])
def test_the_length_penalty(length, alpha, expected):
    assert float(beam.length_penalty(length, alpha)) == pytest.approx(expected)
