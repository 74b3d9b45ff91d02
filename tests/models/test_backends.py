"""The same weights give the same numbers on the other backend."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras import backend

import zoo
from zoo.checkpoints import by_path, save
from zoo.models.encoder_decoder import encoder_decoder

OTHER = "tensorflow" if backend.backend() == "jax" else "jax"

# Reads a configuration, weights and inputs; writes logits.
PROGRAM = """
import sys
from pathlib import Path

import keras
import numpy as np

from zoo.checkpoints import by_path, load
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder

folder = Path(sys.argv[1])
assert keras.backend.backend() == sys.argv[2]
model = encoder_decoder(EncoderDecoderConfig.from_json(folder / "config.json"))
load(folder / "weights.safetensors", by_path(model.weights))
inputs = np.load(folder / "inputs.npz")
np.save(folder / "logits.npy", keras.ops.convert_to_numpy(model(dict(inputs))))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(OTHER) is None, reason=f"{OTHER} is not installed")
@pytest.mark.parametrize("parts", [{}, {"window": 2, "global_tokens": 1}, {"chunk": 3}], ids=["all", "window", "chunk"])
def test_both_backends_compute_the_same(tiny_config, scramble, tmp_path, parts):
    config = tiny_config(positions="learned", activation="gelu", gated=True, target_vocabulary_size=30, **parts)
    model = scramble(encoder_decoder(config))
    inputs = {
        "source": np.array([[5, 6, 2, 7, 8, 2, 0], [9, 10, 11, 12, 13, 14, 2]], "int32"),
        "target": np.array([[1, 5, 1, 6, 7, 0], [1, 8, 9, 10, 11, 12]], "int32"),
    }
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    np.savez(tmp_path / "inputs.npz", **inputs)
    save(tmp_path / "weights.safetensors", by_path(model.weights))

    root = str(Path(zoo.__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": OTHER, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), OTHER], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    logits, expected = np.load(tmp_path / "logits.npy"), np.asarray(model(inputs))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)
