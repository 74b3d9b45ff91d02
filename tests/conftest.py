"""What the tests share: fixed seeds, a small model, and one way to compile or differentiate on either backend."""

import inspect
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Programs of tests run for moments, and would be compiled longer than that. Fusion stays; only machine code is plainer.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Makes initial weights and dropout the same in every order of the tests."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def events():
    """Reads what TensorBoard reads of a run's folder: kind of plugin -> tag -> [(step, value)], all of it."""

    def read(folder):
        from tensorboard.backend.event_processing import plugin_event_accumulator as event_accumulator
        from tensorboard.util.tensor_util import make_ndarray

        found = event_accumulator.EventAccumulator(str(folder), {event_accumulator.TENSORS: 0}).Reload()
        values = {}
        for tag in found.Tags()["tensors"]:
            kind = found.SummaryMetadata(tag).plugin_data.plugin_name
            series = [(event.step, make_ndarray(event.tensor_proto)) for event in found.Tensors(tag)]
            values.setdefault(kind, {})[tag] = series
        return values

    return read


@pytest.fixture(scope="session")
def jit():
    """Compiles a function of tensors with XLA; the layers that it calls must not change their variables."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit
    import tensorflow as tf

    return lambda function: tf.function(function, jit_compile=True, autograph=False)


@pytest.fixture(scope="session")
def gradients():
    """Differentiates the sum of function(*inputs) by each input: arrays in, arrays out."""
    import keras
    from keras import ops

    def differentiate(function, *inputs):
        inputs = [ops.convert_to_tensor(x) for x in inputs]
        if keras.backend.backend() == "jax":
            import jax

            found = jax.grad(lambda *inputs: ops.sum(function(*inputs)), argnums=tuple(range(len(inputs))))(*inputs)
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(inputs)
                y = ops.sum(function(*inputs))
            found = tape.gradient(y, inputs)
        return [ops.convert_to_numpy(gradient) for gradient in found]

    return differentiate


@pytest.fixture(scope="session")
def scramble():
    """Gives every weight a random value, so that biases and normalizations take part too; returns the layer."""

    def fill(layer, seed=0, scale=0.3):
        rng = np.random.default_rng(seed)
        for weight in layer.weights:
            if "seed" not in weight.path:
                mean = 1 if weight.path.endswith("gamma") else 0
                weight.assign(rng.normal(mean, scale, weight.shape).astype("float32"))
        return layer

    return fill


@pytest.fixture(scope="session")
def reborn():
    """Sends a called layer through JSON and back; returns the new layer, with the same weights.

    It fails where the configuration leaves out an argument of the constructor.
    """
    import keras

    def through_json(layer, *inputs, **arguments):
        config = layer.get_config()
        named = set(inspect.signature(type(layer).__init__).parameters) - {"self", "args", "kwargs"}
        assert named <= set(config)
        text = json.dumps(keras.saving.serialize_keras_object(layer))
        copy = keras.saving.deserialize_keras_object(json.loads(text))
        assert type(copy) is type(layer)
        assert copy.get_config() == config
        copy(*inputs, **arguments)
        copy.set_weights(layer.get_weights())
        return copy

    return through_json


@pytest.fixture(scope="session")
def tiny_config():
    """Sizes of the smallest encoder_decoder that has something of everything; keywords change them."""
    from zoo.models.encoder_decoder import EncoderDecoderConfig

    def config(**changes):
        sizes = {
            "vocabulary_size": 40,
            "width": 16,
            "num_heads": 2,
            "feedforward_dim": 24,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "max_length": 32,
        }
        return EncoderDecoderConfig(**{**sizes, **changes})

    return config


@pytest.fixture(scope="session")
def tiny_model(tiny_config, scramble):
    """A small encoder_decoder with random weights, which no test may change."""
    from zoo.models.encoder_decoder import encoder_decoder

    return scramble(encoder_decoder(tiny_config()))
