"""Several devices and machines on TensorFlow: its own strategies hold the variables and sum the gradients."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.config import ConfigError
from zoo.random import own_sequence
from zoo.training.distribution import Distribution, Learn, Move, check_rows, rows_of
from zoo.training.step_tensorflow import use_matmul

# What TensorFlow raises where a sum waits for a process that is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
TF_CONFIG = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'


def open_strategy(name: str, _: int) -> "Replicas":
    """Finds the devices and machines of a run: see distribution.open_strategy()."""
    return Replicas({"mirrored": _mirrored, "multi-worker": _multi_worker, "tpu": _tpu}[name]())


# One of each in a process: a second one would number its sums anew, and TensorFlow take them for the first one's.
@cache
def _mirrored() -> tf.distribute.Strategy:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@cache
def _multi_worker() -> tf.distribute.Strategy:
    workers, index = cluster()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(
            f"--strategy multi-worker: {error}; `zoo train` does; in Python call "
            "zoo.training.open_strategy('multi-worker') first, and give fit() what it returns"
        ) from None
    except (tf.errors.OpError, ValueError) as error:
        raise ConfigError(f"--strategy multi-worker: worker {index} of {', '.join(workers)}: {error}") from None


def cluster() -> tuple[list[str], int]:
    """Reads from TF_CONFIG which workers there are, and which of them this process is.

    Raises:
        ConfigError: If it does not say so.
    """
    told = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(told)
        workers, task = config["cluster"]["worker"], config["task"]
        if set(config["cluster"]) != {"worker"} or task["type"] != "worker":
            raise ValueError("all are of type worker")
        return list(map(str, workers)), range(len(workers))[int(task["index"])]
    except (ValueError, KeyError, TypeError, IndexError):
        raise ConfigError(
            f"--strategy multi-worker: TF_CONFIG is {told!r}; each worker has its own, with its own index: {TF_CONFIG}"
        ) from None


@cache
def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--strategy tpu: no TPU was found: {error}") from None


class Replicas(Distribution):
    """Replicas of a model that each learn from their rows of every batch, and stay the same by what they sum.

    A strategy of TensorFlow's holds a copy of each variable on every device, and averages gradients and metrics over
    all replicas of all workers between the two halves of a step. Each half is a program of XLA's; the sum is
    TensorFlow's own. Nothing else is exchanged.

    Args:
        strategy: Says where the replicas are.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        resolver = strategy.cluster_resolver
        multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.workers = len(resolver.cluster_spec().as_dict()["worker"]) if multi_worker else 1
        self.devices = strategy.num_replicas_in_sync
        self.is_chief = not multi_worker or resolver.task_id == 0
        self.lost = LOST if self.workers > 1 else ()
        self._on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        self._homes: list[tuple[keras.Variable, tf.Variable, tf.Variable]] = []

    def place(self, model: keras.Model, others: Sequence[keras.Variable] = ()) -> None:
        variables = [*model.variables, *others]
        homes = [variable.value for variable in variables]
        self.place_followers(variables)
        self._homes = [(variable, home, variable.value) for variable, home in zip(variables, homes, strict=True)]

    def place_followers(
        self, variables: Sequence[keras.Variable], followed: Sequence[keras.Variable] | None = None
    ) -> None:
        with self.strategy.scope():
            for variable in variables:
                # Not Keras' own aggregation: every replica comes to the same value, and nothing is to be agreed on.
                variable._value = tf.Variable(
                    variable.value,
                    trainable=variable.trainable,
                    name=variable.name,
                    aggregation=tf.VariableAggregation.NONE,
                )

    def compiled(self, learn: Learn, move: Move, state: Sequence[keras.Variable], jit: bool, matmul: Any) -> Callable:
        jit = use_matmul(matmul, jit)
        if not self._on_tpu:  # where one program holds both halves and the sum
            learn, move = (tf.function(half, jit_compile=jit, autograph=False) for half in (learn, move))

        def replica(batch: dict, number: tf.Tensor) -> dict[str, tf.Tensor]:
            with own_sequence(number):
                metrics, gradients = learn(batch)
            metrics = {name: tf.cast(value, tf.float32) for name, value in metrics.items()}
            metrics, gradients = tf.distribute.get_replica_context().all_reduce("MEAN", (metrics, gradients))
            return move(metrics, gradients)

        program = tf.function(lambda *arguments: self.strategy.run(replica, args=arguments), autograph=False)

        def step(batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
            check_rows(rows_of(batch), self.strategy.num_replicas_in_sync)
            metrics = program(self._each(lambda number: self._share(batch, number)), self._each(tf.constant))
            return {name: self.strategy.experimental_local_results(value)[0] for name, value in metrics.items()}

        return step

    def _each(self, value: Callable[[int], Any]) -> Any:
        """Gives each replica on this machine something of its own, by its number among all replicas."""
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: value(context.replica_id_in_sync_group)
        )

    def _share(self, batch: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Returns a replica's rows of a batch, beside the whole batch, by whose counts its losses are divided."""
        whole = {name: tf.convert_to_tensor(value) for name, value in batch.items()}
        count = self.strategy.num_replicas_in_sync
        return {name: x[number::count] if len(x.shape) else x for name, x in whole.items()} | {"whole": whole}

    def begin(self, state: Sequence[keras.Variable]) -> None:
        values = [tf.convert_to_tensor(variable.value) for variable in state]
        chiefs = self._sum(lambda number: values if number == 0 else [tf.zeros_like(value) for value in values])
        for variable, value in zip(state, chiefs, strict=True):
            variable.assign(value)

    @contextmanager
    def at_home(self) -> Iterator[None]:
        for variable, home, placed in self._homes:
            home.assign(placed.read_value())
            variable._value = home
        try:
            yield
        finally:
            for variable, _, placed in self._homes:
                variable._value = placed

    def end(self) -> None:
        for variable, home, placed in self._homes:
            home.assign(placed.read_value())
            variable._value = home
        self._homes = []

    def from_chief(self, *numbers: float) -> tuple[float, ...]:
        return self._sum_numbers(lambda number: numbers if number == 0 else [0.0] * len(numbers))

    def any(self, flag: bool) -> bool:
        (count,) = self._sum_numbers(lambda number: [float(flag)])
        return count > 0

    def _sum_numbers(self, own: Callable[[int], Sequence[float]]) -> tuple[float, ...]:
        (total,) = self._sum(lambda number: [tf.constant(own(number), tf.float64)])
        return tuple(map(float, total))

    def _sum(self, own: Callable[[int], list[tf.Tensor]]) -> list[np.ndarray]:
        """Adds up what the replicas have, each by its number."""
        return [self.strategy.experimental_local_results(x)[0].numpy() for x in self._summing(self._each(own))]

    @cached_property
    def _summing(self) -> Callable[[Any], list[Any]]:
        def one(values: list[tf.Tensor]) -> list[tf.Tensor]:
            values = [tf.identity(x) for x in values]  # an argument lies on no device
            # Those of one type together: one message instead of hundreds.
            for dtype in sorted({x.dtype for x in values}, key=str):
                places = [i for i, x in enumerate(values) if x.dtype == dtype]
                sums = tf.distribute.get_replica_context().all_reduce("SUM", [values[i] for i in places])
                values = [sums[places.index(i)] if i in places else x for i, x in enumerate(values)]
            return values

        return tf.function(lambda values: self.strategy.run(one, args=(values,)), autograph=False)
