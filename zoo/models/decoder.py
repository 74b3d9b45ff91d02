"""decoder: a language model, which goes on from a text; with features of an image, one that looks at them too."""

import dataclasses
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from zoo.attention import Dropout, Learned, Sinusoidal, masks
from zoo.config import Config, ConfigError
from zoo.layers import BlockCache, Decoder, LogitBias, PackedMask, TokenEmbedding, get_activation
from zoo.models.generative import Generative, SpecialTokens


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Config):
    """Sizes of a decoder.

    Args:
        vocabulary_size: V.
        width: D.
        num_heads: N; D / N is the head width.
        feedforward_dim: Width of the feed-forward networks' hidden layer; 4 D where None.
        num_layers: Blocks.
        activation: The feed-forward networks' activation.
        gated: Whether the feed-forward networks are gated.
        norm_first: Pre-norm where true, post-norm where false.
        epsilon: Added to the variance in each normalization.
        positions: "learned", up to max_length; or "sinusoidal", any length.
        max_length: Tokens in the longest text.
        embedding_scale: Whether embeddings are multiplied by sqrt(D).
        embedding_norm: Whether embeddings are normalized.
        feature_width: E of the features that are attended to; None for a language model alone.
        feature_projection: Whether features are projected to D first.
        output_hidden: Activation of a normalized layer between the blocks and the logits; no such layer where None.
        output_bias: Whether each token has a learned number that is added to its logits.
        special_tokens: Tokens that are no words.
        dropout: Of embeddings and sublayer outputs.
        attention_dropout, feedforward_dropout: Of attention weights, and of the feed-forward networks' hidden layer.
    """

    vocabulary_size: int = 8000
    width: int = 256
    num_heads: int = 4
    feedforward_dim: int | None = None
    num_layers: int = 4
    activation: str = "gelu_tanh"
    gated: bool = False
    norm_first: bool = True
    epsilon: float = 1e-5
    positions: Literal["learned", "sinusoidal"] = "learned"
    max_length: int = 256
    embedding_scale: bool = True
    embedding_norm: bool = False
    feature_width: int | None = None
    feature_projection: bool = False
    output_hidden: str | None = None
    output_bias: bool = False
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.1
    attention_dropout: float = 0.0
    feedforward_dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide width {self.width}")
        if self.feature_projection and self.feature_width is None:
            raise ConfigError("feature_projection: true without feature_width; there are no features to project")

    @property
    def block(self) -> dict:
        """The arguments of each block."""
        names = ("num_heads", "activation", "gated", "norm_first", "dropout", "attention_dropout", "epsilon")
        return {
            **{name: getattr(self, name) for name in (*names, "feedforward_dropout")},
            "feedforward_dim": self.feedforward_dim or 4 * self.width,
        }


@keras.saving.register_keras_serializable("zoo")
class DecoderModel(Generative):
    """A functional model from {"target"}, and {"features"} where it takes them, to logits."""

    config_class = DecoderConfig
    config: DecoderConfig

    @classmethod
    def build_from(cls, config: DecoderConfig, name: str) -> "DecoderModel":
        return decoder(config, name)


def decoder(config: DecoderConfig, name: str = "decoder") -> DecoderModel:
    """Builds a model from a text to its next token, with random weights.

    A row holds one text; what stands behind it changes nothing.

    Args:
        config: The model's sizes.
        name: The Keras model's name.

    Returns:
        A model from {"target": int (B, T)}, and with feature_width {"features": float (B, S, E)} too, to logits
        (B, T, V), with tied embeddings.

    Source: Radford et al. 2019, section 2.3.
    """
    # === Layers ===
    embedding = TokenEmbedding(config.vocabulary_size, config.width, scale=config.embedding_scale, name="embedding")
    positions: keras.layers.Layer = Sinusoidal(name="positions")
    if config.positions == "learned":
        positions = Learned(config.max_length, name="positions")
    embedding_norm = _norm(config, "embedding_norm") if config.embedding_norm else None
    dropout = Dropout(config.dropout, name="dropout")
    projection = keras.layers.Dense(config.width, name="feature_projection") if config.feature_projection else None
    mask = PackedMask(causal=True, name="mask")
    stack = Decoder(config.num_layers, config.block, name="decoder")
    output_hidden = output_norm = None
    if config.output_hidden is not None:
        output_hidden = keras.layers.Dense(config.width, get_activation(config.output_hidden), name="output_hidden")
        output_norm = _norm(config, "output_norm")
    output_bias = LogitBias(name="output_bias") if config.output_bias else None

    # === Two halves ===
    def encode(source: Any, training: bool | None = None) -> tuple[KerasTensor, None]:
        features = source["features"] if isinstance(source, dict) else source
        return features if projection is None else projection(features), None

    def decode(
        target: KerasTensor,
        memory: KerasTensor | None,
        memory_segments: None,
        *,
        cache: list[BlockCache] | None = None,
        position: int | KerasTensor = 0,
        training: bool | None = None,
    ) -> KerasTensor:
        if cache is None:
            x = positions(embedding(target))
            one_text = ops.ones_like(target)
            self_mask = mask(one_text, one_text)
        else:
            x = positions(embedding(target), position + ops.arange(target.shape[1], dtype="int32"))
            self_mask = masks.causal(target.shape[1], cache[0].self_attention.max_length, offset=position)
        x = dropout(x if embedding_norm is None else embedding_norm(x), training=training)
        x = stack(x, memory, self_mask, cache=cache, training=training)
        if output_hidden is not None and output_norm is not None:
            x = output_norm(output_hidden(x))
        logits = embedding(x, reverse=True)
        return logits if output_bias is None else output_bias(logits)

    # === Functional model ===
    inputs = {"target": keras.Input((None,), dtype="int32", name="target")}
    memory = None
    if config.feature_width is not None:
        inputs["features"] = keras.Input((None, config.feature_width), name="features")
        memory, _ = encode(inputs)
    logits = decode(inputs["target"], memory, None)
    return DecoderModel(
        inputs=inputs,
        outputs=logits,
        name=name,
        config=config,
        encode=None if config.feature_width is None else encode,
        decode=decode,
        start_cache=stack.make_cache,
        special_tokens=config.special_tokens,
    )


def _norm(config: DecoderConfig, name: str) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(epsilon=config.epsilon, name=name)
