"""Several devices and machines: which there are, what each holds and works on, and how they stay in step."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import KerasTensor

from zoo.config import ConfigError, nearest

# What `zoo train --strategy` takes, by the backend that it is for.
STRATEGIES = {"tensorflow": ("mirrored", "multi-worker", "tpu"), "jax": ("data-parallel", "model-parallel=N")}

_sharing: ContextVar[int] = ContextVar("sharing", default=1)

# The two halves of a step: a batch's (metrics, gradients), and from these the metrics after the update.
Learn = Callable[[dict], tuple[dict[str, KerasTensor], list[KerasTensor]]]
Move = Callable[[dict[str, KerasTensor], list[KerasTensor]], dict[str, KerasTensor]]


class Distribution:
    """What a run asks of the devices that it works on; as it stands here, of one device in one process.

    Attributes:
        is_chief: Whether this process is the one that evaluates and writes.
        workers: How many processes work on the run.
        devices: How many devices do, of all processes.
        lost: The errors that say that another process is gone.
    """

    is_chief: bool = True
    workers: int = 1
    devices: int = 1
    lost: tuple[type[Exception], ...] = ()

    def place(self, model: keras.Model, others: Sequence[keras.Variable] = ()) -> None:
        """Puts a model's variables, and others that outlive the run, where the run needs them."""

    def place_followers(
        self, variables: Sequence[keras.Variable], followed: Sequence[keras.Variable] | None = None
    ) -> None:
        """Puts variables of the run alone where it needs them.

        Args:
            variables: The variables.
            followed: For each, the variable that it stays beside; None where there is none.
        """

    def compiled(self, learn: Learn, move: Move, state: Sequence[keras.Variable], jit: bool, matmul: Any) -> Callable:
        """Compiles a step from its two halves; everything that is read and assigned is placed."""
        form = importlib.import_module(f"zoo.training.step_{keras.backend.backend()}")
        return form.compiled(lambda batch: move(*learn(batch)), state, jit, matmul)

    def begin(self, state: Sequence[keras.Variable]) -> None:
        """Gives all processes the chief's state."""

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Lets the model be, inside the block, an ordinary one that others' programs know; nothing may change it."""
        yield

    def end(self) -> None:
        """Makes the model an ordinary one for good."""

    def from_chief(self, *numbers: float) -> tuple[float, ...]:
        """Returns the chief's numbers."""
        return numbers

    def any(self, flag: bool) -> bool:
        """Tells whether any process says so."""
        return flag


def open_strategy(word: str | None) -> Distribution:
    """Finds the devices and machines of a run.

    Args:
        word: "mirrored", the GPUs of this machine; "multi-worker", the machines that TF_CONFIG names, where this has to
            be called before TensorFlow works on anything; "tpu"; on JAX "data-parallel", or "model-parallel=N",
            which divides each model up among N devices. None for one device.

    Raises:
        ConfigError: If there is no such word on this backend, or it does not fit what is there.
    """
    if word is None:
        return Distribution()
    backend = keras.backend.backend()
    here = STRATEGIES.get(backend, ())
    name, _, ways = word.partition("=")
    owners = {choice.partition("=")[0]: owner for owner, choices in STRATEGIES.items() for choice in choices}
    if owners.get(name) != backend:
        if name in owners:
            problem = f"it is for the {owners[name]} backend; on {backend} there is {', '.join(here) or 'none'}"
        else:
            problem = nearest(name, here)
        raise ConfigError(f"--strategy {word!r}: {problem}")
    if (name == "model-parallel") != bool(ways) or (ways and not ways.isdecimal()):
        raise ConfigError(f"--strategy {word!r}: it is {', '.join(here)}, where N is a number of devices")
    module = importlib.import_module(f"zoo.training.distribution_{backend}")
    return module.open_strategy(name, int(ways or 1))


def check_rows(rows: int, replicas: int) -> None:
    """Tells whether a batch can be divided up.

    Raises:
        ConfigError: If replicas would get different numbers of rows.
    """
    if rows % replicas:
        raise ConfigError(
            f"batching: a batch of {rows} rows cannot be divided up among {replicas} replicas; choose a size of "
            f"batches that gives a multiple of {replicas}"
        )


def rows_of(batch: Mapping[str, Any]) -> int:
    """Counts a batch's rows."""
    return next(value.shape[0] for value in batch.values() if len(value.shape))


@contextmanager
def shared_by(devices: int) -> Iterator[None]:
    """Says of steps that are traced inside the block how many devices share the rows of each batch, in one program.

    The compiler divides the work on rows up by itself. It cannot do so with a loop over parts of a batch, which has to
    be written so that each device goes through its own.
    """
    token = _sharing.set(devices)
    try:
        yield
    finally:
        _sharing.reset(token)


def sharing_devices() -> int:
    """Returns how many devices share a batch."""
    return _sharing.get()
