"""MultiHeadAttention against Keras' own layers, and decoding with a cache against attending all at once."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.attention import ALiBi, MultiHeadAttention, RelativeBias, Rotary, SoftCap, capture, masks

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")

# What the arguments make together; each name is one kind of attention.
KINDS = {
    "one head": lambda: {"num_heads": 1, "head_dim": 6},
    "Llama": lambda: {"num_kv_heads": 2, "rotary": Rotary(500.0, 2.0), "use_bias": False},
    "multi-query": lambda: {"num_kv_heads": 1, "rotary": Rotary(), "gate": True},
    "T5": lambda: {"score": "dot", "bias": RelativeBias(4, 8, 20)},
    "Gemma": lambda: {"score": SoftCap(5.0), "normalize": True, "rotary": Rotary()},
    "BLOOM": lambda: {"bias": ALiBi(4), "value_dim": 3, "dropout": 0.1},
    "Luong": lambda: {"score": "general", "gate": True, "normalize": True},
    "Bahdanau": lambda: {"score": "additive", "num_kv_heads": 2, "bias": RelativeBias(4), "value_dim": 2},
    "everything": lambda: {
        "num_kv_heads": 2,
        "value_dim": 3,
        "score": SoftCap(2.0, "dot"),
        "rotary": Rotary(),
        "bias": RelativeBias(4, bidirectional=False),
        "normalize": True,
        "gate": True,
    },
}
POSITIONED = ["Llama", "T5", "BLOOM", "everything"]


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.fixture
def layer_of(scramble):
    """Makes a layer of that kind with random weights."""

    def make(kind, **changes):
        arguments = {"num_heads": 4, "head_dim": 4, "name": "attention", **KINDS[kind](), **changes}
        layer = MultiHeadAttention(**arguments)
        layer.build((None, None, 8))
        return scramble(layer)

    return make


def keras_output(reference, x, memory, mask=None):
    # Asked for its scores, Keras computes them itself: JAX' own attention refuses values of another width.
    return reference(x, memory, attention_mask=mask, return_attention_scores=True)[0]


def as_keras(layer, x, memory=None):
    """Makes Keras' layer with the same weights: MultiHeadAttention, or with grouped heads GroupedQueryAttention."""
    memory = x if memory is None else memory
    if layer.num_kv_heads == layer.num_heads:
        reference = keras.layers.MultiHeadAttention(
            layer.num_heads, layer.head_dim, layer.value_dim, use_bias=layer.use_bias
        )
    else:
        reference = keras.layers.GroupQueryAttention(
            layer.head_dim, layer.num_heads, layer.num_kv_heads, use_bias=layer.use_bias
        )
    keras_output(reference, x, memory)
    weights = []
    for dense, heads in (
        (layer.query, layer.num_heads),
        (layer.key, layer.num_kv_heads),
        (layer.value, layer.num_kv_heads),
        (layer.output_projection, None),
    ):
        kernel = array(dense.kernel)
        shape = (kernel.shape[0], heads, -1) if heads else (layer.num_heads, -1, kernel.shape[1])
        weights.append(kernel.reshape(shape))
        if layer.use_bias:
            weights.append(array(dense.bias).reshape((heads, -1) if heads else -1))
    reference.set_weights(weights)
    return reference


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("value_dim", [None, 6])
@pytest.mark.parametrize("to_itself", [True, False])
def test_it_computes_what_keras_computes(rng, scramble, use_bias, value_dim, to_itself):
    x = normal(rng, 2, 5, 12)
    memory = None if to_itself else normal(rng, 2, 7, 10)
    mask = rng.random((2, 5, 5 if to_itself else 7)) < 0.7
    mask[:, :, 0] = True
    layer = MultiHeadAttention(3, 4, value_dim, use_bias=use_bias)
    layer(x, memory)
    reference = as_keras(scramble(layer), x, memory)
    assert len(layer.weights) == (8 if use_bias else 4)
    seen = x if memory is None else memory
    np.testing.assert_allclose(array(layer(x, memory)), array(keras_output(reference, x, seen)), atol=1e-5)
    np.testing.assert_allclose(
        array(layer(x, memory, mask[:, None])), array(keras_output(reference, x, seen, mask)), atol=1e-5
    )


@pytest.mark.parametrize("num_kv_heads", [1, 2])
@pytest.mark.parametrize("use_bias", [True, False])
def test_grouped_heads_compute_what_keras_computes(rng, scramble, num_kv_heads, use_bias):
    x, memory = normal(rng, 2, 5, 12), normal(rng, 2, 7, 12)
    layer = MultiHeadAttention(4, 3, num_kv_heads=num_kv_heads, use_bias=use_bias)
    layer(x, memory)
    reference = as_keras(scramble(layer), x, memory)
    np.testing.assert_allclose(array(layer(x, memory)), array(keras_output(reference, x, memory)), atol=1e-5)


