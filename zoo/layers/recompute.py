"""Blocks that are computed again on the way back, instead of being remembered from the way there."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import keras
from keras import KerasTensor

from zoo.attention.capture import recording
from zoo.random import next_seed, seeds_from

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def recomputing(on: bool = True) -> Iterator[None]:
    """Lets gradients that are taken inside the block compute every transformer block twice and hold only its inputs.

    Source: Chen et al. 2016, section 4.
    """
    token = _recomputing.set(on)
    try:
        yield
    finally:
        _recomputing.reset(token)


def run_block(block: keras.layers.Layer, *inputs: KerasTensor | None, **arguments: Any) -> KerasTensor:
    """Calls a block; inside recomputing() so that it remembers nothing but its inputs.

    What looks at attention, as a capture() does, looks at what is computed once: the block is called as ever then.

    Args:
        block: With as many Dropout layers as it likes: they drop the same elements both times.
        inputs: What gradients go through, in the order of the block's call; at the end some may be None.
        arguments: The other ones of its call, among them `training`.

    Returns:
        What the block gives.
    """
    call = partial(block, **arguments)
    if not (_recomputing.get() and arguments["training"]) or recording():
        return call(*inputs)
    generators = (layer.seed_generator for layer in block._flatten_layers() if hasattr(layer, "seed_generator"))
    seed = next((next_seed(generator) for generator in generators), None)

    def seeded(*inputs: KerasTensor) -> KerasTensor:
        with nullcontext() if seed is None else seeds_from(seed):
            return call(*inputs)

    return keras.remat(seeded)(*[x for x in inputs if x is not None])
