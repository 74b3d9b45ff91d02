"""What a run takes of the machine, and what the machine could give."""

import time
from functools import cache

import keras
import numpy as np
import psutil

from zoo.chips import rate_of

# Rows and columns of the matrices by whose product a machine without a published rate is measured.
SIZE = 1024


def memory() -> dict[str, float]:
    """Measures memory in use, in gigabytes: the process', and the first device's where its backend tells."""
    found = {"memory_gb/process": psutil.Process().memory_info().rss / 1e9}
    if keras.backend.backend() == "jax":
        import jax

        statistics = jax.local_devices()[0].memory_stats() or {}
        device = {"in use": statistics.get("bytes_in_use"), "peak": statistics.get("peak_bytes_in_use")}
    else:
        import tensorflow as tf

        devices = tf.config.list_logical_devices("GPU")
        statistics = tf.config.experimental.get_memory_info(devices[0].name.split("device:")[-1]) if devices else {}
        device = {"in use": statistics.get("current"), "peak": statistics.get("peak")}
    return found | {f"memory_gb/device {name}": size / 1e9 for name, size in device.items() if size is not None}


@cache
def product_rate() -> float | None:
    """Returns the operations a second of matrix products that a device has at best; None for TPUs on TensorFlow.

    Published ones, in 16 bits, of the GPUs and TPUs that are known; else those of the best of three products of large
    float32 matrices, which takes a moment.
    """
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0].device_kind
    else:
        import tensorflow as tf

        if tf.config.list_logical_devices("TPU"):
            return None  # they do not say what they are, and what is measured here is their host
        gpus = tf.config.list_physical_devices("GPU")
        device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "") if gpus else ""
    return rate_of(device) or max(_measured_rate() for _ in range(3))


def _measured_rate() -> float:
    matrix = keras.ops.ones((SIZE, SIZE), "float32")
    began = time.perf_counter()
    np.asarray(keras.ops.matmul(matrix, matrix)[:1])
    return 2 * SIZE**3 / (time.perf_counter() - began)
