"""Self-critical training: what a text is worth is worked out by hand, and a captioner rewarded for a word says it."""

import dataclasses

import numpy as np
import pytest

from tests.tasks.test_captioning import EXAMPLES, RECIPE
from zoo.config import ConfigError
from zoo.data.caption_batches import CaptionBatches, CaptionBatchingConfig
from zoo.tasks import captioning
from zoo.tasks.captioning import Captioning
from zoo.tasks.reward import RewardConfig, RewardedBatches
from zoo.training import OptimizerConfig

PAD, START, END = 0, 1, 2
CAPTIONS = [[[5, 6]], [[7]], [[8, 9, 5]]]
FEATURES = np.arange(3, dtype=np.float32)[:, None, None]
DRAWN = {0: [[5, 6], [5], []], 1: [[7], [7, 7], [7]], 2: [[9], [8, 9], [9]]}
WORTH = {0: [1.0, 0.0, 0.5], 1: [0.0, 3.0, 0.0], 2: [2.0, 2.0, 2.0]}


def rewarded(buckets=(6, 8), max_length=4, seeds=None):
    batches = CaptionBatches(CAPTIONS, lambda numbers, epoch: FEATURES[numbers], CaptionBatchingConfig(buckets, 2))

    def sample(features, seed):
        if seeds is not None:
            seeds.append(seed)
        return [DRAWN[int(value)] for value in features[:, 0, 0]]

    def rewards(numbers, texts):
        return np.array([WORTH[number][DRAWN[number].index(text)] for number, text in zip(numbers, texts)])

    return RewardedBatches(batches, RewardConfig(samples=3), sample, rewards, max_length)


def test_a_text_is_worth_what_it_earns_above_the_others():
    rows = {}
    for batch in rewarded().epoch(epoch=3):
        for image, *row in zip(batch["features"][:, 0, 0], batch["target"], batch["labels"], batch["advantages"]):
            if row[0].any():  # not a row that only fills the batch
                rows[int(image)] = row
    target, labels, advantages = rows[0]
    assert target[:6].tolist() == [START, 5, 6, START, 5, START]
    assert labels[:6].tolist() == [5, 6, END, 5, END, END]
    # 1 less the mean of 0 and 0.5; 0 less the mean of 1 and 0.5; 0.5 less the mean of 1 and 0.
    np.testing.assert_allclose(advantages[:6], [0.75, 0.75, 0.75, -0.75, -0.75, 0])
    assert not advantages[6:].any()
    assert not labels[6:].any()
    np.testing.assert_allclose(rows[2][2], 0)


def test_a_batch_is_as_long_as_its_texts():
    # The draws for image 0 take 6 places, those for the others 7; the last batch of a pass holds one image alone.
    batches = [batch for epoch in range(9) for batch in rewarded().epoch(epoch)]
    alone = [set(batch["features"][:, 0, 0].tolist()) == {0.0} for batch in batches]
    assert any(alone)
    assert [batch["target"].shape[1] for batch in batches] == [6 if short else 8 for short in alone]
    # A bucket that is too small for them leaves the longest that draws can get: 3 texts of 4 tokens.
    assert {batch["target"].shape[1] for batch in rewarded(buckets=(6,)).epoch(0)} <= {6, 12}


def test_every_batch_draws_anew_and_a_resumed_run_draws_the_same():
    seeds, resumed = [], []
    for epoch in range(3):
        list(rewarded(seeds=seeds).epoch(epoch))
    assert len(set(seeds)) == len(seeds)
    list(rewarded(seeds=resumed).epoch(2, start=1))
    assert resumed == seeds[-len(resumed) :]


def test_the_loss_is_the_advantage_times_what_the_text_costs(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    task = Captioning.from_examples(dataclasses.replace(RECIPE, trained="none", reward=RewardConfig(2)), EXAMPLES)
    task.generator.jit = False
    batch = next(iter(task.batches(EXAMPLES).epoch(0)))
    logits = np.array(task.model({name: batch[name] for name in ("features", "target")}), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    costs = -np.take_along_axis(log_probabilities, batch["labels"][..., None], axis=-1)[..., 0]
    told = batch["labels"] != PAD
    loss, _ = task.loss(task.model, batch, training=False)
    np.testing.assert_allclose(float(loss), (costs * batch["advantages"])[told].sum() / told.sum(), atol=1e-5)


def test_a_captioner_comes_to_say_what_is_rewarded(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    optimizer = OptimizerConfig(learning_rate=0.01, schedule="constant", warmup_steps=1)
    training = dataclasses.replace(RECIPE.training, steps=40, optimizer=optimizer)
    recipe = dataclasses.replace(RECIPE, trained="none", reward=RewardConfig(4), training=training)

    def red(texts, references, frequencies):
        return np.array([text.split().count("red") / max(1, len(text.split())) for text in texts])

    monkeypatch.setattr(captioning, "cider_rewards", red)
    task = Captioning.from_examples(recipe, EXAMPLES)
    task.generator.jit = False
    task.fit(EXAMPLES)
    captions = task([example["image"] for example in EXAMPLES], beams=1)
    assert sum("red" in caption for caption in captions) == len(EXAMPLES)


def test_one_draw_alone_cannot_be_compared():
    with pytest.raises(ConfigError, match="samples, temperature: 1"):
        RewardConfig(samples=1)
    with pytest.raises(ConfigError, match="reward: it goes with trained 'none'"):
        dataclasses.replace(RECIPE, reward=RewardConfig())
