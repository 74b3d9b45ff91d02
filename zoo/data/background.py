"""tf.data, which prepares batches while others are worked on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import ModuleType

import keras
import numpy as np

# Batches that are ready at most.
READY = 4


def tensorflow() -> ModuleType:
    """Imports TensorFlow for tf.data; where Keras computes with another library, the GPUs are left to that one."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        with suppress(RuntimeError):  # whoever has worked on them with TensorFlow already has them
            tf.config.set_visible_devices([], "GPU")
    return tf


def in_background(
    batches: Callable[[], Iterable[Mapping[str, np.ndarray]]], example: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches that are prepared in the background.

    Args:
        batches: Makes them.
        example: A batch with the same names, types and numbers of dimensions.
    """
    tf = tensorflow()
    specs = {name: tf.TensorSpec((None,) * array.ndim, array.dtype) for name, array in example.items()}
    return tf.data.Dataset.from_generator(batches, output_signature=specs).prefetch(READY).as_numpy_iterator()
