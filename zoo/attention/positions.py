"""Positions on the embedding side: what is added to the tokens before the first block."""

import math

import keras
from keras import KerasTensor, ops


def sinusoidal(positions: KerasTensor, width: int) -> KerasTensor:
    """Encodes positions as sines (first half) and cosines (second half) of geometric wavelengths.

    Args:
        positions: Integer positions, any shape.
        width: D, even.

    Returns:
        float32 (..., D), wavelengths from 2 pi to 10000 * 2 pi.

    Raises:
        ValueError: If width is odd.

    Source: Vaswani et al. 2017, section 3.5; the halves are side by side, not interleaved, as in tensor2tensor.
    """
    if width % 2:
        raise ValueError(f"width: {width} is odd; sines and cosines share it half and half, so it must be even")
    half = width // 2
    rates = ops.exp(ops.arange(half, dtype="float32") * (-math.log(10000.0) / max(half - 1, 1)))
    angles = ops.cast(positions, "float32")[..., None] * rates
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


@keras.saving.register_keras_serializable("zoo")
class Sinusoidal(keras.layers.Layer):
    """Adds sinusoidal positions to embeddings; any length, nothing to learn.

    Call args:
        x: (B, T, D).
        positions: Integer (B, T) or (T,); 0 ... T-1 where None.

    Source: Vaswani et al. 2017, section 3.5.
    """

    def call(self, x: KerasTensor, positions: KerasTensor | None = None) -> KerasTensor:
        if positions is None:
            positions = ops.arange(ops.shape(x)[1], dtype="int32")
        return x + ops.cast(sinusoidal(positions, x.shape[-1]), x.dtype)


@keras.saving.register_keras_serializable("zoo")
class Learned(keras.layers.Layer):
    """Adds one learned vector a position to embeddings.

    Args:
        max_length: How many positions there are.

    Call args:
        x: (B, T, D).
        positions: Integer (B, T) or (T,), below max_length; 0 ... T-1 where None.

    Raises:
        ValueError: If positions are not given, and T is known to exceed max_length.

    Source: Gehring et al. 2017, section 3.1.
    """

    def __init__(self, max_length: int, **kwargs):
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, x_shape, positions_shape=None):
        self.table = self.add_weight(
            shape=(self.max_length, x_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def call(self, x: KerasTensor, positions: KerasTensor | None = None) -> KerasTensor:
        if positions is None:
            length = ops.shape(x)[1]
            # A traced length is no int. With positions given, T may be longer: several texts packed into a row.
            if isinstance(length, int) and length > self.max_length:
                raise ValueError(f"x: {length} positions; this layer learned {self.max_length} (max_length)")
            positions = ops.arange(length, dtype="int32")
        return x + ops.cast(ops.take(self.table, positions, axis=0), x.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "max_length": self.max_length}
