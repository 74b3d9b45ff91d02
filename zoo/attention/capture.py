"""capture(): look at every attention map without changing a model's outputs.

    with capture() as maps:
        model(inputs)
    maps["decoder/block_0/cross_attention"]     # (B, N, T, S), float32

Inside a compiled function the maps are that function's own tensors: open capture() inside it and return them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Optional

from keras import KerasTensor


class _Capture(NamedTuple):
    maps: dict[str, KerasTensor]
    added: Mapping[str, KerasTensor]
    outer: Optional["_Capture"]


_captures: ContextVar[_Capture | None] = ContextVar("captures", default=None)
_path: ContextVar[str] = ContextVar("path", default="attend")


@contextmanager
def capture(added: Mapping[str, KerasTensor] | None = None) -> Iterator[dict[str, KerasTensor]]:
    """Collects the attention weights of everything that attends inside the block.

    One block may stand inside another, as where a layer looks at its own weights: both collect.

    Args:
        added: By layer path, what is added to that layer's weights before they mix values. Zeros, by which one
            then differentiates, give a loss' gradient with respect to each weight: see zoo/attention/explain.py.

    Yields:
        A dict that fills while layers are called: layer path -> (B, N, T, S), float32, before dropout.
        A layer called again under the same path appears as PATH, PATH#2, PATH#3 ...
    """
    maps: dict[str, KerasTensor] = {}
    token = _captures.set(_Capture(maps, added or {}, _captures.get()))
    try:
        yield maps
    finally:
        _captures.reset(token)


@contextmanager
def recorded_as(path: str) -> Iterator[None]:
    """Names the maps that are recorded inside the block."""
    token = _path.set(path)
    try:
        yield
    finally:
        _path.reset(token)


def recording() -> bool:
    """Tells whether somebody looks."""
    return _captures.get() is not None


def record(weights: KerasTensor) -> KerasTensor:
    """Hands one map to every open capture(); returns the weights to go on with."""
    return _handed_to(_captures.get(), weights, _path.get())


def _handed_to(captured: _Capture | None, weights: KerasTensor, path: str) -> KerasTensor:
    """Goes from the outermost capture to the innermost: what an outer one adds, an inner one sees."""
    if captured is None:
        return weights
    weights = _handed_to(captured.outer, weights, path)
    name, calls = path, 1
    while name in captured.maps:
        calls += 1
        name = f"{path}#{calls}"
    captured.maps[name] = weights
    return weights + captured.added[name] if name in captured.added else weights
