"""Every layer's heads: as a figure with a panel each, and as a page to click through."""

import base64
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Literal

import numpy as np
from PIL import Image

KINDS = ("encoder", "decoder", "cross")
# A number from 1, or the mean of all heads.
Head = int | Literal["mean"]

# Of a figure, in inches: a weight's square and the least side of a panel; how wide everything may become.
_SQUARE, _PANEL, _WIDEST = 0.24, 1.8, 36.0
# Of a figure's tokens, in points; where they would be smaller than the least they are left out.
_FONT, _LEAST_FONT = 7.0, 3.0
# Whichever of these is installed writes what the first has no glyphs for.
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")


@dataclasses.dataclass(frozen=True)
class Kind:
    """The maps of one kind of attention; they share queries and keys.

    Args:
        name: "encoder", "decoder" or "cross".
        queries: T tokens; None where they are the places of an image's grid, row by row.
        keys: S tokens, or None as well.
        layers: Layer path -> (N, T, S), not negative, first layer first.

    Raises:
        ValueError: If a map has another shape.
    """

    name: str
    queries: Sequence[str] | None
    keys: Sequence[str] | None
    layers: Mapping[str, np.ndarray]

    def __post_init__(self):
        takes = ["places" if tokens is None else len(tokens) for tokens in (self.queries, self.keys)]
        for path, heads in self.layers.items():
            fits = heads.ndim == 3 and all(n in ("places", m) for n, m in zip(takes, heads.shape[1:]))
            if not fits:
                raise ValueError(f"maps: {path} is {heads.shape}; it takes (heads, {takes[0]}, {takes[1]})")


def chosen(kinds: Sequence[Kind], kind: str | None, layer: int | None, head: Head | None) -> Kind:
    """Finds a kind of attention and checks that it has a layer and a head.

    Args:
        kinds: What there is.
        kind: A kind's name; None for the last one, which is "cross" where there is cross-attention.
        layer: A layer's number, from 1; None for any.
        head: A head's number, from 1; "mean" or None for any.

    Raises:
        ValueError: For something that is not there; it says what is.
    """
    found = {k.name: k for k in kinds}.get(kind or kinds[-1].name)
    if found is None:
        raise ValueError(f"kind: {kind!r}; this model has {', '.join(k.name for k in kinds)}")
    layers = list(found.layers.values())
    if layer is not None and not 1 <= layer <= len(layers):
        raise ValueError(f"layer: {layer}; {found.name} has layers 1 to {len(layers)}")
    heads = max(map(len, layers if layer is None else [layers[layer - 1]]))
    if head not in (None, "mean") and not (isinstance(head, int) and 1 <= head <= heads):
        raise ValueError(f"head: {head!r}; {found.name} has heads 1 to {heads}, and 'mean'")
    return found


def picked(heads: np.ndarray, head: Head | None) -> np.ndarray:
    """Picks a head of (N, T, S), or their mean, as (1, T, S); all of them where None."""
    if head == "mean":
        return heads.mean(axis=0, keepdims=True)
    return heads if head is None else heads[head - 1 : head]


def head_names(count: int, head: Head | None) -> list[str]:
    """Names the heads that picked() gives of `count`."""
    if head == "mean":
        return ["mean of the heads"]
    return [f"head {number}" for number in (range(1, count + 1) if head is None else [head])]


