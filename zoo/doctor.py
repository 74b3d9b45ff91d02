"""What is truly active on this machine, found out by asking and by compiling."""

import os
import platform


def examine() -> dict[str, str]:
    """Returns findings by name: versions, backend, devices, compiler, precision.

    XLA counts as active only if a small program compiled to one XLA executable.
    """
    import keras
    import numpy as np

    import zoo

    backend = keras.backend.backend()
    findings = {
        "zoo": zoo.__version__,
        "python": f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores",
        "keras": f"{keras.__version__}, backend {backend}",
    }
    if backend == "tensorflow":
        import tensorflow as tf

        findings["tensorflow"] = tf.__version__
        findings["strategies"] = _on_tensorflow()
        devices = [f"{device.device_type} ({device.name})" for device in tf.config.list_physical_devices()]
        function = tf.function(lambda x: keras.ops.tanh(x @ x), jit_compile=True, autograph=False)
        try:
            text = function.experimental_get_compiler_ir(np.ones((8, 8), np.float32))(stage="optimized_hlo")
            xla = "active" if "ENTRY" in text else "NOT active: the compiler gave no program"
        except (tf.errors.OpError, ValueError) as error:
            xla = f"NOT active: {error}"
    elif backend == "jax":
        import jax

        findings["jax"] = jax.__version__
        findings["strategies"] = _on_jax(jax.local_device_count())
        devices = [f"{device.platform.upper()} ({device})" for device in jax.devices()]
        xla = "active (always, on this backend)"
    else:
        devices, xla = ["unknown"], "unknown on this backend; the zoo runs on tensorflow and jax"
    policy = keras.config.dtype_policy()
    return {
        **findings,
        "devices": ", ".join(devices),
        "xla": xla,
        "precision": f"{policy.name}: computes in {policy.compute_dtype}, keeps variables in {policy.variable_dtype}",
    }


def _on_tensorflow() -> str:
    """Says what `zoo train --strategy` can do here, and where XLA compiles."""
    import tensorflow as tf

    from zoo.config import ConfigError
    from zoo.training.distribution_tensorflow import cluster

    gpus = len(tf.config.list_physical_devices("GPU"))
    try:
        workers, index = cluster()
        multi_worker = f"TF_CONFIG makes this worker {index} of {len(workers)}"
    except ConfigError:
        multi_worker = "TF_CONFIG names no workers"
    tpu = "seen" if tf.config.list_physical_devices("TPU") else "none seen"
    return (
        f"mirrored: {f'{gpus} GPUs' if gpus else 'no GPU, so one replica'}; multi-worker: {multi_worker}; tpu: {tpu}. "
        "XLA compiles gradients and update; it does NOT compile the sum over replicas between them (on a TPU it does)"
    )


def _on_jax(devices: int) -> str:
    ways = ", ".join(str(n) for n in range(2, devices + 1) if devices % n == 0) or "none"
    return f"data-parallel: {devices} devices; model-parallel=N: N may be {ways}. XLA compiles all of it"
