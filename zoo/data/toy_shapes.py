"""Toy images with captions: coloured shapes, drawn on the spot."""

import io
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from zoo.data.toy_texts import checked_count, split_of

# Side of an image in pixels.
SIDE = 64

_COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 119, 180),
    "yellow": (240, 200, 30),
    "purple": (148, 80, 190),
    "black": (30, 30, 30),
}
_RADII = {"small": 7, "large": 13}
# Corners on a circle of radius 1; a circle has none.
_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": (),
    "square": ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "triangle": ((0, -1), (0.9, 0.7), (-0.9, 0.7)),
    "diamond": ((0, -1), (0.7, 0), (0, 1), (-0.7, 0)),
}
# Where the first thing is, from the second: how it is said, and said the other way round. A scene with the second thing
# first would be the same scene.
_RELATIONS = {(0, -1): ("above", "below"), (-1, 0): ("left of", "right of")}


class _Thing(NamedTuple):
    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


class _Scene(NamedTuple):
    first: _Thing
    second: _Thing
    side: tuple[int, int]


def shapes(count: int | None = None, seed: int = 0, split: str = "train") -> list[dict[str, Any]]:
    """Draws different images of two shapes, with three captions each.

        {"image": PNG bytes, "captions": ["a small red circle above a large blue square", ...], "name": "shapes-0"}

    A caption belongs to the same split whatever the count and the seed: splits never share one.

    Args:
        count: How many examples; None takes the split's entry in SIZES.
        seed: The same seed gives the same examples in the same order.
        split: "train", "validation" or "test".

    Returns:
        Examples {"image": ..., "captions": [...], "name": ...}.

    Raises:
        ValueError: For an unknown split, or more examples than there are.
    """
    dice = random.Random(seed)
    scenes = [scene for scene in _scenes() if split_of(_captions(scene)[0]) == split]
    drawn = dice.sample(scenes, checked_count(count, split, len(scenes)))
    return [
        {"image": _drawn(dice, scene), "captions": _captions(scene), "name": f"shapes-{number}"}
        for number, scene in enumerate(drawn)
    ]


def _scenes() -> Iterator[_Scene]:
    """Yields all there is to see."""
    things = [_Thing(size, colour, shape) for size in _RADII for colour in _COLOURS for shape in _CORNERS]
    for first in things:
        for second in things:
            if first != second:
                yield from (_Scene(first, second, side) for side in _RELATIONS)


def _captions(scene: _Scene) -> list[str]:
    said, reversed_said = _RELATIONS[scene.side]
    first, second = scene.first, scene.second
    return [
        f"{first} {said} {second}",
        f"{second} {reversed_said} {first}",
        f"there is {first} {said} {second}",
    ]


def _drawn(dice: random.Random, scene: _Scene) -> bytes:
    """Draws a scene, each shape somewhere in its half, on a light ground."""
    light = dice.randint(215, 255)
    image = Image.new("RGB", (SIDE, SIDE), (light, light, light))
    draw = ImageDraw.Draw(image)
    for thing, direction in ((scene.first, 1), (scene.second, -1)):
        radius = _RADII[thing.size]
        centre = []
        for axis in scene.side:
            low, high = radius + 1, SIDE - radius - 1
            if axis * direction < 0:
                high = SIDE // 2 - radius
            elif axis * direction > 0:
                low = SIDE // 2 + radius
            centre.append(dice.randint(min(low, high), max(low, high)))
        x, y = centre
        if thing.shape == "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), _COLOURS[thing.colour])
        else:
            draw.polygon([(x + radius * a, y + radius * b) for a, b in _CORNERS[thing.shape]], _COLOURS[thing.colour])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
