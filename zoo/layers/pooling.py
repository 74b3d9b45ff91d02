"""What a stack over single texts needs around it: which places are text, and their mean."""

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable("zoo")
class KeyMask(keras.layers.Layer):
    """Tells tokens from padding.

    Args:
        pad: Token that fills rows.

    Call args:
        tokens: Integer (B, T).

    Returns:
        Boolean (B, T), True for tokens.
    """

    def __init__(self, pad: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.pad = pad

    def call(self, tokens: KerasTensor) -> KerasTensor:
        return ops.not_equal(tokens, self.pad)

    def compute_output_spec(self, tokens):
        return KerasTensor(tokens.shape, "bool")

    def get_config(self) -> dict:
        return {**super().get_config(), "pad": self.pad}


@keras.saving.register_keras_serializable("zoo")
class MeanPooling(keras.layers.Layer):
    """Averages the features of a text's tokens.

    Call args:
        x: (B, T, D).
        key_mask: Boolean (B, T), True for places that count.

    Returns:
        (B, D); zeros for a row without tokens.
    """

    def call(self, x: KerasTensor, key_mask: KerasTensor) -> KerasTensor:
        weights = ops.cast(key_mask, x.dtype)[..., None]
        return ops.sum(x * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)

    def compute_output_spec(self, x, key_mask):
        return KerasTensor((x.shape[0], x.shape[2]), self.compute_dtype)
