"""Products of matrices, counted by hand: a multiplication and an addition for each pair of numbers that meet.

B rows, T places of a target, S of a source, D width, F width of the hidden layer, V tokens. All of a forward pass.
"""


def attention(D, queries, keys):
    """Four projections, of which those of keys and values run over what is looked at; logits; and the mix of values."""
    return 2 * D * D * (2 * queries + 2 * keys) + 2 * 2 * D * queries * keys


def feedforward(D, F, places):
    return 2 * 2 * D * F * places


def encoder(layers, D, F, S):
    return layers * (attention(D, S, S) + feedforward(D, F, S))


def decoder(layers, D, F, T, S):
    return layers * (attention(D, T, T) + attention(D, T, S) + feedforward(D, F, T))


def vocabulary(D, V, T):
    return 2 * D * V * T


def text_to_text(sizes, S, T):
    """An encoder_decoder; of what copies, the products that are not with vectors."""
    D, F = sizes.width, sizes.feedforward_dim
    both = encoder(sizes.num_encoder_layers, D, F, S) + decoder(sizes.num_decoder_layers, D, F, T, S)
    return both + vocabulary(D, sizes.vocabulary_size, T)


def one_token(sizes, beams, S, L):
    """A step of generation: each beam reads a token, and looks at L places of its own and S of the source."""
    D, F = sizes.width, sizes.feedforward_dim
    layer = 2 * D * D * 6 + 2 * 2 * D * (L + S) + feedforward(D, F, 1)
    return beams * (sizes.num_decoder_layers * layer + vocabulary(D, sizes.vocabulary_size, 1))


def memory_of(sizes, S):
    """What is done once for a source: its encoding, and the keys and values that decoders look at."""
    D, F = sizes.width, sizes.feedforward_dim
    return encoder(sizes.num_encoder_layers, D, F, S) + sizes.num_decoder_layers * 2 * D * D * 2 * S


def text(sizes, T, outputs=0):
    """An encoder, and heads that say so many numbers of each token."""
    return encoder(sizes.num_layers, sizes.width, sizes.feedforward_dim, T) + 2 * sizes.width * outputs * T


def patches(config):
    """What turns patches of an image into vectors; and how many there are."""
    height, width = config.image_size
    count = (height // config.vit.patch_size) * (width // config.vit.patch_size)
    return 2 * 3 * config.vit.patch_size**2 * config.vit.width * count, count


def vision(config):
    """A vision transformer behind its patches."""
    _, count = patches(config)
    return encoder(config.vit.num_layers, config.vit.width, config.vit.feedforward_dim, count + config.vit.class_token)


def captioner(config, sizes, T):
    """What sees and what writes, behind the patches."""
    _, S = patches(config)
    D, F = sizes.width, sizes.feedforward_dim
    projection = 2 * config.vit.width * D * S
    writes = encoder(sizes.num_encoder_layers, D, F, S) + decoder(sizes.num_decoder_layers, D, F, T, S)
    return vision(config) + projection + writes + vocabulary(D, sizes.vocabulary_size, T)
