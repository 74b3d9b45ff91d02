"""Packing: several texts one behind the other in a row of fixed length, told apart by their start or end tokens."""

import keras
from keras import KerasTensor, ops

from zoo.attention import masks
from zoo.attention.positions import least_of_group


@keras.saving.register_keras_serializable("zoo")
class Segments(keras.layers.Layer):
    """Numbers the texts of each row from 1, and the places of each text from 0.

    Args:
        start: Token that begins each text, or
        end: token that ends each text; one of the two.
        pad: Token that fills the rest of a row; its segment is 0, and so are its places.
        trailing: Tokens that stand behind each text's end and belong to it, such as the name of its language.

    Call args:
        ids: Integer token ids, (B, T).

    Returns:
        Segments and positions, both int32 (B, T).

    Raises:
        ValueError: If both or neither of start and end are given.
    """

    def __init__(
        self, start: int | None = None, end: int | None = None, pad: int | None = None, trailing: int = 0, **kwargs
    ):
        super().__init__(**kwargs)
        if (start is None) == (end is None):
            raise ValueError(f"start, end: {start}, {end}; give one of the two")
        self.start = start
        self.end = end
        self.pad = pad
        self.trailing = trailing

    def call(self, ids: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        if self.start is not None:
            segments = ops.cumsum(ops.cast(ops.equal(ids, self.start), "int32"), axis=1)
        else:
            ends = ops.cast(ops.equal(ids, self.end), "int32")
            if self.trailing:
                ends = ops.pad(ends, [[0, 0], [self.trailing, 0]])[:, : -self.trailing]
            segments = 1 + ops.cumsum(ends, axis=1) - ends
        if self.pad is not None:
            segments = ops.where(ops.equal(ids, self.pad), 0, segments)
        counts = ops.cumsum(ops.cast(segments > 0, "int32"), axis=1)
        places = counts - least_of_group(counts, segments)
        # Padding may be longer than any text: counted on, it would leave the range of learned positions.
        return segments, ops.where(segments > 0, places, 0)

    def compute_output_spec(self, ids):
        return keras.KerasTensor(ids.shape, "int32"), keras.KerasTensor(ids.shape, "int32")

    def get_config(self) -> dict:
        own = {"start": self.start, "end": self.end, "pad": self.pad, "trailing": self.trailing}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("zoo")
class PackedMask(keras.layers.Layer):
    """Lets each query see the keys of its own text.

    Args:
        causal: Whether keys behind the query's own place are hidden too.

    Call args:
        query_segments: int32 (B, T).
        key_segments: int32 (B, S).

    Returns:
        Boolean (B, 1, T, S).
    """

    def __init__(self, causal: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.causal = causal

    def call(self, query_segments: KerasTensor, key_segments: KerasTensor) -> KerasTensor:
        mask = masks.segment(query_segments, key_segments)
        return mask & masks.causal(ops.shape(query_segments)[1]) if self.causal else mask

    def compute_output_spec(self, query_segments, key_segments):
        return keras.KerasTensor((query_segments.shape[0], 1, query_segments.shape[1], key_segments.shape[1]), "bool")

    def get_config(self) -> dict:
        return {**super().get_config(), "causal": self.causal}
