"""Generation against the model itself: every hypothesis is replayed by one full forward pass, without a cache."""

import collections
import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from zoo.checkpoints import by_path, save
from zoo.config import ConfigError
from zoo.generation import GenerationConfig, Generator
from zoo.generation.layout import lay_out, rounded_up

PAD, START, END, UNKNOWN = range(4)
GREEDY = GenerationConfig(beams=1)
BEAMS = GenerationConfig(beams=3, n_best=3)
SAMPLE = GenerationConfig(beams=1, sample=True, n_best=2)


def longest(source):
    """The most tokens of a target, end token included: twice the source and 10 more, as far as the model goes."""
    return min(2 * len(source) + 10, 24)


@pytest.fixture(scope="module")
def forward(model):
    """The functional model itself: the whole source and the whole target in, logits out."""
    ids = tf.TensorSpec((1, None), tf.int32)
    return tf.function(
        lambda source, target: model({"source": source, "target": target}, training=False), input_signature=[ids, ids]
    )


def log_probabilities(forward, source, tokens, limit, min_length=0, temperature=1.0):
    """Scores each next token at each place of a target, (len(tokens) + 1, V), by one full forward pass."""
    logits = np.array(forward([[*source, END]], [[START, *tokens]]))[0].astype(np.float64) / temperature
    logits[:, [PAD, START, UNKNOWN]] = -np.inf
    logits[:min_length, END] = -np.inf
    logits[limit - 1 :, np.arange(logits.shape[1]) != END] = -np.inf
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def replayed(forward, source, tokens, limit=None, **constraints):
    """The summed log-probability of a target and its end."""
    scores = log_probabilities(forward, source, tokens, limit or longest(source), **constraints)
    return sum(scores[i, token] for i, token in enumerate([*tokens, END]))


def tokens_of(results):
    return [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in results]


