"""Pooling: from a sequence to one vector, by attention."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from zoo.attention.capture import record, recorded_as
from zoo.attention.core import softmax
from zoo.attention.multi_head import MultiHeadAttention


@keras.saving.register_keras_serializable("zoo")
class AttentionPooling(keras.layers.Layer):
    """Pools a sequence by multi-head attention with one learned query.

    Args:
        num_heads: N; the head width is D / N.
        dropout: Share of attention weights dropped while training.

    Call args:
        x: (B, S, D).
        key_mask: Boolean (B, S), True for places that count.

    Returns:
        (B, D).

    Raises:
        ValueError: If num_heads does not divide D.

    Source: Yang et al. 2016, section 2.2; with heads and projections: Lee et al. 2019, section 3.2.
    """

    def __init__(self, num_heads: int = 1, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout

    def build(self, x_shape):
        width = x_shape[-1]
        if width % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} does not divide the width {width}")
        self.query = self.add_weight((1, 1, width), keras.initializers.RandomNormal(stddev=0.02), name="query")
        self.attention = MultiHeadAttention(
            self.num_heads, width // self.num_heads, dropout=self.dropout, name="attention", dtype=self.dtype_policy
        )
        self.attention.build((x_shape[0], 1, width), x_shape)

    def call(self, x: KerasTensor, key_mask: KerasTensor | None = None, training: bool | None = None) -> KerasTensor:
        query = ops.broadcast_to(ops.cast(self.query, x.dtype), (ops.shape(x)[0], 1, x.shape[-1]))
        return self.attention(query, x, _over_keys(key_mask), training=training)[:, 0]

    def compute_output_shape(self, x_shape):
        return (x_shape[0], x_shape[-1])

    def get_config(self) -> dict:
        return {**super().get_config(), "num_heads": self.num_heads, "dropout": self.dropout}


@keras.saving.register_keras_serializable("zoo")
class GatedAttentionPooling(keras.layers.Layer):
    """Pools the features of a small network by gates that attention gives: sum over s of (softmax(x W1) W2) * mlp(x).

    The softmax runs over the places, once for each head; W2 mixes the heads into one gate for each feature.

    Args:
        num_heads: Columns of W1.
        features: Width of the result.
        activation: Of the network's hidden layer, which is as wide as the result.

    Call args:
        x: (B, S, D).
        key_mask: Boolean (B, S), True for places that count.

    Returns:
        (B, features).

    Source: after Ilse et al. 2018, section 2.4 (gated attention pooling), with a gate for each feature.
    """

    def __init__(self, num_heads: int, features: int, activation: str = "gelu", **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.features = features
        self.activation = activation
        self.score = keras.layers.Dense(num_heads, use_bias=False, name="score", dtype=self.dtype_policy)
        self.gate = keras.layers.Dense(features, use_bias=False, name="gate", dtype=self.dtype_policy)
        self.hidden = keras.layers.Dense(features, activation, name="hidden", dtype=self.dtype_policy)
        self.output_projection = keras.layers.Dense(features, name="output", dtype=self.dtype_policy)

    def build(self, x_shape):
        self.score.build(x_shape)
        self.gate.build((*x_shape[:-1], self.num_heads))
        self.hidden.build(x_shape)
        self.output_projection.build((*x_shape[:-1], self.features))

    def call(self, x: KerasTensor, key_mask: KerasTensor | None = None) -> KerasTensor:
        logits = ops.cast(ops.transpose(self.score(x), (0, 2, 1)), "float32")[:, :, None]
        with recorded_as(self.path):
            weights = record(softmax(logits, _over_keys(key_mask)))
        gates = self.gate(ops.cast(ops.transpose(weights[:, :, 0], (0, 2, 1)), x.dtype))
        return ops.sum(gates * self.output_projection(self.hidden(x)), axis=1)

    def compute_output_shape(self, x_shape):
        return (x_shape[0], self.features)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "features": self.features,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable("zoo")
class TaskAttention(keras.layers.Layer):
    """One attention pooling that several tasks share, and one gate a task that takes from it what the task needs.

    Where the tasks look is learned from all of them; what each makes of it is its own: gate(pooled) * pooled, with
    gate = sigmoid(pooled W + b) for each task.

    Args:
        tasks: The tasks' names.
        num_heads: N; the head width is D / N.
        dropout: Share of attention weights dropped while training.

    Call args:
        x: (B, S, D), the shared features.
        key_mask: Boolean (B, S), True for places that count.

    Returns:
        A dict from each task to its features (B, D).

    Raises:
        ValueError: If there is no task, or one occurs twice.

    Source: after Liu et al. 2019, "End-to-End Multi-Task Learning with Attention" (a shared pool, soft masks by task).
    """

    def __init__(self, tasks: Sequence[str], num_heads: int = 1, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks: {list(tasks)}; it takes at least one, and each once")
        self.tasks = list(tasks)
        self.pooling = AttentionPooling(num_heads, dropout, name="pooling", dtype=self.dtype_policy)

    def build(self, x_shape):
        self.pooling.build(x_shape)
        width = x_shape[-1]
        self.gates = [
            keras.layers.Dense(width, "sigmoid", name=f"gate_{task}", dtype=self.dtype_policy) for task in self.tasks
        ]
        for gate in self.gates:
            gate.build((x_shape[0], width))

    def call(
        self, x: KerasTensor, key_mask: KerasTensor | None = None, training: bool | None = None
    ) -> dict[str, KerasTensor]:
        pooled = self.pooling(x, key_mask, training=training)
        return {task: gate(pooled) * pooled for task, gate in zip(self.tasks, self.gates, strict=True)}

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "tasks": self.tasks,
            "num_heads": self.pooling.num_heads,
            "dropout": self.pooling.dropout,
        }


def _over_keys(key_mask: KerasTensor | None) -> KerasTensor | None:
    return None if key_mask is None else key_mask[:, None, None, :]
