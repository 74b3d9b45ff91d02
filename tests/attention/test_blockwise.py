"""blockwise_attend() and its layer against attend() and numpy, in both directions, and how much memory they take."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import backend, ops

from zoo.attention import BlockwiseAttention, MultiHeadAttention, Rotary, attend, blockwise_attend, capture, masks

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@pytest.fixture
def quick(jit):
    """Compiles on JAX, which else compiles each operation by itself."""
    return jit if backend.backend() == "jax" else lambda function: function


@pytest.fixture
def same(quick, gradients):
    """Compares outputs and all gradients with attend()'s."""

    def compare(inputs, upstream, mask, full_mask, **kwargs):
        blockwise = quick(lambda *inputs: blockwise_attend(*inputs, mask=mask, **kwargs) * upstream)
        full = quick(lambda *inputs: attend(*inputs, mask=full_mask) * upstream)
        for name, found, wanted in zip(
            ("output", "query", "key", "value"),
            (array(blockwise(*inputs)), *gradients(blockwise, *inputs)),
            (array(full(*inputs)), *gradients(full, *inputs)),
            strict=True,
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=name)

    return compare


def drawn(rng, queries, keys, num_heads, num_kv_heads, batch=2, width=4, value_width=3):
    query = normal(rng, batch, queries, num_heads, width)
    key, value = normal(rng, batch, keys, num_kv_heads, width), normal(rng, batch, keys, num_kv_heads, value_width)
    return (query, key, value), normal(rng, batch, queries, num_heads, value_width)


MASKS = {
    "none": lambda rng, *sizes: None,
    "padding": lambda rng, batch, heads, queries, keys: np.arange(keys) < np.array([keys - 2, 1])[:, None, None, None],
    "whole": lambda rng, *sizes: rng.random(sizes) < 0.6,
    "one_for_all_heads": lambda rng, batch, heads, *lengths: rng.random((batch, 1, *lengths)) < 0.6,
    "whole_queries": lambda rng, batch, heads, queries, keys: rng.random((1, heads, queries, 1)) < 0.6,
    "causal_array": lambda rng, batch, heads, queries, keys: masks.causal(queries, keys),
}


@pytest.mark.parametrize(
    ("kind", "queries", "keys", "num_kv_heads", "block"),
    [
        ("none", 5, 7, 4, 3),
        ("none", 3, 5, 1, 9),
        ("padding", 6, 6, 2, 2),
        ("whole", 5, 7, 2, 3),
        ("one_for_all_heads", 7, 5, 4, 4),
        ("whole_queries", 5, 7, 1, 3),
        ("causal_array", 6, 6, 4, 6),
    ],
)
def test_every_mask_gives_what_attend_gives(rng, same, kind, queries, keys, num_kv_heads, block):
    mask = MASKS[kind](rng, 2, 4, queries, keys)
    same(*drawn(rng, queries, keys, 4, num_kv_heads), mask, mask, block=block)


RULES = {
    "causal": lambda query, key: key <= query,
    "window": lambda query, key: abs(query - key) < 2,
    "first_keys": lambda query, key: key < 2,
    "even_queries": lambda query, key: query % 2 == 0,
    "by_row": lambda query, key: (key < np.array([2, 6])[:, None, None, None]) & (key <= query),
    "by_head": lambda query, key: abs(query - key) < np.array([1, 3])[:, None, None],
}


@pytest.mark.parametrize(
    ("kind", "queries", "keys", "num_kv_heads", "block"),
    [
        ("causal", 5, 7, 2, 3),
        ("causal", 6, 6, 1, 6),
        ("window", 6, 6, 1, 4),
        ("first_keys", 3, 5, 2, 2),
        ("even_queries", 5, 4, 2, 3),
        ("by_row", 6, 6, 1, 4),
        ("by_head", 5, 5, 2, 2),
    ],
)
def test_a_rule_gives_what_its_mask_gives(rng, same, kind, queries, keys, num_kv_heads, block):
    seen = np.array(RULES[kind](np.arange(queries)[:, None], np.arange(keys)[None]))
    full_mask = np.broadcast_to(seen, (2, 2, queries, keys))
    same(*drawn(rng, queries, keys, 2, num_kv_heads), RULES[kind], full_mask, block=block)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 11), st.integers(0, 2**32))
