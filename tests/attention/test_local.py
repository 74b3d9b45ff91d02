"""Windows and chunks against attend() with their masks, and that their cost grows with the length only."""

import keras
import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import (
    ALiBi,
    ChunkedAttention,
    LocalAttention,
    MultiHeadAttention,
    RelativeBias,
    Rotary,
    attend,
    capture,
    chunked_attend,
    local_attend,
    masks,
)

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")

SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [3, 3, 3, 3, 3, 3, 3, 3, 1]])


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def drawn(rng, length, num_kv_heads):
    query = normal(rng, 2, length, 4, 4)
    return query, normal(rng, 2, length, num_kv_heads, 4), normal(rng, 2, length, num_kv_heads, 3)


def mask_of(make, size, length, causal, segments):
    """Writes down the (B, 1, T, T) mask that is never made."""
    mask = array(make(length, size))
    if causal:
        mask = mask & np.tri(length, dtype=bool)
    return mask if segments is None else mask & array(masks.segment(segments, segments))


@pytest.fixture
def quick(jit):
    """Compiles on JAX, which else compiles each operation by itself."""
    return jit if backend.backend() == "jax" else lambda function: function


@pytest.fixture
def same(quick, gradients):
    """Compares outputs and all gradients."""

    def compare(function, expected, inputs, upstream):
        function, expected = (quick(lambda *x, f=f: f(*x) * upstream) for f in (function, expected))
        for name, found, wanted in zip(
            ("output", "query", "key", "value"),
            (array(function(*inputs)), *gradients(function, *inputs)),
            (array(expected(*inputs)), *gradients(expected, *inputs)),
            strict=True,
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=name)

    return compare


@pytest.mark.parametrize(
    ("window", "length", "num_kv_heads", "causal", "segments"),
    [
        (3, 9, 4, False, None),
        (4, 9, 2, True, None),
        (1, 5, 4, False, None),
        (5, 5, 1, True, None),
        (7, 4, 4, False, None),
        (7, 4, 4, True, None),
        (3, 9, 2, True, SEGMENTS),
        (4, 9, 4, False, SEGMENTS),
    ],
)
def test_a_window_gives_what_its_mask_gives(rng, same, window, length, num_kv_heads, causal, segments):
    mask = mask_of(masks.sliding_window, window, length, causal, segments)
    same(
        lambda *x: local_attend(*x, window=window, causal=causal, segments=segments),
        lambda *x: attend(*x, mask=mask),
        drawn(rng, length, num_kv_heads),
        normal(rng, 2, length, 4, 3),
    )


# Texts of every kind: within a block, over two, over many, at the edge of one, shorter than their global tokens.
TEXTS = np.array([[1] * 8 + [2] * 2 + [3] * 9 + [4] * 3 + [0], [5] + [1] * 17 + [2] * 4 + [3], [1] * 23, [0] * 23])


def mask_with_globals(window, count, segments, causal=False):
    """Writes down who sees whom, one pair after the other."""
    mask = np.zeros((len(segments), 1, segments.shape[1], segments.shape[1]), bool)
    for row, numbers in enumerate(segments):
        places = [numbers[:t].tolist().count(number) for t, number in enumerate(numbers)]
        for t, s in np.ndindex(mask.shape[2:]):
            near = abs(t - s) < window or min(places[t], places[s]) < count
            mask[row, 0, t, s] = near and numbers[t] == numbers[s] > 0 and not (causal and s > t)
    return mask


@pytest.mark.parametrize(
    ("window", "count", "num_kv_heads", "bias", "causal"),
    [
        (3, 1, 4, None, False),
        (4, 2, 2, None, True),
        (4, 4, 4, ALiBi(4), False),
        (1, 1, 1, None, False),
        (8, 3, 4, ALiBi(4), True),
        (30, 5, 2, None, False),
    ],
)
def test_global_tokens_give_what_their_mask_gives(rng, same, window, count, num_kv_heads, causal, bias):
    inputs = [normal(rng, 4, 23, heads, width) for heads, width in ((4, 4), (num_kv_heads, 4), (num_kv_heads, 3))]
    mask, places = mask_with_globals(window, count, TEXTS, causal), np.arange(23)
    same(
        lambda *x: local_attend(
            *x, window=window, global_tokens=count, causal=causal, segments=ops.convert_to_tensor(TEXTS), bias=bias
        ),
        lambda *x: attend(*x, mask=mask, bias=None if bias is None else bias(places, places)),
        inputs,
        normal(rng, 4, 23, 4, 3),
    )


