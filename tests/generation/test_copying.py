"""Generation with copying against the model itself, read all at once without a cache."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from zoo.attention import capture
from zoo.generation import GenerationConfig, Generator

PAD, START, END, UNKNOWN = range(4)


@pytest.fixture(scope="module")
def copier(model):
    """The small random model of the other tests, which also copies."""
    from zoo.models.encoder_decoder import encoder_decoder

    copier = encoder_decoder(dataclasses.replace(model.config, copying=True))
    rng = np.random.default_rng(7)
    for weight in copier.weights:
        values = rng.normal(0, 0.15 if "embedding" in weight.path else 0.5, weight.shape)
        weight.assign(1 + 0.1 * values if "gamma" in weight.path else values)
    return copier


@pytest.fixture(scope="module")
def generator(copier):
    return Generator(copier, jit=False)


@pytest.fixture(scope="module")
def scores(copier):
    """Log-probabilities of each next token of a target, (len(tokens) + 1, V)."""
    ids = tf.TensorSpec((1, None), tf.int32)
    forward = tf.function(
        lambda source, target: copier({"source": source, "target": target}, training=False), input_signature=[ids, ids]
    )

    def score(source, tokens):
        found = np.array(forward([[*source, END]], [[START, *tokens]]))[0].astype(np.float64)
        found[:, [PAD, START, UNKNOWN]] = -np.inf
        found[min(2 * len(source) + 10, 24) - 1 :, np.arange(found.shape[1]) != END] = -np.inf
        return found - np.logaddexp.reduce(found, axis=1, keepdims=True)

    return score


def test_the_test_model_copies(copier, sources):
    """Most of the likelihood of some tokens comes from the source."""
    source = next(source for source in sources if len(source) == 9)
    with capture() as maps:
        log_probabilities = copier(
            {"source": np.array([[*source, END]]), "target": np.array([[START, 5, 6]])}, training=False
        )
    assert len(maps) == 3
    probabilities = np.exp(np.array(log_probabilities))[0]
    assert probabilities[:, sorted(set(source))].sum(axis=1).max() > 0.6
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_greedy_takes_the_likeliest_token_at_every_place(generator, scores, sources):
    found = generator(sources, GenerationConfig(beams=1))
    assert len({tuple(hypothesis.tokens) for (hypothesis,) in found}) >= 6
    for source, (hypothesis,) in zip(sources, found, strict=True):
        table = scores(source, hypothesis.tokens)
        assert table.argmax(axis=1).tolist() == [*hypothesis.tokens, END]
        gained = table[np.arange(len(table)), [*hypothesis.tokens, END]].sum()
        assert hypothesis.score == pytest.approx(gained, abs=1e-3)


@pytest.mark.parametrize(
    "config",
    [GenerationConfig(beams=3, n_best=3), GenerationConfig(beams=1, sample=True, n_best=2)],
    ids=["beams", "samples"],
)
def test_scores_are_the_models_own(generator, scores, sources, config):
    for source, hypotheses in zip(sources, generator(sources, config), strict=True):
        for tokens, score in hypotheses:
            table = scores(source, tokens)
            penalty = 1.0 if config.sample else (5 + len(tokens) + 1) / 6
            gained = table[np.arange(len(table)), [*tokens, END]].sum()
            assert score == pytest.approx(gained / penalty, abs=1e-3)


@pytest.mark.slow
def test_xla_finds_the_same(copier, generator, sources):
    config = GenerationConfig(beams=3, no_repeat_ngram=2)
    compiled = Generator(copier)(sources[:6], config)
    for (mine,), (theirs,) in zip(compiled, generator(sources[:6], config), strict=True):
        assert mine.tokens == theirs.tokens
        assert mine.score == pytest.approx(theirs.score, abs=1e-3)
