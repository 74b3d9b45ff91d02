"""Blocks and stacks against their formulas in numpy, and what must hold for every one of them."""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from zoo.attention import RelativeBias, masks
from zoo.layers import Decoder, DecoderBlock, Encoder, EncoderBlock

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")

# Every way to build a block.
KINDS = [
    {"norm_first": norm_first, "activation": activation, "gated": gated}
    for norm_first, activation, gated in itertools.product([True, False], ["relu", "silu"], [False, True])
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


# === The formulas ===


def dense(layer, x):
    kernel, bias = layer.get_weights()
    return x @ kernel.astype("float64") + bias


def norm(layer, x, epsilon):
    gamma, beta = layer.get_weights()
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * gamma + beta


def attention(layer, x, memory, mask, heads):
    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    query, key, value = split(dense(layer.query, x)), split(dense(layer.key, memory)), split(dense(layer.value, memory))
    logits = np.where(mask, query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1]), -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    y = (weights @ value).transpose(0, 2, 1, 3)
    return dense(layer.output_projection, y.reshape(*x.shape[:2], -1))


def feedforward(layer, x, kind):
    hidden = dense(layer.hidden, x)
    hidden = np.maximum(hidden, 0) if kind["activation"] == "relu" else hidden / (1 + np.exp(-hidden))
    if kind["gated"]:
        hidden = hidden * dense(layer.gate, x)
    return dense(layer.output_projection, hidden)


def block_by_hand(block, x, kind, mask=True, memory=None, cross_mask=True, epsilon=1e-6):
    sublayers = [(block.self_attention_norm, lambda x: attention(block.self_attention, x, x, mask, 2))]
    if memory is not None:
        sublayers.append(
            (block.cross_attention_norm, lambda x: attention(block.cross_attention, x, memory, cross_mask, 2))
        )
    sublayers.append((block.feedforward_norm, lambda x: feedforward(block.feedforward, x, kind)))
    for layer_norm, sublayer in sublayers:
        if kind["norm_first"]:
            x = x + sublayer(norm(layer_norm, x, epsilon))
        else:
            x = norm(layer_norm, x + sublayer(x), epsilon)
    return x


@kinds
def test_an_encoder_block_is_its_formula(rng, scramble, kind):
    block, x = EncoderBlock(2, 12, epsilon=0.01, **kind), normal(rng, 2, 5, 8)
    mask = rng.random((2, 1, 5, 5)) < 0.6
    mask[..., 0] = True
    block(x)
    scramble(block)
    np.testing.assert_allclose(array(block(x, mask)), block_by_hand(block, x, kind, mask, epsilon=0.01), atol=2e-5)