def test_without_segments_a_row_is_one_text(rng):
    inputs = drawn(rng, 9, 4)
    y = local_attend(*inputs, window=2, global_tokens=1)
    mask = mask_with_globals(2, 1, np.ones((2, 9), int))
    np.testing.assert_allclose(array(y), array(attend(*inputs, mask=mask)), atol=1e-5)


def test_xla_gives_the_same_with_global_tokens(rng, jit):
    inputs = [ops.convert_to_tensor(normal(rng, 4, 23, 2, 4)) for _ in range(3)]

    def local(*x):
        return local_attend(*x, window=4, global_tokens=2, segments=ops.convert_to_tensor(TEXTS))

    np.testing.assert_allclose(array(jit(local)(*inputs)), array(local(*inputs)), atol=1e-5)


def test_texts_in_a_row_and_padding_change_nothing(rng, quick):
    """One text alone, packed behind another, and in a longer row."""
    first, second = (normal(rng, 1, n, 2, 4) for n in (6, 11))
    local = quick(lambda x, numbers: local_attend(x, x, x, window=4, global_tokens=2, segments=numbers))
    alone = array(local(second, np.ones((1, 11), "int32")))
    joined = np.concatenate([first, second, np.ones((1, 3, 2, 4), "float32")], axis=1)
    packed = array(local(joined, np.array([[1] * 6 + [2] * 11 + [0] * 3])))
    np.testing.assert_allclose(packed[:, 6:17], alone, atol=1e-5)
    assert not packed[:, 17:].any()


@pytest.mark.parametrize(
    ("size", "length", "num_kv_heads", "causal", "segments"),
    [
        (3, 9, 4, False, None),
        (4, 9, 2, True, None),
        (1, 5, 4, False, None),
        (7, 4, 1, True, None),
        (4, 9, 2, False, SEGMENTS),
        (4, 9, 4, True, SEGMENTS),
    ],
)
def test_chunks_give_what_their_mask_gives(rng, same, size, length, num_kv_heads, causal, segments):
    mask = mask_of(masks.block, size, length, causal, segments)
    same(
        lambda *x: chunked_attend(*x, size=size, causal=causal, segments=segments),
        lambda *x: attend(*x, mask=mask),
        drawn(rng, length, num_kv_heads),
        normal(rng, 2, length, 4, 3),
    )


def test_a_window_of_one_copies_the_value(rng):
    query, key, value = drawn(rng, 5, 4)
    np.testing.assert_allclose(array(local_attend(query, key, value, window=1)), value, atol=1e-6)


def test_a_place_sees_its_window_only(rng, quick):
    query, key, value = drawn(rng, 9, 4)
    local = quick(lambda value: local_attend(query, key, value, window=3))
    before = array(local(value))
    for s in (0, 4, 8):
        changed = value.copy()
        changed[:, s] += 1
        moved = np.abs(array(local(changed)) - before).max(axis=(0, 2, 3)) > 1e-6
        assert moved.tolist() == [abs(t - s) < 3 for t in range(9)]


def test_padding_gives_zeros_and_zero_gradients(rng, quick, gradients):
    inputs = drawn(rng, 9, 2)
    for function in (
        lambda *x: local_attend(*x, window=4, segments=SEGMENTS),
        lambda *x: chunked_attend(*x, size=4, segments=SEGMENTS),
    ):
        function = quick(lambda *x, f=function: (f(*x) + 1) ** 2)
        assert (array(function(*inputs))[0, 7:] == 1).all()
        assert not any(gradient[0, 7:].any() for gradient in gradients(function, *inputs))


def test_captured_maps_are_of_blocks(rng):
    inputs = drawn(rng, 9, 4)
    with capture() as maps:
        local_attend(*inputs, window=4)
        local_attend(*inputs, window=4, causal=True)
        chunked_attend(*inputs, size=4)
    assert [tuple(x.shape) for x in maps.values()] == [(6, 4, 4, 12), (6, 4, 4, 8), (6, 4, 4, 4)]
    sums = array(maps["attend"]).sum(axis=-1).reshape(2, 3, 4, 4)
    np.testing.assert_allclose(sums[:, :2], 1, atol=1e-6)
    np.testing.assert_allclose(sums[:, 2, :, 0], 1, atol=1e-6)
    assert not sums[:, 2, :, 1:].any()


