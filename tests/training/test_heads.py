"""The losses of heads against sums written out."""

import keras
import numpy as np
import pytest

from zoo.models.encoder import HeadConfig
from zoo.training.heads import activate, head_loss

CLASSES = ("a", "b", "c")
SEGMENTS = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 1, 0]])


def log_softmax(x, axis=-1):
    x = x.astype("float64")
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def loss(head, logits, labels, weights=(1, 1, 1)):
    logits, labels = keras.ops.convert_to_tensor(logits), keras.ops.convert_to_tensor(labels)
    return float(head_loss(head, logits, labels, np.array(weights, "float32"), keras.ops.convert_to_tensor(SEGMENTS)))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 0, 1)])
def test_a_label_costs_its_negative_log_probability(rng, weights):
    logits, labels = rng.normal(size=(3, 3)).astype("float32"), np.array([0, 2, 1])
    expected = -log_softmax(logits)[np.arange(3), labels] @ np.array(weights) / sum(weights)
    assert loss(HeadConfig(classes=CLASSES), logits, labels, weights) == pytest.approx(expected, abs=1e-5)


def test_tags_count_where_they_are_asked_for(rng):
    logits = rng.normal(size=(3, 4, 3)).astype("float32")
    labels = np.array([[0, -1, 2, -1], [1, 1, -1, -1], [0, 0, 0, 0]])
    log_p = log_softmax(logits)
    asked = [(0, 0), (0, 2), (1, 0), (1, 1)]
    expected = -np.mean([log_p[b, t, labels[b, t]] for b, t in asked])
    head = HeadConfig(kind="tags", classes=CLASSES)
    assert loss(head, logits, labels, (1, 1, 0)) == pytest.approx(expected, abs=1e-5)


def test_each_of_several_labels_is_a_question_of_its_own(rng):
    logits, labels = rng.normal(size=(3, 3)).astype("float32"), rng.integers(0, 2, (3, 3)).astype("float32")
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert loss(HeadConfig(kind="labels", classes=CLASSES), logits, labels) == pytest.approx(expected, abs=1e-5)
    far = np.array([[100.0, -100.0, 100.0]] * 3, "float32")
    assert loss(HeadConfig(kind="labels", classes=CLASSES), far, (far > 0).astype("float32")) == pytest.approx(0)


def test_a_number_costs_its_squared_error():
    logits, labels = np.array([[1.0], [2.0], [5.0]], "float32"), np.array([1.0, 4.0, 4.0], "float32")
    assert loss(HeadConfig(kind="number"), logits, labels) == pytest.approx(5 / 3)


def test_a_span_ends_in_the_second_text_or_nowhere(rng):
    logits = rng.normal(size=(3, 4, 2)).astype("float32")
    labels = np.array([[2, 3], [0, 0], [2, 2]])
    possible = (SEGMENTS == 1) | (np.arange(4) == 0)
    log_p = log_softmax(np.where(possible[:, :, None], logits, -np.inf), axis=1)
    expected = -np.mean([log_p[b, labels[b, end], end] for b in range(3) for end in range(2)])
    head = HeadConfig(kind="span")
    assert loss(head, logits, labels) == pytest.approx(expected, abs=1e-5)
    said = keras.ops.convert_to_numpy(activate(head, keras.ops.convert_to_tensor(logits), SEGMENTS))
    np.testing.assert_allclose(np.exp(said), np.exp(log_p), atol=1e-5)


def test_examples_that_say_nothing_cost_nothing():
    for head, logits, labels in (
        (HeadConfig(classes=CLASSES), np.ones((3, 3), "float32"), np.zeros(3, int)),
        (HeadConfig(kind="tags", classes=CLASSES), np.ones((3, 4, 3), "float32"), np.full((3, 4), -1)),
    ):
        assert loss(head, logits, labels, (0, 0, 0)) == 0


@pytest.mark.parametrize("kind", ["label", "tags", "labels", "number", "span"])
def test_the_mean_of_two_parts_is_the_whole_loss(kind, rng):
    head = HeadConfig(kind=kind, classes=CLASSES if kind in ("label", "tags", "labels") else ())
    shapes = {"label": (4, 3), "labels": (4, 3), "number": (4, 1), "tags": (4, 5, 3), "span": (4, 5, 2)}
    logits = rng.normal(size=shapes[kind]).astype("float32")
    labels = {
        "label": rng.integers(0, 3, 4),
        "labels": rng.integers(0, 2, (4, 3)).astype("float32"),
        "number": rng.normal(size=4).astype("float32"),
        "tags": rng.integers(-1, 3, (4, 5)),
        "span": rng.integers(0, 5, (4, 2)),
    }[kind]
    weights, segments = np.array([1, 0, 1, 1], "float32"), np.ones((4, 5), "int32")
    parts = [keras.ops.convert_to_tensor(x) for x in (logits, labels, weights, segments)]
    whole = float(head_loss(head, *parts, 0.1))
    halves = [head_loss(head, *(x[rows] for x in parts), 0.1, (parts[1], parts[2])) for rows in (slice(2), slice(2, 4))]
    assert np.mean([float(half) for half in halves]) == pytest.approx(whole, rel=1e-5)
    assert float(halves[0]) != pytest.approx(float(halves[1]), rel=1e-2)
