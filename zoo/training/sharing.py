"""Batches that several devices share: what a step has to know of that while it is traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_devices: ContextVar[int] = ContextVar("devices", default=1)


@contextmanager
def shared_by(devices: int) -> Iterator[None]:
    """Says of steps that are traced inside the block how many devices share the rows of each batch, evenly.

    The compiler divides the work on rows up by itself. It cannot do so with a loop over parts of a batch, which has to
    be written so that each device goes through its own.
    """
    token = _devices.set(devices)
    try:
        yield
    finally:
        _devices.reset(token)


def devices() -> int:
    """Returns how many devices share a batch."""
    return _devices.get()
