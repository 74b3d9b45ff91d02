"""Batches taken apart again: every pair is in there once, whole, and at its own place."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data import read_lines
from zoo.data.pipeline import BatchingConfig, ChangingPairBatches, Pair, PairBatches
from zoo.data.tokenizers import Tokenizer
from zoo.models.generative import SpecialTokens

PAD, START, END = 0, 1, 2
MULTI30K = Path(os.environ.get("ZOO_DATA") or Path(__file__).parents[2] / "../shared/data") / "multi30k"
SHAPES = BatchingConfig(buckets=((8, 10), (16, 16)), batch_tokens=80)


def random_pairs(count, longest=14, seed=0):
    """Different pairs of different lengths; the last token of each source numbers the pair."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, (count, 2))
    return [
        Pair([*rng.integers(4, 50, s - 1).tolist(), 100 + i], rng.integers(4, 50, t).tolist())
        for i, (s, t) in enumerate(lengths)
    ]


def arrays(batches):
    return [{name: np.asarray(array) for name, array in batch.items()} for batch in batches]


def split_after(ids, mark):
    """Splits at every mark, which ends a text; padding, and only padding, may follow the last one."""
    texts, text = [], []
    for i, token in enumerate(ids.tolist()):
        if token == PAD:
            assert not text
            assert not ids[i:].any()
            break
        if token == mark:
            texts.append(text)
            text = []
        else:
            text.append(token)
    return texts


def split_before(ids, mark):
    """Splits at every mark, which begins a text."""
    texts = []
    for token in ids.tolist():
        if token == PAD:
            break
        if token == mark:
            texts.append([])
        else:
            texts[-1].append(token)
    return texts


def unpacked(batch):
    """Reads the pairs back out of a batch, row by row."""
    rows = []
    for source, target, labels in zip(batch["source"], batch["target"], batch["labels"]):
        sources, targets = split_after(source, END), split_before(target, START)
        assert split_after(labels, END) == targets
        rows.append([Pair(*pair) for pair in zip(sources, targets, strict=True)])
    return rows


def counted(pairs):
    return Counter((tuple(source), tuple(target)) for source, target in pairs)


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("epoch", [None, 0, 1])
def test_every_pair_comes_exactly_once_an_epoch(epoch, pack):
    pairs = random_pairs(700)
    batches = PairBatches(pairs, BatchingConfig(SHAPES.buckets, SHAPES.batch_tokens, pack))
    found = [pair for batch in arrays(batches.epoch(epoch)) for row in unpacked(batch) for pair in row]
    assert counted(found) == counted(pairs)


def test_equal_pairs_come_as_often_as_they_are_there():
    pairs = [Pair([5], [6])] * 30 + [Pair([], []), Pair([7], [])]
    batches = PairBatches(pairs, SHAPES)
    found = [pair for batch in arrays(batches.epoch(3)) for row in unpacked(batch) for pair in row]
    assert counted(found) == counted(pairs)


def test_labels_are_what_comes_next():
    (batch,) = arrays(PairBatches([Pair([5, 6], [7, 8, 9]), Pair([10], [11])], SHAPES).epoch(None))
    assert batch["source"][0].tolist() == [5, 6, END, 10, END, 0, 0, 0]
    assert batch["target"][0].tolist() == [START, 7, 8, 9, START, 11, 0, 0, 0, 0]
    assert batch["labels"][0].tolist() == [7, 8, 9, END, 11, END, 0, 0, 0, 0]
    assert not any(array[1:].any() for array in batch.values())


def test_other_special_tokens_are_laid_out_around_sources_and_before_targets():
    special = SpecialTokens(pad=1, start=20, end=2, source_start=(0,), source_end=(2, 21), beginning=(22,))
    shapes = BatchingConfig(buckets=((16, 16),), batch_tokens=80)
    batches = PairBatches([Pair([5, 6], [7, 8]), Pair([9], [])], shapes, special=special)
    (batch,) = arrays(batches.epoch(None))
    assert batch["source"].shape == (5, 16)
    assert batch["source"][0].tolist() == [0, 5, 6, 2, 21, 0, 9, 2, 21] + [1] * 7
    assert batch["target"][0].tolist() == [20, 22, 7, 8, 20, 22] + [1] * 10
    assert batch["labels"][0].tolist() == [22, 7, 8, 2, 22, 2] + [1] * 10
    assert batches.lengths.tolist() == [[5, 4], [4, 2]]


