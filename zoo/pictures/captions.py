"""Where a captioner looks when it writes each word, as a PNG or as a page to point at words."""

import base64
import dataclasses
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
from PIL import Image

from zoo.pictures.picture import Picture

# Longest side of a picture, in pixels: of a panel in the PNG, and in the page.
_PANEL, _PAGE_SIDE = 320, 640
# Of the PNG, in inches.
_WIDTH, _ROW = 12.0, 2.2
# Where a word does not look at all, so much of the picture is covered with this shade: bright and dark things show.
_COVERED, _SHADE = 0.8, 190
# Longest side of a map in the page; the browser smooths it further.
_FINE = 64


@dataclasses.dataclass(frozen=True)
class CaptionMaps(Picture):
    """Where a captioner looks for each word of one caption; save() writes it to a .png or a .html.

    The picture shines through where a word looks: wholly where it looks most, whatever its share of all attention.

    Args:
        image: uint8 (height, width, 3).
        words: The caption's words.
        maps: (words, grid height, grid width), not negative. The grid covers the whole image.

    Raises:
        ValueError: If there is not one map a word, or the image is no picture.
    """

    image: np.ndarray
    words: Sequence[str]
    maps: np.ndarray

    def __post_init__(self):
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"image: {self.image.dtype} {self.image.shape}; it takes uint8 (height, width, 3)")
        if self.maps.ndim != 3 or len(self.maps) != len(self.words) or not self.words:
            raise ValueError(f"maps: {self.maps.shape} for {len(self.words)} words; it takes (words, height, width)")

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
    ) -> Self:
        """Makes maps of words from what capture() saw of tokens: heads, and the tokens of a word, are averaged.

        Args:
            image: uint8 (height, width, 3).
            tokens: The T tokens of the caption, as its tokenizer calls them.
            maps: Layer path -> (N, T or more, S); cross-attention alone is looked at. Row t is of the query that
                token t came of.
            grid: Height and width of the grid of features in the memory.
            first: How many places of the memory, such as a class token, are before the grid.
            layers: Whether the last layer's maps are taken, or the mean of all layers'.

        Raises:
            ValueError: If there is no cross-attention, or it is too small for the tokens or the grid.
        """
        crossing = [weights for path, weights in maps.items() if "cross_attention" in path]
        if not crossing:
            raise ValueError(f"maps: no cross-attention among {sorted(maps)}")
        chosen = crossing if layers == "all" else crossing[-1:]
        weights = np.stack([heads.mean(axis=0) for heads in chosen]).mean(axis=0)
        places = grid[0] * grid[1]
        if weights.shape[0] < len(tokens) or weights.shape[1] < first + places:
            raise ValueError(
                f"maps: {weights.shape[0]} x {weights.shape[1]} places; {len(tokens)} tokens and a grid of "
                f"{grid[0]} x {grid[1]} behind {first} take more"
            )
        words = word_groups(tokens)
        merged = [weights[group, first : first + places].mean(axis=0) for _, group in words]
        return cls(image, [word for word, _ in words], np.reshape(merged, (-1, *grid)).astype(np.float32))

    def to_figure(self):
        """Draws the picture with its caption, and one panel a word."""
        from matplotlib.figure import Figure

        image = _scaled_down(self.image, _PANEL)
        height, width = image.shape[:2]
        panel = _ROW * min(max(width / height, 0.4), 2.5)  # of a very tall or wide picture the panel is not
        columns = min(int(_WIDTH / panel), len(self.words) + 1)
        rows = -(-(len(self.words) + 1) // columns)
        figure = Figure(figsize=(panel * columns, 0.4 + (_ROW + 0.3) * rows), layout="constrained")
        # No dollar sign of a caption begins a formula.
        figure.suptitle(" ".join(self.words), fontsize=11, wrap=True, parse_math=False)
        lights = [np.ones((height, width)), *(_light(weights, height, width) for weights in self.maps)]
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in axes:
            place.set_axis_off()
        for place, word, light in zip(axes, ["", *self.words], lights):
            covered = _COVERED * (1 - light[..., None])
            place.imshow((image * (1 - covered) + _SHADE * covered).round().astype(np.uint8))
            place.set_title(word, fontsize=10, parse_math=False)
        return figure

    def to_html(self) -> str:
        """Returns one page with the picture in it, lit where the word looks that is pointed at."""
        image = _scaled_down(self.image, _PAGE_SIDE)
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=90)
        height, width = self.maps.shape[1:]
        times = max(1, _FINE // max(height, width))
        fine = [_light(weights, height * times, width * times) for weights in self.maps]
        data = {
            "words": list(self.words),
            "width": width * times,
            "height": height * times,
            "lights": [_text((255 * light).round().astype(np.uint8).tobytes()) for light in fine],
            "covered": _COVERED,
            "shade": _SHADE,
        }
        # "<" is escaped so that no word can close the script element.
        found = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
        return _PAGE.replace("IMAGE", _text(file.getvalue())).replace("DATA", found)


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


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Where the caption looks</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
  #picture { position: relative; display: inline-block; min-width: 320px; line-height: 0; }
  #picture img { width: 100%; min-height: 1px; }
  canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
  #caption { font-size: 20px; }
  button { font: inherit; padding: .1rem .3rem; border: 0; border-radius: .3rem; background: none; cursor: pointer; }
  button.on { background: #222; color: #fff; }
  #says { color: #555; }
</style>
<p id="caption"></p>
<div id="picture"><img alt="" src="data:image/jpeg;base64,IMAGE"><canvas></canvas></div>
<p id="says">Point at a word to see where it looks; click to keep it, again to let go.</p>
<script>
const data = DATA;
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
canvas.width = data.width;
canvas.height = data.height;
const shades = data.lights.map(text => {
  const shade = context.createImageData(data.width, data.height);
  Array.from(atob(text)).forEach((light, i) => {
    shade.data.set([data.shade, data.shade, data.shade, data.covered * (255 - light.charCodeAt(0))], 4 * i);
  });
  return shade;
});
let kept = -1;
function show(number) {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (number >= 0) context.putImageData(shades[number], 0, 0);
  buttons.forEach((button, i) => button.classList.toggle("on", i === number));
}
const buttons = data.words.map((word, number) => {
  const button = document.createElement("button");
  button.textContent = word;
  button.onmouseenter = button.onfocus = () => show(number);
  button.onmouseleave = button.onblur = () => show(kept);
  button.onclick = () => show(kept = kept === number ? -1 : number);
  return button;
});
document.getElementById("caption").append(...buttons);
</script>
</html>
"""
