"""vision_encoder_decoder: from the features of an image, and maybe a text beside it, to a text about it."""

import dataclasses
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from zoo.attention import Dropout, JointMemory, Learned, Sinusoidal, masks
from zoo.config import Config, ConfigError
from zoo.layers import BlockCache, Decoder, Encoder, PackedMask, Segments, TokenEmbedding
from zoo.layers.vision import SinusoidalGrid
from zoo.models.encoder_decoder import PAD, START, EncoderDecoder


@dataclasses.dataclass(frozen=True)
class VisionEncoderDecoderConfig(Config):
    """Sizes of a vision_encoder_decoder.

    Args:
        vocabulary_size: V.
        grid: Height and width of the grid of features, which S goes through row by row.
        feature_width: E.
        width: D.
        num_heads: N; D / N is the head width.
        feedforward_dim: Width of the feed-forward networks' hidden layer.
        num_encoder_layers: Blocks over the features; 0 for the projected features themselves.
        num_decoder_layers: Blocks over the text.
        activation: The feed-forward networks' activation.
        gated: Whether the feed-forward networks are gated.
        norm_first: Pre-norm where true, post-norm where false.
        positions: Of the text: "sinusoidal", any length; or "learned", up to max_length.
        max_length: Tokens in the longest text, end token included.
        prompts: Whether a text, such as tags, is part of the memory beside the image.
        dropout: Of embeddings, projected features and sublayer outputs.
        attention_dropout, feedforward_dropout: Of attention weights, and of the feed-forward networks' hidden layer.
    """

    vocabulary_size: int = 4000
    grid: tuple[int, int] = (7, 7)
    feature_width: int = 1280
    width: int = 256
    num_heads: int = 8
    feedforward_dim: int = 1024
    num_encoder_layers: int = 1
    num_decoder_layers: int = 3
    activation: str = "relu"
    gated: bool = False
    norm_first: bool = True
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: int = 48
    prompts: bool = False
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
class VisionEncoderDecoder(EncoderDecoder):
    """A functional model from {"features", "target"}, and "prompt" where it takes one, to logits.

    It runs half by half as an EncoderDecoder does; encode() takes the features, or {"features", "prompt"}.
    """

    config_class = VisionEncoderDecoderConfig  # type: ignore[assignment]
    config: VisionEncoderDecoderConfig  # type: ignore[assignment]

    @classmethod
    def build_from(cls, config: Any, name: str) -> "VisionEncoderDecoder":
        return vision_encoder_decoder(config, name)


def vision_encoder_decoder(
    config: VisionEncoderDecoderConfig, name: str = "vision_encoder_decoder"
) -> VisionEncoderDecoder:
    """Builds a transformer from an image's features to the next token of a text.

    A target row may hold several texts about its image, one behind the other, each led by START: they never see each
    other, and share the work on the image.

    Args:
        config: The model's sizes.
        name: The Keras model's name.

    Returns:
        A model from {"features": float (B, S, E), "target": int (B, T)} to logits (B, T, V), with tied embeddings. With
        prompts it also takes "prompt", int (B, P).

    Source: Vaswani et al. 2017; for captions: Xu et al. 2015 (attention over a grid of features).
    """
    # === Layers ===
    embedding = TokenEmbedding(config.vocabulary_size, config.width, name="embedding")
    projection = keras.layers.Dense(config.width, name="feature_projection")
    feature_norm = keras.layers.LayerNormalization(epsilon=1e-6, name="feature_norm")
    feature_positions = SinusoidalGrid(config.grid, name="feature_positions")
    feature_dropout = Dropout(config.dropout, name="feature_dropout")
    joint = JointMemory(config.width, name="joint_memory") if config.prompts else None
    encoder = Encoder(config.num_encoder_layers, config.block, name="feature_encoder")
    target_positions: keras.layers.Layer = Sinusoidal(name="target_positions")
    if config.positions == "learned":
        target_positions = Learned(config.max_length, name="target_positions")
    target_dropout = Dropout(config.dropout, name="target_dropout")
    target_texts = Segments(start=START, pad=PAD, name="target_texts")
    decoder_mask = PackedMask(causal=True, name="decoder_mask")
    decoder = Decoder(config.num_decoder_layers, config.block, name="decoder")

    # === Two halves ===
    def encode(source: Any, training: bool | None = None) -> tuple[KerasTensor, KerasTensor]:
        source = source if isinstance(source, dict) else {"features": source}
        x = feature_positions(feature_norm(projection(source["features"])))
        seen = ops.ones_like(source["features"][:, :, 0], dtype="bool")
        if joint is not None:
            prompt = source["prompt"]
            words = target_positions(embedding(prompt))
            x, both = joint([x, words], [seen, ops.not_equal(prompt, PAD)])
            seen = both[:, 0, 0]
        memory = encoder(feature_dropout(x, training=training), seen[:, None, None, :], training=training)
        return memory, ops.cast(seen, "int32")

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
        else:
            places = position + ops.arange(target.shape[1], dtype="int32")
            self_mask = masks.causal(target.shape[1], cache[0].self_attention.max_length, offset=position)
        x = target_dropout(target_positions(embedding(target), places), training=training)
        cross_mask = ops.not_equal(memory_segments, 0)[:, None, None, :]
        x = decoder(x, memory, self_mask, cross_mask, cache=cache, training=training)
        return embedding(x, reverse=True)

    # === Functional model ===
    places = config.grid[0] * config.grid[1]
    source = {"features": keras.Input((places, config.feature_width), name="features")}
    if config.prompts:
        source["prompt"] = keras.Input((None,), dtype="int32", name="prompt")
    target = keras.Input((None,), dtype="int32", name="target")
    logits = decode(target, *encode(source))
    return VisionEncoderDecoder(
        inputs={**source, "target": target},
        outputs=logits,
        name=name,
        config=config,
        encode=encode,
        decode=decode,
        start_cache=decoder.make_cache,
    )
