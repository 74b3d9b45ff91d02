"""Norms of gradients and updates, summed up by layers: what a run shows of where it learns."""

import re
from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

_NUMBERED = re.compile(r".*_\d+")


def group_of(path: str) -> str:
    """Returns what a variable belongs to: its block, or else the part of the model before the first slash.

    "encoder/block_3/feedforward/hidden/kernel" is of "encoder/block_3", "embedding/embeddings" of "embedding".
    """
    parts = path.split("/")
    numbered = (number for number, part in enumerate(parts, 1) if _NUMBERED.fullmatch(part))
    return "/".join(parts[: next(numbered, 1)])


class GroupNorms:
    """The Euclidean norm of each group of layers.

    Args:
        variables: Whose gradients and updates are measured.

    Attributes:
        names: The groups, in the order of their first variables.
    """

    def __init__(self, variables: Sequence[keras.Variable]):
        self.groups = [group_of(variable.path) for variable in variables]
        self.names = list(dict.fromkeys(self.groups))

    def __call__(self, tensors: Sequence[KerasTensor]) -> KerasTensor:
        """Measures one tensor a variable; returns (groups,)."""
        squares = dict.fromkeys(self.names, 0.0)
        for group, tensor in zip(self.groups, tensors, strict=True):
            squares[group] += ops.sum(ops.square(ops.cast(tensor, "float32")))
        return ops.sqrt(ops.stack(list(squares.values())))
