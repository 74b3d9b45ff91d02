"""Several devices on JAX: Keras' distributions say what lies where, and XLA divides the step up accordingly."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import keras
import numpy as np

from zoo.attention import MultiHeadAttention
from zoo.config import ConfigError
from zoo.layers import FeedForward, LogitBias, TokenEmbedding
from zoo.training.distribution import Distribution, Learn, Move, check_rows, rows_of, shared_by
from zoo.training.step_jax import JaxStep, check_matmul


def open_strategy(name: str, ways: int) -> "Mesh":
    """Finds the devices of a run: see distribution.open_strategy()."""
    devices = keras.distribution.list_devices()
    if not 1 <= ways <= len(devices) or len(devices) % ways:
        raise ConfigError(f"--strategy {name}={ways}: it divides the number of devices, {len(devices)}")
    return Mesh(devices, ways)


class Mesh(Distribution):
    """Devices of one process in a grid: rows of a batch go one way, heads, hidden units and words the other.

    The step stays one program, written for one device: XLA computes on each device what it holds, and exchanges what
    is missing. So dropout and sums are those of one device.

    Args:
        devices: Their names, as Keras lists them.
        ways: Among how many of them a model is divided up; 1 gives each a whole one.
    """

    def __init__(self, devices: Sequence[str], ways: int):
        self.devices, self.replicas, self.ways = len(devices), len(devices) // ways, ways
        self.mesh = keras.distribution.DeviceMesh(
            (self.replicas, ways), ["batch", "model"], np.array(devices).reshape(self.replicas, ways)
        )
        self.layout_map = keras.distribution.LayoutMap(self.mesh)
        self._placed: list[keras.Variable] = []

    @property
    def keras_distribution(self) -> keras.distribution.DataParallel | keras.distribution.ModelParallel:
        """What says where variables and batches lie."""
        if self.ways == 1:
            return keras.distribution.DataParallel(devices=list(self.mesh.devices.flatten()))
        return keras.distribution.ModelParallel(layout_map=self.layout_map, batch_dim_name="batch")

    def place(self, model: keras.Model, others: Sequence[keras.Variable] = ()) -> None:
        if self.ways > 1:
            for path, axes in model_layout(model, self.ways).items():
                self.layout_map[path] = axes
        self.distribution = self.keras_distribution
        self._placed = [*model.variables, *others]
        for variable in self._placed:
            _lay_out(variable, self.distribution.get_variable_layout(variable))

    def place_followers(
        self, variables: Sequence[keras.Variable], followed: Sequence[keras.Variable] | None = None
    ) -> None:
        for variable, leader in zip(variables, followed or variables, strict=True):
            _lay_out(variable, self.distribution.get_variable_layout(leader))

    def compiled(self, learn: Learn, move: Move, state: Sequence[keras.Variable], jit: bool, matmul: Any) -> Callable:
        check_matmul(matmul)

        def shared(batch: Mapping[str, Any]) -> dict[str, jax.Array]:
            with shared_by(self.replicas):
                return move(*learn(dict(batch)))

        step = _SpreadStep(shared, state, jit)
        step.spread = self.spread
        if jit:
            layouts = [self.distribution.get_variable_layout(variable).backend_layout for variable in state]
            # What is not said is XLA's to choose, and it might choose to move a variable.
            step.program = jax.jit(step.function, donate_argnums=0, out_shardings=(layouts, None))
        return step

    def spread(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Gives each device its rows of a batch."""
        check_rows(rows_of(batch), self.replicas)
        return {
            name: jax.device_put(x, self.distribution.get_data_layout(x.shape).backend_layout) if len(x.shape) else x
            for name, x in batch.items()
        }

    def end(self) -> None:
        for variable in self._placed:
            variable._layout = None
            variable._value = jax.numpy.asarray(keras.ops.convert_to_numpy(variable.value))
        self._placed = []


class _SpreadStep(JaxStep):
    """A step whose batches are first divided up among devices."""

    spread: Callable[[Mapping[str, Any]], dict[str, jax.Array]]

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        return super().__call__(self.spread(batch))


def _lay_out(variable: keras.Variable, layout: keras.distribution.TensorLayout) -> None:
    variable._layout = layout  # whatever is assigned from now on goes there too
    variable.assign(variable.value)


def model_layout(model: keras.Model, ways: int) -> dict[str, tuple[str | None, ...]]:
    """Says along which axis each of a model's variables is divided up among `ways` devices.

    Heads and hidden units are divided up where they are made, and summed over where they are read, so that a block
    exchanges numbers twice on its way; words are divided up in tables and logits. What does not divide by `ways` is
    whole on every device, and so is everything else.

    Returns:
        Variable path -> for each of its axes "model" or None.

    Source: Shoeybi et al. 2019, section 3.
    """
    layout: dict[str, tuple[str | None, ...]] = {}

    def divide(variable: keras.Variable | None, axis: int) -> None:
        if variable is not None and variable.shape[axis] % ways == 0:
            layout[variable.path] = tuple("model" if i == axis else None for i in range(len(variable.shape)))

    def divide_outputs(*layers: keras.layers.Dense | None) -> None:
        for dense in (dense for dense in layers if dense is not None):
            divide(dense._kernel, 1)
            divide(dense.bias, 0)

    for layer in model._flatten_layers():
        if isinstance(layer, MultiHeadAttention) and math.gcd(layer.num_heads, layer.num_kv_heads) % ways == 0:
            divide_outputs(layer.query, layer.key, layer.value, layer.gate)
            divide(layer.output_projection._kernel, 0)
        elif isinstance(layer, FeedForward):
            divide_outputs(layer.hidden, layer.gate)
            divide(layer.output_projection._kernel, 0)
        elif isinstance(layer, TokenEmbedding):
            divide(layer.embeddings, 0)
        elif isinstance(layer, LogitBias):
            divide(layer.bias, 0)
        elif layer.name == "output" and layer in model.layers:
            divide_outputs(layer)
    return layout
