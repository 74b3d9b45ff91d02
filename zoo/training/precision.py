"""The precision that a training step computes in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import keras

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@contextmanager
def computing_in(precision: Precision, model: keras.Model) -> Iterator[None]:
    """Lets a model's layers compute by a dtype policy inside the block.

    Their weights are float32 by every one of these policies, so the same model can be trained in 16 bits and evaluated,
    saved and loaded in 32. Layers that compute in a policy of their own, such as quantized ones, keep it.

    Args:
        precision: Keras' name of the policy.
        model: The model.

    Source: Micikevicius et al. 2018, section 3.1.
    """
    layers = [layer for layer in model._flatten_layers() if layer.dtype_policy.name == "float32"]
    for layer in layers:
        layer.dtype_policy = precision
    try:
        yield
    finally:
        for layer in layers:
            layer.dtype_policy = "float32"
