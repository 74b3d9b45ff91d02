"""What a training step is made of on JAX: pure functions from the values of variables to their next ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import keras
from jax import numpy as jnp

from zoo.config import ConfigError


def gradients(
    objective: Callable[[], tuple[jax.Array, Any]],
    variables: Sequence[keras.Variable],
    state: Sequence[keras.Variable],
) -> tuple[Any, list[jax.Array]]:
    """Differentiates what a function makes of variables.

    Args:
        objective: Returns a scalar, and what else it knows; it may assign variables of the state, such as seeds.
        variables: What to differentiate by.
        state: All variables that it reads, `variables` first.

    Returns:
        What else the function knows, and a gradient for each of `variables`.
    """
    pure = _stateless(objective, state)
    others = state[len(variables) :]

    def scalar(learned: list[jax.Array]) -> tuple[jax.Array, Any]:
        (value, known), after = pure([*learned, *_values(others)])
        return value, (known, after[len(variables) :])

    found, (known, after) = jax.grad(scalar, has_aux=True)(_values(variables))
    _assign(others, after)
    return known, found


def sum_of_parts(part: Callable[[jax.Array], Any], count: int, state: Sequence[keras.Variable]) -> Any:
    """Adds up what a function makes of 0 ... count - 1, one after the other.

    Args:
        part: Returns nested arrays; it may assign variables of the state, such as seeds.
        count: How often it is called.
        state: All variables that it reads.
    """
    pure = _stateless(part, state)

    def one(carry: tuple[Any, list[jax.Array]], i: jax.Array) -> tuple[Any, None]:
        total, values = carry
        found, values = pure(values, i)
        return (jax.tree.map(jnp.add, total, found), values), None

    outline, _ = jax.eval_shape(pure, _values(state), 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), outline)
    (total, after), _ = jax.lax.scan(one, (zeros, _values(state)), jnp.arange(count))
    _assign(state, after)
    return total


def update(
    optimizer: keras.optimizers.Optimizer, found: Sequence[jax.Array], variables: Sequence[keras.Variable]
) -> None:
    """Lets an optimizer move variables."""
    # Keras' form without side effects: one that scales the loss decides inside a condition whether to move anything.
    moved, own = optimizer.stateless_apply(_values(optimizer.variables), found, _values(variables))
    _assign(variables, moved)
    _assign(optimizer.variables, own)


class JaxStep:
    """A step over explicit state, whose memory is taken over from variables and given back to them.

    Args:
        step: From a batch to scalars; it reads and assigns variables.
        variables: All of them.
        jit: Whether the step is one program, or goes from operation to operation.

    Attributes:
        variables: Whose values the state is, a list in this order.
        function: The step, pure and not compiled: (state, batch) -> (state, scalars). It may be compiled for other
            devices, where the state is placed as one likes: jax.jit(step.function, donate_argnums=0, ...).
    """

    def __init__(
        self, step: Callable[[Mapping[str, Any]], dict[str, jax.Array]], variables: Sequence[keras.Variable], jit: bool
    ):
        self.variables = list(variables)
        pure = _stateless(step, self.variables)

        def function(state: list[jax.Array], batch: Mapping[str, Any]) -> tuple[list[jax.Array], dict[str, jax.Array]]:
            metrics, state = pure(state, batch)
            return state, metrics

        self.function = function
        self.program = jax.jit(function, donate_argnums=0) if jit else function

    @property
    def abstract_state(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and types of the state."""
        return [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in self.variables]

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        state, metrics = self.program(_values(self.variables), batch)
        for variable, value in zip(self.variables, state, strict=True):
            # What assign() does besides, converting and checking, would take longer than a small step.
            variable._value = value
        return metrics


def compiled(
    step: Callable[[Mapping[str, Any]], dict[str, jax.Array]],
    state: Sequence[keras.Variable],
    jit: bool,
    matmul: Literal["float32", "bfloat16"],
) -> JaxStep:
    """Compiles a step."""
    check_matmul(matmul)
    return JaxStep(step, state, jit)


def check_matmul(matmul: Literal["float32", "bfloat16"]) -> None:
    """Tells whether matrices can be multiplied so.

    Raises:
        ConfigError: If these are TensorFlow's products.
    """
    if matmul == "bfloat16":
        raise ConfigError(
            "training.matmul: 'bfloat16' is oneDNN's, on the tensorflow backend; on jax set training.precision to "
            "'mixed_bfloat16'"
        )


def _stateless(function: Callable, variables: Sequence[keras.Variable]) -> Callable:
    """Turns a function that reads and assigns variables into one of their values.

    Returns:
        (values, *arguments) -> (what the function returns, new values).
    """

    def pure(values: Sequence[jax.Array], *arguments: Any) -> tuple[Any, list[jax.Array]]:
        with keras.StatelessScope(list(zip(variables, values, strict=True)), collect_losses=True) as scope:
            result = function(*arguments)
        return result, [scope.get_current_value(variable) for variable in variables]

    return pure


def _values(variables: Sequence[keras.Variable]) -> list[jax.Array]:
    return [variable.value for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[jax.Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
