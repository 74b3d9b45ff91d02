"""The parts between attention and a whole model: embeddings, feed-forward networks, blocks and stacks of blocks."""

from zoo.layers.embedding import LogitBias, TokenEmbedding
from zoo.layers.feedforward import FeedForward, gelu_tanh, get_activation
from zoo.layers.packing import PackedMask, Segments
from zoo.layers.pooling import KeyMask, MeanPooling
from zoo.layers.transformer import BlockCache, Decoder, DecoderBlock, Encoder, EncoderBlock

__all__ = [
    "BlockCache",
    "Decoder",
    "DecoderBlock",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "KeyMask",
    "LogitBias",
    "MeanPooling",
    "PackedMask",
    "Segments",
    "TokenEmbedding",
    "gelu_tanh",
    "get_activation",
]
