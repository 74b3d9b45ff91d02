"""A translator from its first example to a folder and back."""

import dataclasses

import numpy as np
import pytest
import sacrebleu
import tensorflow as tf

import zoo
from zoo.config import ConfigError
from zoo.data.tokenizers import Tokenizer
from zoo.generation import GenerationConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.tasks.translation import Translation, TranslationRecipe

START, END = 1, 2


def quick(translator):
    """Spares XLA's compilations."""
    translator.generator.jit = False
    return translator


def sources(pairs):
    return [pair["source"] for pair in pairs]


def weights(translator):
    return [np.array(weight) for weight in translator.model.weights]


# === Learning ===


@pytest.mark.slow
def test_it_learns_its_pairs_by_heart(translator, pairs):
    translations = translator(sources(pairs))
    targets = [pair["target"] for pair in pairs]
    assert sacrebleu.corpus_bleu(translations, [targets]).score > 95
    assert sum(mine == theirs for mine, theirs in zip(translations, targets)) >= 30


def test_scores_are_those_of_its_translations(translator, pairs):
    some = [*pairs[:8], {"source": pairs[0]["source"], "target": pairs[1]["target"]}]
    scores = translator.evaluate(some)
    translations, targets = translator(sources(some)), [pair["target"] for pair in some]
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(translations, [targets]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(translations, [targets]).score)
    assert 1 < scores["bleu"] < 99.9
    assert scores.keys() == {"bleu", "bleu_lowercase", "chrf", "loss", "signatures"}


def test_the_dev_loss_is_nats_a_token(translator, pairs):
    some = [*pairs[:4], {"source": pairs[0]["source"], "target": pairs[1]["target"]}]
    ids = tf.TensorSpec((1, None), tf.int32)
    forward = tf.function(
        lambda source, target: translator.model({"source": source, "target": target}, training=False),
        input_signature=[ids, ids],
    )
    nats = []
    for pair in some:
        (source,) = translator.source_tokenizer.encode([pair["source"]])
        (target,) = translator.target_tokenizer.encode([pair["target"]])
        logits = np.array(forward([[*source, END]], [[START, *target]]))[0].astype(np.float64)
        scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        nats += [-scores[i, token] for i, token in enumerate([*target, END])]
    assert translator.evaluate(some)["loss"] == pytest.approx(np.mean(nats), rel=1e-3)


def test_tensorboard_shows_samples_and_where_the_model_looked(trained, pairs, events):
    translator, folder, _ = trained
    shown = events(folder / "logs/dev")
    assert len(shown["text"]) == 8
    for number, pair in enumerate(pairs[:8], 1):
        ((step, text),) = shown["text"][f"samples/{number}"]
        paragraphs = text.item().decode().replace("\\", "").split("\n\n")
        rows = dict(paragraph.replace("**", "").split(": ", 1) for paragraph in paragraphs)
        assert (step, rows["input"], rows["reference"]) == (150, pair["source"], pair["target"])
        assert rows["output"] == translator(pair["source"])
    ((_, (width, height, _)),) = shown["images"]["attention/1"]
    figure = translator.attention_maps(pairs[0]["source"], pairs[0]["target"]).to_figure("cross", 1, "mean")
    assert [int(width), int(height)] == [round(90 * side) for side in figure.get_size_inches()]
    tokens = (folder / "logs/dev/embedding.labels.tsv").read_text().splitlines()
    vectors = np.loadtxt(folder / "logs/dev/embedding.vectors.tsv")
    row = translator.source_tokenizer.tokens(range(translator.source_tokenizer.vocabulary_size)).index(f"▁{tokens[3]}")
    table = np.array(translator.model.get_layer("embedding").embeddings)
    np.testing.assert_allclose(vectors[3], table[row], rtol=1e-3)


