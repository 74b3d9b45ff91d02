"""encoder_decoder: the transformer of "Attention Is All You Need", for text to text, and those that came of it."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from zoo.attention import Dropout, Learned, RelativeBias, Sinusoidal, masks
from zoo.config import Config, ConfigError
from zoo.layers import (
    BlockCache,
    Decoder,
    Encoder,
    LocalEncoder,
    LogitBias,
    PackedMask,
    PointerGenerator,
    PointingDecoder,
    RecurrentEncoder,
    Segments,
    TokenEmbedding,
)
from zoo.models.encoder import check_window
from zoo.models.generative import Generative, SpecialTokens

PAD, START, END = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(Config):
    """Sizes of an encoder_decoder.

    Args:
        vocabulary_size: V, of the source, and of the target too where the two share one vocabulary.
        target_vocabulary_size: V of the target where it has a vocabulary (and embeddings) of its own.
        width: D.
        num_heads: N.
        head_dim: H; D / N where None.
        feedforward_dim: Width of the feed-forward networks' hidden layer.
        num_encoder_layers, num_decoder_layers: Blocks in each stack.
        num_decoder_heads, decoder_feedforward_dim: The decoder's, where they are not the encoder's.
        activation: The feed-forward networks' activation.
        gated: Whether the feed-forward networks are gated.
        norm_first: Pre-norm where true, post-norm where false.
        norm: "layer", or "rms", which neither subtracts the mean nor adds a bias.
        epsilon: Added to the variance in each normalization.
        use_bias: Whether projections add a bias.
        score: "scaled_dot", or "dot", which is not divided by sqrt(H).
        positions: "sinusoidal", any length; "sinusoidal_open", the same with the wavelengths of the paper's formula;
            "learned", up to max_length; or "relative", any length: biases by distance, which all blocks share.
        first_position: Number of the first token's position.
        num_buckets, max_distance: Of relative positions, see RelativeBias.
        max_length: Tokens in the longest source or target, end token included.
        embedding_scale: Whether embeddings are multiplied by sqrt(D).
        embedding_norm: Whether embeddings are normalized, behind their positions.
        tied_output: Whether logits are scored by the embeddings, or by weights of their own.
        output_scale: Whether what is scored is divided by sqrt(D) before.
        output_bias: Whether each token has a learned number that is added to its logits.
        special_tokens: Tokens that are no words.
        dropout: Of embeddings and sublayer outputs.
        attention_dropout, feedforward_dropout: Of attention weights, and of the feed-forward networks' hidden layer.
        window: How far a token of the source sees, itself included; None for all of it. With a window, cost and memory
            of the encoder grow with the length only.
        global_tokens: With a window, how many tokens at the beginning of a source see all of it and are seen by all.
        chunk: Tokens in a chunk of the source, which is then encoded chunk by chunk; None for no chunks. Each sees
            itself and remembers those before it, so that a source may be longer than any that was trained on. Positions
            are Transformer-XL's then, in place of the source's other ones.
        chunk_memory: How many chunks before its own one a token of the source sees.
        copying: Whether tokens of the source can be copied. Instead of logits the model then gives log-probabilities,
            which are logits as good as any: see PointerGenerator.
    """

    vocabulary_size: int = 8000
    target_vocabulary_size: int | None = None
    width: int = 128
    num_heads: int = 4
    head_dim: int | None = None
    feedforward_dim: int = 512
    num_encoder_layers: int = 4
    num_decoder_layers: int = 4
    num_decoder_heads: int | None = None
    decoder_feedforward_dim: int | None = None
    activation: str = "relu"
    gated: bool = False
    norm_first: bool = True
    norm: Literal["layer", "rms"] = "layer"
    epsilon: float = 1e-6
    use_bias: bool = True
    score: Literal["scaled_dot", "dot"] = "scaled_dot"
    positions: Literal["sinusoidal", "sinusoidal_open", "learned", "relative"] = "sinusoidal"
    first_position: int = 0
    num_buckets: int = 32
    max_distance: int = 128
    max_length: int = 256
    embedding_scale: bool = True
    embedding_norm: bool = False
    tied_output: bool = True
    output_scale: bool = False
    output_bias: bool = False
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.1
    attention_dropout: float = 0.0
    feedforward_dropout: float = 0.0
    window: int | None = None
    global_tokens: int = 0
    chunk: int | None = None
    chunk_memory: int = 1
    copying: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_heads", "num_decoder_heads"):
            heads = getattr(self, name)
            if self.head_dim is None and heads is not None and self.width % heads:
                raise ConfigError(f"{name}: {heads} does not divide width {self.width}")
        check_window(self.window, self.global_tokens)
        if self.chunk is not None and (self.chunk < 1 or self.chunk_memory < 0):
            raise ConfigError(
                f"chunk, chunk_memory: {self.chunk}, {self.chunk_memory}; at least 1 token, and 0 for no memory"
            )
        if self.chunk is not None and (self.window is not None or self.score != "scaled_dot"):
            raise ConfigError(
                f"chunk: {self.chunk}, with window {self.window} and score {self.score!r}; chunks take no window, and "
                "'scaled_dot'"
            )
        if self.copying and self.target_vocabulary_size is not None:
            raise ConfigError(
                f"target_vocabulary_size: {self.target_vocabulary_size}; with copying, source and target share one "
                "vocabulary: null"
            )
        if self.copying and not self.num_decoder_layers:
            raise ConfigError("num_decoder_layers: 0; with copying it is at least 1, which looks at the source")

    @property
    def reads_in_parts(self) -> bool:
        """Whether the encoder reads windows or chunks."""
        return self.window is not None or self.chunk is not None

    @property
    def block(self) -> dict:
        """The arguments of each of the encoder's blocks."""
        names = ("num_heads", "feedforward_dim", "activation", "gated", "norm_first", "norm", "epsilon", "use_bias")
        others = ("head_dim", "score", "dropout", "attention_dropout", "feedforward_dropout")
        return {name: getattr(self, name) for name in (*names, *others)}

    @property
    def decoder_block(self) -> dict:
        """The arguments of each of the decoder's blocks."""
        return self.block | {
            "num_heads": self.num_decoder_heads or self.num_heads,
            "feedforward_dim": self.decoder_feedforward_dim or self.feedforward_dim,
        }


