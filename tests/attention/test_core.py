"""attend() against loops over numpy arrays, and what must hold for every softmax over keys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import backend, ops

from zoo.attention import attend, capture
from zoo.attention.core import _fused

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")


def by_hand(query, key, value, bias=None, mask=None):
    """Attends one query at a time, in float64."""
    (batch, length, heads, width), keys = query.shape, key.shape[1]
    groups = heads // key.shape[2]
    shape = (batch, heads, length, keys)
    bias = np.zeros(shape) if bias is None else np.broadcast_to(bias, shape)
    mask = np.ones(shape, bool) if mask is None else np.broadcast_to(mask, shape)
    y = np.zeros((batch, length, heads, value.shape[3]))
    for b, n, t in np.ndindex(*shape[:3]):
        seen = [s for s in range(keys) if mask[b, n, t, s]]
        if not seen:
            continue
        logits = [
            query[b, t, n].astype("float64") @ key[b, s, n // groups] / np.sqrt(width) + bias[b, n, t, s] for s in seen
        ]
        weights = np.exp(np.array(logits) - max(logits))
        weights /= weights.sum()
        y[b, t, n] = sum(weight * value[b, s, n // groups] for weight, s in zip(weights, seen))
    return y


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def run(*args, **kwargs):
    return ops.convert_to_numpy(attend(*args, **kwargs))


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("mask_shape", [None, (2, 4, 3, 5), (2, 1, 1, 5), (1, 1, 3, 5), (1, 4, 3, 1), (2, 1, 3, 1)])
@pytest.mark.parametrize("bias_shape", [None, (2, 4, 3, 5), (1, 4, 1, 5)])
def test_the_loops(rng, num_kv_heads, mask_shape, bias_shape):
    query, key, value = normal(rng, 2, 3, 4, 8), normal(rng, 2, 5, num_kv_heads, 8), normal(rng, 2, 5, num_kv_heads, 6)
    mask = None if mask_shape is None else rng.random(mask_shape) < 0.6
    bias = None if bias_shape is None else normal(rng, *bias_shape)
    y = run(query, key, value, bias=bias, mask=mask)
    np.testing.assert_allclose(y, by_hand(query, key, value, bias, mask), atol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    # Few different sizes: JAX compiles every operation anew for each.
    st.sampled_from([(1, 1, 1, 1), (2, 3, 4, 2), (3, 4, 1, 3)]),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2]),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_the_loops_for_any_sizes(sizes, num_kv_heads, groups, share, seed):
    batch, length, keys, width = sizes
    rng = np.random.default_rng(seed)
    query = normal(rng, batch, length, num_kv_heads * groups, width)
    key, value = normal(rng, 2, batch, keys, num_kv_heads, width)
    mask = rng.random((batch, num_kv_heads * groups, length, keys)) < share
    np.testing.assert_allclose(run(query, key, value, mask=mask), by_hand(query, key, value, mask=mask), atol=1e-5)


def test_equal_logits_give_the_mean(rng):
    value = normal(rng, 2, 5, 3, 4)
    zeros = np.zeros((2, 5, 3, 4), "float32")
    expected = np.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
    np.testing.assert_allclose(run(zeros, value, value), expected, atol=1e-6)


def test_a_key_that_stands_out_gives_its_value(rng):
    """Logits of 10,000 neither overflow nor blur."""
    key = np.eye(4, dtype="float32")[None, :, None] * 200
    value = normal(rng, 1, 4, 1, 3)
    query = key[:, [2, 0]]
    np.testing.assert_array_equal(run(query, key, value), value[:, [2, 0]])


def test_the_order_of_keys_is_not_seen(rng):
    query, key, value = normal(rng, 2, 3, 4, 8), normal(rng, 2, 6, 2, 8), normal(rng, 2, 6, 2, 8)
    mask, order = rng.random((2, 1, 3, 6)) < 0.6, rng.permutation(6)
    np.testing.assert_allclose(
        run(query, key[:, order], value[:, order], mask=mask[..., order]), run(query, key, value, mask=mask), atol=1e-6
    )


def test_queries_do_not_see_each_other(rng):
    query, key, value = normal(rng, 2, 5, 2, 8), normal(rng, 2, 6, 2, 8), normal(rng, 2, 6, 2, 8)
    order = [3, 0, 4]
    np.testing.assert_allclose(run(query[:, order], key, value), run(query, key, value)[:, order], atol=1e-6)


def test_a_bias_that_all_keys_share_changes_nothing(rng):
    query, key, value = normal(rng, 3, 2, 4, 2, 8)
    bias = 10 * normal(rng, 2, 2, 4, 1)
    np.testing.assert_allclose(run(query, key, value, bias=bias), run(query, key, value), atol=1e-5)


def test_hidden_keys_leave_no_trace(rng, gradients):
    query, key, value = normal(rng, 2, 3, 2, 8), normal(rng, 2, 6, 2, 8), normal(rng, 2, 6, 2, 8)
    mask = np.array([1, 0, 1, 1, 0, 1], bool)[None, None, None]
    hidden = ~mask[0, 0, 0]
    before = run(query, key, value, mask=mask)
    key[:, hidden], value[:, hidden] = 1e6, -1e6
    bias = np.where(mask, 0, 1e20).astype("float32")
    np.testing.assert_array_equal(run(query, key, value, mask=mask), before)
    np.testing.assert_array_equal(run(query, key, value, mask=mask, bias=bias), before)
    _, of_key, of_value = gradients(lambda q, k, v: attend(q, k, v, mask=mask) ** 2, query, key, value)
    assert not of_key[:, hidden].any()
    assert not of_value[:, hidden].any()
    assert np.abs(of_key[:, ~hidden]).min(axis=(0, 2, 3)).all()
    assert np.abs(of_value[:, ~hidden]).min(axis=(0, 2, 3)).all()


@pytest.mark.parametrize("num_kv_heads", [2, 1])
def test_a_query_that_may_look_nowhere_gets_zeros_and_gives_zero_gradients(rng, gradients, jit, num_kv_heads):
    query, key, value = normal(rng, 2, 3, 2, 8), normal(rng, 2, 4, num_kv_heads, 8), normal(rng, 2, 4, num_kv_heads, 8)
    mask = np.ones((2, 1, 3, 4), bool)
    mask[0, :, 1] = mask[1] = False

    def function(query, key, value):
        return attend(query, key, value, mask=ops.convert_to_tensor(mask)) ** 2 + 1

    for compiled in (function, jit(function)):
        y = ops.convert_to_numpy(compiled(*map(ops.convert_to_tensor, (query, key, value)))) - 1
        assert not y[0, 1].any()
        assert not y[1].any()
        assert y[0, [0, 2]].all()
        of_query, of_key, of_value = gradients(compiled, query, key, value)
        assert all(np.isfinite(found).all() for found in (of_query, of_key, of_value))
        assert not of_query[0, 1].any()
        assert not any(found[1].any() for found in (of_query, of_key, of_value))
        assert of_query[0, 0].any()
        assert of_key[0].any()
        assert of_value[0].any()


def test_the_softmax_runs_in_float32(rng):
    """Over 4,096 keys bfloat16 weights would be off by 0.4 %; these are off by less than a millionth."""
    query, key, value = (
        ops.cast(x, "bfloat16")
        for x in (normal(rng, 1, 2, 1, 16), normal(rng, 1, 4096, 1, 16), normal(rng, 1, 4096, 1, 4))
    )
    with capture() as maps:
        y = attend(query, key, value, score=lambda query, key: ops.einsum("btnh,bsnh->bnts", query, key))
    assert backend.standardize_dtype(y.dtype) == "bfloat16"
    assert backend.standardize_dtype(maps["attend"].dtype) == "float32"
    logits = ops.convert_to_numpy(ops.cast(ops.einsum("btnh,bsnh->bnts", query, key), "float32")).astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(ops.convert_to_numpy(maps["attend"]), expected, rtol=1e-5)


def test_the_output_has_the_values_dtype(rng):
    query, key = normal(rng, 2, 1, 3, 2, 4)
    y = attend(query, key, ops.cast(normal(rng, 1, 3, 2, 4), "float16"))
    assert backend.standardize_dtype(y.dtype) == "float16"


def test_dropout_is_applied_to_the_weights_after_they_are_recorded(rng):
    query, key, value = normal(rng, 3, 1, 4, 2, 8)
    only_first = np.array([1, 0, 0, 0], "float32")
    with capture() as maps:
        y = run(query, key, value, dropout=lambda weights: weights * only_first)
    weights = ops.convert_to_numpy(maps["attend"])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(y, weights[..., 0].transpose(0, 2, 1)[..., None] * value[:, :1], atol=1e-6)


def test_another_score_takes_the_place_of_scaled_dot(rng):
    query, key, value = normal(rng, 2, 3, 2, 8), normal(rng, 2, 4, 2, 8), normal(rng, 2, 4, 2, 8)
    scores = normal(rng, 2, 2, 3, 4)
    zeros = np.zeros_like(query)
    y = run(query, key, value, score=lambda query, key: ops.convert_to_tensor(scores))
    np.testing.assert_allclose(y, by_hand(zeros, key, value, bias=scores), atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_xla_gives_the_same(rng, jit, num_kv_heads):
    query, key, value = normal(rng, 2, 3, 4, 8), normal(rng, 2, 5, num_kv_heads, 8), normal(rng, 2, 5, num_kv_heads, 8)
    mask = rng.random((2, 1, 3, 5)) < 0.5
    compiled = jit(lambda *inputs: attend(*inputs[:3], mask=inputs[3]))
    y = compiled(*map(ops.convert_to_tensor, (query, key, value, mask)))
    np.testing.assert_allclose(ops.convert_to_numpy(y), run(query, key, value, mask=mask), atol=1e-6)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="JAX traces with concrete shapes")
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_a_trace_without_known_batch_and_lengths_gives_the_same(rng, num_kv_heads):
    import tensorflow as tf

    query, key, value = normal(rng, 2, 3, 4, 8), normal(rng, 2, 5, num_kv_heads, 8), normal(rng, 2, 5, num_kv_heads, 8)
    specs = [tf.TensorSpec((None, None, *x.shape[2:])) for x in (query, key, value)]
    traced = tf.function(attend, input_signature=specs)
    np.testing.assert_allclose(traced(query, key, value).numpy(), run(query, key, value), atol=1e-6)


def test_a_bias_may_leave_out_leading_axes(rng):
    query, key, value, bias = normal(rng, 2, 3, 2, 8), *normal(rng, 2, 2, 4, 2, 8), normal(rng, 2, 3, 4)
    for less in (bias, bias[0], bias[0, 0]):
        np.testing.assert_allclose(
            run(query, key, value, bias=less),
            by_hand(query, key, value, np.broadcast_to(less, (2, 2, 3, 4))),
            atol=1e-5,
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mask_shape", [(2, 1, 1, 5), (2, 4, 3, 5)])
def test_hidden_keys_leave_no_trace_in_half_precision(rng, dtype, mask_shape):
    mask = rng.random(mask_shape) < 0.5
    mask[0, 0], mask[..., 2] = False, False
    query, key, value = normal(rng, 2, 3, 4, 8), normal(rng, 2, 5, 2, 8), normal(rng, 2, 5, 2, 8)
    expected = by_hand(query, key, value, mask=mask)
    key[:, 2], value[:, 2] = 100, -100
    y = attend(*(ops.cast(x, dtype) for x in (query, key, value)), mask=mask)
    assert backend.standardize_dtype(y.dtype) == dtype
    y = ops.convert_to_numpy(ops.cast(y, "float32"))
    np.testing.assert_allclose(y, expected, atol=0.05)
    assert not y[~np.broadcast_to(mask, (2, 4, 3, 5)).any(axis=-1).transpose(0, 2, 1)].any()


@pytest.mark.skipif(backend.backend() != "jax", reason="the fused kernel is JAX's")
@pytest.mark.parametrize(
    ("num_kv_heads", "mask_shape", "bias_shape"),
    [
        (4, None, None),
        (2, None, (1, 4, 3, 5)),
        (4, (2, 1, 1, 5), None),
        (2, (2, 1, 3, 5), (2, 4, 3, 5)),
        (2, (1, 4, 3, 5), None),
        (4, (2, 4, 3, 1), (1, 4, 3, 5)),
    ],
)
def test_the_fused_kernel_gives_the_same(rng, num_kv_heads, mask_shape, bias_shape):
    query, key, value = normal(rng, 2, 3, 4, 8), normal(rng, 2, 5, num_kv_heads, 8), normal(rng, 2, 5, num_kv_heads, 8)
    bias = None if bias_shape is None else normal(rng, *bias_shape)
    mask = None if mask_shape is None else rng.random(mask_shape) < 0.5
    if mask is not None:
        mask[0, 0] = False
    y = ops.convert_to_numpy(_fused(*map(ops.convert_to_tensor, (query, key, value)), bias, mask, "xla"))
    np.testing.assert_allclose(y, run(query, key, value, bias=bias, mask=mask), atol=1e-5)
    if mask is not None:
        assert not y[~np.broadcast_to(mask, (2, 4, 3, 5)).any(axis=-1).transpose(0, 2, 1)].any()


@pytest.mark.skipif(backend.backend() != "jax", reason="the fused kernel is JAX's")
def test_the_fused_kernel_has_the_same_gradients(rng, gradients, jit):
    query, key, value = normal(rng, 2, 3, 4, 8), *normal(rng, 2, 2, 5, 2, 8)
    mask = rng.random((2, 1, 3, 5)) < 0.5
    mask[0, 0, 1] = False
    fused = gradients(jit(lambda *inputs: _fused(*inputs, None, mask, "xla") ** 2), query, key, value)
    plain = gradients(jit(lambda *inputs: attend(*inputs, mask=mask) ** 2), query, key, value)
    for found, expected in zip(fused, plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


Q, KV = np.ones((1, 2, 4, 3), "float32"), np.ones((1, 5, 2, 3), "float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": Q[0]}, r"query: shape \(2, 4, 3\)"),
        ({"key": KV[0]}, r"key: shape \(5, 2, 3\)"),
        ({"value": KV[0]}, r"value: shape \(5, 2, 3\)"),
        (
            {"key": KV.repeat(3, axis=2)[:, :, :3], "value": KV.repeat(3, axis=2)[:, :, :3]},
            "key and value: 3 and 3 heads",
        ),
        ({"value": KV[:, :, :1]}, "key and value: 2 and 1 heads for 4 query heads"),
        ({"mask": np.ones((1, 1, 2, 5), "int32")}, "mask: int32 .* it takes booleans"),
        ({"mask": np.ones((1, 1, 2, 5), "float32")}, "mask: float32 .* it takes booleans"),
        ({"mask": np.ones((2, 5), bool)}, r"mask: bool of shape \(2, 5\)"),
        (
            {"mask": np.ones((1, 1, 2, 4), bool)},
            r"mask: shape \(1, 1, 2, 4\) does not broadcast to \(1, 4, 2, 5\), which is \(batch, heads, queries",
        ),
        ({"mask": np.ones((1, 2, 2, 5), bool)}, r"mask: shape \(1, 2, 2, 5\) does not broadcast to \(1, 4, 2, 5\)"),
        ({"mask": np.ones((3, 1, 1, 5), bool)}, r"mask: shape \(3, 1, 1, 5\) does not broadcast to \(1, 4, 2, 5\)"),
        (
            {"bias": np.ones((1, 4, 5, 2), "float32")},
            r"bias: shape \(1, 4, 5, 2\) does not broadcast to \(1, 4, 2, 5\)",
        ),
        ({"bias": np.ones((3, 2, 5), "float32")}, r"bias: shape \(3, 2, 5\) does not broadcast to \(1, 4, 2, 5\)"),
        ({"value": KV[:, :4]}, "value: 4 places for 5 keys; each key has one value"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        attend(**{"query": Q, "key": KV, "value": KV, **arguments})