def test_a_finished_run_gives_its_best_weights_again(trained, recipe, pairs):
    translator, folder, position = trained
    again = quick(Translation.from_vocabulary(recipe(), folder, {}))
    assert again.fit(pairs, pairs, out=folder).step == position.step == 150
    for mine, theirs in zip(weights(again), weights(translator), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_same_recipe_makes_the_same_model(recipe, pairs):
    first, second = (Translation.from_examples(recipe(), pairs) for _ in range(2))
    for mine, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# === Texts in, texts out ===


def test_one_text_gives_one_and_a_list_gives_a_list(translator, pairs):
    texts = sources(pairs)[:3]
    one = translator(texts[0])
    assert isinstance(one, str)
    assert translator(texts)[0] == one
    assert translator(texts[:1]) == [one]
    assert translator([]) == []


def test_settings_go_with_a_call(translator, pairs):
    texts = sources(pairs)[:2]
    best = translator(texts, beams=3, n_best=3)
    assert [len(hypotheses) for hypotheses in best] == [3, 3]
    assert all(len(set(hypotheses)) == 3 for hypotheses in best)
    assert [hypotheses[0] for hypotheses in best] == translator(texts)
    assert translator(texts[0], beams=3, n_best=3) == best[0]
    with pytest.raises(ConfigError, match="n_best"):
        translator(texts, beams=1, n_best=2)
    assert translator.recipe.generation == GenerationConfig(beams=1)


def test_an_input_that_cannot_be_translated_is_numbered(translator):
    with pytest.raises(ValueError, match=r"^input 2: '  ' is empty; give a text with at least one visible character$"):
        translator(["three", "  "])
    with pytest.raises(ValueError, match=r"^input 1: '\\x00\\x1b' is empty"):
        translator("\x00\x1b")
    with pytest.raises(
        ValueError, match=r"^input 3: 'three three .*\.\.\.' has 32 tokens, the model takes 31; split it"
    ):
        translator(["three", "four", "three " * 32])
    assert isinstance(translator("three " * 31), str)


def test_unknown_characters_are_translated_somehow(translator):
    assert isinstance(translator("three 😀"), str)


# === Folders ===


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_saved_translator_translates_the_same(translator, pairs, dtype, tmp_path):
    translator.save(tmp_path, dtype=dtype)
    loaded = quick(zoo.load(tmp_path))
    assert type(loaded) is Translation
    assert loaded.recipe == translator.recipe
    assert loaded(sources(pairs)) == translator(sources(pairs))
    if dtype is None:
        for mine, theirs in zip(weights(loaded), weights(translator), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_float16_halves_the_file(translator, tmp_path):
    sizes = {}
    for dtype in (None, "float16"):
        translator.save(tmp_path / str(dtype), dtype=dtype)
        sizes[dtype] = (tmp_path / str(dtype) / "weights.safetensors").stat().st_size
    # What is not weights, is the header.
    assert sizes[None] - sizes["float16"] == pytest.approx(2 * translator.model.count_params(), rel=0.01)


def test_what_the_card_says_is_kept(translator, tmp_path):
    translator.card["licence"] = "of the data, für Ümlaute"
    try:
        translator.save(tmp_path)
    finally:
        del translator.card["licence"]
    assert zoo.load(tmp_path).card == {"licence": "of the data, für Ümlaute"}


def test_the_languages_may_have_vocabularies_of_their_own(recipe, pairs, tmp_path):
    separate = recipe(vocabulary_size=70, target_vocabulary_size=90)
    translator = quick(Translation.from_examples(separate, pairs))
    assert translator.source_tokenizer.vocabulary_size == 70
    assert translator.target_tokenizer.vocabulary_size == 90
    assert translator.model.output_shape[-1] == 90
    # "fünf" is one of the target's words alone.
    assert translator.target_tokenizer.decode(translator.target_tokenizer.encode(["fünf"])) == ["fünf"]
    assert translator.source_tokenizer.decode(translator.source_tokenizer.encode(["fünf"])) != ["fünf"]
    translator.save(tmp_path)
    loaded = quick(zoo.load(tmp_path))
    texts = sources(pairs)[:8]
    assert loaded(texts) == translator(texts)
    maps = loaded.attention_maps(texts[0], pairs[0]["target"])
    expected = Tokenizer.load(tmp_path / "target_tokenizer.json")
    assert list(maps.target_tokens)[1:] == expected.tokens(expected.encode([pairs[0]["target"]])[0])


def test_the_recipe_knows_how_large_the_vocabulary_became(translator):
    assert translator.recipe.model.vocabulary_size == translator.source_tokenizer.vocabulary_size > 50


# === Attention ===


def test_attention_maps_cover_every_layer_and_sum_to_one(translator, pairs):
    maps = translator.attention_maps(pairs[0]["source"], pairs[0]["target"])
    source = translator.source_tokenizer.encode([pairs[0]["source"]])[0]
    target = translator.target_tokenizer.encode([pairs[0]["target"]])[0]
    s, t = len(source) + 1, len(target) + 1
    assert {path: weights.shape for path, weights in maps.maps.items()} == {
        "encoder/block_0/self_attention": (4, s, s),
        "decoder/block_0/self_attention": (4, t, t),
        "decoder/block_0/cross_attention": (4, t, s),
    }
    for found in maps.maps.values():
        assert np.all(found >= 0)
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    assert np.all(np.triu(maps.maps["decoder/block_0/self_attention"], 1) == 0)
    assert np.any(np.triu(maps.maps["encoder/block_0/self_attention"], 1) > 0.01)
    assert list(maps.source_tokens) == [*translator.source_tokenizer.tokens(source), "</s>"]
    assert list(maps.target_tokens) == ["<s>", *translator.target_tokenizer.tokens(target)]


def test_without_a_target_the_maps_are_of_its_own_translation(translator, pairs):
    text = pairs[0]["source"]
    maps, given = translator.attention_maps(text), translator.attention_maps(text, translator(text))
    assert maps.target_tokens == given.target_tokens
    for path, found in maps.maps.items():
        np.testing.assert_array_equal(found, given.maps[path])
    with pytest.raises(ValueError, match=r"^input 1: '' is empty"):
        translator.attention_maps("")


# === Other ways to fit ===


def test_buckets_beyond_learned_positions_are_refused():
    model = EncoderDecoderConfig(positions="learned", max_length=48)
    with pytest.raises(ConfigError, match=r"batching.buckets: texts of up to 64 tokens, and model.max_length 48"):
        TranslationRecipe(model=model)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("three " * 32, r"input 2: 'three .* has 32 tokens, the model takes 31"),
        ("\x01", r"input 2: '\\x01' is empty"),
    ],
    ids=["long", "empty"],
)
def test_dev_examples_that_could_not_be_evaluated_stop_the_run_before_it_begins(recipe, pairs, text, says, tmp_path):
    translator = quick(Translation.from_examples(recipe(), pairs))
    before = weights(translator)
    dev = [pairs[0], {"source": text, "target": "drei"}]
    with pytest.raises(ValueError, match=rf"^dev examples: {says}"):
        translator.fit(pairs, dev, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for mine, theirs in zip(weights(translator), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_fitting_for_epochs_holds_examples_out_by_itself(recipe, pairs, tmp_path):
    small = recipe(width=8, feedforward_dim=8)
    small = dataclasses.replace(small, training=dataclasses.replace(small.training, jit=False, save_every=1))
    translator = quick(Translation.from_examples(small, pairs))
    before = weights(translator)
    position = translator.fit(pairs, epochs=2, out=tmp_path)
    assert position.step % 2 == 0
    assert (position.epoch, position.batch) == (1, position.step // 2)
    assert any(not np.array_equal(old, new) for old, new in zip(before, weights(translator)))
    with pytest.raises(ConfigError, match=r"^epochs: 0"):
        translator.fit(pairs, epochs=0)