@keras.saving.register_keras_serializable("zoo")
class EncoderDecoder(Generative):
    """A functional model from {"source", "target"} to logits, which can also be run half by half.

    Where tokens are copied, more than segments travels in what encode() and decode() call memory_segments.
    """

    config_class = EncoderDecoderConfig
    config: EncoderDecoderConfig
    encode: Callable

    @classmethod
    def build_from(cls, config: EncoderDecoderConfig, name: str) -> "EncoderDecoder":
        return encoder_decoder(config, name)


def encoder_decoder(config: EncoderDecoderConfig, name: str = "encoder_decoder") -> EncoderDecoder:
    """Builds a transformer from a source text to the next token of a target text.

    A row may hold several pairs, one behind the other (packing): every source ends with the end token and every target
    begins with the start token, and from these two the model reads which tokens belong together. Pairs in a row never
    see each other, and each counts its positions from 0.

    Args:
        config: The model's sizes.
        name: The Keras model's name.

    Returns:
        A model from {"source": int (B, S), "target": int (B, T)} to logits (B, T, V).

    Source: Vaswani et al. 2017; tied embeddings: Press & Wolf 2017; copying: See et al. 2017, section 2.2; relative
        positions: Raffel et al. 2020, section 2.1; normalized embeddings: Lewis et al. 2020; windows: Beltagy et al.
        2020, section 3.1; chunks with a memory: Dai et al. 2019.
    """
    # === Layers ===
    special = config.special_tokens
    scale = {"scale": config.embedding_scale}
    source_embedding = target_embedding = TokenEmbedding(
        config.vocabulary_size, config.width, **scale, name="embedding"
    )
    if config.target_vocabulary_size is not None:
        target_embedding = TokenEmbedding(config.target_vocabulary_size, config.width, **scale, name="target_embedding")
    source_positions = _Positions(config, "source")
    target_positions = _Positions(config, "target")
    source_dropout = Dropout(config.dropout, name="source_dropout")
    target_dropout = Dropout(config.dropout, name="target_dropout")
    trailing = len(special.source_ending) - 1
    source_texts = Segments(end=special.end, pad=special.pad, trailing=trailing, name="source_texts")
    # Where padding looks like the start, each place of it counts as a text of its own, which nothing sees.
    padding = None if special.pad == special.start else special.pad
    target_texts = Segments(start=special.start, pad=padding, name="target_texts")
    decoder_mask = PackedMask(causal=True, name="decoder_mask")
    memory_mask = PackedMask(name="memory_mask")
    encoder_mask = None if config.reads_in_parts else PackedMask(name="encoder_mask")
    encoder = _encoder(config)
    decoder_class = PointingDecoder if config.copying else Decoder
    decoder = decoder_class(config.num_decoder_layers, _with_bias(config, config.decoder_block, False), name="decoder")
    copy_context = keras.layers.Dense(1, use_bias=False, name="copy_context") if config.copying else None
    copying = PointerGenerator(name="copying") if config.copying else None
    output = None
    if not config.tied_output:
        output = keras.layers.Dense(target_embedding.input_dim, use_bias=False, name="output")
    output_bias = LogitBias(name="output_bias") if config.output_bias else None

    # === Two halves ===
    def encode(source: KerasTensor, training: bool | None = None) -> tuple[KerasTensor, Any]:
        segments, places = source_texts(source)
        x = source_dropout(source_positions(source_embedding(source), places), training=training)
        seen = segments if encoder_mask is None else encoder_mask(segments, segments)
        memory = encoder(x, seen, training=training)
        return memory, segments if copy_context is None else (segments, source, copy_context(memory)[:, :, 0])

    def decode(
        target: KerasTensor,
        memory: KerasTensor | None,
        memory_segments: Any,
        *,
        cache: list[BlockCache] | None = None,
        position: int | KerasTensor = 0,
        training: bool | None = None,
    ) -> KerasTensor:
        source = context = None
        if copying is not None:
            memory_segments, source, context = memory_segments
        if cache is None:
            segments, places = target_texts(target)
            self_mask = decoder_mask(segments, segments)
            cross_mask = memory_mask(segments, memory_segments)
        else:
            places = position + ops.arange(target.shape[1], dtype="int32")
            self_mask = masks.causal(target.shape[1], cache[0].self_attention.max_length, offset=position)
            cross_mask = masks.padding(memory_segments)
        x = target_dropout(target_positions(target_embedding(target), places), training=training)
        if copying is None:
            return score(decoder(x, memory, self_mask, cross_mask, cache=cache, training=training))
        y, attention = decoder(x, memory, self_mask, cross_mask, cache=cache, training=training)
        return copying(score(y), y, x, attention, source, context)

    def score(x: KerasTensor) -> KerasTensor:
        x = x * config.width**-0.5 if config.output_scale else x
        logits = target_embedding(x, reverse=True) if output is None else output(x)
        return logits if output_bias is None else output_bias(logits)

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
        special_tokens=special,
    )


