"""A confusion matrix as a figure."""

from collections.abc import Sequence

import numpy as np

# Of the figure, in inches: a cell, the least side, and the most; a count is written into cells where there is room.
_CELL, _LEAST, _MOST, _ROOM = 0.55, 3.5, 14.0, 0.3


def draw_confusion(classes: Sequence[str], counts: np.ndarray):
    """Draws how often each class was taken for which, as a matplotlib figure.

    Args:
        classes: Their names.
        counts: (classes, classes); a row is what is right, a column what was guessed.
    """
    from matplotlib.figure import Figure

    side = min(max(_LEAST, _CELL * len(classes) + 1.5), _MOST)
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Purples", vmin=0, vmax=1)
    size = min(9.0, 72 * side / (2 * len(classes)))
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(classes)), classes, fontsize=size, parse_math=False)
    axes.set_xlabel("guessed")
    axes.set_ylabel("right")
    axes.spines[:].set_color("#bbb")
    if side / len(classes) >= _ROOM:
        for (row, column), count in np.ndenumerate(counts):
            dark = shares[row, column] > 0.5
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color="w" if dark else "k")
    return figure