def draw_heads(kind: Kind, layer: int | None = None, head: Head | None = None):
    """Draws maps between tokens as a matplotlib figure: a row for each layer, a column for each head.

    Args:
        kind: The maps; queries and keys are tokens.
        layer: The only layer to draw, from 1.
        head: The only head to draw, from 1, or "mean".

    Raises:
        ValueError: If they are none.
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    if kind.queries is None or kind.keys is None:
        raise ValueError("kind: it takes tokens; these are places of an image")
    layers = enumerate(kind.layers.items(), 1)
    drawn = {path: picked(heads, head) for number, (path, heads) in layers if layer in (None, number)}
    columns = max(map(len, drawn.values()))
    square = min(_SQUARE, _WIDEST / (columns * len(kind.keys)))
    width, height = (max(_PANEL, square * len(tokens)) for tokens in (kind.keys, kind.queries))
    installed = set(fontManager.get_font_names())
    # No dollar sign of a token begins a formula.
    size = _FONT * square / _SQUARE
    text = {"fontsize": size, "parse_math": False, "family": [font for font in _FONTS if font in installed]}
    readable = size >= _LEAST_FONT

    # Room for the tokens beside and below: a character takes about 0.6 of its height, an inch has 72 points.
    left, below = (max(map(len, tokens)) * size * 0.6 / 72 * readable for tokens in (kind.queries, kind.keys))
    sides = 0.6 + left + width * columns, 0.5 + below + (height + 0.1) * len(drawn)
    figure = Figure(figsize=sides, layout="constrained")
    grid = figure.subplots(len(drawn), columns, squeeze=False)
    for line, (row, (path, heads)) in enumerate(zip(grid, drawn.items()), 1):
        for number, axes in enumerate(row):
            if number >= len(heads):
                axes.set_axis_off()
                continue
            axes.imshow(heads[number], cmap="Purples", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            axes.set_xticks(range(len(kind.keys)), kind.keys, rotation=90, **text)
            axes.set_yticks(range(len(kind.queries)), kind.queries, **text)
            first, last = readable and number == 0, readable and line == len(drawn)
            axes.tick_params(length=2 if readable else 0, labelleft=first, labelbottom=last)
            axes.spines[:].set_color("#bbb")
        row[0].set_ylabel(path.replace("/", "/\n").replace("/\n", "/", path.count("/") - 1), fontsize=_FONT)
    for axes, name in zip(grid[0], head_names(columns, head)):
        axes.set_title(name, fontsize=_FONT + 1)
    return figure


def page(
    kinds: Sequence[Kind],
    kind: Kind,
    layer: int | None = None,
    head: Head | None = None,
    *,
    image: np.ndarray | None = None,
    grid: Sequence[int] = (),
) -> str:
    """Returns one page of HTML with every map in it, which loads nothing from anywhere.

    A weight takes a byte: it is kept in 255ths of the largest weight of its query.

    Args:
        kinds: All maps.
        kind: The kind that the page begins with.
        layer: The layer that it begins with, from 1; the last where None.
        head: The head that it begins with, from 1; the mean of all heads where None.
        image: uint8 (height, width, 3), where queries or keys are places of its grid.
        grid: Height and width of that grid.
    """
    data = {
        "kinds": [
            {
                "name": k.name,
                "queries": k.queries and list(k.queries),
                "keys": k.keys and list(k.keys),
                "layers": [{"path": path, "heads": len(heads), **_packed(heads)} for path, heads in k.layers.items()],
            }
            for k in kinds
        ],
        "kind": [k.name for k in kinds].index(kind.name),
        "layer": (layer or len(kind.layers)) - 1,
        "head": head - 1 if isinstance(head, int) else "mean",
        "image": None if image is None else {"source": _source(image), "height": grid[0], "width": grid[1]},
    }
    template = resources.files("zoo.pictures").joinpath("heads.html").read_text(encoding="utf-8")
    # "<" is escaped so that no token can close the script element.
    return template.replace("DATA", json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))


def _packed(heads: np.ndarray) -> dict[str, str]:
    """Packs (N, T, S) into bytes, and the largest weight of each query, as float32."""
    largest = heads.max(axis=-1, keepdims=True)
    bytes_ = np.rint(255 * heads / np.maximum(largest, 1e-30)).astype(np.uint8)
    return {"largest": _text(largest.astype("<f4").tobytes()), "weights": _text(bytes_.tobytes())}


def _source(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{_text(file.getvalue())}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