def test_any_length_in_any_blocks(quick, queries, keys, block, seed):
    rng = np.random.default_rng(seed)
    inputs, _ = drawn(rng, queries, keys, 2, 1, batch=1)
    mask = rng.random((1, 2, queries, keys)) < 0.7
    y = quick(lambda *inputs: blockwise_attend(*inputs, mask=mask, block=block))(*inputs)
    np.testing.assert_allclose(array(y), array(quick(lambda *inputs: attend(*inputs, mask=mask))(*inputs)), atol=2e-6)


def test_gradients_are_those_of_finite_differences(rng, quick, gradients):
    inputs, upstream = drawn(rng, 3, 5, 2, 1, batch=1)
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)

    def by_hand(query, key, value):
        key, value = key.repeat(2, axis=2), value.repeat(2, axis=2)
        weights = np.where(mask, np.exp(np.einsum("btnh,bsnh->bnts", query, key) / 2), 0)
        weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)
        return (np.einsum("bnts,bsnh->btnh", weights, value) * upstream).sum()

    blockwise = quick(lambda *inputs: blockwise_attend(*inputs, mask=mask[None, None], block=2) * upstream)
    found = gradients(blockwise, *inputs)
    precise = [x.astype("float64") for x in inputs]
    for x, gradient in zip(precise, found):
        for place in np.ndindex(*x.shape):
            held, around = x[place], []
            for x[place] in (held + 1e-5, held - 1e-5):
                around.append(by_hand(*precise))
            x[place] = held
            assert abs((around[0] - around[1]) / 2e-5 - gradient[place]) < 2e-6


def test_a_query_that_may_look_nowhere_gets_zeros_and_gives_zero_gradients(rng, quick, gradients):
    inputs, _ = drawn(rng, 3, 5, 2, 2)
    mask = np.ones((2, 1, 3, 5), bool)
    mask[0, :, 1] = mask[1] = False
    blockwise = quick(lambda *inputs: (blockwise_attend(*inputs, mask=mask, block=2) + 1) ** 2)
    y = array(blockwise(*inputs)) - 1
    assert not y[0, 1].any()
    assert not y[1].any()
    assert y[0, [0, 2]].all()
    of_query, of_key, of_value = gradients(blockwise, *inputs)
    assert not of_query[0, 1].any()
    assert not any(found[1].any() for found in (of_query, of_key, of_value))
    assert all(found[0].any() for found in (of_query, of_key, of_value))


def test_hidden_keys_leave_no_trace(rng, quick, gradients):
    (query, key, value), _ = drawn(rng, 3, 6, 2, 2)
    mask = np.array([1, 0, 1, 1, 0, 1], bool)[None, None, None]
    hidden = ~mask[0, 0, 0]
    blockwise = quick(lambda *inputs: blockwise_attend(*inputs, mask=mask, block=2) ** 2)
    before = array(blockwise(query, key, value))
    key[:, hidden], value[:, hidden] = 1e6, -1e6
    np.testing.assert_array_equal(array(blockwise(query, key, value)), before)
    assert not any(gradient[:, hidden].any() for gradient in gradients(blockwise, query, key, value)[1:])


def test_a_key_that_stands_out_gives_its_value(rng, quick, gradients):
    """Logits of 80,000, first negative, then positive, neither overflow nor blur."""
    signs = np.array([-1, -1, 1, -1], "float32")[None, :, None, None]
    key, value = 200 * signs * np.ones((1, 4, 1, 4), "float32"), normal(rng, 1, 4, 1, 3)
    query = key[:, [2, 2]]
    blockwise = quick(lambda *inputs: blockwise_attend(*inputs, block=1))
    np.testing.assert_array_equal(array(blockwise(query, key, value)), value[:, [2, 2]])
    found = gradients(blockwise, query, key, value)
    assert all(np.isfinite(gradient).all() for gradient in found)
    np.testing.assert_array_equal(found[2][0, :, 0, 0], [0, 0, 2, 0])


def test_xla_gives_the_same_in_both_directions(rng, jit, gradients):
    inputs, upstream = drawn(rng, 5, 7, 4, 2)
    compiled = jit(lambda *x: blockwise_attend(*x, mask=RULES["causal"], block=3) * upstream)
    expected = array(attend(*inputs, mask=masks.causal(5, 7))) * upstream
    np.testing.assert_allclose(array(compiled(*map(ops.convert_to_tensor, inputs))), expected, atol=2e-6)
    wanted = gradients(lambda *x: attend(*x, mask=masks.causal(5, 7)) * upstream, *inputs)
    for gradient, other in zip(gradients(compiled, *inputs), wanted):
        np.testing.assert_allclose(gradient, other, atol=1e-5)


