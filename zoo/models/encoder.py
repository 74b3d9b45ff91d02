"""encoder: a stack of self-attending blocks over one text, with any number of heads on top."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import keras
from keras import KerasTensor

from zoo.attention import AttentionPooling, Dropout, GatedAttentionPooling, Learned, Sinusoidal, TaskAttention
from zoo.config import Config, ConfigError
from zoo.layers import Encoder, KeyMask, LocalEncoder, MeanPooling, TokenEmbedding
from zoo.models.functional import Functional


def check_window(window: int | None, global_tokens: int) -> None:
    """Refuses what is no window, and global tokens that reach beyond it.

    Raises:
        ConfigError: Where they do not fit together.
    """
    if window is not None and window < 1:
        raise ConfigError(f"window: {window}; it is at least 1, or null for none")
    if not 0 <= global_tokens <= (window or 0):
        raise ConfigError(f"global_tokens: {global_tokens} with window {window}; it is 0 up to the window")


@dataclasses.dataclass(frozen=True)
class EncoderConfig(Config):
    """Sizes of an encoder.

    Args:
        vocabulary_size: V.
        width: D.
        num_heads: N; D / N is the head width.
        feedforward_dim: Width of the feed-forward networks' hidden layer.
        num_layers: Blocks.
        activation: The feed-forward networks' activation.
        gated: Whether the feed-forward networks are gated.
        norm_first: Pre-norm where true, post-norm where false.
        epsilon: Added to the variance in each normalization.
        positions: "sinusoidal", any length; or "learned", up to max_length.
        max_length: Tokens in the longest text, special tokens included.
        window: How far a token sees, itself included; None for all of the text. With a window, cost and memory grow
            with the length only.
        global_tokens: With a window, how many tokens at the beginning of a text see all of it and are seen by all.
        num_segments: Kinds of segments, such as question and passage, that have an embedding; 0 for none.
        embedding_width: Of the token, position and segment embeddings where they are not D wide.
        embedding_norm: Whether embeddings are normalized; their tokens are not scaled by sqrt(D) then.
        pad: Token that fills rows.
        dropout: Of embeddings and sublayer outputs.
        attention_dropout, feedforward_dropout: Of attention weights, and of the feed-forward networks' hidden layer.
    """

    vocabulary_size: int = 8000
    width: int = 128
    num_heads: int = 4
    feedforward_dim: int = 512
    num_layers: int = 4
    activation: str = "gelu"
    gated: bool = False
    norm_first: bool = True
    epsilon: float = 1e-6
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: int = 256
    window: int | None = None
    global_tokens: int = 0
    num_segments: int = 0
    embedding_width: int | None = None
    embedding_norm: bool = False
    pad: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.0
    feedforward_dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads: {self.num_heads} does not divide width {self.width}")
        check_window(self.window, self.global_tokens)

    @property
    def block(self) -> dict:
        """The arguments of each block."""
        names = ("num_heads", "feedforward_dim", "activation", "gated", "norm_first", "dropout", "attention_dropout")
        return {name: getattr(self, name) for name in (*names, "feedforward_dropout", "epsilon")}


@dataclasses.dataclass(frozen=True)
class HeadConfig(Config):
    """What is read off an encoder.

    Args:
        kind: "label", one of the classes for a text; "labels", any number of them; "number"; "tags", a class for
            each token; "span", where an answer begins and ends; "vector", the pooled features themselves.
        classes: The classes' names, for label, labels and tags; none yet where the training examples will tell.
        pooling: How the features of a text's tokens become one vector, for label, labels, number and vector: the
            "first" token's, their "mean", or by attention ("attention", "gated").
        hidden: Activation of a layer before the last, as wide as the features; none where None.
        dropout: Before the last layer.
    """

    kind: Literal["label", "labels", "number", "tags", "span", "vector"] = "label"
    classes: tuple[str, ...] = ()
    pooling: Literal["first", "mean", "attention", "gated"] = "first"
    hidden: str | None = None
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if len(self.classes) == 1 and self.kind != "labels":
            raise ConfigError(f"classes: {list(self.classes)}; a head of kind {self.kind!r} chooses between several")

    @property
    def outputs(self) -> int | None:
        """Width of the last layer; None where there is none."""
        fixed = {"number": 1, "span": 2, "vector": None}
        return fixed[self.kind] if self.kind in fixed else len(self.classes)

    @property
    def has_classes(self) -> bool:
        return self.kind in ("label", "labels", "tags")

    @property
    def pooled(self) -> bool:
        return self.kind not in ("tags", "span")


@dataclasses.dataclass(frozen=True)
class EncoderHeadsConfig(Config):
    """An encoder and its heads.

    Args:
        encoder: The encoder's sizes.
        heads: The heads by name.
        shared_attention: Whether the pooled heads share one TaskAttention instead of each its own pooling.
    """

    encoder: EncoderConfig = EncoderConfig()
    heads: dict[str, HeadConfig] = dataclasses.field(default_factory=dict)
    shared_attention: bool = False


@keras.saving.register_keras_serializable("zoo")
class EncoderModel(Functional):
    """A functional model from {"tokens", "segments"} to features (B, T, D), or to {head: logits}."""

    config_class = EncoderHeadsConfig
    config: EncoderHeadsConfig

    @classmethod
    def build_from(cls, config: EncoderHeadsConfig, name: str) -> "EncoderModel":
        return encoder(config, name)


def encoder(config: EncoderHeadsConfig, name: str = "encoder") -> EncoderModel:
    """Builds an encoder with heads.

    Args:
        config: The sizes and the heads; without heads the features themselves come out.
        name: The Keras model's name.

    Returns:
        A model from {"tokens": int (B, T)}, and with num_segments {"segments": int (B, T)} too, to {head: logits}:
        (B, classes) for label and labels, (B, 1) for number, (B, T, classes) for tags, (B, T, 2) for span, (B, D) for
        vector. Without heads to (B, T, D).

    Source: Devlin et al. 2019, section 3.
    """
    sizes = config.encoder
    width = sizes.embedding_width or sizes.width

    # === Layers ===
    embedding = TokenEmbedding(sizes.vocabulary_size, width, scale=not sizes.embedding_norm, name="embedding")
    positions = Sinusoidal(name="positions")
    if sizes.positions == "learned":
        positions = Learned(sizes.max_length, name="positions")
    key_mask = KeyMask(sizes.pad, name="key_mask")
    dropout = Dropout(sizes.dropout, name="dropout")
    stack = Encoder(sizes.num_layers, sizes.block, name="encoder")
    if sizes.window is not None:
        local = sizes.block | {"window": sizes.window, "global_tokens": sizes.global_tokens}
        stack = LocalEncoder(sizes.num_layers, local, name="encoder")

    # === Functional model ===
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    inputs = {"tokens": tokens}
    x = embedding(tokens)
    if sizes.num_segments:
        inputs["segments"] = segments = keras.Input((None,), dtype="int32", name="segments")
        x = x + keras.layers.Embedding(sizes.num_segments, width, name="segment_embedding")(segments)
    x = positions(x)
    if sizes.embedding_norm:
        x = keras.layers.LayerNormalization(epsilon=sizes.epsilon, name="embedding_norm")(x)
    x = dropout(x)
    if width != sizes.width:
        x = keras.layers.Dense(sizes.width, name="embedding_projection")(x)
    seen = key_mask(tokens)
    features = stack(x, seen if sizes.window is not None else seen[:, None, None, :])
    outputs = _heads(config, features, seen) if config.heads else features
    return EncoderModel(inputs=inputs, outputs=outputs, name=name, config=config)


def _heads(config: EncoderHeadsConfig, features: KerasTensor, seen: KerasTensor) -> Mapping[str, KerasTensor]:
    pooled_heads = [name for name, head in config.heads.items() if head.pooled]
    shared = {}
    if config.shared_attention and pooled_heads:
        shared = TaskAttention(pooled_heads, config.encoder.num_heads, name="task_attention")(features, seen)
    logits = {}
    for name, head in config.heads.items():
        if head.has_classes and not head.classes:
            raise ConfigError(f"heads.{name}.classes: none; name them")
        x = features
        if name in shared:
            x = shared[name]
        elif head.pooled:
            x = _pool(head, config.encoder, features, seen, name)
        if head.hidden is not None:
            x = keras.layers.Dense(config.encoder.width, head.hidden, name=f"{name}_hidden")(x)
        if head.outputs is not None:
            x = keras.layers.Dense(head.outputs, name=f"{name}_logits")(
                Dropout(head.dropout, name=f"{name}_dropout")(x)
            )
        logits[name] = x
    return logits


def _pool(head: HeadConfig, sizes: EncoderConfig, features: KerasTensor, seen: KerasTensor, name: str) -> KerasTensor:
    if head.pooling == "first":
        return features[:, 0]
    if head.pooling == "mean":
        return MeanPooling(name=f"{name}_pooling")(features, seen)
    if head.pooling == "attention":
        return AttentionPooling(sizes.num_heads, name=f"{name}_pooling")(features, seen)
    return GatedAttentionPooling(sizes.num_heads, sizes.width, name=f"{name}_pooling")(features, seen)