def assert_same(results, others):
    """The same hypotheses; their scores may differ by what summing in another order does."""
    assert tokens_of(results) == tokens_of(others)
    for hypotheses, other in zip(results, others):
        np.testing.assert_allclose([h.score for h in hypotheses], [h.score for h in other], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def greedy(generator, sources):
    return generator(sources, GREEDY)


@pytest.fixture(scope="module")
def beams(generator, sources):
    return generator(sources, BEAMS)


# === Greedy ===


def test_the_test_model_is_worth_testing_with(greedy, sources):
    targets = [hypothesis.tokens for (hypothesis,) in greedy]
    assert len({tuple(target) for target in targets}) >= 8
    assert sum(len(target) < longest(source) - 1 for source, target in zip(sources, targets)) >= 5
    assert any(len(target) == longest(source) - 1 for source, target in zip(sources, targets))
    assert np.mean([len(set(target)) for target in targets]) > 2.5


def test_greedy_takes_the_likeliest_token_at_every_place(forward, greedy, sources):
    # Each place is looked at with all before it given, so this is the loop without a cache, read all at once.
    for source, (hypothesis,) in zip(sources, greedy, strict=True):
        scores = log_probabilities(forward, source, hypothesis.tokens, longest(source))
        assert scores.argmax(axis=1).tolist() == [*hypothesis.tokens, END]


def test_the_cache_gives_what_the_naive_loop_gives(forward, greedy, sources):
    for source, (hypothesis,) in list(zip(sources, greedy))[:4]:
        tokens = []
        while not tokens or tokens[-1] != END:
            tokens.append(int(log_probabilities(forward, source, tokens, longest(source))[-1].argmax()))
        assert hypothesis.tokens == tokens[:-1]


def test_a_greedy_score_is_the_targets_log_probability(forward, greedy, sources):
    for source, (hypothesis,) in zip(sources, greedy):
        assert hypothesis.score == pytest.approx(replayed(forward, source, hypothesis.tokens), abs=1e-4)


def test_fewer_long_sources_are_read_at_a_time(monkeypatch, generator, greedy, sources):
    rows = []
    monkeypatch.setattr("zoo.generation.generate.BATCH_PLACES", 8 * 16)

    def lay_out_and_tell(found, size, *arguments):
        rows.append((size, max(map(len, found))))
        return lay_out(found, size, *arguments)

    monkeypatch.setattr("zoo.generation.generate.lay_out", lay_out_and_tell)
    assert_same(generator(sources, GREEDY), greedy)
    assert {size for size, _ in rows} == {1, 8}
    assert all(size * rounded_up(length + 1) <= 8 * 16 for size, length in rows)


# === Beams ===


def test_a_beam_score_is_the_length_penalized_log_probability(forward, beams, sources):
    for source, hypotheses in zip(sources, beams):
        for tokens, score in hypotheses:
            penalty = (5 + len(tokens) + 1) / 6
            assert score == pytest.approx(replayed(forward, source, tokens) / penalty, abs=1e-4)


def test_the_n_best_are_different_and_sorted(beams, sources):
    assert len(beams) == len(sources)
    for hypotheses in beams:
        assert len(hypotheses) == 3
        assert len({tuple(hypothesis.tokens) for hypothesis in hypotheses}) == 3
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_beams_find_likelier_targets_than_greedy(generator, greedy, sources):
    searched = generator(sources, GenerationConfig(beams=4, length_penalty=0.0))
    gains = [mine.score - theirs.score for (mine,), (theirs,) in zip(searched, greedy)]
    # A search may lose the greedy path, so not every target is likelier.
    assert np.mean(np.array(gains) >= -1e-4) > 0.9
    assert np.mean(gains) > 0.1


def test_a_length_penalty_makes_longer_targets(generator, sources):
    lengths = {
        alpha: np.mean([len(h.tokens) for (h,) in generator(sources, GenerationConfig(beams=3, length_penalty=alpha))])
        for alpha in (0.0, 2.0)
    }
    assert lengths[2.0] > lengths[0.0]


def test_a_beam_search_agrees_with_an_exhaustive_one(forward, generator):
    # Targets of at most two tokens: 1 + 16 of them, and two places with 16 words fit into 17 beams.
    source = [5, 6, 7]
    config = GenerationConfig(beams=17, n_best=17, max_length=2, length_penalty=0.7)
    (found,) = generator([source], config)
    every = [[], *([token] for token in range(4, 20))]
    expected = sorted(
        (replayed(forward, source, tokens, limit=2) / ((5 + len(tokens) + 1) / 6) ** 0.7, tokens) for tokens in every
    )[::-1]
    assert [hypothesis.tokens for hypothesis in found] == [tokens for _, tokens in expected]
    np.testing.assert_allclose([hypothesis.score for hypothesis in found], [score for score, _ in expected], rtol=1e-4)


# === Batches ===


@pytest.mark.parametrize(("config", "expected"), [(GREEDY, "greedy"), (BEAMS, "beams")], ids=["greedy", "beams"])
def test_a_result_depends_on_its_source_alone(config, expected, generator, sources, request):
    expected = request.getfixturevalue(expected)
    one_by_one = [generator([source], config)[0] for source in sources[:4]]
    assert_same(one_by_one, expected[:4])
    assert_same(generator(sources[::-1], config), expected[::-1])
    assert_same(generator(sources[2:7], config), expected[2:7])


def test_any_number_of_sources_comes_back_in_order(generator, greedy, sources):
    many = [i % len(sources) for i in range(75)]
    assert_same(generator([sources[i] for i in many], GREEDY), [greedy[i] for i in many])
    assert generator([], GREEDY) == []


def test_the_longest_source_works_and_one_more_token_is_refused(generator):
    assert len(generator([[4] * 23], GREEDY)) == 1
    with pytest.raises(ValueError, match=r"^input 2: 24 tokens; the model takes at most 23$"):
        generator([[4], [4] * 24], GREEDY)


# === Programs ===


@pytest.fixture(scope="module")
def compiled_generator(model):
    return Generator(model)


def traces(generator):
    return sum(program.experimental_get_tracing_count() for program in generator._programs.values())


@pytest.mark.parametrize(
    ("config", "expected"), [(GREEDY, "greedy"), (GenerationConfig(beams=3), "beams")], ids=["greedy", "beams"]
)
def test_xla_gives_what_the_graph_gives_and_programs_are_kept(config, expected, compiled_generator, sources, request):
    expected = request.getfixturevalue(expected)
    short = [i for i, source in enumerate(sources) if len(source) < 16][:8]
    found = compiled_generator([sources[i] for i in short], config)
    assert_same(found, [expected[i][:1] for i in short])

    # Fewer sources of other lengths fill the same shape: nothing is compiled again.
    count = traces(compiled_generator)
    for some in (short[:2], short[3:], short[::-1]):
        assert_same(compiled_generator([sources[i] for i in some], config), [expected[i][:1] for i in some])
    assert traces(compiled_generator) == count


def test_programs_are_kept_for_other_seeds_and_made_for_other_settings(generator, sources):
    generator(sources[:2], SAMPLE)
    count = traces(generator)
    generator(sources[:2], dataclasses.replace(SAMPLE, seed=5))
    assert traces(generator) == count
    generator(sources[:2], dataclasses.replace(SAMPLE, top_k=3))
    assert traces(generator) == count + 1


def test_a_program_sees_the_models_new_weights(model, generator, greedy, sources):
    (embeddings,) = (weight for weight in model.weights if "embedding" in weight.path)
    before = np.array(embeddings)
    try:
        embeddings.assign(before[::-1])
        assert tokens_of(generator(sources, GREEDY)) != tokens_of(greedy)
    finally:
        embeddings.assign(before)
    assert_same(generator(sources, GREEDY), greedy)


# === Constraints ===


@pytest.fixture(scope="module", params=[GREEDY, BEAMS, SAMPLE], ids=["greedy", "beams", "sample"])
def way(request):
    return request.param


def test_special_tokens_are_never_said(way, generator, sources):
    for hypotheses in generator(sources, way):
        for tokens, _ in hypotheses:
            assert not {PAD, START, END, UNKNOWN} & set(tokens)


def test_a_target_is_as_long_as_it_is_told(way, generator, sources):
    results = generator(sources, dataclasses.replace(way, min_length=4, max_length=6))
    lengths = {len(tokens) for hypotheses in results for tokens, _ in hypotheses}
    assert lengths <= {4, 5}  # the end token makes the sixth
    assert 5 in lengths
    assert {len(tokens) for (tokens,) in tokens_of(generator(sources, GenerationConfig(beams=1, max_length=1)))} == {0}


def test_a_forced_length_is_scored_by_what_was_possible(forward, generator, sources):
    config = GenerationConfig(beams=1, min_length=4, max_length=6)
    for source, (hypothesis,) in zip(sources, generator(sources, config)):
        expected = replayed(forward, source, hypothesis.tokens, limit=6, min_length=4)
        assert hypothesis.score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_comes_twice(n, way, generator, greedy, sources):
    repeats = 0
    for tokens in (hypothesis.tokens for (hypothesis,) in greedy):
        repeats += max(collections.Counter(zip(*(tokens[i:] for i in range(n)))).values(), default=0) > 1
    assert repeats > 0  # without the rule it would
    for hypotheses in generator(sources, dataclasses.replace(way, no_repeat_ngram=n)):
        for tokens, _ in hypotheses:
            ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            assert len(set(ngrams)) == len(ngrams)


def test_bad_words_are_never_said(way, generator, greedy, sources):
    said = [hypothesis.tokens for (hypothesis,) in greedy if len(hypothesis.tokens) > 3]
    words = [said[0][:1], said[1][1:3], said[2][:3]]
    config = dataclasses.replace(way, bad_words=words)
    for hypotheses in generator(sources, config):
        for tokens, _ in hypotheses:
            for word in words:
                assert word not in [tokens[i : i + len(word)] for i in range(len(tokens))]


def test_a_target_need_not_end(way, generator, sources):
    config = dataclasses.replace(way, min_length=5, max_length=5, force_end=False)
    for hypotheses in generator(sources, config):
        assert {len(tokens) for tokens, _ in hypotheses} == {5}
    # As long as the model goes, but for the place of an end.
    config = dataclasses.replace(way, min_length=24, max_length=24, force_end=False)
    assert {len(tokens) for (tokens, _), *_ in generator(sources[:2], config)} == {23}


def test_targets_may_outgrow_the_places_that_they_get_at_first(way, model, generator, sources, monkeypatch):
    config = dataclasses.replace(way, max_length=23)
    expected = generator(sources, config)
    monkeypatch.setattr("zoo.generation.generate._usual", lambda source_length: 3)
    places = set()

    class Watched(Generator):
        def _program(self, *key):
            def program(inputs, rows):
                places.add(rows.given.shape[1])
                return super(Watched, self)._program(*key)(inputs, rows)

            return program

    assert_same(Watched(model, jit=False)(sources, config), expected)
    assert places == {4, 8, 16, 24}


# === Sampling ===


def test_samples_come_again_with_their_seed_and_not_with_another(generator, sources):
    first = generator(sources, SAMPLE)
    assert_same(generator(sources, SAMPLE), first)
    other = tokens_of(generator(sources, dataclasses.replace(SAMPLE, seed=1)))
    assert sum(mine != theirs for mine, theirs in zip(other, tokens_of(first))) > 8


def test_samples_of_one_source_differ(generator, sources):
    results = generator(sources, dataclasses.replace(SAMPLE, n_best=4))
    assert {len(hypotheses) for hypotheses in results} == {4}
    assert sum(len({tuple(tokens) for tokens, _ in hypotheses}) > 1 for hypotheses in results) > 8


def test_equal_sources_are_sampled_independently(generator, sources):
    results = generator([sources[0]] * 8, dataclasses.replace(SAMPLE, n_best=1))
    assert len({tuple(tokens) for ((tokens, _),) in results}) > 4


def test_a_sample_score_is_its_log_probability_at_that_temperature(forward, generator, sources):
    config = dataclasses.replace(SAMPLE, temperature=0.7)
    for source, hypotheses in zip(sources, generator(sources, config)):
        for tokens, score in hypotheses:
            assert score == pytest.approx(replayed(forward, source, tokens, temperature=0.7), abs=1e-4)


def test_one_likeliest_token_or_no_heat_is_greedy(generator, greedy, sources):
    for setting in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        config = GenerationConfig(beams=1, sample=True, **setting)
        assert tokens_of(generator(sources, config)) == tokens_of(greedy)


def test_only_the_top_k_are_drawn(forward, generator, sources):
    config = dataclasses.replace(SAMPLE, top_k=2, n_best=4)
    ranks = []
    for source, hypotheses in zip(sources, generator(sources, config)):
        for tokens, _ in hypotheses:
            scores = log_probabilities(forward, source, tokens, longest(source))
            ranks += [(scores[i] > scores[i, token]).sum() for i, token in enumerate([*tokens, END])]
    assert set(ranks) == {0, 1}


# === Settings ===


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("beams", {"beams": 0}),
        ("n_best", {"n_best": 0}),
        ("n_best", {"beams": 2, "n_best": 3}),
        ("beams", {"beams": 2, "sample": True}),
        ("temperature", {"temperature": 0.0}),
        ("top_p", {"top_p": 0.0}),
        ("top_p", {"top_p": 1.5}),
        ("top_k", {"top_k": -1}),
        ("min_length", {"min_length": -1}),
        ("no_repeat_ngram", {"no_repeat_ngram": -2}),
        ("max_length", {"max_length": 0}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**31}),
    ],
)
def test_a_bad_setting_is_named(field, settings):
    with pytest.raises(ConfigError, match=rf"^(\w+, )?{field}\b") as raised:
        GenerationConfig(**settings)
    assert str(settings[field]) in str(raised.value)