@pytest.mark.parametrize(("dtype", "atol"), [("float16", 4e-3), ("bfloat16", 3e-2)])
def test_half_precision_stays_close(rng, quick, gradients, dtype, atol):
    inputs, upstream = drawn(rng, 5, 8, 2, 1)

    def through_half(*inputs):
        y = blockwise_attend(*(ops.cast(x, dtype) for x in inputs), block=3)
        assert backend.standardize_dtype(y.dtype) == dtype
        return ops.cast(y, "float32") * upstream

    half, full = quick(through_half), quick(lambda *inputs: attend(*inputs) * upstream)
    np.testing.assert_allclose(array(half(*inputs)), array(full(*inputs)), atol=atol)
    for gradient, other in zip(gradients(half, *inputs), gradients(full, *inputs)):
        np.testing.assert_allclose(gradient, other, atol=2 * atol)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="JAX traces with concrete shapes")
@pytest.mark.parametrize("mask", [None, RULES["causal"]])
def test_a_trace_without_known_batch_and_lengths_gives_the_same(rng, mask):
    import tensorflow as tf

    inputs, _ = drawn(rng, 5, 7, 4, 2)
    specs = [tf.TensorSpec((None, None, *x.shape[2:])) for x in inputs]
    traced = tf.function(lambda *x: blockwise_attend(*x, mask=mask, block=3), input_signature=specs, autograph=False)
    expected = attend(*inputs, mask=None if mask is None else masks.causal(5, 7))
    np.testing.assert_allclose(array(traced(*inputs)), array(expected), atol=2e-6)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="JAX traces with concrete shapes")
def test_the_layer_takes_unknown_lengths(rng, scramble):
    import tensorflow as tf

    x, mask = normal(rng, 2, 7, 8), rng.random((2, 1, 1, 7)) < 0.7
    layer, full = twins(scramble, x, causal=True, block=3)
    specs = [tf.TensorSpec((None, None, 8)), tf.TensorSpec((None, 1, 1, None), "bool")]
    traced = tf.function(lambda x, mask: layer(x, attention_mask=mask), input_signature=specs, autograph=False)
    expected = full(x, attention_mask=masks.causal(7) & mask)
    np.testing.assert_allclose(array(traced(x, mask)), array(expected), atol=1e-5)


@pytest.mark.skipif(backend.backend() != "jax", reason="TensorFlow does not tell what a program will take")
@pytest.mark.parametrize("backward", [False, True])
def test_memory_grows_with_the_length_and_not_with_its_square(backward):
    import jax

    def growth(function):
        def program(*inputs):
            return function(*inputs).sum()

        compiled = jax.jit(jax.grad(program, argnums=(0, 1, 2)) if backward else program)
        shapes = [[jax.ShapeDtypeStruct((1, length, 2, 8), "float32")] * 3 for length in (512, 1024)]
        taken = [compiled.lower(*x).compile().memory_analysis().temp_size_in_bytes for x in shapes]
        return taken[1] / taken[0]

    assert growth(lambda *x: blockwise_attend(*x, mask=RULES["causal"], block=32)) < 2.2
    assert growth(lambda *x: attend(*x, mask=masks.causal(x[0].shape[1]))) > 3.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": 0}, "block: 0 keys; it is at least 1"),
        ({"key": np.ones((1, 5, 3, 4), "float32")}, "key and value: 3 and 2 heads"),
        ({"mask": np.ones((1, 1, 3, 5), "int32")}, "mask: int32"),
        ({"mask": np.ones((1, 1, 3, 4), bool)}, "mask: shape"),
    ],
)
def test_a_wrong_argument_is_named(changes, message):
    query, key = np.ones((1, 3, 4, 4), "float32"), np.ones((1, 5, 2, 4), "float32")
    with pytest.raises(ValueError, match=message):
        blockwise_attend(**{"query": query, "key": key, "value": key, **changes})


# === The layer ===


