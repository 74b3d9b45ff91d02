"""Models of each builder, saved on one backend, compute the same on the other."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import backend

import zoo
from zoo.models.decoder import DecoderConfig, decoder
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig, encoder
from zoo.models.encoder_decoder import encoder_decoder
from zoo.models.vision_encoder import VisionEncoderConfig, ViTConfig, vision_encoder
from zoo.models.vision_encoder_decoder import VisionEncoderDecoderConfig, vision_encoder_decoder

OTHER = "tensorflow" if backend.backend() == "jax" else "jax"
SIZES = {"vocabulary_size": 40, "width": 16, "num_heads": 2, "max_length": 32}
RANDOM = np.random.default_rng(0)
PAIRS = {
    "source": np.array([[5, 6, 2, 7, 8, 2, 0], [9, 10, 11, 12, 13, 14, 2]], "int32"),
    "target": np.array([[1, 5, 1, 6, 7, 0], [1, 8, 9, 10, 11, 12]], "int32"),
}
TEXTS = {"tokens": np.array([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]], "int32"), "segments": np.zeros((2, 5), "int32")}
SEEN = {"features": RANDOM.normal(size=(2, 6, 12)).astype("float32"), "target": PAIRS["target"]}
IMAGES = RANDOM.normal(size=(2, 32, 64, 3)).astype("float32")
HEADS = {
    "class": HeadConfig(classes=("a", "b"), pooling="attention"),
    "tags": HeadConfig(kind="tags", classes=("a", "b")),
    "vector": HeadConfig(kind="vector", pooling="mean"),
}
LEARNED = {"positions": "learned", "activation": "gelu", "gated": True, "target_vocabulary_size": 30}
T5 = {"positions": "relative", "norm": "rms", "use_bias": False, "score": "dot", "gated": True, "tied_output": False}
PROJECTED = {"feature_width": 12, "feature_projection": True, "norm_first": False, "output_hidden": "gelu"}

# Computes what every model in a folder makes of its inputs.
PROGRAM = """
import sys
from pathlib import Path

import keras
import numpy as np

from zoo.models import decoder, encoder, encoder_decoder, vision_encoder, vision_encoder_decoder
from zoo.generation.compile import compiled

assert keras.backend.backend() == sys.argv[2]
for file in Path(sys.argv[1]).glob("*.keras"):
    model = keras.saving.load_model(file)
    inputs = dict(np.load(file.with_suffix(".inputs.npz")))
    program = compiled(lambda inputs: model(inputs.get("images", inputs), training=False), model)
    outputs = map(keras.ops.convert_to_numpy, keras.tree.flatten(program(inputs)))
    np.savez(file.with_suffix(".outputs.npz"), *outputs)
"""


def pairs(tiny_config, **changes):
    return encoder_decoder(tiny_config(num_encoder_layers=1, num_decoder_layers=1, **changes)), PAIRS


def texts(**changes):
    sizes = EncoderConfig(**SIZES, feedforward_dim=24, num_layers=1, **changes)
    inputs = TEXTS if sizes.num_segments else {"tokens": TEXTS["tokens"]}
    return encoder(EncoderHeadsConfig(sizes, HEADS)), inputs


def language(**changes):
    inputs = SEEN if "feature_width" in changes else {"target": SEEN["target"]}
    return decoder(DecoderConfig(**SIZES, num_layers=1, **changes)), inputs


def captions():
    sizes = VisionEncoderDecoderConfig(
        **SIZES, grid=(2, 3), feature_width=12, feedforward_dim=24, num_encoder_layers=1, num_decoder_layers=1
    )
    return vision_encoder_decoder(sizes), SEEN


def images(*arguments, **changes):
    return vision_encoder(VisionEncoderConfig(*arguments, **changes)), {"images": IMAGES}


VIT = ViTConfig(patch_size=8, width=16, num_heads=2, feedforward_dim=24, num_layers=1)
KINDS = {
    "encoder_decoder": lambda sizes: pairs(sizes),
    "two vocabularies": lambda sizes: pairs(sizes, **LEARNED),
    "post-norm": lambda sizes: pairs(sizes, **LEARNED, norm_first=False),
    "t5": lambda sizes: pairs(sizes, **T5),
    "copying": lambda sizes: pairs(sizes, copying=True),
    "windows": lambda sizes: pairs(sizes, **LEARNED, window=2, global_tokens=1),
    "chunks": lambda sizes: pairs(sizes, **LEARNED, chunk=3),
    "encoder": lambda _: texts(),
    "bert": lambda _: texts(num_segments=2, norm_first=False, positions="learned", embedding_norm=True),
    "encoder in windows": lambda _: texts(window=2, global_tokens=1),
    "language model": lambda _: language(),
    "decoder of features": lambda _: language(**PROJECTED),
    "captions": lambda _: captions(),
    "vit": lambda _: images("vit", (32, 64), pooling="first", vit=VIT),
    "efficientnet": lambda _: images("efficientnet_lite0", (32, 64), ("stride8", "last")),
}


@pytest.fixture(scope="module")
def elsewhere(tiny_config, scramble, tmp_path_factory):
    """A folder with models and what the other backend makes of its inputs; and what this one makes."""
    folder, outputs = tmp_path_factory.mktemp("models"), {}
    for name, make in KINDS.items():
        keras.utils.set_random_seed(0)
        model, inputs = make(tiny_config)
        if name != "efficientnet":  # whose statistics are of what flows through it
            scramble(model)
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.inputs.npz", **inputs)
        found = model(inputs.get("images", inputs), training=False)
        outputs[name] = [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(found)]

    root = str(Path(zoo.__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": OTHER, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), OTHER], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder, outputs


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(OTHER) is None, reason=f"{OTHER} is not installed")
@pytest.mark.parametrize("name", KINDS)
def test_both_backends_compute_the_same(name, elsewhere):
    folder, outputs = elsewhere
    found = np.load(folder / f"{name}.outputs.npz")
    assert len(found) == len(outputs[name])
    for value, expected in zip(found.values(), outputs[name]):
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(value, expected, atol=1e-5 * scale, rtol=1e-5)