@pytest.mark.parametrize(
    "function", [lambda *x, **kw: local_attend(*x, window=8, **kw), lambda *x, **kw: chunked_attend(*x, size=8, **kw)]
)
def test_score_and_dropout_are_attends(rng, function):
    inputs = drawn(rng, 8, 4)
    value = inputs[2]
    halved = array(function(*inputs, dropout=lambda weights: weights / 2))
    np.testing.assert_allclose(halved, array(function(*inputs)) / 2, atol=1e-6)
    equal = function(*inputs, score=lambda query, key: ops.zeros((2, 4, query.shape[1], key.shape[1])))
    mean = np.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
    np.testing.assert_allclose(array(equal), mean, atol=1e-6)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="JAX traces with concrete shapes")
@pytest.mark.parametrize(
    "function",
    [
        lambda *x: local_attend(*x, window=3),
        lambda *x: local_attend(*x, window=3, global_tokens=2),
        lambda *x: chunked_attend(*x, size=4),
    ],
)
def test_a_trace_without_known_batch_and_lengths_gives_the_same(rng, function):
    import tensorflow as tf

    inputs = drawn(rng, 9, 2)
    specs = [tf.TensorSpec((None, None, *x.shape[2:])) for x in inputs]
    traced = tf.function(function, input_signature=specs, autograph=False)
    np.testing.assert_allclose(traced(*inputs).numpy(), array(function(*inputs)), atol=1e-6)