def twins(scramble, x, memory=None, **changes):
    """Makes a BlockwiseAttention and a MultiHeadAttention with the same weights."""
    common = {name: value for name, value in changes.items() if name not in ("causal", "block")}
    blockwise, full = BlockwiseAttention(4, 4, **changes), MultiHeadAttention(4, 4, **common)
    blockwise(x, memory)
    full(x, memory)
    scramble(blockwise)
    full.set_weights(blockwise.get_weights())
    return blockwise, full


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 2, "rotary": Rotary(), "value_dim": 3, "gate": True}])
def test_the_layer_computes_what_multi_head_attention_computes(rng, scramble, quick, causal, changes):
    x = normal(rng, 2, 7, 8)
    layer, full = twins(scramble, x, causal=causal, block=3, **changes)
    order = ops.convert_to_numpy(masks.causal(7)) if causal else np.ones((1, 1, 7, 7), bool)
    seen = [
        np.ones((1, 1, 1, 1), bool),
        np.arange(7) < np.array([7, 4])[:, None, None, None],
        rng.random((2, 4, 7, 7)) < 0.7,
        rng.random((2, 1, 7, 1)) < 0.7,
    ]
    blockwise = quick(lambda x: [layer(x)] + [layer(x, attention_mask=mask) for mask in seen[1:]])
    for y, expected in zip(blockwise(x), quick(lambda x: [full(x, attention_mask=order & mask) for mask in seen])(x)):
        np.testing.assert_allclose(array(y), array(expected), atol=1e-5)


def test_the_layer_attends_to_a_memory(rng, scramble):
    x, memory = normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)
    blockwise, full = twins(scramble, x, memory, block=2)
    mask = np.arange(5) < np.array([5, 2])[:, None, None, None]
    np.testing.assert_allclose(array(blockwise(x, memory, mask)), array(full(x, memory, mask)), atol=1e-5)
    cache = blockwise.memory_cache(ops.convert_to_tensor(memory))
    np.testing.assert_allclose(
        array(blockwise(x, attention_mask=mask, cache=cache)), array(full(x, memory, mask)), atol=1e-5
    )


@pytest.mark.parametrize("causal", [False, True])
def test_decoding_with_a_cache_gives_what_attending_at_once_gives(rng, scramble, quick, causal):
    x = normal(rng, 2, 6, 8)
    layer, full = twins(scramble, x, causal=causal, block=4, num_kv_heads=2, rotary=Rotary())

    def decode(x):
        cache, outputs, start = layer.empty_cache(2, 9), [], 0
        for piece in (3, 1, 2):
            mask = None if causal else masks.causal(piece, 9, offset=start)
            outputs.append(layer(x[:, start : start + piece], attention_mask=mask, cache=cache))
            start += piece
        return ops.concatenate(outputs, axis=1)

    expected = full(x, attention_mask=masks.causal(6))
    np.testing.assert_allclose(array(quick(decode)(x)), array(expected), atol=1e-5)


def test_the_layer_sees_no_later_place(rng, scramble):
    x = normal(rng, 1, 6, 8)
    layer, _ = twins(scramble, x, causal=True, block=2)
    changed = x.copy()
    changed[:, 4] += 1
    before, behind = array(layer(x))[0], array(layer(changed))[0]
    np.testing.assert_array_equal(behind[:4], before[:4])
    assert np.abs(behind[4:] - before[4:]).max(axis=1).min() > 1e-3


def test_a_capture_stays_empty(rng):
    with capture() as maps:
        BlockwiseAttention(2, 4)(normal(rng, 1, 3, 8))
    assert maps == {}


@pytest.mark.parametrize("argument", [{"score": "dot"}, {"bias": keras.layers.Layer()}, {"dropout": 0.1}])
def test_what_needs_the_weights_is_refused(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=rf"{name}: .* blockwise attention takes scaled dot products"):
        BlockwiseAttention(2, 4, **argument)


def test_it_survives_its_configuration(rng, scramble, reborn):
    x = normal(rng, 2, 5, 8)
    layer, _ = twins(scramble, x, causal=True, block=2, rotary=Rotary(), num_kv_heads=2)
    np.testing.assert_array_equal(array(reborn(layer, x)(x)), array(layer(x)))


def test_it_survives_a_keras_file(rng, scramble, tmp_path):
    x = keras.Input((None, 8))
    model = scramble(keras.Model(x, BlockwiseAttention(2, 4, causal=True, block=2)(x)))
    model.save(tmp_path / "model.keras")
    inputs = normal(rng, 2, 5, 8)
    np.testing.assert_array_equal(
        array(keras.saving.load_model(tmp_path / "model.keras")(inputs)), array(model(inputs))
    )