# === The other backend ===

ON_JAX = """
import json, sys
import keras
from zoo.checkpoints import by_path, load
from zoo.generation import GenerationConfig, Generator
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder

assert keras.backend.backend() == "jax"
request = json.load(sys.stdin)
model = encoder_decoder(EncoderDecoderConfig.from_dict(request["config"]))
load(request["weights"], by_path(model.weights))
generator = Generator(model)
results = [generator(request["sources"], GenerationConfig.from_dict(config)) for config in request["configs"]]
assert "tensorflow" not in sys.modules
print(json.dumps(results))
"""


def test_jax_gives_the_same_tokens(model, generator, sources, tmp_path):
    save(tmp_path / "weights.safetensors", by_path(model.weights))
    short = [source for source in sources if len(source) < 16][:8]
    configs = [GREEDY, BEAMS, dataclasses.replace(SAMPLE, n_best=1)]
    request = {
        "config": model.config.to_dict(),
        "weights": str(tmp_path / "weights.safetensors"),
        "sources": short,
        "configs": [config.to_dict() for config in configs],
    }
    answer = subprocess.run(
        [sys.executable, "-c", ON_JAX],
        input=json.dumps(request),
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    for config, results in zip(configs, json.loads(answer.stdout), strict=True):
        expected = generator(short, config)
        assert [[tokens for tokens, _ in hypotheses] for hypotheses in results] == tokens_of(expected)
        scores = [[score for _, score in hypotheses] for hypotheses in results]
        np.testing.assert_allclose(scores, [[h.score for h in hypotheses] for hypotheses in expected], atol=1e-3)


# === Beginnings ===


@pytest.mark.parametrize("way", [GREEDY, BEAMS, SAMPLE], ids=["greedy", "beams", "sample"])
def test_a_target_begins_as_it_is_told(way, generator, sources):
    beginnings = [[5, 9], [], [7], [4, 4, 4], [], [6], [], [8, 5, 6, 7], [], [], []]
    for beginning, found in zip(beginnings, tokens_of(generator(sources, way, beginnings))):
        for tokens in found:
            assert tokens[: len(beginning)] == beginning


def test_what_follows_a_beginning_is_what_the_model_says_and_the_beginning_costs_nothing(forward, generator, sources):
    source, beginning = sources[0], [5, 9]
    ((found,),) = generator([source], GREEDY, [beginning])
    scores = log_probabilities(forward, source, found.tokens, longest(source))
    said = [*found.tokens, END]
    for place in range(len(beginning), len(said)):
        assert said[place] == scores[place].argmax()
    expected = sum(scores[place, said[place]] for place in range(len(beginning), len(said)))
    assert found.score == pytest.approx(expected, abs=1e-3)


def test_a_beginning_that_is_no_beginning_changes_nothing(generator, greedy, sources):
    assert_same(generator(sources, GREEDY, [[] for _ in sources]), greedy)


def test_a_beginning_that_is_too_long_is_refused(generator, sources):
    with pytest.raises(ValueError, match="beginning 2: 24 tokens; the model takes at most 23"):
        generator(sources[:2], GREEDY, [[], [5] * 24])
