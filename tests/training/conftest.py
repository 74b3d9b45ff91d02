"""Runs that are programs too, and what depends on the backend: gradients by variables, and counting programs."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def load_beside():
    """Loads a module that stands beside the tests, by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def small(load_beside):
    return load_beside("small_run")


@pytest.fixture(scope="session")
def derivatives():
    """The value of a function without arguments, and its gradients by variables: all as arrays in one list."""

    def differentiate(function, variables):
        if keras.backend.backend() == "jax":
            import jax

            def stateless(values):
                with keras.StatelessScope(list(zip(variables, values))):
                    return function()

            value, found = jax.value_and_grad(stateless)([variable.value for variable in variables])
            return [np.array(x) for x in (value, *found)]
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = function()
        found = tape.gradient(value, [variable.value for variable in variables])
        return [np.array(tf.convert_to_tensor(x)) for x in (value, *found)]

    return differentiate


@pytest.fixture(scope="session")
def programs():
    """How many programs a compiled step holds."""

    def count(step):
        on_jax = keras.backend.backend() == "jax"
        return step.program._cache_size() if on_jax else step.experimental_get_tracing_count()

    return count
