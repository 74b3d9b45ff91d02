"""A denoiser's pairs: texts corrupted anew in every pass, cut into windows, and restored."""

import dataclasses

import numpy as np
import pytest

import zoo
from zoo.config import ConfigError
from zoo.data.corruption import DenoisingConfig
from zoo.data.pipeline import BatchingConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.tasks.denoising import Denoising, DenoisingRecipe, texts_of
from zoo.training import OptimizerConfig, TrainingConfig

TEXTS = [
    {"text": f"{who} {what} in {where}. It was fun.\n#Person1#: I like {where}!"}
    for who in ("Ada", "Ben", "Cleo")
    for what in ("sings", "reads")
    for where in ("Rome", "Oslo", "Bonn", "Lima")
]
RECIPE = DenoisingRecipe(
    model=EncoderDecoderConfig(
        vocabulary_size=0,
        width=16,
        num_heads=2,
        feedforward_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout=0.0,
        max_length=32,
    ),
    batching=BatchingConfig(buckets=((32, 32),), batch_tokens=256),
    training=TrainingConfig(
        steps=12,
        evaluate_every=6,
        save_every=4,
        monitor="loss",
        jit=False,
        average_decay=0.0,
        optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=2),
    ),
)


@pytest.fixture(scope="module")
def denoiser():
    denoiser = Denoising.from_examples(RECIPE, TEXTS)
    denoiser.generator.jit = False
    return denoiser


def test_every_pass_corrupts_the_texts_anew(denoiser):
    tokenizer = denoiser.source_tokenizer
    ids = tokenizer.encode([example["text"] for example in TEXTS])
    batches = denoiser.batches(TEXTS, seed=1)
    passes = [batches.pass_of(epoch).pairs for epoch in (0, 1)]
    again = denoiser.batches(TEXTS, seed=1).pass_of(1).pairs
    assert passes[1] == again
    assert passes[0] != passes[1]
    mask = tokenizer.token_id("<mask>")
    for pairs in passes:
        assert [pair.target for pair in pairs] == ids
        hidden = [len(target) - sum(token != mask for token in source) for source, target in pairs]
        # The speaker's mark stays; of the other tokens 30 % go.
        assert all(round(0.3 * (len(target) - 1)) == count for (_, target), count in zip(pairs, hidden))
        assert all(mask in source for source, _ in pairs)


def test_what_was_hidden_is_learned_alone_where_spans_are_asked_for():
    denoiser = Denoising.from_examples(dataclasses.replace(RECIPE, objective="spans"), TEXTS)
    tokenizer = denoiser.source_tokenizer
    assert "<extra_id_0>" in tokenizer.special
    assert "<mask>" not in tokenizer.special
    for (source, target), text in zip(denoiser.pairs(TEXTS), TEXTS):
        source, target = tokenizer.tokens(source), tokenizer.tokens(target)
        spans = {}
        for token in target:
            if token.startswith("<extra_id_"):
                spans[token] = []
            else:
                spans[[*spans][-1]].append(token)
        whole = [token for place in source for token in spans.get(place, [place])]
        assert whole == tokenizer.tokens(tokenizer.encode([text["text"]])[0])
        assert len(target) < len(whole) / 2


def test_long_texts_are_cut_into_windows(denoiser):
    long = {"text": " ".join(example["text"] for example in TEXTS)}
    pieces = denoiser.pieces([long, TEXTS[0]])
    (whole, last) = denoiser.source_tokenizer.encode([long["text"], TEXTS[0]["text"]])
    assert pieces[-1] == last
    assert [token for piece in pieces[:-1] for token in piece] == whole
    assert len(pieces) > 8
    assert max(map(len, pieces)) <= 31


def test_texts_come_from_all_fields():
    examples = [
        {"text": "a", "label": "b"},
        {"source": "c", "target": "d"},
        {"captions": ["e", "f"], "image": b"", "text": " "},
    ]
    assert texts_of(examples, ("text", "source", "captions")) == ["a", "c", "e", "f"]
    assert texts_of(examples, ("source", "target")) == ["c", "d"]
    with pytest.raises(ValueError, match=r"fields: no text in texts; did you mean 'text'\?"):
        texts_of(examples, ("texts",))


def test_masks_that_hide_nothing_never_outgrow_a_row(denoiser):
    noise = DenoisingConfig(permute=False, infill=1.0, mean_span=1.0)
    recipe = dataclasses.replace(RECIPE, noise=noise, batching=BatchingConfig(buckets=((16, 32),), batch_tokens=256))
    small = Denoising(recipe, denoiser.source_tokenizer)
    ids = small.pieces(TEXTS)[0]
    random = np.random.default_rng(0)
    assert max(len(small.corrupted(ids, random).source) for _ in range(50)) == 15


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_corruptions(tmp_path):
    whole, parts = (Denoising.from_examples(RECIPE, TEXTS) for _ in range(2))
    before = whole.evaluate(TEXTS[:6])["loss"]
    assert whole.evaluate(TEXTS[:6])["loss"] == before
    whole.fit(TEXTS, TEXTS[:6])
    assert whole.evaluate(TEXTS[:6])["loss"] < before
    stopped = dataclasses.replace(RECIPE.training, steps=8)
    parts.fit(TEXTS, TEXTS[:6], out=tmp_path, training=stopped)
    Denoising.from_vocabulary(parts.recipe, tmp_path, {}).fit(TEXTS, TEXTS[:6], out=tmp_path)
    loaded = zoo.load(tmp_path)
    for mine, theirs in zip(loaded.model.weights, whole.model.weights, strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=1e-6)


def test_it_writes_texts_out_again(denoiser):
    (text,) = denoiser(["Ada <mask> in Rome."])
    assert isinstance(text, str)
    (sample,) = denoiser.samples(TEXTS[:1])
    assert sample["reference"] == TEXTS[0]["text"].replace("\n", " ")
    assert "<mask>" in sample["input"]


def test_vocabularies_of_their_own_are_refused():
    model = dataclasses.replace(RECIPE.model, target_vocabulary_size=50)
    with pytest.raises(ConfigError, match="share one vocabulary; set it to null"):
        Denoising.from_examples(dataclasses.replace(RECIPE, model=model), TEXTS)