def _encoder(config: EncoderDecoderConfig) -> Encoder:
    """Makes the encoder's stack: those of long sources take segments, which others take as a mask."""
    layers = config.num_encoder_layers
    if config.chunk is not None:
        return RecurrentEncoder(layers, config.block, config.chunk, config.chunk_memory, name="encoder")
    block = _with_bias(config, config.block, True)
    if config.window is not None:
        block |= {"window": config.window, "global_tokens": config.global_tokens}
        return LocalEncoder(layers, block, name="encoder")
    return Encoder(layers, block, name="encoder")


def _with_bias(config: EncoderDecoderConfig, block: dict, bidirectional: bool) -> dict:
    """Adds the bias of relative positions, where there are any, to a block's arguments."""
    if config.positions != "relative":
        return block
    buckets = config.num_buckets, config.max_distance, bidirectional
    return block | {"bias": RelativeBias(block["num_heads"], *buckets, name="relative_bias")}


class _Positions:
    """Adds positions to the embeddings of one side, and normalizes the sum, as the configuration has it."""

    def __init__(self, config: EncoderDecoderConfig, side: str):
        self.first = config.first_position
        self.layer: keras.layers.Layer | None = None
        # Chunks count in their attention.
        positions = "relative" if side == "source" and config.chunk is not None else config.positions
        if positions == "learned":
            self.layer = Learned(config.max_length + self.first, name=f"{side}_positions")
        elif positions != "relative":
            self.layer = Sinusoidal(positions == "sinusoidal", name=f"{side}_positions")
        self.norm: keras.layers.Layer | None = None
        if config.embedding_norm:
            self.norm = keras.layers.LayerNormalization(epsilon=config.epsilon, name=f"{side}_embedding_norm")

    def __call__(self, x: KerasTensor, places: KerasTensor) -> KerasTensor:
        if self.layer is not None:
            x = self.layer(x, places + self.first if self.first else places)
        return x if self.norm is None else self.norm(x)
