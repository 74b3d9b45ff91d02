"""What a run takes of the machine."""

import keras
import psutil


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
