"""From token ids to vectors and back to logits."""

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable("zoo")
class TokenEmbedding(keras.layers.ReversibleEmbedding):
    """Embeds tokens, and with reverse=True scores a vector against every token by the same table (tied weights).

    The table starts with rows of about unit length and is multiplied by sqrt(D) on the way in, so that embeddings
    have unit elements and logits unit size.

    Args:
        vocabulary_size: V.
        width: D.
        scale: Whether rows are multiplied by sqrt(D); models that normalize their embeddings do without.

    Call args:
        x: Integer ids (B, T); with reverse=True vectors (B, T, D).
        reverse: Whether to project back.

    Returns:
        (B, T, D), or logits (B, T, V).

    Source: Vaswani et al. 2017, section 3.4; Press & Wolf 2017.
    """

    def __init__(self, vocabulary_size: int, width: int, scale: bool = True, **kwargs):
        kwargs.setdefault("embeddings_initializer", keras.initializers.RandomNormal(stddev=width**-0.5))
        super().__init__(vocabulary_size, width, **kwargs)
        self.scale = scale

    def call(self, x: KerasTensor, reverse: bool = False) -> KerasTensor:
        if reverse:
            # Keras would leave the table in float32, so that logits would change type with whoever calls.
            table = ops.cast(self.embeddings, self.reverse_dtype or self.compute_dtype)
            return ops.matmul(ops.cast(x, table.dtype), ops.transpose(table))
        y = super().call(x)
        return y * self.output_dim**0.5 if self.scale else y

    def get_config(self) -> dict:
        config = super().get_config()
        sizes = {"vocabulary_size": config.pop("input_dim"), "width": config.pop("output_dim")}
        return {**sizes, **config, "scale": self.scale}


@keras.saving.register_keras_serializable("zoo")
class LogitBias(keras.layers.Layer):
    """Adds one learned number a token to logits.

    Call args:
        logits: (B, T, V).

    Returns:
        (B, T, V).
    """

    def build(self, logits_shape):
        self.bias = self.add_weight(shape=(logits_shape[-1],), initializer="zeros", name="bias")

    def call(self, logits: KerasTensor) -> KerasTensor:
        return logits + ops.cast(self.bias, logits.dtype)

    def compute_output_shape(self, logits_shape):
        return logits_shape
