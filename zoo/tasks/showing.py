"""What a run shows of its task in TensorBoard: the same dev examples, at every evaluation."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from zoo.pictures.classes import draw_confusion
from zoo.pictures.heads import chosen
from zoo.training.board import DEV, Board

# So many samples are run, though fewer are shown: what is a full batch to the evaluation has its program already.
_BATCH = 32
# A class more would be a curve that nobody tells from the others.
_CURVES = 10


@dataclasses.dataclass(frozen=True)
class Showing:
    """What TensorBoard shows of a run besides numbers.

    Args:
        samples: Dev examples, the first ones, whose outputs are shown.
        pictures: How many of these are shown with what their heads look at.
        kind: "encoder", "decoder" or "cross" attention; cross-attention where None, if there is some.
        layer: A layer's number, from 1; the last where None.
        head: A head's number, from 1, or "mean" of all; each of them where None.
        points: Dev examples, the first ones, behind precision-recall curves, confusion matrices and embeddings.
        histograms: Whether it is shown how each weight's values are spread.
    """

    samples: int = 8
    pictures: int = 2
    kind: Literal["encoder", "decoder", "cross"] | None = None
    layer: int | None = None
    head: int | Literal["mean"] | None = "mean"
    points: int = 256
    histograms: bool = False


def check(task: Any, examples: Sequence[Mapping[str, Any]], showing: Showing) -> None:
    """Tells whether what is to be shown is there, which would else show hours into a run.

    Raises:
        ValueError: If the model has no such kind, layer or head; it says what there is.
    """
    if showing.pictures and showing != Showing():
        picture = task.picture(examples[0])
        if picture is not None:
            chosen(picture.kinds(), showing.kind, showing.layer, showing.head)


def show(task: Any, board: Board, step: int, examples: Sequence[Mapping[str, Any]], showing: Showing) -> None:
    """Writes what the model, as it stands, makes of dev examples.

    Args:
        task: The task.
        board: Where it is written.
        step: The optimizer's.
        examples: Dev examples.
        showing: What is shown.
    """
    samples = task.samples_while_training(examples[: max(_BATCH, showing.samples)])[: showing.samples]
    for number, sample in enumerate(samples, 1):
        board.text(DEV, step, f"samples/{number}", sample)
    for number, (example, sample) in enumerate(zip(examples[: showing.pictures], samples), 1):
        picture = task.picture(example, sample["output"])
        if picture is not None:
            found = chosen(picture.kinds(), showing.kind, showing.layer, showing.head)
            layer = len(found.layers) if showing.layer is None else showing.layer
            board.image(DEV, step, f"attention/{number}", picture.to_figure(found.name, layer, showing.head))
    examples = examples[: showing.points]
    for name, guesses in task.guesses(examples).items():
        if guesses.exclusive:
            figure = draw_confusion(guesses.classes, guesses.confusion)
            board.image(DEV, step, f"confusion/{name}", figure)
        for number, label in enumerate(guesses.classes[:_CURVES]):
            right = guesses.right[:, number]
            if right.any():
                board.precision_recall(DEV, step, f"{name}/{label}", right, guesses.probabilities[:, number])
    for name, (vectors, labels) in task.embeddings(examples).items():
        board.embeddings(name, vectors, labels)
    if showing.histograms:
        for weight in task.trained_model.trainable_weights:
            board.histogram(DEV, step, weight.path, keras.ops.convert_to_numpy(weight))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Turns a recipe's nested values into named ones: {"training": {"steps": 5}} becomes {"training.steps": 5}."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = json.dumps(value) if isinstance(value, (list, tuple)) else value
    return found


def token_embeddings(
    table: keras.Variable, tokens: Sequence[str], most: int = 1000
) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Picks the rows of an embedding table that are words' beginnings, the most frequent of the corpus first.

    Args:
        table: (V, D).
        tokens: The V tokens, in the order in which byte-pair encoding learned them.
        most: How many rows.
    """
    words = [number for number, token in enumerate(tokens) if token.startswith("▁") and len(token) > 1][:most]
    return keras.ops.convert_to_numpy(table)[words], [{"token": tokens[number][1:]} for number in words]
