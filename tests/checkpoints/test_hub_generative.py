"""Hub folders of models that see or write give the very numbers, and the very texts, that transformers gives."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from keras import ops

from zoo.checkpoints import CheckpointError
from zoo.checkpoints.hub import open_hub_captioner, open_hub_folder
from zoo.generation import GenerationConfig, Generator
from zoo.models.decoder import decoder
from zoo.models.vision_encoder import vision_encoder

FIXTURES = Path(__file__).parent / "fixtures"
CAPTIONERS = ("vit-gpt2", "vit-gpt2-projected", "blip")
# As tests/checkpoints/fixtures/make_generative.py has them; a length counts no first token here.
WAYS = {
    "greedy": GenerationConfig(beams=1, max_length=13),
    "beams": GenerationConfig(beams=4, max_length=13, length_penalty_form="power"),
    "short": GenerationConfig(
        beams=4, max_length=13, length_penalty=2.0, length_penalty_form="power", no_repeat_ngram=2, min_length=3
    ),
}


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURES / "generative.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def captioners():
    """Both halves of each captioner, filled."""
    found = {}
    for name in CAPTIONERS:
        hub = open_hub_captioner(FIXTURES / name)
        vision, text = vision_encoder(hub.vision.config), decoder(hub.text.config)
        hub.vision.fill(vision)
        hub.text.fill(text)
        found[name] = vision, text
    return found


@pytest.fixture(scope="module")
def language_model():
    hub = open_hub_folder(FIXTURES / "gpt2")
    model = decoder(hub.config)
    hub.fill(model)
    return model


@pytest.fixture
def spoilt(tmp_path):
    """Copies a fixture, with a changed configuration and changed tensors."""

    def spoil(name, change=None, **changes):
        folder = Path(shutil.copytree(FIXTURES / name, tmp_path / name))
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            node = config
            for parent in parents:
                node = node[parent]
            node[last] = value
        (folder / "config.json").write_text(json.dumps(config))
        if change is not None:
            tensors = safetensors.numpy.load_file(folder / "model.safetensors")
            change(tensors)
            safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        return folder

    return spoil


def rows(array):
    return [[int(token) for token in row if token >= 0] for row in array]


def said(results):
    return [hypotheses[0].tokens for hypotheses in results]


# === Models that see ===


@pytest.mark.parametrize("name", ["vit", "vit-label"])
def test_a_vision_encoder_computes_what_transformers_computes(name, stored):
    hub = open_hub_folder(FIXTURES / name)
    model = vision_encoder(hub.config)
    hub.fill(model)
    expected = stored[f"{name}/expected"]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ops.convert_to_numpy(model(stored[f"{name}/images"])), expected, atol=1e-4)


def test_a_vision_encoders_sizes_and_classes_come_along():
    whole, label = (open_hub_folder(FIXTURES / name).config for name in ("vit", "vit-label"))
    assert whole.image_size == (24, 16)
    assert (whole.pooling, whole.classes) == ("none", ())
    assert (label.pooling, label.classes) == ("first", ("LABEL_0", "LABEL_1", "LABEL_2"))


def test_a_vision_encoder_sees_images_of_another_size(stored):
    hub = open_hub_folder(FIXTURES / "vit")
    larger = vision_encoder(dataclasses.replace(hub.config, image_size=(48, 32)))
    hub.fill(larger)
    assert larger.output_shape == (None, 1 + 6 * 4, 16)


# === A decoder alone ===


def test_a_language_model_computes_what_transformers_computes(language_model, stored):
    logits = ops.convert_to_numpy(language_model({"target": stored["gpt2/tokens"]}))
    np.testing.assert_allclose(logits, stored["gpt2/expected"], atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_a_language_model_goes_on_as_transformers_does(way, language_model, stored):
    config = dataclasses.replace(WAYS[way], max_length=14, min_length=4 if WAYS[way].min_length else 0)
    # The end of a text stands for a beginning without words.
    prompts = [[token for token in row if token] for row in rows(stored["gpt2/prompts"])]
    found = Generator(language_model, jit=False)(prompts, config)
    assert said(found) == rows(stored[f"gpt2/{way}/tokens"])
    if way != "greedy":
        scores = [hypotheses[0].score for hypotheses in found]
        np.testing.assert_allclose(scores, stored[f"gpt2/{way}/scores"], atol=1e-3)


def test_a_language_model_draws(language_model):
    config = GenerationConfig(beams=1, sample=True, n_best=8, top_p=0.9, max_length=16)
    (found,) = Generator(language_model, jit=False)([[17, 5, 200]], config)
    assert {tuple(hypothesis.tokens[:3]) for hypothesis in found} == {(17, 5, 200)}
    assert len({tuple(hypothesis.tokens) for hypothesis in found}) > 4


# === Models that see and write ===


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_captioner_computes_what_transformers_computes(name, captioners, stored):
    vision, text = captioners[name]
    features = ops.convert_to_numpy(vision(stored[f"{name}/images"]))
    np.testing.assert_allclose(features, stored[f"{name}/features"], atol=1e-4)
    logits = text({"features": features, "target": stored[f"{name}/tokens"]})
    np.testing.assert_allclose(ops.convert_to_numpy(logits), stored[f"{name}/expected"], atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_captioner_writes_what_transformers_writes(name, way, captioners, stored):
    found = Generator(captioners[name][1], jit=False)(list(stored[f"{name}/features"]), WAYS[way])
    assert said(found) == rows(stored[f"{name}/{way}/tokens"])
    if way != "greedy":
        scores = [hypotheses[0].score for hypotheses in found]
        np.testing.assert_allclose(scores, stored[f"{name}/{way}/scores"], atol=1e-3)


def test_a_caption_begins_as_it_is_told(captioners, stored):
    features = list(stored["blip/features"])
    config = dataclasses.replace(WAYS["greedy"], max_length=11)  # what is given counts no length here
    found = Generator(captioners["blip"][1], jit=False)(features, config, [[7, 9]] * len(features))
    assert said(found) == rows(stored["blip/begun/tokens"])


def test_special_tokens_come_along(captioners, language_model):
    special = {name: text.special_tokens for name, (_, text) in captioners.items()}
    assert [special["vit-gpt2"].start, special["vit-gpt2"].end, special["vit-gpt2"].pad] == [0, 0, 0]
    assert [special["blip"].start, special["blip"].end, special["blip"].pad] == [59, 3, 0]
    assert not any(tokens.start_optional or tokens.never for tokens in special.values())
    assert language_model.special_tokens.start_optional


# === What does not fit ===


def test_a_tensor_may_be_stored_twice(spoilt, stored):
    def repeat(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()
        tensors["transformer.h.0.attn.bias"] = np.ones((1, 1, 24, 24), "bool")  # the mask, in old files

    hub = open_hub_folder(spoilt("gpt2", repeat))
    model = decoder(hub.config)
    hub.fill(model)
    logits = ops.convert_to_numpy(model({"target": stored["gpt2/tokens"]}))
    np.testing.assert_allclose(logits, stored["gpt2/expected"], atol=1e-4)


def test_an_output_of_its_own_is_refused(spoilt):
    def untie(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    hub = open_hub_folder(spoilt("gpt2", untie))
    with pytest.raises(CheckpointError, match=r"lm_head.weight is not wte.weight"):
        hub.fill(decoder(hub.config))


def test_all_that_does_not_fit_is_listed_at_once(spoilt):
    def spoil(tensors):
        del tensors["text_decoder.bert.encoder.layer.1.crossattention.self.key.weight"]
        tensors["itm_head.weight"] = np.zeros((2, 16), "float32")

    hub = open_hub_captioner(spoilt("blip", spoil))
    hub.vision.fill(vision_encoder(hub.vision.config))
    with pytest.raises(CheckpointError) as raised:
        hub.text.fill(decoder(hub.text.config))
    assert "missing decoder/block_1/cross_attention/key/kernel (24, 16)" in str(raised.value)
    assert "left over itm_head.weight (2, 16)" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "opened", "changes", "message"),
    [
        ("gpt2", open_hub_folder, {"scale_attn_by_inverse_layer_idx": True}, "only False is known"),
        ("vit", open_hub_folder, {"num_channels": 1}, "num_channels is 1; only 3 is known"),
        ("vit-gpt2", open_hub_folder, {}, "vision-encoder-decoder is two models"),
        ("vit", open_hub_captioner, {}, "vit does not describe images"),
        ("vit-gpt2", open_hub_captioner, {"encoder__model_type": "swin"}, r"no family 'swin'; there is .*\bvit\b"),
        ("vit-gpt2", open_hub_captioner, {"decoder__model_type": "gpt"}, "no family 'gpt'; did you mean 'gpt2'"),
        ("blip", open_hub_captioner, {"text_config__hidden_size": 17}, "num_heads: 2 does not divide width 17"),
    ],
)
def test_a_configuration_that_is_not_known_is_named(name, opened, changes, message, spoilt):
    with pytest.raises(ValueError, match=message):
        opened(spoilt(name, **changes))
