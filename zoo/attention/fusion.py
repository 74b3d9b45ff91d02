"""Fusion: one query side, several sources - an image and a text, a document and a table - as memory."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from zoo.attention.multi_head import MultiHeadAttention


@keras.saving.register_keras_serializable("zoo")
class JointMemory(keras.layers.Layer):
    """Lays several sources one behind the other, so that one cross-attention weighs all their places together.

    Each source is projected to one width and gets a learned vector that tells which it is.

    Args:
        width: D of the memory.

    Call args:
        sources: (B, S1, D1), (B, S2, D2), ...
        key_masks: For each source boolean (B, Si) or None; None where all places count.

    Returns:
        The memory (B, S1 + S2 + ..., D), and its mask, boolean (B, 1, 1, S1 + S2 + ...).

    Raises:
        ValueError: If there are not as many masks as sources.

    Source: modality embeddings: Kim et al. 2021, section 3.1.
    """

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, sources_shape):
        self.projections = [
            keras.layers.Dense(self.width, name=f"source_{i}", dtype=self.dtype_policy)
            for i in range(len(sources_shape))
        ]
        for projection, shape in zip(self.projections, sources_shape, strict=True):
            projection.build(shape)
        self.modalities = self.add_weight(
            (len(sources_shape), self.width), keras.initializers.RandomNormal(stddev=0.02), name="modalities"
        )

    def call(
        self, sources: Sequence[KerasTensor], key_masks: Sequence[KerasTensor | None] | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        _check_sources("sources", sources, len(self.projections))
        key_masks = [None] * len(sources) if key_masks is None else key_masks
        _check_sources("key_masks", key_masks, len(self.projections))
        memory = [
            projection(source) + modality
            for projection, source, modality in zip(
                self.projections, sources, ops.unstack(ops.convert_to_tensor(self.modalities))
            )
        ]
        seen = [
            ops.ones(ops.shape(source)[:2], "bool") if mask is None else mask
            for source, mask in zip(sources, key_masks, strict=True)
        ]
        return ops.concatenate(memory, axis=1), ops.concatenate(seen, axis=1)[:, None, None, :]

    def get_config(self) -> dict:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("zoo")
class GatedCrossAttention(keras.layers.Layer):
    """Attends to each source by a cross-attention of its own and sums what they give, each through a gate.

    The gate of a source is sigmoid(x W), one number for each element: x decides what it takes from where.

    Args:
        num_heads: N of each cross-attention.
        head_dim: H of each.
        dropout: Share of attention weights dropped while training.

    Call args:
        x: (B, T, D).
        memories: (B, S1, D1), (B, S2, D2), ...
        attention_masks: For each memory boolean, broadcastable to (B, N, T, Si), or None.

    Returns:
        (B, T, D).

    Source: Libovicky & Helcl 2017 (one attention a source, combined); gates: Arevalo et al. 2017.
    """

    def __init__(self, num_heads: int, head_dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout

    def build(self, x_shape, memories_shape):
        self.attentions, self.gates = [], []
        for i, memory_shape in enumerate(memories_shape):
            attention = MultiHeadAttention(
                self.num_heads, self.head_dim, dropout=self.dropout, name=f"attention_{i}", dtype=self.dtype_policy
            )
            attention.build(x_shape, memory_shape)
            gate = keras.layers.Dense(x_shape[-1], "sigmoid", name=f"gate_{i}", dtype=self.dtype_policy)
            gate.build(x_shape)
            self.attentions.append(attention)
            self.gates.append(gate)

    def call(
        self,
        x: KerasTensor,
        memories: Sequence[KerasTensor],
        attention_masks: Sequence[KerasTensor | None] | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        _check_sources("memories", memories, len(self.attentions))
        attention_masks = [None] * len(memories) if attention_masks is None else attention_masks
        _check_sources("attention_masks", attention_masks, len(self.attentions))
        return sum(
            gate(x) * attention(x, memory, mask, training=training)
            for gate, attention, memory, mask in zip(self.gates, self.attentions, memories, attention_masks)
        )

    def compute_output_spec(self, x, *args, **kwargs):
        return KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "dropout": self.dropout,
        }


def _check_sources(name: str, given: Sequence, count: int) -> None:
    if len(given) != count:
        raise ValueError(f"{name}: {len(given)} given, this layer was built for {count}")
