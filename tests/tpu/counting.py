"""Products of what generates and of what sees, counted by hand; zoo/models/products.py counts training steps.

B rows, T places of a target, S of a source, D width, F width of the hidden layer, V tokens. All of a forward pass.
"""

from zoo.models.products import encoder_decoder, encoder_layers, feedforward, vocabulary


def one_token(sizes, beams, S, L):
    """A step of generation: each beam reads a token, and looks at L places of its own and S of the source."""
    D, F = sizes.width, sizes.feedforward_dim
    layer = 2 * D * D * 6 + 2 * 2 * D * (L + S) + feedforward(D, F, 1)
    return beams * (sizes.num_decoder_layers * layer + vocabulary(D, sizes.vocabulary_size, 1))


def memory_of(sizes, S):
    """What is done once for a source: its encoding, and the keys and values that decoders look at."""
    D, F = sizes.width, sizes.feedforward_dim
    return encoder_layers(sizes.num_encoder_layers, D, F, S) + sizes.num_decoder_layers * 2 * D * D * 2 * S


def patches(config):
    """What turns patches of an image into vectors; and how many there are."""
    height, width = config.image_size
    count = (height // config.vit.patch_size) * (width // config.vit.patch_size)
    return 2 * 3 * config.vit.patch_size**2 * config.vit.width * count, count


def captioner(config, sizes, T):
    """What sees and what writes, behind the patches."""
    _, S = patches(config)
    vit = config.vit
    sees = encoder_layers(vit.num_layers, vit.width, vit.feedforward_dim, S + vit.class_token)
    return sees + 2 * vit.width * sizes.width * S + encoder_decoder(sizes, S, T)
