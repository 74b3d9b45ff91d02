"""An embedder learns from pairs of texts that mean the same."""

import numpy as np
import pytest

import zoo
from zoo.data.texts import TextBatchingConfig
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.embedding import Embedding, EmbeddingRecipe
from zoo.training import OptimizerConfig, TrainingConfig

PAIRS = [
    {"text": f"{asked} {thing}", "second": f"i want {thing}"}
    for thing in ("soup", "bread", "salt", "fish", "rice", "wine", "tea", "milk")
    for asked in ("bring me some", "where is the")
]
RECIPE = EmbeddingRecipe(
    model=EncoderHeadsConfig(
        EncoderConfig(vocabulary_size=0, width=16, num_heads=2, feedforward_dim=32, num_layers=1, dropout=0.0),
        {"vector": HeadConfig(kind="vector", pooling="mean")},
    ),
    batching=TextBatchingConfig(buckets=(8, 16), batch_size=8),
    training=TrainingConfig(
        steps=60,
        evaluate_every=30,
        log_every=30,
        save_every=30,
        average_decay=0.0,
        monitor="mrr",
        jit=False,
        optimizer=OptimizerConfig(learning_rate=0.02, schedule="constant", warmup_steps=5),
    ),
)


@pytest.fixture(scope="module")
def untrained():
    return Embedding.from_examples(RECIPE, PAIRS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    task = Embedding.from_examples(RECIPE, PAIRS)
    before = task.evaluate(PAIRS)
    task.fit(PAIRS, PAIRS, out=folder, logdir=folder / "logs")
    return task, folder, before


def loss_of(task, pairs):
    """The loss of one batch without dropout."""
    batches = task.batches(pairs)
    ((bucket, rows),) = batches.plan(None)
    loss, _ = task.loss(task.model, batches.batch(bucket, rows), training=False)
    return float(loss)


def test_texts_that_mean_the_same_come_together(trained):
    task, _, before = trained
    after = task.evaluate(PAIRS)
    assert before["mrr"] < 80
    assert after["mrr"] > 95
    assert after["recall1"] > 90


def test_what_was_learned_survives_its_folder(trained):
    task, folder, _ = trained
    texts = [pair["text"] for pair in PAIRS]
    again = zoo.load(folder)
    assert type(again) is Embedding
    np.testing.assert_array_equal(again(texts), task(texts))


def test_tensorboard_shows_the_nearest_second(trained, events):
    _, folder, _ = trained
    _, text = events(folder / "logs/dev")["text"]["samples/1"][-1]
    shown = dict(line.split(": ", 1) for line in text.item().decode().split("\n\n"))
    assert shown["**reference**"] == PAIRS[0]["second"]
    assert shown["**output**"] in {pair["second"] for pair in PAIRS}


def test_a_batchs_loss_is_what_similarities_say(untrained):
    pairs = PAIRS[::2][:3]
    similarity = RECIPE.scale * untrained.similarity(*([pair[name] for pair in pairs] for name in ("text", "second")))
    rows, columns = (similarity - np.log(np.exp(similarity).sum(axis=axis, keepdims=True)) for axis in (1, 0))
    expected = -(np.diagonal(rows) + np.diagonal(columns)).mean() / 2
    assert loss_of(untrained, pairs) == pytest.approx(expected, abs=1e-4)  # of a batch that is half padding


@pytest.mark.parametrize(
    "other",
    [
        {"text": "the salt", "second": PAIRS[0]["second"]},
        {"text": PAIRS[0]["text"], "second": "the salt"},
        {"text": PAIRS[0]["second"], "second": "the salt"},
    ],
)
def test_pairs_that_share_a_text_are_no_rivals(untrained, other):
    assert loss_of(untrained, [PAIRS[0], other]) == pytest.approx(0, abs=1e-6)
    assert loss_of(untrained, [PAIRS[0], {"text": "the salt", "second": "some tea"}]) > 1e-3


def test_scores_by_hand(untrained, monkeypatch):
    vectors = {"a": [1, 0], "b": [0, 1], "A": [0.8, 0.6], "B": [0.6, 0.8], "C": [0, 1]}
    monkeypatch.setattr(
        untrained, "similarity", lambda *both: np.inner(*([vectors[text] for text in texts] for texts in both))
    )
    pairs = [{"text": "a", "second": "A"}, {"text": "b", "second": "B"}, {"text": "b", "second": "C"}]
    assert untrained.evaluate(pairs) == pytest.approx({"recall1": 100 * 2 / 3, "mrr": 100 * 2.5 / 3})


def test_an_outline_is_a_batch_of_the_longest_rows(untrained):
    batches = untrained.batches(PAIRS)
    batch = batches.batch(len(RECIPE.batching.buckets) - 1, [0])
    outline = untrained.batch_outline(RECIPE.batching.batch_size)
    assert {name: (x.shape, str(x.dtype)) for name, x in outline.items()} == {
        name: (x.shape, str(x.dtype)) for name, x in batch.items()
    }


def test_a_pair_goes_where_its_longer_text_fits(untrained):
    (short, long) = ({"text": "tea", "second": "milk"}, {"text": "tea", "second": "where is the milk where is the tea"})
    buckets = [bucket for bucket, _ in untrained.batches([short, long]).plan(None)]
    assert buckets == [0, 1]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "tea"}, "example 2: it has text; it takes text and second"),
        ({"text": "tea", "second": "milk", "label": "0.1"}, "example 2: it has a label; texts are learned from that"),
    ],
)
def test_what_is_no_pair_is_refused(untrained, example, message):
    with pytest.raises(ValueError, match=message):
        untrained.batches([PAIRS[0], example])
