"""The position-wise feed-forward network, and activations by name."""

from collections.abc import Callable
from typing import Any

import keras
from keras import KerasTensor

from zoo.attention import Dropout


@keras.saving.register_keras_serializable("zoo")
def gelu_tanh(x: KerasTensor) -> KerasTensor:
    """Approximates gelu by a hyperbolic tangent, as GPT-2 does. Source: Hendrycks & Gimpel 2016, section 2."""
    return keras.activations.gelu(x, approximate=True)


def get_activation(activation: Any) -> Callable:
    """Returns an activation by its name: "gelu_tanh", or any that Keras knows."""
    return gelu_tanh if activation == "gelu_tanh" else keras.activations.get(activation)


@keras.saving.register_keras_serializable("zoo")
class FeedForward(keras.layers.Layer):
    """Widens each position, applies a nonlinearity and narrows it again.

    Args:
        hidden_dim: Width between the two projections.
        activation: "gelu_tanh", or any Keras activation by name: "relu", "gelu", "silu" ...
        gated: Multiplies the activation by a second projection (GLU: gelu gives GEGLU, silu gives SwiGLU).
        dropout: Share of hidden elements dropped while training.
        use_bias: Whether the projections add a bias.

    Call args:
        x: (B, T, D).

    Returns:
        (B, T, D).

    Source: Vaswani et al. 2017, section 3.3; gated: Shazeer 2020.
    """

    def __init__(
        self,
        hidden_dim: int,
        activation: str = "relu",
        gated: bool = False,
        dropout: float = 0.0,
        use_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.hidden_dim = hidden_dim
        self.activation = get_activation(activation)
        self.gated = gated
        self.hidden = self._projection(hidden_dim, "hidden")
        self.gate = self._projection(hidden_dim, "gate") if gated else None
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def _projection(self, width: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(width, use_bias=self.use_bias, name=name, dtype=self.dtype_policy)

    def build(self, x_shape):
        self.hidden.build(x_shape)
        if self.gate is not None:
            self.gate.build(x_shape)
        self.output_projection = self._projection(x_shape[-1], "output")
        self.output_projection.build((*x_shape[:-1], self.hidden_dim))

    def call(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        hidden = self.activation(self.hidden(x))
        if self.gate is not None:
            hidden = hidden * self.gate(x)
        return self.output_projection(self.dropout(hidden, training=training))

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "activation": keras.activations.serialize(self.activation),
            "gated": self.gated,
            "dropout": self.dropout.rate,
            "use_bias": self.use_bias,
        }
