"""Encoders of long texts against the plain one with masks, and against one chunk after the other with a memory."""

import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import RelativeBias, carry, masks
from zoo.layers import Encoder, LocalEncoder, RecurrentEncoder

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")

SIZES = {"num_heads": 2, "feedforward_dim": 12}


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


# === Windows ===


@pytest.mark.parametrize(("norm_first", "bias"), [(True, True), (False, False)])
def test_windows_give_what_a_plain_encoder_gives_with_their_mask(rng, scramble, norm_first, bias):
    block = {**SIZES, "norm_first": norm_first, "bias": RelativeBias(2, 8, 10) if bias else None}
    local, plain = LocalEncoder(2, {**block, "window": 3, "global_tokens": 2}), Encoder(2, block)
    x, segments = normal(rng, 1, 19, 8), np.array([[1] * 4 + [2] * 13 + [0] * 2])
    places = np.array([*range(4), *range(13), 0, 0])
    mask = array(masks.segment(segments, segments)) & (
        array(masks.sliding_window(19, 3)) | array(masks.global_tokens((places < 2)[None]))
    )
    local(x, segments)
    plain(x, mask)
    plain.set_weights(scramble(local).get_weights())
    np.testing.assert_allclose(array(local(x, segments))[:, :17], array(plain(x, mask))[:, :17], atol=2e-5)


# === Chunks ===


@pytest.fixture
def recurrent(scramble):
    def make(memory=1, chunk=4, **changes):
        encoder = RecurrentEncoder(2, {**SIZES, **changes}, chunk, memory)
        encoder.build((None, None, 8))
        return scramble(encoder)

    return make


def one_after_the_other(encoder, x, remembered):
    """Reads chunk by chunk; every block remembers the last places of its own input."""
    memories, found = [None] * encoder.num_layers, []
    for start in range(0, x.shape[1], encoder.chunk):
        y = ops.convert_to_tensor(x[:, start : start + encoder.chunk])
        for number, block in enumerate(encoder.blocks):
            memory, memories[number] = memories[number], carry(memories[number], y, remembered)
            y = block(y, memory)
        found.append(y if encoder.final_norm is None else encoder.final_norm(y))
    return ops.concatenate(found, axis=1)


@pytest.mark.parametrize(("norm_first", "memory"), [(True, 1), (False, 2)])
def test_all_chunks_at_once_are_one_after_the_other_with_a_memory(rng, recurrent, gradients, norm_first, memory):
    encoder, x = recurrent(memory, norm_first=norm_first), normal(rng, 2, 18, 8)
    upstream = normal(rng, 2, 18, 8)
    expected = array(one_after_the_other(encoder, x, 4 * memory))
    np.testing.assert_allclose(array(encoder(x)), expected, atol=2e-5)
    (found,) = gradients(lambda x: encoder(x) * upstream, x)
    (wanted,) = gradients(lambda x: one_after_the_other(encoder, x, 4 * memory) * upstream, x)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_with_all_that_came_before_as_memory_it_is_the_whole_text(rng, recurrent):
    encoder, x = recurrent(memory=4), normal(rng, 2, 18, 8)
    chunks = np.arange(18) // 4
    y, mask = ops.convert_to_tensor(x), (chunks[None, :] <= chunks[:, None])[None, None]
    for block in encoder.blocks:
        y = block(y, attention_mask=ops.convert_to_tensor(mask))
    np.testing.assert_allclose(array(encoder(x)), array(encoder.final_norm(y)), atol=2e-5)


def test_a_chunk_learns_nothing_through_another(rng, recurrent, gradients):
    encoder, x = recurrent(), normal(rng, 1, 12, 8)
    (gradient,) = gradients(lambda x: encoder(x)[:, 8:] ** 2, x)
    assert gradient[:, 8:].any()
    assert not gradient[:, :8].any()
    changed = x.copy()
    changed[:, 0] *= -1  # two blocks: chunk 2 hears of chunk 0 through chunk 1
    moved = np.abs(array(encoder(changed)) - array(encoder(x))).max(axis=(0, 2)) > 1e-6
    assert moved.tolist() == [True] * 12


def test_padding_other_texts_and_the_length_of_the_row_change_nothing(rng, recurrent):
    encoder, x = recurrent(), normal(rng, 1, 16, 8)
    numbers = np.array([[1] * 9 + [2] * 5 + [0] * 2])
    y = array(encoder(x, numbers))
    changed = x.copy()
    changed[:, 9:] *= -1
    np.testing.assert_allclose(array(encoder(changed, numbers))[:, :9], y[:, :9], atol=2e-5)
    np.testing.assert_allclose(array(encoder(x[:, :9])), y[:, :9], atol=2e-5)


@pytest.mark.parametrize("kind", ["local", "recurrent"])
def test_xla_gives_the_same(rng, recurrent, scramble, jit, kind):
    encoder = recurrent() if kind == "recurrent" else LocalEncoder(2, {**SIZES, "window": 3, "global_tokens": 1})
    x, segments = (
        ops.convert_to_tensor(normal(rng, 2, 10, 8)),
        ops.convert_to_tensor(np.array([[1] * 10, [1] * 5 + [2] * 5])),
    )
    encoder(x, segments)
    scramble(encoder)
    expected = array(encoder(x, segments))
    np.testing.assert_allclose(array(jit(lambda x, s: encoder(x, s))(x, segments)), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["local", "recurrent"])
def test_it_survives_its_configuration(rng, recurrent, scramble, reborn, kind):
    encoder = (
        recurrent(memory=2) if kind == "recurrent" else LocalEncoder(2, {**SIZES, "window": 3, "global_tokens": 1})
    )
    x = normal(rng, 2, 10, 8)
    encoder(x)
    expected = array(scramble(encoder)(x))
    np.testing.assert_array_equal(array(reborn(encoder, x)(x)), expected)


@pytest.mark.skipif(backend.backend() != "jax", reason="TensorFlow does not count a program's operations")
@pytest.mark.parametrize("kind", ["local", "recurrent"])
def test_cost_and_memory_grow_with_the_length_and_not_with_its_square(recurrent, kind):
    import jax

    encoder = recurrent(chunk=32)
    if kind == "local":
        encoder = LocalEncoder(1, {**SIZES, "window": 16, "global_tokens": 2})
        encoder.build((None, None, 8))

    def cost(length):
        compiled = jax.jit(lambda x: encoder(x)).lower(jax.ShapeDtypeStruct((1, length, 8), "float32")).compile()
        return np.array([compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes])

    assert (cost(2048) / cost(1024) < 2.1).all()


def test_no_chunk_is_refused():
    with pytest.raises(ValueError, match="chunk, memory: 0, 1; a chunk has a place at least"):
        RecurrentEncoder(1, SIZES, 0)
