"""Generation where models differ: a decoder alone, and special tokens of every kind, against full forward passes."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from zoo.generation import GenerationConfig, Generator
from zoo.generation.beam import length_penalty
from zoo.generation.layout import FREE, begin, lay_out, strip
from zoo.models.decoder import DecoderConfig, decoder
from zoo.models.generative import SpecialTokens

SPECIAL = {
    "the zoo's own": SpecialTokens(),
    "one for all": SpecialTokens(pad=19, start=19, end=19, never=(), start_optional=True),
    "starts with padding": SpecialTokens(pad=7, start=7, end=0, never=(7,)),
    "a forced beginning": SpecialTokens(pad=1, start=2, end=3, never=(1,), beginning=(4, 5)),
}
PROMPTS = [[8, 9, 10, 11, 12, 13, 14, 15, 16], [8], [], [10, 11], [9] * 17, [12, 13, 14, 15]]
LIMIT = 24
GREEDY = GenerationConfig(beams=1, max_length=LIMIT)


@pytest.fixture(scope="module", params=SPECIAL.values(), ids=SPECIAL)
def model(request):
    """A small random language model."""
    sizes = {"vocabulary_size": 20, "width": 16, "num_heads": 2, "num_layers": 1, "max_length": 40}
    model = decoder(DecoderConfig(**sizes, special_tokens=request.param))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        values = rng.normal(0, 0.15 if "embedding" in weight.path else 0.5, weight.shape)
        weight.assign(1 + 0.1 * values if "gamma" in weight.path else values)
    return model


@pytest.fixture(scope="module")
def generator(model):
    """Generates without XLA, which spares its compilations."""
    return Generator(model, jit=False)


def row_of(special, prompt):
    """What stands before the first generated token, and how much of it is no word."""
    start = [] if special.start_optional and prompt else [special.start]
    return [*start, *special.beginning, *prompt], len(start) + len(special.beginning)


def log_probabilities(model, row, limit=LIMIT):
    """Scores what may come behind a row, by a full forward pass without a cache."""
    special = model.special_tokens
    logits = ops.convert_to_numpy(model({"target": np.array([row])}, training=False))[0, -1].astype(np.float64)
    logits[list(special.never)] = -np.inf
    if len(row) >= limit:
        logits[np.arange(len(logits)) != special.end] = -np.inf
    return logits - np.logaddexp.reduce(logits)


def greedy_by_hand(model, prompt):
    special = model.special_tokens
    row, skipped = row_of(special, prompt)
    score = 0.0
    while True:
        scores = log_probabilities(model, row)
        token = int(scores.argmax())
        score += scores[token]
        if token == special.end:
            return row[skipped:], score
        row.append(token)


def test_greedy_is_a_plain_loop(model, generator):
    found = generator(PROMPTS, GREEDY)
    lengths = set()
    for prompt, (hypothesis,) in zip(PROMPTS, found):
        tokens, score = greedy_by_hand(model, prompt)
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score, abs=1e-3)
        lengths.add(len(tokens) - len(prompt))
    assert len(lengths) > 1  # not all go on to the limit, or end at once


@pytest.mark.parametrize("form", ["gnmt", "power"])
def test_a_beam_score_is_the_penalized_log_probability(model, generator, form):
    special = model.special_tokens
    config = GenerationConfig(beams=3, n_best=3, max_length=LIMIT, length_penalty=0.8, length_penalty_form=form)
    for prompt, hypotheses in zip(PROMPTS, generator(PROMPTS, config)):
        assert len({tuple(hypothesis.tokens) for hypothesis in hypotheses}) == 3
        for tokens, score in hypotheses:
            assert tokens[: len(prompt)] == prompt
            row, _ = row_of(special, prompt)
            expected = 0.0
            for token in [*tokens[len(prompt) :], special.end]:
                expected += log_probabilities(model, row)[token]
                row.append(token)
            length = len(row) - 1
            penalty = ((5 + length) / 6 if form == "gnmt" else length) ** 0.8
            assert score == pytest.approx(expected / penalty, abs=1e-3)


def test_samples_go_on_from_their_prompts(model, generator):
    config = GenerationConfig(beams=1, sample=True, n_best=3, max_length=LIMIT)
    special = model.special_tokens
    said = set()
    for prompt, hypotheses in zip(PROMPTS, generator(PROMPTS, config)):
        for tokens, _ in hypotheses:
            assert tokens[: len(prompt)] == prompt
            assert not {*special.never, special.end} & set(tokens[len(prompt) :])
            said.add(tuple(tokens[len(prompt) :]))
    assert len(said) > 6


def test_a_result_depends_on_its_own_prompt_alone(generator):
    # Prompts of one length are read at once, of several token by token.
    together = generator(PROMPTS, GREEDY)
    for prompt, (expected,) in zip(PROMPTS, together):
        ((alone,),) = generator([prompt], GREEDY)
        assert alone.tokens == expected.tokens
        assert alone.score == pytest.approx(expected.score, abs=1e-3)


def test_xla_gives_what_the_graph_gives(model, generator):
    config = dataclasses.replace(GREEDY, beams=2)
    found, expected = Generator(model)(PROMPTS[:2], config), generator(PROMPTS[:2], config)
    assert [h.tokens for (h,) in found] == [h.tokens for (h,) in expected]


def test_what_does_not_fit_is_named(model, generator):
    others = len(model.special_tokens.beginning)
    with pytest.raises(ValueError, match=rf"^input 2: 41 tokens; the model takes at most {39}$"):
        generator([[8], [8] * 41], GREEDY)
    with pytest.raises(ValueError, match=rf"^beginning 1: {24 - others} tokens; max_length 24 leaves no place behind$"):
        generator([[8] * (24 - others)], GREEDY)
    with pytest.raises(ValueError, match=f"beginning 1: it holds token {model.special_tokens.end}, which ends"):
        generator([[8, model.special_tokens.end]], GREEDY)
    with pytest.raises(ValueError, match="the model is a decoder alone"):
        generator([[8]], GREEDY, [[9]])


# === Layout ===


def test_sources_stand_between_their_special_tokens():
    special = SpecialTokens(pad=9, end=2, source_start=(0, 7))
    found = lay_out([[5, 6], []], 4, special, 32)
    assert found.shape == (4, 16)
    assert found[0, :6].tolist() == [0, 7, 5, 6, 2, 9]
    assert found[1, :4].tolist() == [0, 7, 2, 9]
    assert found[2:, :2].tolist() == [[2, 9], [2, 9]]


def test_beginnings_are_read_as_far_as_all_have_them():
    special = SpecialTokens(start=1, beginning=(4,))
    begun = begin([[5, 6, 7], [8]], 3, 8, special)
    assert begun.tokens[:, :6].tolist() == [[1, 4, 5, 6, 7, FREE], [1, 4, 8, FREE, FREE, FREE], [1, 4, 5, 6, 7, FREE]]
    assert (begun.read, begun.forced, begun.said) == (2, True, [2, 2])
    assert begin([[]], 1, 8, SpecialTokens())[1:] == (1, False, [1])
    optional = SpecialTokens(start_optional=True)
    assert begin([[5] * 4, [6] * 4], 2, 8, optional)[1:] == (4, False, [0, 0])
    assert begin([[], [6]], 2, 8, optional).tokens[:, :2].tolist() == [[1, FREE], [6, FREE]]


def test_a_target_ends_before_its_end():
    special = SpecialTokens(end=2)
    assert strip(np.array([1, 5, 6, 2, 0, 0]), 1, special) == [5, 6]
    assert strip(np.array([1, 4, 5, 6]), 2, special) == [5, 6]


def test_length_penalties_by_hand():
    assert float(length_penalty(7, 0.5)) == pytest.approx(2**0.5)
    assert float(length_penalty(9, 0.5, "power")) == pytest.approx(3)