def test_grouped_heads_are_repeated_heads(rng, scramble):
    x = normal(rng, 2, 5, 12)
    grouped, full = MultiHeadAttention(6, 4, num_kv_heads=2), MultiHeadAttention(6, 4)
    grouped(x)
    full(x)
    scramble(grouped)
    for name in ("query", "output_projection"):
        getattr(full, name).set_weights(getattr(grouped, name).get_weights())
    for name in ("key", "value"):
        kernel, bias = getattr(grouped, name).get_weights()
        repeated = np.repeat(kernel.reshape(12, 2, 4), 3, axis=1).reshape(12, 24)
        getattr(full, name).set_weights([repeated, np.repeat(bias.reshape(2, 4), 3, axis=0).ravel()])
    mask = masks.causal(5)
    np.testing.assert_allclose(array(grouped(x, attention_mask=mask)), array(full(x, attention_mask=mask)), atol=1e-5)


def test_without_positions_the_order_is_not_seen(rng, scramble):
    layer, x, order = MultiHeadAttention(2, 4), normal(rng, 2, 6, 8), rng.permutation(6)
    layer(x)
    scramble(layer)
    np.testing.assert_allclose(array(layer(x[:, order])), array(layer(x))[:, order], atol=1e-5)


def test_padding_is_not_seen(rng, scramble):
    layer, x = MultiHeadAttention(2, 4), normal(rng, 2, 7, 8)
    layer(x)
    scramble(layer)
    mask = masks.padding(np.array([[1, 1, 1, 1, 0, 0, 0]]))
    np.testing.assert_allclose(array(layer(x, attention_mask=mask))[:, :4], array(layer(x[:, :4])), atol=1e-5)


def test_a_query_that_sees_nothing_gets_the_output_bias(rng, scramble, gradients):
    layer, x = MultiHeadAttention(2, 4), normal(rng, 1, 3, 8)
    layer(x)
    scramble(layer)
    mask = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]], bool)[None, None]
    y = array(layer(x, attention_mask=mask))
    np.testing.assert_array_equal(y[0, 1], array(layer.output_projection.bias))
    (found,) = gradients(lambda x: layer(x, attention_mask=mask)[:, 1], x)
    assert not found.any()


# === Positions, normalized heads, gates ===


