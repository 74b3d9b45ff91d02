"""A small random encoder-decoder that says different things about different sources, and ends most of them."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def model():
    from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder

    config = EncoderDecoderConfig(
        vocabulary_size=20,
        width=16,
        num_heads=2,
        feedforward_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        max_length=24,
        dropout=0.1,
    )
    model = encoder_decoder(config)
    rng = np.random.default_rng(146)
    for weight in model.weights:
        values = rng.normal(0, 0.15 if "embedding" in weight.path else 0.5, weight.shape)
        weight.assign(1 + 0.1 * values if "gamma" in weight.path else values)
    return model


@pytest.fixture(scope="session")
def sources():
    """Sources of all lengths that the model takes, in no order."""
    rng = np.random.default_rng(1)
    lengths = [9, 1, 15, 2, 23, 3, 0, 5, 8, 16, 13]
    return [rng.integers(4, 20, length).tolist() for length in lengths]


@pytest.fixture(scope="session")
def generator(model):
    """Generates without XLA, which spares its compilations."""
    from zoo.generation import Generator

    return Generator(model, jit=False)
