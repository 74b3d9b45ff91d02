"""encoder_decoder: the transformer of "Attention Is All You Need", for text to text."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import keras
from keras import KerasTensor, ops

from zoo.attention import Dropout, Learned, Sinusoidal, masks
from zoo.config import Config, ConfigError
from zoo.layers import BlockCache, Decoder, Encoder, PackedMask, Segments, TokenEmbedding
from zoo.models.generative import Generative

PAD, START, END = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(Config):
    """Sizes of an encoder_decoder.

    Args:
        vocabulary_size: V, of the source, and of the target too where the two share one vocabulary.
        target_vocabulary_size: V of the target where it has a vocabulary (and embeddings) of its own.
        width: D.
        num_heads: N; D / N is the head width.
        feedforward_dim: Width of the feed-forward networks' hidden layer.
        num_encoder_layers, num_decoder_layers: Blocks in each stack.
        activation: The feed-forward networks' activation.
        gated: Whether the feed-forward networks are gated.
        norm_first: Pre-norm where true, post-norm where false.
        positions: "sinusoidal", any length; or "learned", up to max_length.
        max_length: Tokens in the longest source or target, end token included.
        dropout: Of embeddings and sublayer outputs.
        attention_dropout, feedforward_dropout: Of attention weights, and of the feed-forward networks' hidden layer.
    """

    vocabulary_size: int = 8000
    target_vocabulary_size: int | None = None
    width: int = 128
    num_heads: int = 4
    feedforward_dim: int = 512
    num_encoder_layers: int = 4
    num_decoder_layers: int = 4
    activation: str = "relu"
    gated: bool = False
    norm_first: bool = True
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: int = 256
    dropout: float = 0.1
    attention_dropout: float = 0.0
    feedforward_dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide width {self.width}")

    @property
    def block(self) -> dict:
        """The arguments of each block."""
        names = ("num_heads", "feedforward_dim", "activation", "gated", "norm_first", "dropout", "attention_dropout")
        return {name: getattr(self, name) for name in (*names, "feedforward_dropout")}


@keras.saving.register_keras_serializable("zoo")
class EncoderDecoder(Generative):
    """A functional model from {"source", "target"} to logits, which can also be run half by half."""

    config_class = EncoderDecoderConfig
    config: EncoderDecoderConfig
    encode: Callable

    @classmethod
    def build_from(cls, config: EncoderDecoderConfig, name: str) -> "EncoderDecoder":
        return encoder_decoder(config, name)


def encoder_decoder(config: EncoderDecoderConfig, name: str = "encoder_decoder") -> EncoderDecoder:
    """Builds a transformer from a source text to the next token of a target text.

    A row may hold several pairs, one behind the other (packing): every source ends with END and every target
    begins with START, and from these two the model reads which tokens belong together. Pairs in a row never see
    each other, and each counts its positions from 0.

    Args:
        config: The model's sizes.
        name: The Keras model's name.

    Returns:
        A model from {"source": int (B, S), "target": int (B, T)} to logits (B, T, V), with tied embeddings.

    Source: Vaswani et al. 2017; tied embeddings: Press & Wolf 2017.
    """
    # === Layers ===
    source_embedding = target_embedding = TokenEmbedding(config.vocabulary_size, config.width, name="embedding")
    if config.target_vocabulary_size is not None:
        target_embedding = TokenEmbedding(config.target_vocabulary_size, config.width, name="target_embedding")
    source_positions = _positions(config, "source_positions")
    target_positions = _positions(config, "target_positions")
    source_dropout = Dropout(config.dropout, name="source_dropout")
    target_dropout = Dropout(config.dropout, name="target_dropout")
    source_texts = Segments(end=END, pad=PAD, name="source_texts")
    target_texts = Segments(start=START, pad=PAD, name="target_texts")
    encoder_mask = PackedMask(name="encoder_mask")
    decoder_mask = PackedMask(causal=True, name="decoder_mask")
    memory_mask = PackedMask(name="memory_mask")
    encoder = Encoder(config.num_encoder_layers, config.block, name="encoder")
    decoder = Decoder(config.num_decoder_layers, config.block, name="decoder")

    # === Two halves ===
    def encode(source: KerasTensor, training: bool | None = None) -> tuple[KerasTensor, KerasTensor]:
        segments, places = source_texts(source)
        x = source_dropout(source_positions(source_embedding(source), places), training=training)
        return encoder(x, encoder_mask(segments, segments), training=training), segments

    def decode(
        target: KerasTensor,
        memory: KerasTensor | None,
        memory_segments: KerasTensor,
        *,
        cache: list[BlockCache] | None = None,
        position: int | KerasTensor = 0,
        training: bool | None = None,
    ) -> KerasTensor:
        if cache is None:
            segments, places = target_texts(target)
            self_mask = decoder_mask(segments, segments)
            cross_mask = memory_mask(segments, memory_segments)
        else:
            places = position + ops.arange(target.shape[1], dtype="int32")
            self_mask = masks.causal(target.shape[1], cache[0].self_attention.max_length, offset=position)
            cross_mask = masks.padding(memory_segments)
        x = target_dropout(target_positions(target_embedding(target), places), training=training)
        x = decoder(x, memory, self_mask, cross_mask, cache=cache, training=training)
        return target_embedding(x, reverse=True)

    # === Functional model ===
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    logits = decode(target, *encode(source))
    return EncoderDecoder(
        inputs={"source": source, "target": target},
        outputs=logits,
        name=name,
        config=config,
        encode=encode,
        decode=decode,
        start_cache=decoder.make_cache,
    )


def _positions(config: EncoderDecoderConfig, name: str) -> keras.layers.Layer:
    return Sinusoidal(name=name) if config.positions == "sinusoidal" else Learned(config.max_length, name=name)