def by_hand(layer, x, mask):
    """Attends with normalized heads and gates, from the layer's weights, in float64."""

    def project(dense, x):
        return x @ array(dense.kernel).astype("float64") + array(dense.bias)

    def normalized(norm, heads):
        return heads / np.sqrt((heads**2).mean(axis=-1, keepdims=True) + norm.epsilon) * array(norm.scale)

    x = x.astype("float64")
    batch, length, _ = x.shape
    groups = layer.num_heads // layer.num_kv_heads
    query, key, value = (
        project(dense, x).reshape(batch, length, -1, width)
        for dense, width in (
            (layer.query, layer.head_dim),
            (layer.key, layer.head_dim),
            (layer.value, layer.value_dim),
        )
    )
    if layer.query_norm is not None:
        query, key = normalized(layer.query_norm, query), normalized(layer.key_norm, key)
    y = np.zeros((batch, length, layer.num_heads, layer.value_dim))
    for b, t, n in np.ndindex(batch, length, layer.num_heads):
        logits = key[b, :, n // groups] @ query[b, t, n] / np.sqrt(layer.head_dim)
        weights = np.exp(logits) * mask[b, 0, t]
        y[b, t, n] = weights / weights.sum() @ value[b, :, n // groups]
    y = y.reshape(batch, length, -1)
    if layer.gate is not None:
        y /= 1 + np.exp(-project(layer.gate, x))
    return project(layer.output_projection, y)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_normalized_heads_and_gates_written_out(rng, scramble, normalize, gate):
    layer, x = MultiHeadAttention(4, 5, 3, 2, normalize=normalize, gate=gate), normal(rng, 2, 4, 8)
    layer(x)
    scramble(layer, scale=0.6)
    mask = (rng.random((2, 1, 4, 4)) < 0.6) | np.eye(4, dtype=bool)
    np.testing.assert_allclose(array(layer(x, attention_mask=mask)), by_hand(layer, x, mask), atol=1e-5)


def test_the_size_of_a_normalized_query_is_not_seen(rng):
    layer, plain = (MultiHeadAttention(2, 4, use_bias=False, normalize=normalize) for normalize in (True, False))
    x, memory = normal(rng, 1, 3, 8), normal(rng, 1, 5, 8)
    np.testing.assert_allclose(array(layer(30 * x, memory)), array(layer(x, memory)), atol=1e-4)
    assert not np.allclose(array(plain(30 * x, memory)), array(plain(x, memory)), atol=0.01)


@pytest.mark.parametrize("kind", POSITIONED)
def test_only_distances_are_seen(rng, layer_of, kind):
    layer, x, mask = layer_of(kind), normal(rng, 2, 4, 8), masks.causal(4)
    counted = array(layer(x, attention_mask=mask))
    for positions in (np.arange(4), np.arange(4) + 70, np.arange(4) + np.array([[3], [40]])):
        y = array(layer(x, attention_mask=mask, positions=positions.astype("int32")))
        np.testing.assert_allclose(y, counted, atol=1e-4)


@pytest.mark.parametrize("kind", POSITIONED)
def test_positions_make_a_difference(rng, layer_of, kind):
    layer, x, order = layer_of(kind), normal(rng, 2, 4, 8), np.array([2, 0, 1, 3])
    y = array(layer(x))[:, order]
    assert not np.allclose(array(layer(x[:, order])), y, atol=1e-3)
    np.testing.assert_allclose(array(layer(x[:, order], positions=order)), y, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONED)
def test_packed_rows_with_positions_of_their_own_are_separate_rows(rng, layer_of, kind):
    layer, x = layer_of(kind), normal(rng, 2, 4, 8)
    segments, positions = np.array([[1, 1, 2, 2], [1, 2, 2, 0]]), np.array([[0, 1, 0, 1], [0, 0, 1, 0]])
    y = array(layer(x, attention_mask=masks.packed(segments), positions=positions))
    pairs = [(0, slice(0, 2)), (0, slice(2, 4)), (1, slice(1, 3))]
    alone = layer(np.stack([x[pair] for pair in pairs]), attention_mask=masks.causal(2))
    np.testing.assert_allclose(np.stack([y[pair] for pair in pairs]), array(alone), atol=1e-5)


def test_a_memorys_places_count_from_0(rng, scramble):
    layer, x, memory = (
        MultiHeadAttention(2, 4, rotary=Rotary(), bias=ALiBi(2)),
        normal(rng, 1, 2, 8),
        normal(rng, 1, 5, 6),
    )
    layer(x, memory)
    scramble(layer)
    one_by_one = [array(layer(x[:, t : t + 1], memory, positions=np.array([t]))) for t in range(2)]
    np.testing.assert_allclose(np.concatenate(one_by_one, axis=1), array(layer(x, memory)), atol=1e-5)
    moved = array(layer(x, memory, positions=np.array([7, 8])))
    assert not np.allclose(moved, array(layer(x, memory)), atol=1e-3)


# === Decoding with a cache ===


@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("pieces", [[1] * 6, [6], [3, 1, 2]])
def test_decoding_with_a_cache_gives_what_attending_at_once_gives(rng, scramble, num_kv_heads, pieces):
    layer, x = MultiHeadAttention(4, 3, value_dim=5, num_kv_heads=num_kv_heads), normal(rng, 2, 6, 8)
    layer(x)
    scramble(layer)
    cache, outputs, start = layer.empty_cache(2, 9), [], 0
    for piece in pieces:
        mask = masks.causal(piece, cache.max_length, offset=start)
        outputs.append(array(layer(x[:, start : start + piece], attention_mask=mask, cache=cache)))
        start += piece
    expected = array(layer(x, attention_mask=masks.causal(6)))
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["multi-query", *POSITIONED])
def test_positions_go_on_where_the_cache_ends(rng, layer_of, kind):
    layer, x = layer_of(kind), normal(rng, 2, 4, 8)
    cache, outputs = layer.empty_cache(2, 4), []
    for start, end in ((0, 2), (2, 3), (3, 4)):
        mask = masks.causal(end - start, 4, offset=start)
        outputs.append(array(layer(x[:, start:end], attention_mask=mask, cache=cache)))
    expected = array(layer(x, attention_mask=masks.causal(4)))
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["one head", "everything"])
def test_a_compiled_loop_decodes_the_same(rng, layer_of, jit, kind):
    layer, x = layer_of(kind), normal(rng, 2, 5, 8)

    def decode(x):
        def step(t, key, value, y):
            cache = type(empty)(key, value, t)
            token = ops.take(x, t, axis=1)[:, None]
            out = layer(token, attention_mask=masks.causal(1, 5, offset=t), cache=cache)
            return t + 1, *cache.tensors, ops.slice_update(y, (0, t, 0), out)

        empty = layer.empty_cache(2, 5)
        state = (ops.convert_to_tensor(0, "int32"), *empty.tensors, ops.zeros_like(x))
        return ops.while_loop(lambda t, *_: t < 5, step, state)[-1]

    expected = array(layer(x, attention_mask=masks.causal(5)))
    np.testing.assert_allclose(array(jit(decode)(ops.convert_to_tensor(x))), expected, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_beams_share_a_frozen_memory(rng, scramble, beams, length, num_kv_heads):
    layer = MultiHeadAttention(4, 3, num_kv_heads=num_kv_heads)
    x, memory = normal(rng, 2 * beams, length, 8), normal(rng, 2, 5, 6)
    layer(x[:2], memory)
    scramble(layer)
    mask = masks.padding(np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    cache = layer.memory_cache(ops.convert_to_tensor(memory))
    before = [array(tensor) for tensor in cache.tensors]
    assert cache.frozen
    y = array(layer(x, attention_mask=mask, cache=cache))
    repeated = layer(x, np.repeat(memory, beams, axis=0), np.repeat(array(mask), beams, axis=0))
    np.testing.assert_allclose(y, array(repeated), atol=1e-5)
    assert all(np.array_equal(array(tensor), old) for tensor, old in zip(cache.tensors, before))


def test_a_frozen_memory_takes_the_place_of_memory(rng, scramble):
    layer, x, memory = MultiHeadAttention(2, 4), normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)
    layer(x, memory)
    scramble(layer)
    cache = layer.memory_cache(ops.convert_to_tensor(memory))
    np.testing.assert_allclose(array(layer(x, cache=cache)), array(layer(x, memory)), atol=1e-6)


def test_an_empty_cache_has_the_layers_sizes(rng):
    layer = MultiHeadAttention(4, 3, value_dim=5, num_kv_heads=2, dtype="mixed_bfloat16")
    cache = layer.empty_cache(7, 9)
    assert [tuple(tensor.shape) for tensor in cache.tensors] == [(7, 9, 2, 3), (7, 9, 2, 5)]
    assert all(keras.backend.standardize_dtype(tensor.dtype) == "bfloat16" for tensor in cache.tensors)


# === Everything else ===


def test_dropout_drops_weights_while_training_only(rng, scramble):
    layer, plain, x = MultiHeadAttention(2, 4, dropout=0.3), MultiHeadAttention(2, 4), normal(rng, 1, 6, 8)
    layer(x)
    plain(x)
    scramble(layer)
    scramble(plain)
    expected = array(plain(x))
    np.testing.assert_array_equal(array(layer(x)), expected)
    np.testing.assert_array_equal(array(layer(x, training=False)), expected)
    draws = array(layer(np.repeat(x, 1000, axis=0), training=True))
    assert not np.allclose(draws[0], draws[1])
    # The output is linear in the weights, so that dropout leaves its mean alone.
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * draws.std(axis=0) / np.sqrt(1000)).all()