def test_the_only_shapes_are_the_buckets():
    batches = arrays(PairBatches(random_pairs(700), SHAPES).epoch(0))
    shapes = {tuple(batch[name].shape for name in ("source", "target", "labels")) for batch in batches}
    assert shapes == {((8, 8), (8, 10), (8, 10)), ((5, 16), (5, 16), (5, 16))}
    assert {array.dtype for batch in batches for array in batch.values()} == {np.dtype("int32")}


def test_without_an_epoch_pairs_keep_their_order():
    pairs = [pair for pair in random_pairs(50) if len(pair.source) < 8 and len(pair.target) < 10]
    batches = PairBatches(pairs, BatchingConfig(SHAPES.buckets, SHAPES.batch_tokens, pack=False))
    assert [pair for batch in arrays(batches.epoch(None)) for row in unpacked(batch) for pair in row] == pairs


def test_without_packing_a_row_holds_one_pair():
    pairs = random_pairs(300)
    rows = {
        pack: [
            row
            for batch in arrays(PairBatches(pairs, BatchingConfig(SHAPES.buckets, 80, pack)).epoch(0))
            for row in unpacked(batch)
            if row
        ]
        for pack in (False, True)
    }
    assert {len(row) for row in rows[False]} == {1}
    assert max(len(row) for row in rows[True]) > 2


def test_a_pair_goes_into_the_first_bucket_that_holds_it():
    pairs = random_pairs(300)
    batches = PairBatches(pairs, BatchingConfig(SHAPES.buckets, 80, pack=False))
    for batch in arrays(batches.epoch(0)):
        for row in unpacked(batch):
            for source, target in row:
                small = len(source) + 1 <= 8 and len(target) + 1 <= 10
                assert batch["source"].shape[1] == (8 if small else 16)


# === Order ===


def same(batches, others):
    batches, others = arrays(batches), arrays(others)
    return len(batches) == len(others) and all(
        np.array_equal(batch[name], other[name]) for batch, other in zip(batches, others) for name in batch
    )


def test_seed_and_epoch_alone_decide_the_order():
    pairs = random_pairs(300)
    batches = PairBatches(pairs, SHAPES, seed=7)
    assert same(batches.epoch(2), PairBatches(list(pairs), SHAPES, seed=7).epoch(2))
    assert same(batches.epoch(2), batches.epoch(2))
    assert not same(batches.epoch(2), batches.epoch(3))
    assert not same(batches.epoch(2), PairBatches(pairs, SHAPES, seed=8).epoch(2))


@pytest.mark.parametrize("start", [1, 5, 1000])
def test_a_pass_goes_on_where_it_was_interrupted(start):
    batches = PairBatches(random_pairs(300), SHAPES)
    assert same(list(batches.epoch(1))[start:], batches.epoch(1, start))


def test_packing_starts_afresh_with_many_open_rows():
    # More open rows than the planner keeps: all end up in some batch.
    pairs = [Pair([5] * 15, [100 + i]) for i in range(600)] + random_pairs(600)
    plan = PairBatches(pairs, SHAPES).plan(0)
    numbers = [number for _, rows in plan for row in rows for number in row]
    assert sorted(numbers) == list(range(1200))


# === What does not fit ===


def test_pairs_that_are_too_long_are_counted_and_left_out():
    pairs = random_pairs(50)
    long = [Pair([5] * 16, [5]), Pair([5], [5] * 16), Pair([5] * 40, [5] * 40)]
    batches = PairBatches([long[0], *pairs, *long[1:]], SHAPES)
    assert batches.too_long == 3
    found = [pair for batch in arrays(batches.epoch(0)) for row in unpacked(batch) for pair in row]
    assert counted(found) == counted(pairs)
    # The longest that fit leave room for the end token and nothing else.
    assert PairBatches([Pair([5] * 15, [5] * 15)], SHAPES).too_long == 0


