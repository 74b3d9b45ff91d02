"""Batches that tf.data prepares beside the computation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.data.background import in_background, tensorflow


def test_batches_come_as_they_were_made():
    made = [{"a": np.full((2, size), size, np.int32), "b": np.ones(size, np.float32)} for size in (3, 1, 2)]
    found = list(in_background(lambda: iter(made), made[0]))
    assert len(found) == 3
    for mine, theirs in zip(found, made, strict=True):
        for name, array in theirs.items():
            np.testing.assert_array_equal(mine[name], array)
            assert mine[name].dtype == array.dtype


@pytest.mark.parametrize(("backend", "expected"), [("jax", [([], "GPU")]), ("tensorflow", [])])
def test_gpus_are_left_to_the_library_that_computes(backend, expected, monkeypatch):
    hidden = []
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *devices: hidden.append(devices))
    tensorflow()
    assert hidden == expected
