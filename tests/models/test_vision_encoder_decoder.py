"""vision_encoder_decoder: captions in one row never meet, both halves give the whole, and prompts are read."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.attention import KVCache
from zoo.layers import BlockCache
from zoo.models.encoder_decoder import PAD, START
from zoo.models.vision_encoder_decoder import VisionEncoderDecoderConfig, vision_encoder_decoder

SIZES = {
    "vocabulary_size": 20,
    "grid": (2, 3),
    "feature_width": 12,
    "width": 16,
    "num_heads": 2,
    "feedforward_dim": 32,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "max_length": 12,
    "dropout": 0.0,
}
FEATURES = np.random.default_rng(0).normal(size=(2, 6, 12)).astype("float32")
TARGET = np.array([[START, 5, 6, 7, START, 8, 9, PAD], [START, 10, 11, PAD, PAD, PAD, PAD, PAD]], "int32")


@pytest.fixture(
    scope="module", params=[{}, {"positions": "learned", "norm_first": False}], ids=["sinusoidal", "learned"]
)
def model(request):
    keras.utils.set_random_seed(0)
    return vision_encoder_decoder(VisionEncoderDecoderConfig(**SIZES, **request.param))


def logits(model, features=FEATURES, target=TARGET, **more):
    return ops.convert_to_numpy(model({"features": features, "target": target, **more}, training=False))


def test_captions_of_one_row_do_not_see_each_other(model):
    alone = logits(model, target=np.array([[START, 8, 9], [START, 10, 11]], "int32"))
    np.testing.assert_allclose(logits(model)[0, 4:7], alone[0], atol=1e-5)


def test_no_place_sees_what_comes_behind_it(model):
    changed = TARGET.copy()
    changed[0, 3] = 15
    np.testing.assert_allclose(logits(model)[0, :3], logits(model, target=changed)[0, :3], atol=1e-6)
    assert np.abs(logits(model)[0, 3] - logits(model, target=changed)[0, 3]).max() > 1e-3


def test_every_place_of_the_image_counts_and_has_its_position(model):
    for place in range(6):
        changed = FEATURES.copy()
        changed[0, place] += 1
        assert np.abs(logits(model, changed)[0] - logits(model)[0]).max() > 1e-4
    moved = FEATURES[:, ::-1]
    assert np.abs(logits(model, moved)[0] - logits(model)[0]).max() > 1e-4


def test_step_by_step_with_a_cache_gives_what_the_whole_gives(model):
    target = np.array([[START, 5, 6, 7], [START, 10, 11, 12]], "int32")
    memory, segments = model.encode(FEATURES)
    cache = model.start_cache(memory, 2, 4)
    for position in range(4):
        step = [BlockCache(KVCache(*block.self_attention.tensors, position), block.cross_attention) for block in cache]
        found = model.decode(target[:, position : position + 1], None, segments, cache=step, position=position)
        cache = step
        expected = logits(model, target=target)[:, position]
        np.testing.assert_allclose(ops.convert_to_numpy(found)[:, 0], expected, atol=1e-5)


def test_a_prompt_is_read_beside_the_image():
    keras.utils.set_random_seed(0)
    model = vision_encoder_decoder(VisionEncoderDecoderConfig(**SIZES, prompts=True))
    prompt = np.array([[5, 6, PAD], [7, PAD, PAD]], "int32")
    other = np.array([[5, 9, PAD], [7, PAD, PAD]], "int32")
    longer = np.array([[5, 6, PAD, PAD], [7, PAD, PAD, PAD]], "int32")
    found = logits(model, prompt=prompt)
    assert np.abs(found[0] - logits(model, prompt=other)[0]).max() > 1e-4
    np.testing.assert_allclose(found, logits(model, prompt=longer), atol=1e-5)
    np.testing.assert_allclose(found[1], logits(model, prompt=other)[1], atol=1e-5)


def test_a_saved_model_is_the_model(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-6)
