"""One compiled program from a function over a model, on either backend."""

from collections.abc import Callable
from typing import Any

import keras


def compiled(function: Callable, model: keras.Model, jit: bool = True) -> Callable:
    """Compiles a function of tensors that also reads a model's variables.

    Args:
        function: Takes and returns tensors or nested tuples of them.
        model: The variables it reads; later changes to them are seen.
        jit: Whether XLA compiles it.

    Returns:
        The compiled function: one program for each combination of shapes, kept.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=jit, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        def stateless(values: list[Any], *arguments: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
                return function(*arguments)

        program = jax.jit(stateless) if jit else stateless
        return lambda *arguments: program([variable.value for variable in model.variables], *arguments)
    raise RuntimeError(f"backend {keras.backend.backend()!r}: generation runs on tensorflow and jax")
