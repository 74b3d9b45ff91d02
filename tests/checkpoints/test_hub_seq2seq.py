"""Hub folders of models from text to text give the very numbers, and find the very targets, that transformers does."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from keras import ops

from zoo.checkpoints import CheckpointError
from zoo.checkpoints.hub import open_hub_folder
from zoo.generation import Generator
from zoo.models.encoder_decoder import encoder_decoder
from zoo.tasks.hub import generation_config

FIXTURES = Path(__file__).parent / "fixtures"
# marian-separate: a vocabulary for each language; bart: a file of torch, with tied tensors several times; mbart:
# bfloat16; t5: in parts; t5-gated: with an output of its own.
NAMES = ("marian", "marian-separate", "bart", "pegasus", "mbart", "m2m_100", "t5", "t5-gated")
# As tests/checkpoints/fixtures/make_seq2seq.py has them; a length counts no first token here.
WAYS = {
    "greedy": {"beams": 1},
    "plain": {"beams": 4},
    "full": {
        "beams": 3,
        "n_best": 2,
        "early_stopping": "full",
        "length_penalty": 2.0,
        "no_repeat_ngram": 2,
        "min_length": 4,
    },
    "exact": {
        "beams": 4,
        "early_stopping": "never",
        "length_penalty": 0.5,
        "renormalize": True,
        "bad_words": [[7], [8, 9], [10, 11, 12]],
    },
}
# Every way of one model of each kind; of the others one, since each takes its time to be traced.
SEARCHES = [(name, way) for name in ("marian", "t5") for way in WAYS]
SEARCHES += [("marian-separate", "full"), ("bart", "full"), ("bart", "plain"), ("pegasus", "exact"), ("mbart", "plain")]
SEARCHES += [("m2m_100", "full"), ("t5-gated", "plain")]


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURES / "seq2seq.npz") as file:
        return dict(file)


def load(folder):
    hub = open_hub_folder(folder)
    model = encoder_decoder(hub.config)
    hub.fill(model)
    return model


@pytest.fixture(scope="module")
def models():
    """Gives the model of a fixture, which no test may change."""
    return functools.cache(lambda name: load(FIXTURES / name))


@pytest.fixture
def copied(tmp_path):
    """Copies a fixture, with a changed configuration and changed tensors."""

    def copy(name, change=None, **changes):
        folder = Path(shutil.copytree(FIXTURES / name, tmp_path / name))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        if change is not None:
            tensors = safetensors.numpy.load_file(folder / "model.safetensors")
            change(tensors)
            safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        return folder

    return copy


def rows(array):
    return [[int(token) for token in row if token >= 0] for row in array]


def logits(model, name, stored):
    special = model.special_tokens
    sources = rows(stored[f"{name}/sources"])
    padded = np.full((len(sources), max(map(len, sources)) + 1), special.pad)
    for row, source in zip(padded, sources):
        row[: len(source) + 1] = [*source, special.end]
    return ops.convert_to_numpy(model({"source": padded, "target": stored[f"{name}/targets"]}))


# === Numbers ===


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name, models, stored):
    expected = stored[f"{name}/expected"]
    assert np.abs(expected).max() > 3
    np.testing.assert_allclose(logits(models(name), name, stored), expected, atol=1e-4)


@pytest.mark.parametrize(("name", "way"), SEARCHES)
def test_targets_and_scores_are_those_of_transformers(name, way, models, stored):
    model = models(name)
    # The layout that a tokenizer asks for is another test's; these sources hold all their tokens.
    settings = {"max_length": 13, **WAYS[way]}
    config = dataclasses.replace(generation_config(FIXTURES / name), **settings)
    found = Generator(model, jit=False)(rows(stored[f"{name}/sources"]), config)
    found = [hypothesis for hypotheses in found for hypothesis in hypotheses]
    tokens = [[*model.special_tokens.beginning, *hypothesis.tokens] for hypothesis in found]
    assert tokens == rows(stored[f"{name}/{way}/tokens"])
    assert len(set(map(tuple, tokens))) > 2
    if way != "greedy":
        scores = [hypothesis.score for hypothesis in found]
        np.testing.assert_allclose(scores, stored[f"{name}/{way}/scores"], atol=1e-4)


# === Weights ===


def test_sizes_and_tokens_come_along():
    separate, bart, t5, gated = (open_hub_folder(FIXTURES / name).config for name in (*NAMES[1:3], *NAMES[-2:]))
    assert (separate.vocabulary_size, separate.target_vocabulary_size) == (63, 63)
    assert (separate.num_heads, separate.num_decoder_heads, separate.decoder_feedforward_dim) == (2, 4, 20)
    assert (separate.num_encoder_layers, separate.num_decoder_layers) == (2, 1)
    assert (bart.special_tokens.start, bart.special_tokens.beginning, bart.special_tokens.end) == (2, (0,), 2)
    assert (t5.gated, t5.activation, t5.tied_output, t5.output_scale) == (False, "relu", True, True)
    assert (gated.gated, gated.activation, gated.tied_output, gated.output_scale) == (True, "gelu_tanh", False, False)
    assert t5.special_tokens.never == (0,)


def twice(tensors):
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = tensors["model.shared.weight"]


def elsewhere(tensors):
    tensors["lm_head.weight"] = tensors.pop("model.shared.weight")


def without_prefix(tensors):
    for name in list(tensors):
        tensors[name.removeprefix("model.")] = tensors.pop(name)


@pytest.mark.parametrize("change", [twice, elsewhere, without_prefix])
def test_tied_weights_may_be_stored_once_or_more_often_and_under_any_of_their_names(change, copied, stored):
    found = logits(load(copied("marian", change)), "marian", stored)
    np.testing.assert_allclose(found, stored["marian/expected"], atol=1e-4)


def test_logits_need_no_bias(copied, stored):
    model = load(copied("marian", lambda tensors: tensors.pop("final_logits_bias")))
    with np.load(FIXTURES / "seq2seq.npz") as file:
        expected = file["marian/expected"]
    bias = safetensors.numpy.load_file(FIXTURES / "marian" / "model.safetensors")["final_logits_bias"]
    np.testing.assert_allclose(logits(model, "marian", stored), expected - bias.astype("float32"), atol=1e-4)


def test_an_output_of_its_own_is_taken_whatever_the_configuration_says(copied, rng):
    own = rng.normal(size=(70, 16)).astype("float16")
    model = load(copied("pegasus", lambda tensors: tensors.update({"lm_head.weight": own})))
    assert not model.config.tied_output
    np.testing.assert_array_equal(ops.convert_to_numpy(model.get_layer("output").kernel), own.T.astype("float32"))


def test_what_transformers_writes_of_a_t5_without_scaling_is_read(copied):
    folder = copied("t5", tie_word_embeddings=True, scale_decoder_outputs=False)
    assert not open_hub_folder(folder).config.output_scale


# === Bad input ===


def test_a_missing_part_is_named(copied):
    folder = copied("t5")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.safetensors of its 2 files not in the folder"):
        open_hub_folder(folder)


def test_an_index_that_is_none_is_named(copied):
    folder = copied("t5")
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"index.json: it takes a JSON object with a weight_map"):
        open_hub_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mariam"}, "no family 'mariam'; did you mean 'marian'. .known: bart, .*, pegasus, .*, vit"),
        ({"model_type": "llama"}, "no family 'llama'; there is bart, bert, .*, pegasus, .*, vit"),
        ({"d_model": 17}, "num_heads: 2 does not divide width 17"),
    ],
)
def test_a_configuration_that_is_not_known_is_named(changes, message, copied):
    with pytest.raises(ValueError, match=message):
        open_hub_folder(copied("marian", **changes))


def test_an_unknown_feed_forward_network_is_named(copied):
    with pytest.raises(CheckpointError, match="feed_forward_proj is 'gated-gelo'; did you mean 'gated-gelu'"):
        open_hub_folder(copied("t5", feed_forward_proj="gated-gelo"))


def test_all_that_does_not_fit_is_listed_at_once(copied):
    def spoil(tensors):
        del tensors["model.encoder.layers.1.self_attn.q_proj.weight"]
        tensors["model.decoder.layers.0.fc1.bias"] = np.zeros(5, "float16")
        tensors["classifier.weight"] = np.zeros((2, 16), "float16")
        tensors["model.encoder.embed_tokens.weight"] = tensors["model.shared.weight"]
        tensors["model.shared.weight"] = -tensors["model.shared.weight"]
        tensors["model.decoder.embed_tokens.weight"] = tensors["model.encoder.embed_tokens.weight"]

    folder = copied("marian", spoil)
    hub = open_hub_folder(folder)
    with pytest.raises(CheckpointError) as raised:
        hub.fill(encoder_decoder(hub.config))
    for part in (
        "missing encoder/block_1/self_attention/query/kernel (16, 16)",
        "decoder/block_0/feedforward/hidden/bias is (5,), the model's (24,)",
        "left over classifier.weight (2, 16)",
        "encoder.embed_tokens.weight, and one of its own is not known",
    ):
        assert part in str(raised.value)