def test_dropout_leaves_the_captured_map_whole(rng):
    layer, x = MultiHeadAttention(2, 4, dropout=0.5, name="layer"), normal(rng, 1, 6, 8)
    with capture() as maps:
        layer(x)
        layer(x, training=True)
    np.testing.assert_array_equal(array(maps["layer"]), array(maps["layer#2"]))


def test_xla_gives_the_same(rng, jit):
    layer, x, memory = MultiHeadAttention(2, 4), normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)
    expected = array(layer(x, memory))
    compiled = jit(lambda x, memory: layer(x, memory))(ops.convert_to_tensor(x), ops.convert_to_tensor(memory))
    np.testing.assert_allclose(array(compiled), expected, atol=1e-6)


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(rng, scramble):
    half, full = MultiHeadAttention(2, 4, dtype="mixed_bfloat16"), MultiHeadAttention(2, 4)
    x = normal(rng, 2, 5, 8)
    y = half(x)
    full(x)
    scramble(half)
    scramble(full)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert all(weight.dtype == "float32" for weight in half.weights)
    np.testing.assert_allclose(array(ops.cast(half(x), "float32")), array(full(x)), atol=0.05)


def test_symbolic_shapes_are_the_real_ones(rng):
    layer, symbolic = MultiHeadAttention(2, 4, value_dim=3), MultiHeadAttention(2, 4, value_dim=3)
    y = symbolic(keras.Input((None, 8)), keras.Input((None, 6)))
    assert y.shape == (None, None, 8)
    assert tuple(layer(normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)).shape) == (2, 3, 8)
    assert [tuple(w.shape) for w in symbolic.weights] == [tuple(w.shape) for w in layer.weights]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_its_configuration(rng, layer_of, reborn, kind):
    layer, x = layer_of(kind), normal(rng, 2, 4, 8)
    copy = reborn(layer, x)
    assert [weight.path for weight in copy.weights] == [weight.path for weight in layer.weights]
    np.testing.assert_array_equal(array(copy(x)), array(layer(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_a_keras_file(rng, scramble, tmp_path, kind):
    x, positions = keras.Input((None, 8)), keras.Input((None,), dtype="int32")
    layer = MultiHeadAttention(**{"num_heads": 4, "head_dim": 4, **KINDS[kind]()})
    model = scramble(keras.Model([x, positions], layer(x, positions=positions)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = [normal(rng, 2, 3, 8), np.array([[0, 1, 2], [5, 0, 1]], "int32")]
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))


@pytest.mark.parametrize("kind", POSITIONED)
def test_float16_stays_close_to_float32(rng, layer_of, kind):
    half, full, x = layer_of(kind, dtype="mixed_float16"), layer_of(kind), normal(rng, 2, 4, 8)
    mask = array(masks.causal(4)).copy()
    mask[:, :, 2] = False
    y = half(x, attention_mask=mask)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert all(weight.dtype == "float32" for weight in half.weights if "seed" not in weight.path)
    np.testing.assert_allclose(array(y), array(full(x, attention_mask=mask)), atol=0.01)


def test_turned_queries_and_keys_stay_in_half_precision(rng):
    layer, x = MultiHeadAttention(2, 4, rotary=Rotary(), normalize=True, dtype="mixed_float16"), normal(rng, 1, 3, 8)
    layer(x)
    x = ops.cast(x, "float16")
    for tensor in (layer.project_query(x, np.arange(3)), *layer.project_memory(x)):
        assert keras.backend.standardize_dtype(tensor.dtype) == "float16"


@pytest.mark.parametrize("changes", [{}, {"value_dim": 5, "num_kv_heads": 2, "dropout": 0.1, "use_bias": False}])
def test_it_survives_its_configuration(rng, scramble, reborn, changes):
    layer, x, memory = MultiHeadAttention(4, 3, **changes), normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)
    layer(x, memory)
    expected = array(scramble(layer)(x, memory))
    np.testing.assert_array_equal(array(reborn(layer, x, memory)(x, memory)), expected)


def test_it_survives_a_keras_file(rng, scramble, tmp_path):
    x, memory = keras.Input((None, 8)), keras.Input((None, 6))
    layer = MultiHeadAttention(4, 3, num_kv_heads=2)
    model = scramble(keras.Model([x, memory], layer(x, memory)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = [normal(rng, 2, 3, 8), normal(rng, 2, 5, 6)]
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads: 3 does not divide num_heads 4"),
        ({"num_heads": 0}, "num_heads: 0; it is at least 1"),
        ({"score": "scaled"}, r"score: 'scaled'; did you mean 'scaled_dot'\?"),
        ({"dropout": 1.0}, "rate: 1.0; dropout takes a share from 0 up to, not including, 1"),
        ({"rotary": Rotary(), "head_dim": 5}, "x: head width 5 is odd"),
        ({"bias": ALiBi(3)}, r"bias: shape \(1, 3, 3, 3\) does not broadcast to \(1, 4, 3, 3\)"),
        ({"bias": RelativeBias(2)}, r"bias: shape \(1, 2, 3, 3\) does not broadcast to \(1, 4, 3, 3\)"),
        ({"bias": RelativeBias(4, 2)}, "num_buckets, max_distance: 0 near distances"),
    ],
)
def test_a_wrong_argument_is_named(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**{"num_heads": 4, "head_dim": 8, **arguments})(normal(rng, 1, 3, 8))


@pytest.mark.parametrize(
    "mask", [np.ones((1, 1, 3, 3), "float32"), np.ones((1, 1, 3, 3), "int32"), np.ones((3, 3), bool)]
)
def test_a_mask_that_is_not_boolean_of_rank_4_is_refused(rng, mask):
    with pytest.raises(ValueError, match=r"mask: .*it takes booleans"):
        MultiHeadAttention(2, 4)(normal(rng, 1, 3, 8), attention_mask=mask)
