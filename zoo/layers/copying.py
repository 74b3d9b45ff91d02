"""Copying from the source: a decoder that says where it looks, and a head that copies from there."""

import keras
from keras import KerasTensor, ops

from zoo.attention import capture
from zoo.layers.transformer import BlockCache, Decoder
from zoo.rows import sum_in_rows

# Less probable than anything a model would say, and far from where float32 ends.
FLOOR = 1e-30


@keras.saving.register_keras_serializable("zoo")
class PointingDecoder(Decoder):
    """A stack of decoder blocks that also says where the last one looked; the arguments are Stack's.

    Call args:
        x: (B, T, D).
        memory, self_mask, cross_mask, cache: As in Decoder.

    Returns:
        (B, T, D); and the last block's cross-attention, averaged over its heads, float32 (B, T, S).
    """

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        self_mask: KerasTensor | None = None,
        cross_mask: KerasTensor | None = None,
        *,
        cache: list[BlockCache] | None = None,
        training: bool | None = None,
    ) -> tuple[KerasTensor, KerasTensor]:
        with capture() as maps:
            y = super().call(x, memory, self_mask, cross_mask, cache=cache, training=training)
        weights = ops.mean(maps[self.pointer], axis=1)
        # Beams that share a source stand side by side in one row: see MultiHeadAttention.
        return y, ops.reshape(weights, (*ops.shape(x)[:2], ops.shape(weights)[2]))

    def compute_output_spec(self, x, memory, *args, **kwargs):
        spec = KerasTensor(x.shape, self.compute_dtype)
        return spec, KerasTensor((*x.shape[:2], memory.shape[1]), "float32")


@keras.saving.register_keras_serializable("zoo")
class PointerGenerator(keras.layers.Layer):
    """Mixes writing a token of the vocabulary with copying one of the source.

    A share of the probability, the gate, is spread over the vocabulary by the logits; the rest goes to the source's
    tokens, to each as much as all its places are looked at. The gate is a sigmoid of what was looked at, of the
    decoder's state and of its input.

    Call args:
        logits: (B, T, V).
        state: (B, T, D), which the logits were computed from.
        x: (B, T, D), the decoder's input.
        attention: (B, T, S), where the decoder looks.
        source: Integer token ids (B, S) of the same vocabulary; where there are only B / r rows, r neighbouring rows of
            the others share one.
        context: (B, S), what each place of the source says for writing when it is looked at: the product of its
            encoding with a vector of weights. Rows as those of `source`.

    Returns:
        Log-probabilities, float32 (B, T, V).

    Source: See et al. 2017, section 2.2.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = keras.layers.Dense(1, name="gate", dtype=self.dtype_policy)

    def build(self, logits_shape, state_shape, x_shape, attention_shape, source_shape, context_shape):
        self.gate.build((*state_shape[:-1], state_shape[-1] + x_shape[-1]))

    def call(
        self,
        logits: KerasTensor,
        state: KerasTensor,
        x: KerasTensor,
        attention: KerasTensor,
        source: KerasTensor,
        context: KerasTensor,
    ) -> KerasTensor:
        rows, length, vocabulary = ops.shape(logits)
        sources, places = ops.shape(source)
        attention = ops.reshape(attention, (sources, -1, places))
        looked = ops.reshape(ops.einsum("bts,bs->bt", attention, ops.cast(context, "float32")), (rows, length, 1))
        gate = ops.cast(self.gate(ops.concatenate([state, x], axis=-1)), "float32") + looked
        # Both shares from the logit: what is left of 1 would be lost in rounding.
        written = ops.softmax(ops.cast(logits, "float32"), axis=-1) * ops.sigmoid(gate)
        copied = ops.reshape(sum_by_token(attention, source, vocabulary), (rows, length, vocabulary))
        return ops.log(ops.maximum(written + copied * ops.sigmoid(-gate), FLOOR))

    def compute_output_spec(self, logits, *args, **kwargs):
        return KerasTensor(logits.shape, "float32")


def sum_by_token(weights: KerasTensor, tokens: KerasTensor, vocabulary: int) -> KerasTensor:
    """Adds up the weights of each token's places.

    Args:
        weights: (B, T, S).
        tokens: Integer (B, S).
        vocabulary: V.

    Returns:
        (B, T, V).
    """
    # Whole columns are added: a scatter costs by the number of its pieces.
    columns = ops.transpose(weights, (0, 2, 1))
    return ops.transpose(sum_in_rows(columns, tokens, vocabulary), (0, 2, 1))
