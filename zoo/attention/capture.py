"""capture(): look at every attention map without changing a model's outputs.

    with capture() as maps:
        model(inputs)
    maps["decoder/block_0/cross_attention"]     # (B, N, T, S), float32

Inside a compiled function the maps are that function's own tensors: open capture() inside it and return them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from keras import KerasTensor

_maps: ContextVar[dict[str, KerasTensor] | None] = ContextVar("maps", default=None)
_path: ContextVar[str] = ContextVar("path", default="attend")


@contextmanager
def capture() -> Iterator[dict[str, KerasTensor]]:
    """Collects the attention weights of everything that attends inside the block.

    Yields:
        A dict that fills while layers are called: layer path -> (B, N, T, S), float32, before dropout.
        A layer called again under the same path appears as PATH, PATH#2, PATH#3 ...
    """
    maps: dict[str, KerasTensor] = {}
    token = _maps.set(maps)
    try:
        yield maps
    finally:
        _maps.reset(token)


@contextmanager
def recorded_as(path: str) -> Iterator[None]:
    """Names the maps that are recorded inside the block."""
    token = _path.set(path)
    try:
        yield
    finally:
        _path.reset(token)


def record(weights: KerasTensor) -> None:
    """Hands one map to the innermost open capture(), if there is one."""
    maps = _maps.get()
    if maps is None:
        return
    path = name = _path.get()
    calls = 1
    while name in maps:
        calls += 1
        name = f"{path}#{calls}"
    maps[name] = weights
