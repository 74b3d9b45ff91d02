"""Random bits that cost next to nothing: a counter, hashed with a key by a few integer operations.

A generator of cryptographic strength spends a large part of a small model's CPU step on bits that only decide which
elements drop out. XLA fuses this hash into whatever uses it.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras
from keras import KerasTensor, ops

_derived: ContextVar[Iterator[KerasTensor] | None] = ContextVar("derived", default=None)
_sequence: ContextVar[KerasTensor | None] = ContextVar("sequence", default=None)


def next_seed(generator: keras.random.SeedGenerator) -> KerasTensor:
    """Draws the next seed from a generator, or from what seeds_from() was given: integers (2,)."""
    seeds, number = _derived.get(), _sequence.get()
    if seeds is not None:
        return next(seeds)
    if number is None:
        return generator.next()
    first, second = ops.unstack(ops.cast(generator.next(), "uint32"))
    return ops.stack([first ^ ops.cast(number, "uint32") * word(0x85EBCA6B), second])


@contextmanager
def own_sequence(number: KerasTensor) -> Iterator[None]:
    """Gives all seeds that generators draw inside the block to one of several replicas alone.

    Args:
        number: The replica's: an integer scalar, 0 for the seeds as they are.
    """
    token = _sequence.set(number)
    try:
        yield
    finally:
        _sequence.reset(token)


@contextmanager
def seeds_from(seed: KerasTensor) -> Iterator[None]:
    """Derives all seeds that are drawn inside the block from one, so that what runs twice draws the same twice.

    Args:
        seed: Integers (2,), as a SeedGenerator gives them.
    """
    # A generator counts in the second number: counting in the first one, derived seeds are nobody else's.
    first, second = ops.unstack(ops.cast(seed, "uint32"))
    seeds = (ops.stack([first ^ word(n * 0x9E3779B9 % 2**32), second]) for n in itertools.count())
    token = _derived.set(seeds)
    try:
        yield
    finally:
        _derived.reset(token)


def random_bits(seed: KerasTensor, size: int | KerasTensor) -> KerasTensor:
    """Draws uniform 32-bit words.

    Args:
        seed: Integers (..., 2), for example what keras.random.SeedGenerator.next() gives.
        size: How many words for each seed.

    Returns:
        uint32 (..., size).

    Source: the multiply-xorshift finaliser with Wellons' 2018 low-bias constants (github.com/skeeto/hash-prospector);
        a second key enters between its two rounds, so that the sequences of two keys share next to no words. It is
        not added: after one multiplication two sequences may be one, shifted, and a sum would leave them so.
    """
    seed = ops.cast(seed, "uint32")[..., None]
    first = _mix(seed[..., 0, :] ^ _mix(seed[..., 1, :]))
    second = _mix(first ^ word(0x9E3779B9))
    return _mix(ops.cast(ops.arange(size, dtype="int32"), "uint32") ^ first, second)


def word(value: int) -> KerasTensor:
    """Makes an unsigned 32-bit constant."""
    return ops.convert_to_tensor(value, dtype="uint32")


def _mix(words: KerasTensor, key: KerasTensor | None = None) -> KerasTensor:
    words = (words ^ ops.right_shift(words, word(16))) * word(0x7FEB352D)
    if key is not None:
        words = words ^ key
    words = (words ^ ops.right_shift(words, word(15))) * word(0x846CA68B)
    return words ^ ops.right_shift(words, word(16))