@kinds
def test_a_decoder_block_is_its_formula(rng, scramble, kind):
    block, x, memory = DecoderBlock(2, 12, epsilon=0.01, **kind), normal(rng, 2, 4, 8), normal(rng, 2, 5, 6)
    mask, cross_mask = np.tril(np.ones((1, 1, 4, 4), bool)), rng.random((2, 1, 1, 5)) < 0.6
    cross_mask[..., 0] = True
    block(x, memory)
    scramble(block)
    expected = block_by_hand(block, x, kind, mask, memory, cross_mask, epsilon=0.01)
    np.testing.assert_allclose(array(block(x, memory, mask, cross_mask)), expected, atol=2e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_stack_is_its_blocks_and_after_pre_norm_blocks_a_normalization(rng, scramble, norm_first):
    sizes = {"num_heads": 2, "feedforward_dim": 12, "norm_first": norm_first}
    encoder, decoder = Encoder(3, sizes), Decoder(2, sizes)
    x, memory = normal(rng, 2, 4, 8), normal(rng, 2, 5, 6)
    encoder(x)
    decoder(x, memory)
    for stack in (encoder, decoder):
        scramble(stack)
        assert (stack.final_norm is not None) == norm_first
    y = z = x
    for block in encoder.blocks:
        y = array(block(y))
    for block in decoder.blocks:
        z = array(block(z, memory))
    if norm_first:
        y, z = norm(encoder.final_norm, y, 1e-6), norm(decoder.final_norm, z, 1e-6)
    np.testing.assert_allclose(array(encoder(x)), y, atol=1e-5)
    np.testing.assert_allclose(array(decoder(x, memory)), z, atol=1e-5)


@pytest.mark.parametrize("stack_class", [Encoder, Decoder])
def test_the_blocks_of_a_stack_share_one_bias(rng, scramble, reborn, stack_class):
    sizes = {"num_heads": 2, "feedforward_dim": 12, "head_dim": 6, "norm": "rms", "use_bias": False, "score": "dot"}
    x = normal(rng, 2, 5, 8)
    inputs = (x,) if stack_class is Encoder else (x, normal(rng, 2, 4, 6))
    stack = stack_class(3, {**sizes, "bias": RelativeBias(2, 8, 12, stack_class is Encoder)})
    stack(*inputs)
    scramble(stack)
    tables = [weight for weight in stack.weights if weight.path.endswith("table")]
    assert [tuple(table.shape) for table in tables] == [(8, 2)]
    assert not any(weight.path.endswith(("/bias", "/beta")) for weight in stack.weights)
    assert stack.blocks[0].self_attention.query.kernel.shape == (8, 12)
    before = array(stack(*inputs))
    copy = reborn(stack, *inputs)
    np.testing.assert_array_equal(array(copy(*inputs)), before)
    assert copy.blocks[0].bias is copy.blocks[2].bias
    # Every block reads it: with the others' values at zero, it still changes what comes out.
    for i in range(3):
        others = [block.self_attention.value.kernel for j, block in enumerate(copy.blocks) if j != i]
        for kernel in others:
            kernel.assign(ops.zeros(kernel.shape))
        one = array(copy(*inputs))
        table = copy.blocks[0].bias.table
        table.assign(-ops.convert_to_tensor(table))
        assert np.abs(array(copy(*inputs)) - one).max() > 1e-3
        copy.set_weights(stack.get_weights())


def test_a_stack_of_no_blocks_does_nothing(rng):
    x = normal(rng, 2, 4, 8)
    sizes = {"num_heads": 2, "feedforward_dim": 12}
    np.testing.assert_array_equal(array(Encoder(0, sizes)(x)), x)
    np.testing.assert_array_equal(array(Decoder(0, sizes)(x, x)), x)


# === Properties ===


@pytest.fixture(scope="module")
def stacks(scramble):
    """Gives an encoder and a decoder of two blocks of a kind, with random weights, which no test may change."""

    @functools.cache
    def build(kind):
        sizes = {"num_heads": 2, "feedforward_dim": 12, **dict(kind)}
        encoder, decoder = Encoder(2, sizes), Decoder(2, sizes)
        encoder(np.zeros((1, 1, 8), "float32"))
        decoder(np.zeros((1, 1, 8), "float32"), np.zeros((1, 1, 6), "float32"))
        return scramble(encoder, scale=0.5), scramble(decoder, scale=0.5)

    return lambda kind: build(tuple(kind.items()))


@kinds
def test_without_positions_an_encoder_does_not_see_the_order(rng, stacks, kind):
    encoder, _ = stacks(kind)
    x, order = normal(rng, 2, 6, 8), rng.permutation(6)
    np.testing.assert_allclose(array(encoder(x[:, order])), array(encoder(x))[:, order], atol=2e-5)


@kinds
def test_an_encoder_does_not_see_the_padding(rng, stacks, kind):
    encoder, _ = stacks(kind)
    x, mask = normal(rng, 2, 7, 8), masks.padding(np.array([[1, 1, 1, 1, 0, 0, 0]]))
    np.testing.assert_allclose(array(encoder(x, mask))[:, :4], array(encoder(x[:, :4])), atol=2e-5)


@kinds
def test_a_decoder_sees_no_future_and_all_of_its_memory(rng, stacks, kind):
    _, decoder = stacks(kind)
    x, memory = normal(rng, 1, 6, 8), normal(rng, 1, 4, 6)
    y = array(decoder(x, memory, masks.causal(6)))
    changed = np.repeat(x, 6, axis=0)
    changed[np.arange(6), np.arange(6)] += normal(rng, 6, 8)
    z = array(decoder(changed, np.repeat(memory, 6, axis=0), masks.causal(6)))
    for t in range(6):
        np.testing.assert_allclose(z[t, :t], y[0, :t], atol=2e-5)
        assert (np.abs(z[t, t:] - y[0, t:]).max(axis=-1) > 1e-3).all()
    for s in range(4):
        other = memory.copy()
        other[:, s] += normal(rng, 6)
        assert (np.abs(array(decoder(x, other, masks.causal(6))) - y).max(axis=-1) > 1e-3).all()


@kinds
@pytest.mark.parametrize("beams", [1, 2])
def test_decoding_with_caches_gives_what_decoding_at_once_gives(rng, stacks, kind, beams):
    _, decoder = stacks(kind)
    x, memory = normal(rng, 2 * beams, 5, 8), normal(rng, 2, 4, 6)
    cross_mask = masks.padding(np.array([[1, 1, 0, 0], [1, 1, 1, 1]]))
    caches = decoder.make_cache(ops.convert_to_tensor(memory), 2 * beams, 7)
    steps = [
        array(decoder(x[:, t : t + 1], None, masks.causal(1, 7, offset=t), cross_mask, cache=caches)) for t in range(5)
    ]
    expected = decoder(
        x, np.repeat(memory, beams, axis=0), masks.causal(5), np.repeat(array(cross_mask), beams, axis=0)
    )
    np.testing.assert_allclose(np.concatenate(steps, axis=1), array(expected), atol=2e-5)


def test_a_cache_must_serve_every_block(rng, stacks):
    _, decoder = stacks({})
    memory = ops.convert_to_tensor(normal(rng, 1, 4, 6))
    with pytest.raises(ValueError, match="zip"):
        decoder(normal(rng, 1, 1, 8), cache=decoder.make_cache(memory, 1, 3)[:1])


def test_a_mask_that_keras_attached_is_not_looked_at(rng, stacks):
    _, decoder = stacks({})
    x, ids = normal(rng, 1, 3, 8), np.array([[3, 0, 5]])
    embedding = keras.layers.Embedding(9, 6, mask_zero=True)
    masked, plain = embedding(ids), ops.convert_to_tensor(array(embedding(ids)))
    assert keras.src.backend.get_keras_mask(masked) is not None
    np.testing.assert_array_equal(array(decoder(x, masked)), array(decoder(x, plain)))


def test_xla_gives_the_same(rng, stacks, jit):
    encoder, decoder = stacks({})
    x, memory = normal(rng, 2, 5, 8), normal(rng, 2, 4, 6)

    def both(x, memory):
        return encoder(x), decoder(x, memory, masks.causal(5))

    compiled = jit(both)(ops.convert_to_tensor(x), ops.convert_to_tensor(memory))
    for a, b in zip(compiled, both(x, memory)):
        np.testing.assert_allclose(array(a), array(b), atol=2e-5)


def test_mixed_precision_stays_close_to_float32(rng, scramble):
    x, memory, sizes = normal(rng, 2, 5, 8), normal(rng, 2, 4, 6), {"num_heads": 2, "feedforward_dim": 12}
    half, full = Decoder(2, sizes, dtype="mixed_bfloat16"), Decoder(2, sizes)
    y = half(x, memory)
    full(x, memory)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert all(weight.dtype == "float32" for weight in half.weights)
    y = array(ops.cast(scramble(half)(x, memory), "float32"))
    np.testing.assert_allclose(y, array(scramble(full)(x, memory)), atol=0.05)


# === Dropout, configuration, files ===


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "feedforward_dropout"])
def test_each_dropout_works_while_training_only(rng, stacks, rate):
    x, memory = normal(rng, 2, 5, 8), normal(rng, 2, 4, 6)
    for plain, dropping, inputs in zip(stacks({}), stacks({rate: 0.5}), [(x,), (x, memory)]):
        expected = array(plain(*inputs))
        np.testing.assert_array_equal(array(plain(*inputs, training=True)), expected)
        np.testing.assert_array_equal(array(dropping(*inputs)), expected)
        first, second = (array(dropping(*inputs, training=True)) for _ in range(2))
        assert not np.allclose(first, expected, atol=1e-3)
        assert not np.allclose(first, second, atol=1e-3)


