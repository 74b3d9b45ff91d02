"""One compiled program from a function over a model, on either backend."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras


class Program(NamedTuple):
    """A function of tensors before it is compiled, the model whose variables it reads, and arguments for it."""

    function: Callable
    model: keras.Model
    arguments: tuple[Any, ...]


def stateless(function: Callable, variables: Sequence[keras.Variable]) -> Callable:
    """Turns a function that reads variables into one of their values and its own arguments."""

    def pure(values: Sequence[Any], *arguments: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arguments)

    return pure


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

        pure = stateless(function, model.variables)
        program = jax.jit(pure) if jit else pure
        return lambda *arguments: program([variable.value for variable in model.variables], *arguments)
    raise RuntimeError(f"backend {keras.backend.backend()!r}: generation runs on tensorflow and jax")