@pytest.mark.skipif(backend.backend() != "jax", reason="TensorFlow does not count a program's operations")
@pytest.mark.parametrize("causal", [False, True])
def test_the_cost_grows_with_the_length_and_not_with_its_square(causal):
    import jax

    def growth(function):
        shapes = [[jax.ShapeDtypeStruct((1, length, 2, 8), "float32")] * 3 for length in (512, 1024)]
        costs = [jax.jit(function).lower(*x).compile().cost_analysis()["flops"] for x in shapes]
        return costs[1] / costs[0]

    assert growth(lambda *x: local_attend(*x, window=32, causal=causal)) < 2.1
    assert growth(lambda *x: local_attend(*x, window=32, global_tokens=4, causal=causal)) < 2.1
    assert growth(lambda *x: chunked_attend(*x, size=32, causal=causal)) < 2.1
    assert growth(attend) > 3.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": np.ones((1, 5, 2, 4)), "value": np.ones((1, 5, 2, 4))}, "key: 5 places for 3 queries"),
        ({"key": np.ones((1, 3, 3, 4))}, "key and value: 3 and 2 heads"),
    ],
)
def test_a_wrong_argument_is_named(changes, message):
    arguments = {
        "query": np.ones((1, 3, 4, 4)),
        "key": np.ones((1, 3, 2, 4)),
        "value": np.ones((1, 3, 2, 4)),
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        local_attend(**arguments, window=2)
    with pytest.raises(ValueError, match=message):
        chunked_attend(**arguments, size=2)


def test_no_window_and_no_chunk_are_refused(rng):
    inputs = drawn(rng, 4, 4)
    with pytest.raises(ValueError, match="window: 0 places; it is at least 1"):
        local_attend(*inputs, window=0)
    with pytest.raises(ValueError, match="global_tokens: 3; it is 0 to 2, which is the window"):
        local_attend(*inputs, window=2, global_tokens=3)
    with pytest.raises(ValueError, match="size: 0 places; it is at least 1"):
        chunked_attend(*inputs, size=0)


# === Layers ===

KINDS = {
    "local": (LocalAttention, {"window": 4}, lambda length: masks.sliding_window(length, 4)),
    "chunked": (ChunkedAttention, {"size": 4}, lambda length: masks.block(length, 4)),
}


@pytest.fixture(params=KINDS)
def make(request, rng, scramble):
    """Makes a layer of each kind with random weights, MultiHeadAttention with the same, and the mask for 9 places."""

    def twins(causal=False, **changes):
        layer_class, sizes, mask = KINDS[request.param]
        layer, full = layer_class(4, 4, causal=causal, **sizes, **changes), MultiHeadAttention(4, 4, **changes)
        for x in (layer, full):
            x(normal(rng, 1, 9, 8))
        full.set_weights(scramble(layer).get_weights())
        return layer, full, array(mask(9)) & (np.tri(9, dtype=bool) if causal else True)

    return twins


@pytest.mark.parametrize(
    ("causal", "changes"),
    [(False, {}), (True, {"rotary": Rotary(), "num_kv_heads": 2, "value_dim": 3, "normalize": True})],
)
def test_a_layer_computes_what_multi_head_attention_computes_with_the_mask(rng, make, quick, causal, changes):
    layer, full, mask = make(causal, **changes)
    x, places = normal(rng, 2, 9, 8), np.array([[0, 1, 2, 0, 1, 2, 3, 0, 0], [*range(4, 12), 0]])
    by_segment = mask & array(masks.segment(SEGMENTS, SEGMENTS))
    found = quick(lambda x: (layer(x), layer(x, SEGMENTS, positions=places)))(x)
    expected = quick(lambda x: (full(x, attention_mask=mask), full(x, attention_mask=by_segment, positions=places)))(x)
    for y, other in zip(found, expected):
        np.testing.assert_allclose(array(y), array(other), atol=1e-5)


def test_a_layer_sees_no_later_place(rng, make, quick):
    layer, *_ = make(causal=True)
    x, layer = normal(rng, 1, 9, 8), quick(layer.call)
    before, changed = array(layer(x))[0], x.copy()
    changed[:, 5] += 1
    behind = array(layer(changed))[0]
    np.testing.assert_array_equal(behind[:5], before[:5])
    assert np.abs(behind[5:8] - before[5:8]).max(axis=1).min() > 1e-3


def test_padding_is_not_seen(rng, make, quick):
    layer, *_ = make()
    x, ones, layer_call = normal(rng, 2, 9, 8), np.ones((2, 6), "int32"), quick(layer.call)
    y = array(layer_call(x, np.pad(ones, ((0, 0), (0, 3)))))
    np.testing.assert_allclose(y[:, :6], array(layer_call(x[:, :6], ones)), atol=1e-5)
    np.testing.assert_array_equal(y[:, 6:], np.broadcast_to(array(layer.output_projection.bias), (2, 3, 8)))


def test_a_map_has_the_layers_name(rng, make):
    layer, *_ = make()
    with capture() as maps:
        layer(normal(rng, 2, 9, 8))
    assert list(maps) == [layer.path]
    assert tuple(maps[layer.path].shape)[:3] == (6, 4, 4)


def test_dropout_drops_weights_while_training_only(rng, make):
    layer, *_ = make(dropout=0.5)
    x = normal(rng, 2, 9, 8)
    expected = array(layer(x))
    np.testing.assert_array_equal(array(layer(x, training=False)), expected)
    assert np.abs(array(layer(x, training=True)) - expected).max() > 1e-2


def test_a_bias_and_global_tokens_in_a_layer(rng, scramble, quick):
    parts = {"bias": RelativeBias(2, 8, 10)}
    layer, full = LocalAttention(2, 4, 4, global_tokens=2, **parts), MultiHeadAttention(2, 4, **parts)
    x = normal(rng, 4, 23, 8)
    full(x)
    layer(x)
    full.set_weights(scramble(layer).get_weights())
    expected = full(x, attention_mask=mask_with_globals(4, 2, TEXTS))
    np.testing.assert_allclose(array(quick(layer.call)(x, TEXTS)), array(expected), atol=1e-5)


def test_a_bias_of_chunks_is_refused():
    with pytest.raises(ValueError, match="bias: ChunkedAttention takes none; use rotary positions"):
        ChunkedAttention(4, 4, 4, bias=RelativeBias(4))


def test_it_survives_its_configuration(rng, make, reborn):
    layer, *_ = make(True, rotary=Rotary(), num_kv_heads=2, dropout=0.1)
    x = normal(rng, 2, 9, 8)
    np.testing.assert_array_equal(array(reborn(layer, x)(x)), array(layer(x)))


def test_it_survives_a_keras_file(rng, make, scramble, tmp_path):
    x, segments = keras.Input((None, 8)), keras.Input((None,), dtype="int32")
    config = make(causal=True)[0].get_config()
    layer = KINDS["local" if "window" in config else "chunked"][0].from_config(config)
    model = scramble(keras.Model([x, segments], layer(x, segments)))
    model.save(tmp_path / "model.keras")
    loaded, inputs = keras.saving.load_model(tmp_path / "model.keras"), [normal(rng, 2, 9, 8), SEGMENTS]
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))