def test_a_dropped_sublayer_leaves_the_residual_stream(rng):
    """With nearly everything dropped, a pre-norm block passes most elements of its input through."""
    block, x = EncoderBlock(2, 12, dropout=0.9), normal(rng, 8, 16, 8)
    passed = np.isclose(array(block(x, training=True)), x, atol=1e-7).mean()
    assert abs(passed - 0.9**2) < 4 * np.sqrt(0.81 * 0.19 / x.size)


SIZES = {
    "num_heads": 4,
    "feedforward_dim": 12,
    "activation": "silu",
    "gated": True,
    "norm_first": False,
    "dropout": 0.1,
    "attention_dropout": 0.2,
    "feedforward_dropout": 0.3,
    "epsilon": 0.01,
}
LAYERS = [
    lambda: EncoderBlock(**SIZES),
    lambda: DecoderBlock(**SIZES),
    lambda: Encoder(2, SIZES),
    lambda: Decoder(2, SIZES),
]


@pytest.mark.parametrize("make", LAYERS, ids=["EncoderBlock", "DecoderBlock", "Encoder", "Decoder"])
class TestEveryLayer:
    def inputs(self, layer):
        rng = np.random.default_rng(1)
        x, memory = normal(rng, 2, 5, 8), normal(rng, 2, 4, 6)
        return (x, memory) if "Decoder" in type(layer).__name__ else (x,)

    def test_it_survives_its_configuration(self, make, scramble, reborn):
        layer = make()
        inputs = self.inputs(layer)
        layer(*inputs)
        expected = array(scramble(layer)(*inputs))
        copy = reborn(layer, *inputs)
        np.testing.assert_array_equal(array(copy(*inputs)), expected)
        config = copy.get_config()
        assert {name: config.get("block", config)[name] for name in SIZES} == SIZES

    def test_it_survives_a_keras_file(self, make, scramble, tmp_path):
        layer = make()
        inputs = self.inputs(layer)
        symbolic = [keras.Input((None, x.shape[-1])) for x in inputs]
        model = scramble(keras.Model(symbolic, layer(*symbolic)))
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(array(loaded(list(inputs))), array(model(list(inputs))))

    def test_symbolic_shapes_are_the_real_ones(self, make):
        layer = make()
        inputs = self.inputs(layer)
        symbolic = make()(*[keras.Input((None, x.shape[-1])) for x in inputs])
        assert symbolic.shape == (None, None, 8)
        assert tuple(layer(*inputs).shape) == (2, 5, 8)

    def test_heads_that_do_not_divide_the_width_are_refused(self, make):
        layer = make()
        with pytest.raises(ValueError, match="num_heads: 4 does not divide the model width 6"):
            layer(*(np.zeros((1, 3, 6), "float32") for _ in self.inputs(layer)))
