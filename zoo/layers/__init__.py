"""The parts between attention and a whole model: embeddings, feed-forward networks, blocks and stacks of blocks."""

from zoo.layers.copying import PointerGenerator, PointingDecoder
from zoo.layers.embedding import LogitBias, TokenEmbedding
from zoo.layers.feedforward import FeedForward, gelu_tanh, get_activation
from zoo.layers.long import LocalEncoder, LocalEncoderBlock, RecurrentEncoder, RecurrentEncoderBlock
from zoo.layers.packing import PackedMask, Segments
from zoo.layers.pooling import KeyMask, MeanPooling
from zoo.layers.transformer import BlockCache, Decoder, DecoderBlock, Encoder, EncoderBlock
from zoo.layers.vision import (
    ClassToken,
    DepthwiseConvolution,
    GridPositions,
    PatchEmbedding,
    SinusoidalGrid,
    StoredNormalization,
)

__all__ = [
    "BlockCache",
    "ClassToken",
    "Decoder",
    "DecoderBlock",
    "DepthwiseConvolution",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "GridPositions",
    "KeyMask",
    "LocalEncoder",
    "LocalEncoderBlock",
    "LogitBias",
    "MeanPooling",
    "PackedMask",
    "PatchEmbedding",
    "PointerGenerator",
    "PointingDecoder",
    "RecurrentEncoder",
    "RecurrentEncoderBlock",
    "Segments",
    "SinusoidalGrid",
    "StoredNormalization",
    "TokenEmbedding",
    "gelu_tanh",
    "get_activation",
]
