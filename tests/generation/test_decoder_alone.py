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
LONGEST, LIMIT, ENDS = 40, 14, 15
GREEDY = GenerationConfig(beams=1, max_length=LIMIT)


def language_model(special):
    """A small random language model that likes to end texts at one place."""
    sizes = {"vocabulary_size": 20, "width": 16, "num_heads": 2, "num_layers": 1, "max_length": LONGEST}
    model = decoder(DecoderConfig(**sizes, special_tokens=special))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        values = rng.normal(0, 0.15 if "embedding" in weight.path else 0.5, weight.shape)
        weight.assign(1 + 0.1 * values if "gamma" in weight.path else values)
    weights = {weight.path: weight for weight in model.weights}
    positions = ops.convert_to_numpy(weights["positions/table"]).copy()
    positions[ENDS] += 100 * ops.convert_to_numpy(weights["embedding/embeddings"])[special.end]
    weights["positions/table"].assign(positions)
    return model


@pytest.fixture(scope="module")
def generators():
    """Generators without XLA, which spares its compilations."""
    return {name: Generator(language_model(special), jit=False) for name, special in SPECIAL.items()}


@pytest.fixture(scope="module")
def one_for_all(generators):
    return generators["one for all"]


def log_probabilities(model, prompts, found):
    """Scores what may come at each place behind prompts, by one forward pass over whole targets without a cache.

    Returns for each target what was generated, and the log-probabilities (tokens, V).
    """
    special = model.special_tokens
    rows, starts = np.full((len(prompts), LONGEST), special.pad), []
    for row, prompt, tokens in zip(rows, prompts, found):
        start = [] if special.start_optional and prompt else [special.start]
        whole = [*start, *special.beginning, *tokens]
        row[: len(whole)] = whole
        starts.append((len(start), len(start) + len(special.beginning) + len(prompt)))
    logits = ops.convert_to_numpy(model({"target": rows}, training=False)).astype(np.float64)
    logits[:, :, list(special.never)] = -np.inf
    results = []
    for places, (start, first), prompt, tokens in zip(logits, starts, prompts, found):
        generated = [*tokens[len(prompt) :], special.end]
        last = start + len(prompt) + LIMIT - 1  # the place that only the end may take
        places[last - 1, np.arange(places.shape[1]) != special.end] = -np.inf
        places -= np.logaddexp.reduce(places, axis=1, keepdims=True)
        results.append((generated, places[first - 1 : first - 1 + len(generated)]))
    return results


@pytest.mark.parametrize("name", SPECIAL)
def test_greedy_takes_what_a_full_forward_pass_finds_likeliest(name, generators):
    generator = generators[name]
    found = [hypothesis for (hypothesis,) in generator(PROMPTS, GREEDY)]
    lengths = set()
    for hypothesis, (generated, scores) in zip(
        found, log_probabilities(generator.model, PROMPTS, [h.tokens for h in found]), strict=True
    ):
        assert scores.argmax(axis=1).tolist() == generated
        assert hypothesis.score == pytest.approx(scores.max(axis=1).sum(), abs=1e-3)
        lengths.add(len(generated))
    assert len(lengths) > 2  # not all go on to the limit
    assert [h.tokens[: len(prompt)] for h, prompt in zip(found, PROMPTS)] == PROMPTS


@pytest.mark.parametrize(
    ("name", "form", "penalty"),
    [
        ("a forced beginning", "gnmt", lambda length: ((5 + length) / 6) ** 0.8),
        ("one for all", "power", lambda length: length**0.8),
    ],
)
def test_a_beam_score_is_the_penalized_log_probability(name, form, penalty, generators):
    generator = generators[name]
    forced = len(SPECIAL[name].beginning)  # counts as generated
    config = dataclasses.replace(GREEDY, beams=3, n_best=3, length_penalty=0.8, length_penalty_form=form)
    results = generator(PROMPTS, config)
    assert all(len({tuple(h.tokens) for h in hypotheses}) == 3 for hypotheses in results)
    for rank in range(3):
        chosen = [hypotheses[rank] for hypotheses in results]
        scored = log_probabilities(generator.model, PROMPTS, [h.tokens for h in chosen])
        for hypothesis, (generated, scores) in zip(chosen, scored):
            expected = scores[np.arange(len(generated)), generated].sum() / penalty(forced + len(generated))
            assert hypothesis.score == pytest.approx(expected, abs=1e-3)


