"""Operations of matrix products in a forward pass, by hand: two for each pair of numbers that meet.

B rows, S places of a source, T of a target, D width, F width of the hidden layer, V tokens. Lookups, normalizations,
activations and the softmax are left out, as is usual: next to products they are nothing.

Source: Chowdhery et al. 2022, PaLM, appendix B, without its approximations.
"""

from zoo.models.encoder import EncoderConfig
from zoo.models.encoder_decoder import EncoderDecoderConfig
from zoo.models.vision_encoder_decoder import VisionEncoderDecoderConfig


def attention(D: int, queries: int, keys: int) -> int:
    """Four projections, of which those of keys and values run over what is looked at; logits; and the mix of values."""
    return 2 * D * D * (2 * queries + 2 * keys) + 2 * 2 * D * queries * keys


def feedforward(D: int, F: int, places: int, gated: bool = False) -> int:
    return (3 if gated else 2) * 2 * D * F * places


def vocabulary(D: int, V: int, T: int) -> int:
    return 2 * D * V * T


def encoder_layers(layers: int, D: int, F: int, S: int, gated: bool = False) -> int:
    return layers * (attention(D, S, S) + feedforward(D, F, S, gated))


def decoder_layers(layers: int, D: int, F: int, T: int, S: int, gated: bool = False) -> int:
    return layers * (attention(D, T, T) + attention(D, T, S) + feedforward(D, F, T, gated))


def encoder(config: EncoderConfig, T: int, outputs: int = 0) -> int:
    """Counts an encoder, and heads that say `outputs` numbers of each token; with windows as if each saw all."""
    D, F = config.width, config.feedforward_dim
    return encoder_layers(config.num_layers, D, F, T, config.gated) + 2 * D * outputs * T


def encoder_decoder(config: EncoderDecoderConfig | VisionEncoderDecoderConfig, S: int, T: int) -> int:
    """Counts an encoder_decoder, or what a vision_encoder_decoder does behind its projection of S features."""
    D, F, gated = config.width, config.feedforward_dim, config.gated
    both = encoder_layers(config.num_encoder_layers, D, F, S, gated)
    both += decoder_layers(config.num_decoder_layers, D, F, T, S, gated)
    return both + vocabulary(D, config.vocabulary_size, T)


def vision_encoder_decoder(config: VisionEncoderDecoderConfig, S: int, T: int) -> int:
    """Counts a vision_encoder_decoder over S features."""
    return 2 * config.feature_width * config.width * S + encoder_decoder(config, S, T)
