"""Losses against Keras' own and against numbers worked out by hand."""

import keras
import numpy as np
import pytest

from zoo.training import cross_entropy, token_mean
from zoo.training.losses import contrastive, coverage


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_cross_entropy_is_kerass(smoothing, rng):
    logits = rng.normal(0, 3, (4, 5, 7)).astype(np.float32)
    labels = rng.integers(0, 7, (4, 5)).astype(np.int32)
    expected = keras.losses.categorical_crossentropy(
        np.eye(7, dtype=np.float32)[labels], logits, from_logits=True, label_smoothing=smoothing
    )
    found = cross_entropy(keras.ops.convert_to_tensor(logits), keras.ops.convert_to_tensor(labels), smoothing)
    assert tuple(found.shape) == (4, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cross_entropy_by_hand():
    # The odds are 1 : 2 : 5; a half of the smoothing goes to every token alike.
    logits = keras.ops.convert_to_tensor(np.log([[1.0, 2.0, 5.0]]), "float32")
    labels = keras.ops.convert_to_tensor([1])
    assert float(cross_entropy(logits, labels)[0]) == pytest.approx(np.log(8 / 2))
    expected = -(0.7 + 0.1) * np.log(2 / 8) - 0.1 * np.log(1 / 8) - 0.1 * np.log(5 / 8)
    assert float(cross_entropy(logits, labels, 0.3)[0]) == pytest.approx(expected)


def test_cross_entropy_of_large_logits_is_finite_and_float32():
    logits = keras.ops.convert_to_tensor([[1000.0, -1000.0]], "bfloat16")
    loss = cross_entropy(logits, keras.ops.convert_to_tensor([1]))
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss[0]) == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_the_difference_of_the_distributions(smoothing, rng, gradients):
    logits = rng.normal(size=(3, 6)).astype(np.float32)
    labels = np.array([0, 5, 2], np.int32)
    (found,) = gradients(lambda x: cross_entropy(x, keras.ops.convert_to_tensor(labels), smoothing), logits)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = softmax - ((1 - smoothing) * np.eye(6)[labels] + smoothing / 6)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_mean_is_over_tokens_and_not_over_padding():
    losses = keras.ops.convert_to_tensor([[1.0, 2.0, 100.0], [6.0, 100.0, 100.0]])
    mean, tokens = token_mean(losses, keras.ops.convert_to_tensor([[5, 6, 0], [7, 0, 0]]))
    assert (float(mean), float(tokens)) == (3.0, 3.0)
    mean, tokens = token_mean(losses, keras.ops.convert_to_tensor([[5, 9, 9], [9, 9, 9]]), pad=9)
    assert (float(mean), float(tokens)) == (1.0, 1.0)


def test_the_mean_over_no_token_is_zero():
    mean, tokens = token_mean(keras.ops.ones((2, 3)), keras.ops.zeros((2, 3), "int32"))
    assert (float(mean), float(tokens)) == (0.0, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_log_probabilities_need_no_normalizing(smoothing, rng):
    logits = rng.normal(size=(3, 6))
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    labels = keras.ops.convert_to_tensor(np.array([0, 5, 2], np.int32))
    expected = cross_entropy(keras.ops.convert_to_tensor(logits, "float32"), labels, smoothing)
    found = cross_entropy(keras.ops.convert_to_tensor(log_probabilities, "float32"), labels, smoothing, normalized=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_coverage_by_hand():
    attention = np.array([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.6, 0.2], [0.0, 0.0, 0.0]]])
    # Before the second place (1, 0, 0) is covered, before the third (1.5, 0.5, 0).
    expected = [[0.0, 0.5, 0.2 + 0.5, 0.0]]
    np.testing.assert_allclose(coverage(keras.ops.convert_to_tensor(attention)), expected, atol=1e-6)


def test_coverage_looks_back_within_a_text_alone(rng):
    """Two texts in a row, of two and three places, each over a source of its own."""
    first, second = rng.dirichlet(np.ones(4), 2), rng.dirichlet(np.ones(3), 3)
    row = np.zeros((1, 5, 7))
    row[0, :2, :4], row[0, 2:, 4:] = first, second
    together = np.array(coverage(keras.ops.convert_to_tensor(row, "float32")))[0]
    apart = [np.array(coverage(keras.ops.convert_to_tensor(x[None], "float32")))[0] for x in (first, second)]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-6)


def test_the_mean_of_two_parts_is_the_mean_over_all_tokens(rng):
    losses = keras.ops.convert_to_tensor(rng.normal(size=(4, 3)).astype("float32"))
    labels = keras.ops.convert_to_tensor([[5, 0, 0], [0, 0, 0], [5, 6, 7], [5, 6, 0]])
    whole, tokens = token_mean(losses, labels)
    halves = [token_mean(losses[rows], labels[rows], whole=labels) for rows in (slice(2), slice(2, 4))]
    assert float(tokens) == 6
    assert [float(count) for _, count in halves] == [6, 6]
    assert np.mean([float(mean) for mean, _ in halves]) == pytest.approx(float(whole), rel=1e-5)


def test_contrastive_loss_by_hand():
    similarity = np.array([[2.0, 1.0, 5.0], [0.0, 3.0, 5.0], [5.0, 5.0, 5.0]], "float32")
    rivals = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    across = [np.log(np.exp(2) + np.exp(1)) - 2, np.log(1 + np.exp(3)) - 3]
    down = [np.log(np.exp(2) + 1) - 2, np.log(np.exp(1) + np.exp(3)) - 3]
    expected = [(across[0] + down[0]) / 2, (across[1] + down[1]) / 2, 0]
    np.testing.assert_allclose(contrastive(similarity, rivals), expected, atol=1e-6)
