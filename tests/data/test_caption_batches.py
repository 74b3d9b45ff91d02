"""CaptionBatches: every caption once, in rows of its image, in an order that seed and epoch decide."""

import itertools

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data.caption_batches import CaptionBatches, CaptionBatchingConfig
from zoo.data.pipeline import END, PAD, START

CAPTIONS = [[[10 + i, 20 + i], [30 + i] * (1 + i % 3)] for i in range(7)]
CONFIG = CaptionBatchingConfig(buckets=(6, 8), batch_size=2)


def image_of(numbers, epoch):
    return np.array([[number, epoch] for number in numbers], "float32")


def batches(**changes):
    return CaptionBatches(CAPTIONS, image_of, CONFIG, **changes)


def test_a_row_holds_the_captions_of_its_image():
    made = batches().batch(1, [2], epoch=3)
    assert made["target"].tolist() == [[START, 12, 22, START, 32, 32, 32, PAD], [PAD] * 8]
    assert made["labels"].tolist() == [[12, 22, END, 32, 32, 32, END, PAD], [PAD] * 8]
    assert made["features"].tolist() == [[2, 3], [2, 3]]


def test_every_caption_comes_once_a_pass():
    found = []
    for bucket, rows in batches().plan(0):
        made = batches().batch(bucket, rows)
        for image, target in zip(made["features"], made["target"]):
            starts = [*np.flatnonzero(target == START), len(target)]
            for start, stop in itertools.pairwise(starts):
                tokens = [int(token) for token in target[start + 1 : stop] if token != PAD]
                found.append((int(image[0]), tokens))
    assert sorted(found) == sorted((i, caption) for i, captions in enumerate(CAPTIONS) for caption in captions)


def test_order_depends_on_seed_and_epoch_alone():
    assert batches(seed=1).plan(4) == batches(seed=1).plan(4)
    assert batches(seed=1).plan(4) != batches(seed=1).plan(5)
    assert batches(seed=1).plan(4) != batches(seed=2).plan(4)


def test_a_pass_goes_on_where_it_was_interrupted():
    whole = list(batches().epoch(2))
    rest = list(batches().epoch(2, 2))
    assert len(rest) == len(whole) - 2
    for made, again in zip(whole[2:], rest):
        for name in made:
            np.testing.assert_array_equal(made[name], again[name])
    assert list(batches().epoch(2, len(whole))) == []


def test_what_does_not_fit_is_left_out_and_counted():
    made = CaptionBatches([[[5] * 4, [6] * 4]], image_of, CONFIG)
    assert made.left_out == 1
    assert made.batch(*made.plan(None)[0])["labels"][0].tolist() == [5, 5, 5, 5, END, PAD]
    with pytest.raises(ValueError, match="example 2: no caption of at most 7 tokens"):
        CaptionBatches([[[5]], [[6] * 8]], image_of, CONFIG)
    with pytest.raises(ValueError, match="there is no image"):
        CaptionBatches([], image_of, CONFIG)


@pytest.mark.parametrize("settings", [{"buckets": (8, 6)}, {"buckets": ()}, {"batch_size": 0}])
def test_bad_settings_are_named(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CaptionBatchingConfig(**settings)
