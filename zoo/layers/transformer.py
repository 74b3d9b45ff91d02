"""Encoder and decoder blocks of a transformer, and stacks of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import KerasTensor

from zoo.attention import Dropout, KVCache, MultiHeadAttention
from zoo.attention.scores import get_part, part_config
from zoo.layers.feedforward import FeedForward
from zoo.layers.recompute import run_block


class BlockCache(NamedTuple):
    """What one decoder block keeps between two decoding steps."""

    self_attention: KVCache
    cross_attention: KVCache | None


class Block(keras.layers.Layer):
    """What encoder and decoder blocks share: their sizes, and how a sublayer joins the residual stream.

    Args:
        num_heads: N.
        feedforward_dim: Width of the feed-forward network's hidden layer.
        activation: The feed-forward network's activation.
        gated: Whether the feed-forward network is gated.
        norm_first: Normalizes what goes into each sublayer (pre-norm) instead of the sum behind it (post-norm).
        dropout: Share of each sublayer's output dropped while training.
        attention_dropout: Share of attention weights dropped while training.
        feedforward_dropout: Share of the feed-forward network's hidden elements dropped while training.
        epsilon: Added to the variance in each normalization.
        norm: "layer", or "rms", which neither subtracts the mean nor adds a bias.
        head_dim: H; D / N where None.
        score: Of all attention, see MultiHeadAttention.
        bias: Of self-attention, see MultiHeadAttention.
        use_bias: Whether projections add a bias.

    Source: Vaswani et al. 2017, section 3.1; pre-norm: Xiong et al. 2020; "rms": Zhang & Sennrich 2019.
    """

    def __init__(
        self,
        num_heads: int,
        feedforward_dim: int,
        activation: str = "relu",
        gated: bool = False,
        norm_first: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        feedforward_dropout: float = 0.0,
        epsilon: float = 1e-6,
        norm: str = "layer",
        head_dim: int | None = None,
        score: str = "scaled_dot",
        bias: keras.layers.Layer | None = None,
        use_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.sizes: dict[str, Any] = {
            "num_heads": num_heads,
            "feedforward_dim": feedforward_dim,
            "activation": activation,
            "gated": gated,
            "norm_first": norm_first,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "feedforward_dropout": feedforward_dropout,
            "epsilon": epsilon,
            "norm": norm,
            "head_dim": head_dim,
            "score": score,
            "use_bias": use_bias,
        }
        self.bias = get_part(bias)
        self.norm_first = norm_first
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)
        hidden = (feedforward_dim, activation, gated, feedforward_dropout, use_bias)
        self.feedforward = FeedForward(*hidden, name="feedforward", dtype=self.dtype_policy)
        self.feedforward_norm = self._norm("feedforward_norm")

    def _norm(self, name: str) -> keras.layers.Layer:
        norm = keras.layers.RMSNormalization if self.sizes["norm"] == "rms" else keras.layers.LayerNormalization
        return norm(epsilon=self.sizes["epsilon"], name=name, dtype=self.dtype_policy)

    def _head_dim(self, width: int) -> int:
        num_heads, head_dim = self.sizes["num_heads"], self.sizes["head_dim"]
        if head_dim is None and width % num_heads:
            raise ValueError(f"num_heads: {num_heads} does not divide the model width {width}")
        return head_dim or width // num_heads

    def _attention(
        self,
        width: int,
        name: str,
        bias: keras.layers.Layer | None = None,
        kind: type[MultiHeadAttention] = MultiHeadAttention,
        **sizes,
    ) -> MultiHeadAttention:
        return kind(
            self.sizes["num_heads"],
            self._head_dim(width),
            score=self.sizes["score"],
            bias=bias,
            dropout=self.sizes["attention_dropout"],
            use_bias=self.sizes["use_bias"],
            name=name,
            dtype=self.dtype_policy,
            **sizes,
        )

    def _residual(self, x: KerasTensor, norm, sublayer, training: bool | None) -> KerasTensor:
        """Adds a sublayer's output to the residual stream, normalized before or behind."""
        if self.norm_first:
            return x + self.dropout(sublayer(norm(x)), training=training)
        return norm(x + self.dropout(sublayer(x), training=training))

    def compute_output_spec(self, x, *args, **kwargs):
        return KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), **self.sizes, "bias": part_config(self.bias)}