def test_no_pair_that_fits_is_an_error():
    with pytest.raises(ValueError, match=r"^buckets: none of 2 pairs fits into \(16, 16\) places$"):
        PairBatches([Pair([5] * 16, [5]), Pair([5], [5] * 16)], SHAPES)
    with pytest.raises(ValueError, match="none of 0 pairs"):
        PairBatches([], SHAPES)


def test_a_batch_holds_at_least_one_row():
    with pytest.raises(ConfigError, match=r"^batch_tokens: 15 is less than one row of 16 target places$"):
        BatchingConfig(buckets=((8, 8), (16, 16)), batch_tokens=15)


# === Padding ===


@pytest.mark.parametrize("pack", [True, False])
def test_padding_is_the_share_of_empty_places(pack):
    batches = PairBatches(random_pairs(300), BatchingConfig(SHAPES.buckets, SHAPES.batch_tokens, pack))
    places = empty = 0
    for batch in arrays(batches.epoch(4)):
        for name in ("source", "labels"):
            places += batch[name].size
            empty += (batch[name] == PAD).sum()
    assert batches.padding(batches.plan(4)) == pytest.approx(empty / places)


@pytest.mark.slow
@pytest.mark.skipif(not (MULTI30K / "train.en.gz").is_file(), reason="the real files are not here")
def test_padding_of_real_sentences_is_below_a_tenth():
    english, german = (read_lines(MULTI30K / f"train.{language}.gz") for language in ("en", "de"))
    tokenizer = Tokenizer.train(english + german, 5000)
    pairs = [Pair(*pair) for pair in zip(tokenizer.encode(english), tokenizer.encode(german), strict=True)]
    batches = PairBatches(pairs, BatchingConfig())
    plan = batches.plan(0)
    assert len(pairs) == 29_000
    assert batches.too_long < 30
    assert batches.padding(plan) < 0.10


# === Pairs that change ===


def shortened(random):
    """Pairs that lose a random number of their target's tokens in every pass; whole where nothing decides."""
    pairs = random_pairs(60)
    if random is None:
        return pairs
    return [Pair(source, target[: random.integers(1, len(target) + 1)]) for source, target in pairs]


def told(batches):
    """The targets in some batches, by the number at the end of their source."""
    found = {}
    for batch in arrays(batches):
        for source, target in zip(batch["source"], batch["target"]):
            texts = zip(split_after(source, END), split_before(target, START), strict=True)
            found.update({text[-1] - 100: answer for text, answer in texts})
    return found


def test_pairs_change_with_every_pass_and_are_there_once():
    batches = ChangingPairBatches(shortened, SHAPES, seed=3)
    first, again, second = (told(batches.epoch(epoch)) for epoch in (0, 0, 1))
    assert first == again != second
    assert sorted(first) == list(range(60))
    whole = {i: list(pair.target) for i, pair in enumerate(random_pairs(60))}
    assert told(batches.epoch(None)) == whole
    for found in (first, second):
        assert all(whole[i][: len(target)] == target for i, target in found.items())
    other = ChangingPairBatches(shortened, SHAPES, seed=4)
    assert told(other.epoch(0)) != first
    assert other.plan(0) != batches.plan(0)


def test_a_pass_goes_on_where_it_was_left():
    whole = arrays(ChangingPairBatches(shortened, SHAPES).epoch(2))
    rest = arrays(ChangingPairBatches(shortened, SHAPES).epoch(2, 3))
    assert len(rest) == len(whole) - 3 > 2
    for mine, theirs in zip(rest, whole[3:], strict=True):
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name])


def test_pairs_none_of_which_fits_are_refused_at_once():
    with pytest.raises(ValueError, match="none of 2 pairs fits"):
        ChangingPairBatches(lambda random: [Pair([5] * 20, [5])] * 2, SHAPES)
