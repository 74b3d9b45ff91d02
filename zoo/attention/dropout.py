"""Dropout whose random bits cost next to nothing."""

import math

import keras
from keras import KerasTensor, ops

from zoo.random import next_seed, random_bits, word


@keras.saving.register_keras_serializable("zoo")
class Dropout(keras.layers.Layer):
    """Zeroes each element with probability `rate` while training and scales the others by 1 / (1 - rate).

    Args:
        rate: Between 0 and 1, 1 excluded.
        seed: For a reproducible sequence of masks; Keras' global generator where None.

    Raises:
        ValueError: If rate is out of range.

    Source: Srivastava et al. 2014.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate: {rate}; dropout takes a share from 0 up to, not including, 1")
        self.rate = rate
        self.seed = seed
        if rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        if not training or self.rate == 0:
            return x
        shape = ops.shape(x)
        bits = random_bits(next_seed(self.seed_generator), math.prod(shape))
        kept = ops.reshape(bits >= word(round(self.rate * 2**32)), shape)
        return ops.where(kept, x * (1 / (1 - self.rate)), ops.zeros((), x.dtype))

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