@keras.saving.register_keras_serializable("zoo")
class EncoderBlock(Block):
    """Self-attention and a feed-forward network; the arguments are Block's.

    Call args:
        x: (B, T, D).
        attention_mask: Boolean, broadcastable to (B, N, T, T).

    Returns:
        (B, T, D).

    Source: Vaswani et al. 2017, section 3.1.
    """

    def build(self, x_shape):
        self.self_attention = self._self_attention(x_shape[-1])
        self.self_attention_norm = self._norm("self_attention_norm")
        for layer in (self.self_attention, self.self_attention_norm, self.feedforward, self.feedforward_norm):
            layer.build(x_shape)

    def _self_attention(self, width: int) -> Any:
        """Makes the attention; what encoders of long texts replace."""
        return self._attention(width, "self_attention", self.bias)

    def call(
        self, x: KerasTensor, attention_mask: KerasTensor | None = None, training: bool | None = None
    ) -> KerasTensor:
        def attend_to_self(x):
            return self.self_attention(x, attention_mask=attention_mask, training=training)

        return self._sublayers(x, attend_to_self, training)

    def _sublayers(self, x: KerasTensor, attend_to_self: Callable, training: bool | None) -> KerasTensor:
        def feed_forward(x):
            return self.feedforward(x, training=training)

        x = self._residual(x, self.self_attention_norm, attend_to_self, training)
        return self._residual(x, self.feedforward_norm, feed_forward, training)


@keras.saving.register_keras_serializable("zoo")
class DecoderBlock(Block):
    """Self-attention, cross-attention to a memory and a feed-forward network; the arguments are Block's.

    A block that is built without a memory has no cross-attention: that of a language model.

    Call args:
        x: (B, T, D).
        memory: (B, S, any width); with a cache, which holds its projections, it is not looked at.
        self_mask: Boolean, broadcastable to (B, N, T, T), or over the places of the cache.
        cross_mask: Boolean, broadcastable to (B, N, T, S). Not `memory_mask`: Keras would fill that in.
        cache: This block's BlockCache, updated in place while tracing.

    Returns:
        (B, T, D).

    Source: Vaswani et al. 2017, section 3.1; without a memory: Radford et al. 2018, section 3.1.
    """

    def build(self, x_shape, memory_shape=None):
        self.self_attention = self._attention(x_shape[-1], "self_attention", self.bias)
        self.self_attention_norm = self._norm("self_attention_norm")
        for layer in (self.self_attention, self.self_attention_norm, self.feedforward, self.feedforward_norm):
            layer.build(x_shape)
        self.cross_attention: MultiHeadAttention | None = None
        if memory_shape is not None:
            self.cross_attention = self._attention(x_shape[-1], "cross_attention")
            self.cross_attention_norm = self._norm("cross_attention_norm")
            self.cross_attention.build(x_shape, memory_shape)
            self.cross_attention_norm.build(x_shape)

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        self_mask: KerasTensor | None = None,
        cross_mask: KerasTensor | None = None,
        *,
        cache: BlockCache | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        self_cache, cross_cache = cache or (None, None)
        cross_attention = self.cross_attention

        def attend_to_self(x):
            return self.self_attention(x, attention_mask=self_mask, cache=self_cache, training=training)

        def feed_forward(x):
            return self.feedforward(x, training=training)

        x = self._residual(x, self.self_attention_norm, attend_to_self, training)
        if cross_attention is not None:

            def attend_to_memory(x):
                return cross_attention(x, memory, cross_mask, cache=cross_cache, training=training)

            x = self._residual(x, self.cross_attention_norm, attend_to_memory, training)
        return self._residual(x, self.feedforward_norm, feed_forward, training)

    def make_cache(self, memory: KerasTensor | None, batch: int, max_length: int) -> BlockCache:
        """Projects the memory, where there is one, and makes room for `max_length` tokens in `batch` rows."""
        projected = None if self.cross_attention is None else self.cross_attention.memory_cache(memory)
        return BlockCache(self.self_attention.empty_cache(batch, max_length), projected)


