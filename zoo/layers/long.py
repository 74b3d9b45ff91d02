"""Encoders of long texts, at a cost that grows with the length only: by windows, or chunk by chunk with a memory."""

import keras
from keras import KerasTensor, ops

from zoo.attention import LocalAttention, RelativeAttention, masks
from zoo.attention.local import blocks
from zoo.layers.recompute import run_block
from zoo.layers.transformer import Encoder, EncoderBlock


@keras.saving.register_keras_serializable("zoo")
class LocalEncoderBlock(EncoderBlock):
    """An encoder block in which each place sees its neighbourhood, and the first tokens of its text.

    Its weights are those of an EncoderBlock.

    Args:
        window: How far a place sees, itself included.
        global_tokens: How many tokens at the beginning of each text see all of it and are seen by all of it.
        **kwargs: Block's.

    Call args:
        x: (B, T, D).
        segments: Integer (B, T): places see their own segment only, and segment 0 is padding.

    Returns:
        (B, T, D).

    Source: Beltagy et al. 2020, section 3.1; Zaheer et al. 2020, section 2.
    """

    def __init__(self, window: int, global_tokens: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.window = window
        self.global_tokens = global_tokens

    def _self_attention(self, width: int):
        sizes = {"window": self.window, "global_tokens": self.global_tokens}
        return self._attention(width, "self_attention", self.bias, LocalAttention, **sizes)

    def call(self, x: KerasTensor, segments: KerasTensor | None = None, training: bool | None = None) -> KerasTensor:
        return self._sublayers(x, lambda x: self.self_attention(x, segments, training=training), training)

    def get_config(self) -> dict:
        return {**super().get_config(), "window": self.window, "global_tokens": self.global_tokens}


@keras.saving.register_keras_serializable("zoo")
class LocalEncoder(Encoder):
    """A stack of local encoder blocks; the arguments are Stack's.

    Call args:
        x: (B, T, D).
        segments: Integer (B, T): places see their own segment only, and segment 0 is padding.

    Returns:
        (B, T, D).

    Source: Beltagy et al. 2020, section 3.1; Zaheer et al. 2020, section 2.
    """

    block_class = LocalEncoderBlock

    def call(self, x: KerasTensor, segments: KerasTensor | None = None, training: bool | None = None) -> KerasTensor:
        for block in self.blocks:
            x = run_block(block, x, segments=segments, training=training)
        return x if self.final_norm is None else self.final_norm(x)


@keras.saving.register_keras_serializable("zoo")
class RecurrentEncoderBlock(EncoderBlock):
    """An encoder block in which a chunk of a text also sees a memory of earlier ones, by Transformer-XL's positions.

    The arguments are Block's, but RelativeAttention has no biases, and a score and positions of its own.

    Call args:
        x: (B, T, D), a chunk.
        memory: (B, M, D), what carry() kept of this block's earlier x, or None; no gradient flows into it.
        attention_mask: Boolean, broadcastable to (B, N, T, M + T).

    Returns:
        (B, T, D).

    Source: Dai et al. 2019, sections 3.2 and 3.3.
    """

    def _self_attention(self, width: int):
        dropout = self.sizes["attention_dropout"]
        heads = self.sizes["num_heads"], self._head_dim(width)
        return RelativeAttention(*heads, dropout, name="self_attention", dtype=self.dtype_policy)

    def call(  # type: ignore[override]
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        attention_mask: KerasTensor | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        if memory is not None and self.norm_first:
            memory = self.self_attention_norm(memory)

        def attend_to_self(x):
            return self.self_attention(x, memory, attention_mask, training=training)

        return self._sublayers(x, attend_to_self, training)


@keras.saving.register_keras_serializable("zoo")
class RecurrentEncoder(Encoder):
    """A stack of blocks that reads a text chunk by chunk: each sees itself and, in every block, the chunks before it.

    A block computes all chunks at once, since what they remember is the input of the block itself: the numbers are
    those of one chunk after the other. Texts may be longer than any that was trained on.

    Args:
        num_layers, block: Stack's.
        chunk: Places in a chunk, counted from the beginning of the row.
        memory: How many chunks before its own a place sees; through the blocks it hears of those before them.

    Call args:
        x: (B, T, D).
        segments: Integer (B, T): places see their own segment only, and segment 0 is padding.

    Returns:
        (B, T, D).

    Raises:
        ValueError: If chunk is not positive.

    Source: Dai et al. 2019, section 3.2.
    """

    block_class = RecurrentEncoderBlock

    def __init__(self, num_layers: int, block: dict, chunk: int, memory: int = 1, **kwargs):
        super().__init__(num_layers, block, **kwargs)
        if chunk < 1 or memory < 0:
            raise ValueError(f"chunk, memory: {chunk}, {memory}; a chunk has a place at least, and 0 is no memory")
        self.chunk = chunk
        self.memory = memory

    def call(self, x: KerasTensor, segments: KerasTensor | None = None, training: bool | None = None) -> KerasTensor:
        batch, length, width = ops.shape(x)
        size = min(self.chunk, length) if isinstance(length, int) else self.chunk  # a traced length is no int
        segments = ops.ones((batch, length), "int32") if segments is None else ops.cast(segments, "int32")
        earlier = tuple(range(-self.memory, 0))
        mask = masks.segment(blocks(segments, size, (0,)), blocks(segments, size, (*earlier, 0)))
        x = blocks(x, size, (0,))
        for block in self.blocks:
            memory = blocks(ops.reshape(x, (batch, -1, width)), size, earlier) if earlier else None
            x = run_block(block, x, memory, attention_mask=mask, training=training)
        x = ops.reshape(x, (batch, -1, width))[:, :length]
        return x if self.final_norm is None else self.final_norm(x)

    def get_config(self) -> dict:
        return {**super().get_config(), "chunk": self.chunk, "memory": self.memory}
