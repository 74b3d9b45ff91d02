"""Texts become tokens with the right offsets, and batches of few shapes in a repeatable order."""

import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.data.texts import LabelledText, TextBatches, TextBatchingConfig, TextTokenizer

CORPUS = ["The cat sat on the mat.", "A dog ran after the cat!", "Where is the dog?", "It sat there."]


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(CORPUS)


def test_special_tokens_stand_around_a_text_and_a_pair(tokenizer):
    ((ids, segments, offsets, cut),) = tokenizer.encode(["the cat"])
    tokens = tokenizer.tokens(ids)
    assert (tokens[0], tokens[-1], cut) == ("<s>", "</s>", False)
    assert set(segments) == {0}
    assert [offsets[0], offsets[-1]] == [(0, 0), (0, 0)]
    ((ids, segments, _, _),) = tokenizer.encode(["the cat"], ["a dog"])
    assert tokenizer.tokens(ids).count("</s>") == 2
    assert list(segments) == sorted(segments)
    assert segments[-1] == 1


def test_a_text_cannot_smuggle_special_tokens_in(tokenizer):
    ((ids, *_),) = tokenizer.encode(["the </s> cat <s>"])
    assert tokenizer.tokens(ids).count("</s>") == tokenizer.tokens(ids).count("<s>") == 1


def test_offsets_point_into_the_text(tokenizer):
    text = "the  cat sat!"
    ((ids, _, offsets, _),) = tokenizer.encode([text])
    pieces = [text[begin:end].strip() for begin, end in offsets]
    assert "".join(pieces) == "thecatsat!"
    assert [t.strip("▁") for t in tokenizer.tokens(ids)[1:-1]] == pieces[1:-1]


def test_long_texts_are_cut_and_say_so(tokenizer):
    short, long = tokenizer.encode(["the cat", "the cat " * 20], max_length=10)
    assert (short.cut, long.cut, len(long.ids)) == (False, True, 10)
    assert tokenizer.tokens(long.ids)[-1] == "</s>"
    (pair,) = tokenizer.encode(["the dog"], ["the cat " * 20], max_length=12)
    assert len(pair.ids) == 12
    assert list(pair.segments).count(0) == len(tokenizer.encode(["the dog"])[0].ids)


def test_windows_cover_the_whole_second_text(tokenizer):
    passage = " ".join(CORPUS)
    windows = tokenizer.windows("where", passage, 16, 4)
    assert len(windows) > 1
    covered = np.zeros(len(passage), bool)
    for ids, segments, offsets, _ in windows:
        assert len(ids) <= 16
        for segment, (begin, end) in zip(segments, offsets):
            if segment:
                covered[begin:end] = True
    assert all(covered[i] for i, character in enumerate(passage) if not character.isspace())


def test_it_survives_its_file(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode(CORPUS, CORPUS) == tokenizer.encode(CORPUS, CORPUS)


# === Batches ===

SPECS = {"label": np.zeros((), np.int32), "tags": np.zeros((0,), np.int32)}


def make(tokenizer, count=50, sources=1, **config):
    rng = np.random.default_rng(0)
    texts = []
    for i in range(count):
        (encoding,) = tokenizer.encode([" ".join(["cat"] * int(rng.integers(1, 12)))])
        labels = {"label": np.array(i)} if i % 2 else {"tags": np.arange(len(encoding.ids))}
        texts.append(LabelledText(encoding, labels, i % 5 // (5 - sources + 1)))
    settings = {"buckets": (4, 8, 16), "batch_size": 4, **config}
    return TextBatches(texts, TextBatchingConfig(**settings), SPECS, seed=3)


def test_every_text_is_in_one_batch_of_its_bucket(tokenizer):
    batches = make(tokenizer)
    for epoch in (None, 0, 1):
        plan = batches.plan(epoch)
        assert sorted(number for _, rows in plan for number in rows) == list(range(50))
        for bucket, rows in plan:
            shortest = batches.config.buckets[bucket - 1] if bucket else 0
            for number in rows:
                assert shortest < len(batches.texts[number].encoding.ids) <= batches.config.buckets[bucket]


def test_the_order_is_a_matter_of_seed_and_epoch(tokenizer):
    first, again = make(tokenizer), make(tokenizer)
    assert first.plan(0) == again.plan(0) != first.plan(1)


def test_a_batch_holds_what_its_texts_say(tokenizer):
    batches = make(tokenizer)
    for bucket, rows in batches.plan(0):
        batch = batches.batch(bucket, rows)
        length = batches.config.buckets[bucket]
        assert {name: array.shape for name, array in batch.items()} == {
            "tokens": (4, length),
            "segments": (4, length),
            "labels/label": (4,),
            "labels/tags": (4, length),
            "weights/label": (4,),
            "weights/tags": (4,),
        }
        for row, number in enumerate(rows):
            ids = batches.texts[number].encoding.ids
            assert batch["tokens"][row].tolist() == [*ids, *[0] * (length - len(ids))]
            assert (batch["weights/label"][row], batch["weights/tags"][row]) == (number % 2, 1 - number % 2)
            if number % 2:
                assert batch["labels/label"][row] == number
                assert (batch["labels/tags"][row] == -1).all()
            else:
                assert batch["labels/tags"][row].tolist() == [*range(len(ids)), *[-1] * (length - len(ids))]
        assert not batch["tokens"][len(rows) :].any()
        assert not batch["weights/label"][len(rows) :].any()


def test_a_pass_can_go_on_in_the_middle(tokenizer):
    batches = make(tokenizer)
    whole = [batch["tokens"] for batch in batches.epoch(2)]
    rest = [batch["tokens"] for batch in batches.epoch(2, start=3)]
    assert len(rest) == len(whole) - 3
    for one, other in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, (40, 10)), (1e9, (25, 25)), (2.0, (33, 17))])
def test_temperature_evens_sources_out(tokenizer, temperature, expected):
    batches = make(tokenizer, sources=2, temperature=temperature)
    sizes = np.bincount([text.source for text in batches.texts])
    assert sizes.tolist() == [40, 10]
    drawn = np.bincount([batches.texts[n].source for _, rows in batches.plan(0) for n in rows])
    assert tuple(drawn) == expected
    # A source is gone through before it repeats.
    counts = np.bincount([n for _, rows in batches.plan(0) for n in rows], minlength=50)
    for source in (0, 1):
        own = counts[[text.source == source for text in batches.texts]]
        assert own.max() - own.min() <= 1


@pytest.mark.parametrize("settings", [{"buckets": ()}, {"buckets": (8, 4)}, {"batch_size": 0}, {"temperature": 0.0}])
def test_bad_layouts_are_refused(settings):
    with pytest.raises(ConfigError):
        TextBatchingConfig(**settings)


def test_a_text_longer_than_the_longest_bucket_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the longest bucket 8"):
        make(tokenizer, buckets=(4, 8))
    with pytest.raises(ValueError, match="there is none"):
        TextBatches([], TextBatchingConfig(), SPECS)
