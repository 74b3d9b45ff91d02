"""Where a captioner looks when it writes each word, as a PNG or as a page to point at words."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
from PIL import Image

from zoo.pictures.attention import AttentionMaps
from zoo.pictures.heads import Head, Kind, chosen, draw_heads, head_names, page, picked
from zoo.pictures.picture import Picture

# Longest side of a picture, in pixels: of a panel in the PNG, and in the page.
_PANEL, _PAGE_SIDE = 320, 640
# Of the PNG, in inches.
_WIDTH, _ROW = 12.0, 2.2
# Where a word does not look at all, so much of the picture is covered with this shade: bright and dark things show.
_COVERED, _SHADE = 0.8, 190


@dataclasses.dataclass(frozen=True)
class CaptionMaps(Picture):
    """Where a captioner looks for each word of one caption; save() writes it to a .png or a .html.

    The picture shines through where a word looks: wholly where it looks most, whatever its share of all attention.

    Args:
        image: uint8 (height, width, 3).
        words: The caption's words.
        maps: (words, grid height, grid width), not negative. The grid covers the whole image.
        heads: The same by layer and head, and whatever else the model looks at; the keys of words are the grid's
            places. Where there is none, `maps` is the only layer's only head.

    Raises:
        ValueError: If there is not one map a word, or the image is no picture.
    """

    image: np.ndarray
    words: Sequence[str]
    maps: np.ndarray
    heads: Sequence[Kind] = ()

    def __post_init__(self):
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"image: {self.image.dtype} {self.image.shape}; it takes uint8 (height, width, 3)")
        if self.maps.ndim != 3 or len(self.maps) != len(self.words) or not self.words:
            raise ValueError(f"maps: {self.maps.shape} for {len(self.words)} words; it takes (words, height, width)")
        places = self.maps.shape[1] * self.maps.shape[2]
        for kind in self.heads:
            for path, heads in kind.layers.items():
                if kind.keys is None and heads.shape[2] != places:
                    raise ValueError(f"heads: {path} looks at {heads.shape[2]} places; the grid has {places}")

    @classmethod
    def from_tokens(
        cls,
        image: np.ndarray,
        tokens: Sequence[str],
        maps: Mapping[str, np.ndarray],
        grid: tuple[int, int],
        *,
        first: int = 0,
        layers: Literal["last", "all"] = "last",
        start: str = "<s>",
    ) -> Self:
        """Makes maps of words from what capture() saw of tokens: heads, and the tokens of a word, are averaged.

        Args:
            image: uint8 (height, width, 3).
            tokens: The T tokens of the caption, as its tokenizer calls them.
            maps: Layer path -> (N, T + 1, S) of cross-attention, (N, S, S) of paths with "encoder/", (N, T + 1, T + 1)
                of all others. Row t of T + 1 is of the query that token t came of.
            grid: Height and width of the grid of features in the memory.
            first: How many places of the memory, such as a class token, are before the grid.
            layers: Whether the last layer's maps are taken, or the mean of all layers'.
            start: What stood before the tokens.

        Raises:
            ValueError: If there is no cross-attention, or it is too small for the tokens or the grid.
        """
        crossing = {path: heads for path, heads in maps.items() if "cross_attention" in path}
        if not crossing:
            raise ValueError(f"maps: no cross-attention among {sorted(maps)}")
        places = grid[0] * grid[1]
        _, rows, columns = next(iter(crossing.values())).shape
        if rows < len(tokens) or columns < first + places:
            raise ValueError(
                f"maps: {rows} x {columns} places; {len(tokens)} tokens and a grid of "
                f"{grid[0]} x {grid[1]} behind {first} take more"
            )
        words = [word for word, _ in word_groups(tokens)]
        groups = [group for _, group in word_groups(tokens)]
        seen = {
            path: np.stack([heads[:, group, first : first + places].mean(axis=1) for group in groups], axis=1)
            for path, heads in crossing.items()
        }
        averaged = [heads.mean(axis=0) for heads in seen.values()][-1 if layers == "last" else 0 :]
        within = {
            path: heads[:, first : first + places, first : first + places]
            for path, heads in maps.items()
            if "encoder/" in path and path not in crossing
        }
        read = {path: heads for path, heads in maps.items() if path not in crossing and path not in within}
        kinds = [Kind("encoder", None, None, within)] if within else []
        kinds += AttentionMaps([], [start, *tokens], read).kinds() if read else []
        kinds += [Kind("cross", words, None, seen)]
        return cls(image, words, np.mean(averaged, axis=0).reshape(-1, *grid).astype(np.float32), kinds)

    def kinds(self) -> Sequence[Kind]:
        every = self.maps.reshape(1, len(self.words), -1)
        return self.heads or [Kind("cross", self.words, None, {"cross_attention": every})]

    def to_figure(self, kind: str | None = None, layer: int | None = None, head: Head | None = None):
        """Draws the picture with its caption, and one panel a word.

        Args:
            kind: "decoder" draws heads from token to token instead; "encoder" a panel a head, lit where the picture's
                places look, on average.
            layer: Where words look in this layer, from 1, instead of in those that were averaged.
            head: Where words look by this head of the layer, the last where None.

        Raises:
            ValueError: For something that is not there; it says what is.
        """
        found = chosen(self.kinds(), kind, layer, head)
        if found.keys is not None:
            return draw_heads(found, layer, head)
        titles, heads = self.words, [*found.layers.values()][(layer or 0) - 1]
        if found.queries is None:
            titles, maps = head_names(len(heads), head), picked(heads, head).mean(axis=1)
        elif layer is None and head is None:
            maps = self.maps
        else:
            maps = picked(heads, head or "mean")[0]
        return self._panels(titles, maps.reshape(-1, *self.maps.shape[1:]))

    def _panels(self, titles: Sequence[str], maps: np.ndarray):
        """Draws the picture, and a panel for each map."""
        from matplotlib.figure import Figure

        image = _scaled_down(self.image, _PANEL)
        height, width = image.shape[:2]
        panel = _ROW * min(max(width / height, 0.4), 2.5)  # of a very tall or wide picture the panel is not
        columns = min(int(_WIDTH / panel), len(titles) + 1)
        rows = -(-(len(titles) + 1) // columns)
        figure = Figure(figsize=(panel * columns, 0.4 + (_ROW + 0.3) * rows), layout="constrained")
        # No dollar sign of a caption begins a formula.
        figure.suptitle(" ".join(self.words), fontsize=11, wrap=True, parse_math=False)
        lights = [np.ones((height, width)), *(_light(weights, height, width) for weights in maps)]
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in axes:
            place.set_axis_off()
        for place, title, light in zip(axes, ["", *titles], lights):
            covered = _COVERED * (1 - light[..., None])
            place.imshow((image * (1 - covered) + _SHADE * covered).round().astype(np.uint8))
            place.set_title(title, fontsize=10, parse_math=False)
        return figure

    def to_html(self, kind: str | None = None, layer: int | None = None, head: Head | None = None) -> str:
        """Returns one page with the picture in it, lit where the word looks that is pointed at.

        Args:
            kind: What the page begins with; where words look on the picture where None.
            layer: The layer that it begins with, from 1; the last where None.
            head: The head that it begins with, from 1; the mean of all heads where None.

        Raises:
            ValueError: For something that is not there; it says what is.
        """
        kinds, (_, *grid) = self.kinds(), self.maps.shape
        found = chosen(kinds, kind, layer, head)
        return page(kinds, found, layer, head, image=_scaled_down(self.image, _PAGE_SIDE), grid=grid)


def word_groups(tokens: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Joins tokens to words, by the marks of the usual tokenizers.

    Args:
        tokens: As their tokenizer calls them: "▁dog" or "Ġdog" begins a word, "##s" goes on with one; punctuation
            stands alone.

    Returns:
        For each word its text, and the numbers of its tokens.
    """
    marked = any(token.startswith(("▁", "Ġ")) for token in tokens)
    words: list[tuple[str, list[int]]] = []
    for number, token in enumerate(tokens):
        goes_on = not token.startswith(("▁", "Ġ")) if marked else token.startswith("##")
        text = token.lstrip("▁Ġ") if marked else token.removeprefix("##")
        if goes_on and words and not _is_punctuation(text):
            word, group = words[-1]
            words[-1] = (word + text, [*group, number])
        else:
            words.append((text, [number]))
    return words


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in text)


def _light(weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Smooths a map onto a picture, as (height, width) from 0 to 1 where it is highest."""
    smooth = Image.fromarray(weights.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    light = np.clip(np.asarray(smooth), 0, None)
    return light / max(float(light.max()), 1e-12)


def _scaled_down(image: np.ndarray, longest: int) -> np.ndarray:
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    size = [max(1, round(side * longest / max(height, width))) for side in (width, height)]
    return np.asarray(Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BOX))