class Stack(keras.layers.Layer):
    """Blocks one behind the other; a stack of pre-norm blocks ends with a normalization.

    Args:
        num_layers: How many blocks.
        block: Block's arguments; all blocks share one bias.
    """

    block_class: type[Block]

    def __init__(self, num_layers: int, block: dict, **kwargs):
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.block = {**block, "bias": get_part(block.get("bias"))}
        self.blocks = [
            self.block_class(**self.block, name=f"block_{i}", dtype=self.dtype_policy) for i in range(num_layers)
        ]
        self.final_norm = None
        if self.blocks and self.blocks[0].norm_first:
            self.final_norm = self.blocks[0]._norm("final_norm")

    def _build(self, x_shape, *memory_shape):
        if self.block["bias"] is not None and not self.block["bias"].built:
            self.block["bias"].build()
        for block in self.blocks:
            block.build(x_shape, *memory_shape)
        if self.final_norm is not None:
            self.final_norm.build(x_shape)

    def compute_output_spec(self, x, *args, **kwargs):
        return KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict:
        block = {**self.block, "bias": part_config(self.block["bias"])}
        return {**super().get_config(), "num_layers": self.num_layers, "block": block}


@keras.saving.register_keras_serializable("zoo")
class Encoder(Stack):
    """A stack of encoder blocks; the arguments are Stack's.

    Call args:
        x: (B, T, D).
        attention_mask: Boolean, broadcastable to (B, N, T, T).

    Returns:
        (B, T, D).
    """

    block_class: type[EncoderBlock] = EncoderBlock

    def build(self, x_shape):
        self._build(x_shape)

    def call(
        self, x: KerasTensor, attention_mask: KerasTensor | None = None, training: bool | None = None
    ) -> KerasTensor:
        for block in self.blocks:
            x = run_block(block, x, attention_mask=attention_mask, training=training)
        return x if self.final_norm is None else self.final_norm(x)


@keras.saving.register_keras_serializable("zoo")
class Decoder(Stack):
    """A stack of decoder blocks; the arguments are Stack's.

    Call args:
        x: (B, T, D).
        memory, self_mask, cross_mask: As in DecoderBlock.
        cache: One BlockCache a block, as make_cache() gives them.

    Returns:
        (B, T, D).
    """

    block_class = DecoderBlock

    def build(self, x_shape, memory_shape=None):
        self._build(x_shape, memory_shape)

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        self_mask: KerasTensor | None = None,
        cross_mask: KerasTensor | None = None,
        *,
        cache: list[BlockCache] | None = None,
        training: bool | None = None,
    ) -> KerasTensor:
        caches: Sequence[BlockCache | None] = cache or [None] * self.num_layers
        for block, block_cache in zip(self.blocks, caches, strict=True):
            looked = {"self_mask": self_mask, "cross_mask": cross_mask, "cache": block_cache}
            x = run_block(block, x, memory, **looked, training=training)
        return x if self.final_norm is None else self.final_norm(x)

    def make_cache(self, memory: KerasTensor | None, batch: int, max_length: int) -> list[BlockCache]:
        """Makes one BlockCache a block: see DecoderBlock.make_cache."""
        return [block.make_cache(memory, batch, max_length) for block in self.blocks]

    @property
    def pointer(self) -> str:
        """The path of the last block's cross-attention: where its maps are found."""
        return self.blocks[-1].cross_attention.path