def test_a_shortest_length_counts_no_prompt(one_for_all):
    config = dataclasses.replace(GREEDY, min_length=9, max_length=10)
    for prompt, (hypothesis,) in zip(PROMPTS, one_for_all(PROMPTS, config)):
        assert len(hypothesis.tokens) == len(prompt) + 9


def test_samples_go_on_from_their_prompts(one_for_all):
    config = GenerationConfig(beams=1, sample=True, n_best=3, max_length=LIMIT)
    end = one_for_all.model.special_tokens.end
    said = set()
    for prompt, hypotheses in zip(PROMPTS, one_for_all(PROMPTS, config)):
        for tokens, _ in hypotheses:
            assert tokens[: len(prompt)] == prompt
            assert end not in tokens
            said.add(tuple(tokens[len(prompt) :]))
    assert len(said) > 6


def test_a_result_depends_on_its_own_prompt_alone(one_for_all):
    # Prompts of one length are read at once, of several token by token.
    together = one_for_all(PROMPTS, GREEDY)
    for prompt, (expected,) in list(zip(PROMPTS, together))[:3]:
        ((alone,),) = one_for_all([prompt], GREEDY)
        assert alone.tokens == expected.tokens
        assert alone.score == pytest.approx(expected.score, abs=1e-3)


def test_xla_gives_what_the_graph_gives(one_for_all):
    config = dataclasses.replace(GREEDY, beams=2)
    found, expected = Generator(one_for_all.model)(PROMPTS[:2], config), one_for_all(PROMPTS[:2], config)
    assert [h.tokens for (h,) in found] == [h.tokens for (h,) in expected]


def test_what_does_not_fit_is_named(one_for_all, generators):
    with pytest.raises(ValueError, match=r"^input 2: 41 tokens; the model takes at most 39$"):
        one_for_all([[8], [8] * 41], GREEDY)
    with pytest.raises(ValueError, match="beginning 1: it holds token 19, which ends"):
        one_for_all([[8, 19]], GREEDY)
    with pytest.raises(ValueError, match="the model is a decoder alone"):
        one_for_all([[8]], GREEDY, [[9]])
    with pytest.raises(ValueError, match=r"^beginning 1: 38 tokens; the model takes at most 37$"):
        generators["a forced beginning"]([[8] * 38], GREEDY)


def test_a_text_that_fills_the_model_can_still_end(one_for_all):
    ((found,),) = one_for_all([[8] * (LONGEST - 1)], GREEDY)
    assert found.tokens[: LONGEST - 1] == [8] * (LONGEST - 1)
    assert len(found.tokens) <= LONGEST


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
    assert (begun.read, begun.forced, begun.said, begun.uncounted.tolist()) == (2, True, [2, 2], [3, 1, 3])
    assert begin([[]], 1, 8, SpecialTokens())[1:] == (1, False, [1], [0])
    optional = SpecialTokens(start_optional=True)
    begun = begin([[5] * 4, [6] * 4], 2, 8, optional)
    assert (begun.read, begun.forced, begun.said, begun.uncounted.tolist()) == (4, False, [0, 0], [3, 3])
    assert begin([[], [6]], 2, 8, optional).tokens[:, :2].tolist() == [[1, FREE], [6, FREE]]


def test_a_target_ends_before_its_end():
    special = SpecialTokens(end=2)
    assert strip(np.array([1, 5, 6, 2, 0, 0]), 1, special) == [5, 6]
    assert strip(np.array([1, 4, 5, 6]), 2, special) == [5, 6]


def test_length_penalties_by_hand():
    assert float(length_penalty(7, 0.5)) == pytest.approx(2**0.5)
    assert float(length_penalty(9, 0.5, "power")) == pytest.approx(3)
