"""linear_attend() and its layer against loops over numpy arrays, all at once and token by token."""

import keras
import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import LinearAttention, LinearState, RelativeBias, Rotary, capture, linear_attend


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def kernel(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def by_hand(query, key, value, causal=False, mask=None):
    """Attends one query at a time, in float64."""
    query, key, value = (x.astype("float64") for x in (query, key, value))
    (batch, length, heads, _), keys = query.shape, key.shape[1]
    groups = heads // key.shape[2]
    y = np.zeros((batch, length, heads, value.shape[3]))
    for b, t, n in np.ndindex(batch, length, heads):
        seen = [s for s in range(keys) if (mask is None or mask[b, s]) and (not causal or s <= t)]
        weights = [kernel(query[b, t, n]) @ kernel(key[b, s, n // groups]) for s in seen]
        if seen:
            y[b, t, n] = sum(w * value[b, s, n // groups] for w, s in zip(weights, seen)) / sum(weights)
    return y


def drawn(rng, queries, keys, num_kv_heads):
    query = normal(rng, 2, queries, 4, 3)
    return query, normal(rng, 2, keys, num_kv_heads, 3), normal(rng, 2, keys, num_kv_heads, 5)


@pytest.fixture
def quick(jit):
    """Compiles on JAX, which else compiles each operation by itself."""
    return jit if backend.backend() == "jax" else lambda function: function


CASES = [
    {"num_kv_heads": 4},
    {"num_kv_heads": 2, "masked": True},
    {"causal": True, "num_kv_heads": 4},
    {"causal": True, "num_kv_heads": 2, "masked": True, "block": 3},
    {"causal": True, "num_kv_heads": 1, "block": 1},
    {"causal": True, "num_kv_heads": 1, "masked": True, "block": 7},
]


@pytest.mark.parametrize("case", CASES)
def test_the_loops(rng, quick, case):
    causal = case.get("causal", False)
    inputs = drawn(rng, 7, 7 if causal else 5, case["num_kv_heads"])
    mask = rng.random(inputs[1].shape[:2]) < 0.6 if case.get("masked") else None
    y = quick(lambda *x: linear_attend(*x, causal=causal, mask=mask, block=case.get("block", 64)))(*inputs)
    np.testing.assert_allclose(array(y), by_hand(*inputs, causal, mask), atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_finite_differences(rng, quick, gradients, causal):
    inputs, upstream = [x[:1] for x in drawn(rng, 4, 4, 2)], normal(rng, 1, 4, 4, 5)
    mask = np.array([[0, 1, 1, 1]], bool)
    linear = quick(lambda *x: linear_attend(*x, causal=causal, mask=mask, block=3) * upstream)
    precise = [x.astype("float64") for x in inputs]
    for x, gradient in zip(precise, gradients(linear, *inputs)):
        for place in np.ndindex(*x.shape):
            held, around = x[place], []
            for x[place] in (held + 1e-5, held - 1e-5):
                around.append((by_hand(*precise, causal, mask) * upstream).sum())
            x[place] = held
            assert abs((around[0] - around[1]) / 2e-5 - gradient[place]) < 1e-5


def test_a_query_that_may_look_nowhere_gets_zeros_and_gives_zero_gradients(rng, quick, gradients):
    inputs = drawn(rng, 4, 4, 4)
    mask = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], bool)
    for causal in (False, True):
        linear = quick(lambda *x, causal=causal: (linear_attend(*x, causal=causal, mask=mask, block=3) + 1) ** 2)
        y = array(linear(*inputs)) - 1
        assert not y[1].any()
        assert y[0, :2].any() != causal
        found = gradients(linear, *inputs)
        assert all(np.isfinite(gradient).all() for gradient in found)
        assert not any(gradient[1].any() for gradient in found)


@pytest.mark.parametrize("pieces", [[1] * 6, [4, 1, 2], [7]])
def test_a_state_gives_piece_by_piece_what_is_computed_at_once(rng, quick, pieces):
    query, key, value = drawn(rng, sum(pieces), sum(pieces), 2)
    mask = rng.random((2, sum(pieces))) < 0.7

    def decode(query, key, value):
        state, outputs, start = LinearState.empty(2, 4, 3, 5), [], 0
        for piece in pieces:
            here = slice(start, start + piece)
            outputs.append(
                linear_attend(
                    query[:, here], key[:, here], value[:, here], causal=True, mask=mask[:, here], state=state, block=3
                )
            )
            start += piece
        return ops.concatenate(outputs, axis=1)

    y = array(quick(decode)(query, key, value))
    np.testing.assert_allclose(y, by_hand(query, key, value, True, mask), atol=1e-5)


def test_a_state_holds_two_sums_whatever_the_length(rng):
    query, key, value = drawn(rng, 5, 5, 4)
    short, long = LinearState.empty(2, 4, 3, 5), LinearState.empty(2, 4, 3, 5)
    assert not any(array(x).any() for x in short.tensors)
    linear_attend(query[:, :1], key[:, :1], value[:, :1], causal=True, state=short)
    linear_attend(query, key, value, causal=True, state=long, block=2)
    for state, length in ((short, 1), (long, 5)):
        assert [tuple(x.shape) for x in state.tensors] == [(2, 4, 3, 5), (2, 4, 3)]
        seen = kernel(key[:, :length])
        np.testing.assert_allclose(array(state.keys), seen.sum(axis=1), rtol=1e-5)
        products = np.einsum("bsnh,bsnv->bnhv", seen, value[:, :length])
        np.testing.assert_allclose(array(state.products), products, atol=1e-5)


def test_reorder_moves_whole_rows(rng):
    products, keys = normal(rng, 3, 2, 4, 5), normal(rng, 3, 2, 4)
    state = LinearState(ops.convert_to_tensor(products), ops.convert_to_tensor(keys))
    state.reorder(ops.convert_to_tensor([2, 2, 0], "int32"))
    np.testing.assert_array_equal(array(state.products), products[[2, 2, 0]])
    np.testing.assert_array_equal(array(state.keys), keys[[2, 2, 0]])


def test_half_precision_sums_in_float32(rng):
    """Sums of 2,000 keys in bfloat16 would be off by several percent."""
    query, key, value = normal(rng, 1, 2000, 1, 4), normal(rng, 1, 2000, 1, 4), normal(rng, 1, 2000, 1, 2) + 1
    half = [ops.cast(x, "bfloat16") for x in (query, key, value)]
    y = linear_attend(*half, causal=True)
    assert backend.standardize_dtype(y.dtype) == "bfloat16"
    query, key, value = (array(ops.cast(x, "float32")) for x in half)
    weights = kernel(query[0, -1, 0].astype("float64")) @ kernel(key[0, :, 0].astype("float64")).T
    expected = weights @ value[0, :, 0] / weights.sum()
    np.testing.assert_allclose(array(ops.cast(y, "float32"))[0, -1, 0], expected, rtol=2**-8)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="JAX traces with concrete shapes")
@pytest.mark.parametrize("causal", [False, True])
def test_a_trace_without_known_batch_and_lengths_gives_the_same(rng, causal):
    import tensorflow as tf

    inputs = drawn(rng, 7, 7, 2)
    specs = [tf.TensorSpec((None, None, *x.shape[2:])) for x in inputs]
    traced = tf.function(lambda *x: linear_attend(*x, causal=causal, block=3), input_signature=specs, autograph=False)
    np.testing.assert_allclose(traced(*inputs).numpy(), by_hand(*inputs, causal), atol=1e-5)


def test_wrong_arguments_are_named(rng):
    query, key, value = drawn(rng, 3, 5, 2)
    with pytest.raises(ValueError, match="key: 5 places for 3 queries; causal attention is to itself"):
        linear_attend(query, key, value, causal=True)
    with pytest.raises(ValueError, match="state: only causal attention has one"):
        linear_attend(query, key, value, state=LinearState.empty(2, 4, 3, 5))
    with pytest.raises(ValueError, match="value: 4 places for 5 keys"):
        linear_attend(query, key, value[:, :4])


# === The layer ===


def make(scramble, x, memory=None, **changes):
    layer = LinearAttention(4, 4, **changes)
    layer(x, memory)
    return scramble(layer)


def heads(dense, x, num_heads):
    return (x @ array(dense.kernel) + array(dense.bias)).reshape(*x.shape[:2], num_heads, -1)


def test_the_layer_projects_and_attends(rng, scramble):
    x, memory = normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)
    layer = make(scramble, x, memory, num_kv_heads=2, value_dim=3)
    mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], bool)
    y = by_hand(
        heads(layer.query, x, 4),
        heads(layer.key, memory, 2),
        heads(layer.value, memory, 2),
        mask=mask,
    )
    expected = y.reshape(2, 3, 12) @ array(layer.output_projection.kernel) + array(layer.output_projection.bias)
    np.testing.assert_allclose(array(layer(x, memory, mask)), expected, atol=1e-5)


def test_the_layer_decodes_token_by_token(rng, scramble, quick):
    x = normal(rng, 2, 5, 8)
    layer = make(scramble, x, causal=True, num_kv_heads=2, rotary=Rotary())

    def decode(x):
        state = layer.empty_cache(2, 100)
        assert [tuple(tensor.shape) for tensor in state.tensors] == [(2, 4, 4, 4), (2, 4, 4)]
        return ops.concatenate([layer(x[:, t : t + 1], positions=np.array([t]), cache=state) for t in range(5)], axis=1)

    np.testing.assert_allclose(array(quick(decode)(x)), array(layer(x)), atol=1e-5)


def test_xla_gives_the_same(rng, scramble, jit):
    x = normal(rng, 2, 5, 8)
    layer = make(scramble, x, causal=True)
    np.testing.assert_allclose(array(jit(lambda x: layer(x))(ops.convert_to_tensor(x))), array(layer(x)), atol=1e-5)


def test_the_layer_sees_no_later_place(rng, scramble):
    x = normal(rng, 1, 6, 8)
    layer, changed = make(scramble, x, causal=True), x.copy()
    changed[:, 4] += 1
    before, behind = array(layer(x))[0], array(layer(changed))[0]
    np.testing.assert_allclose(behind[:4], before[:4], atol=1e-6)
    assert np.abs(behind[4:] - before[4:]).max(axis=1).min() > 1e-3


def test_padding_is_not_seen(rng, scramble):
    x, mask = normal(rng, 2, 7, 8), np.arange(7)[None].repeat(2, axis=0) < 4
    layer = make(scramble, x)
    np.testing.assert_allclose(array(layer(x, key_mask=mask))[:, :4], array(layer(x[:, :4])), atol=1e-5)


def test_there_is_no_map_to_capture(rng):
    with capture() as maps:
        LinearAttention(2, 4)(normal(rng, 1, 3, 8))
    assert maps == {}


@pytest.mark.parametrize("argument", [{"score": "dot"}, {"bias": RelativeBias(2)}, {"dropout": 0.1}])
def test_what_needs_weights_is_refused(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=rf"{name}: .* linear attention has no logits and no weights"):
        LinearAttention(2, 4, **argument)


def test_rotary_with_a_state_needs_positions(rng, scramble):
    x = normal(rng, 2, 1, 8)
    layer = make(scramble, x, causal=True, rotary=Rotary())
    with pytest.raises(ValueError, match="positions: None; the state does not count tokens"):
        layer(x, cache=layer.empty_cache(2))


def test_it_survives_its_configuration(rng, scramble, reborn):
    x = normal(rng, 2, 5, 8)
    layer = make(scramble, x, causal=True, rotary=Rotary(), num_kv_heads=2, value_dim=3)
    np.testing.assert_array_equal(array(reborn(layer, x)(x)), array(layer(x)))


def test_it_survives_a_keras_file(rng, scramble, tmp_path):
    x, memory, mask = keras.Input((None, 8)), keras.Input((None, 6)), keras.Input((None,), dtype="bool")
    model = scramble(keras.Model([x, memory, mask], LinearAttention(2, 4)(x, memory, mask)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = [normal(rng, 2, 3, 8), normal(rng, 2, 5, 6), rng.random((2, 5)) < 0.7]
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))
