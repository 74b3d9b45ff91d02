"""capture(): the maps have the right names and values, and looking changes nothing."""

import numpy as np
import pytest
from keras import backend, ops

from zoo.attention import MultiHeadAttention, attend, capture, masks
from zoo.layers import Encoder

# Keras finds a softmax over a single key strange.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def test_an_unnamed_map_is_called_attend(rng):
    query, key, value = normal(rng, 3, 2, 4, 2, 8)
    with capture() as maps:
        attend(query, key, value)
    logits = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(8)
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert list(maps) == ["attend"]
    np.testing.assert_allclose(ops.convert_to_numpy(maps["attend"]), weights, atol=1e-6)


def test_a_layer_called_again_gets_a_number(rng):
    layer, x = MultiHeadAttention(2, 4, name="twice"), normal(rng, 1, 3, 8)
    with capture() as maps:
        for length in (1, 2, 3):
            layer(x[:, :length])
    assert {name: x.shape[-1] for name, x in maps.items()} == {"twice": 1, "twice#2": 2, "twice#3": 3}


def test_every_block_of_a_stack_is_named_by_its_path(rng):
    encoder = Encoder(3, {"num_heads": 2, "feedforward_dim": 8}, name="encoder")
    with capture() as maps:
        encoder(normal(rng, 2, 5, 8))
    assert list(maps) == [f"encoder/block_{i}/self_attention" for i in range(3)]
    assert all(tuple(x.shape) == (2, 2, 5, 5) for x in maps.values())


def test_rows_sum_to_one_or_where_nothing_is_seen_to_zero(rng):
    encoder = Encoder(2, {"num_heads": 2, "feedforward_dim": 8, "attention_dropout": 0.5})
    segments = np.array([[1, 1, 2, 0], [0, 0, 0, 0]])
    with capture() as maps:
        encoder(normal(rng, 2, 4, 8), masks.segment(segments, segments), training=True)
    assert len(maps) == 2
    for weights in map(ops.convert_to_numpy, maps.values()):
        assert weights.dtype == np.float32
        assert (weights >= 0).all()
        expected = np.broadcast_to((segments > 0)[:, None], (2, 2, 4))
        np.testing.assert_allclose(weights.sum(axis=-1), expected, atol=1e-6)
        assert not weights[:, :, 2, :2].any()


def test_looking_changes_no_output(rng):
    encoder, x = Encoder(2, {"num_heads": 2, "feedforward_dim": 8}), normal(rng, 2, 5, 8)
    plain = ops.convert_to_numpy(encoder(x))
    with capture():
        np.testing.assert_array_equal(ops.convert_to_numpy(encoder(x)), plain)


def test_inside_compiled_code_the_maps_are_the_same(rng, jit):
    encoder, x = Encoder(2, {"num_heads": 2, "feedforward_dim": 8}, name="encoder"), normal(rng, 2, 5, 8)
    with capture() as eager:
        encoder(x)

    def look(x):
        with capture() as maps:
            y = encoder(x)
        return y, dict(maps)

    y, compiled = jit(look)(ops.convert_to_tensor(x))
    np.testing.assert_allclose(ops.convert_to_numpy(y), ops.convert_to_numpy(encoder(x)), atol=1e-5)
    assert set(compiled) == set(eager) == {"encoder/block_0/self_attention", "encoder/block_1/self_attention"}
    for name, weights in compiled.items():
        np.testing.assert_allclose(ops.convert_to_numpy(weights), ops.convert_to_numpy(eager[name]), atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(weights).sum(axis=-1), 1, atol=1e-6)


def test_only_what_happens_inside_is_collected(rng):
    query = normal(rng, 1, 2, 1, 4)
    attend(query, query, query)
    with capture() as maps:
        assert maps == {}
        attend(query, query, query)
    attend(query, query, query)
    assert list(maps) == ["attend"]


def test_both_of_two_captures_collect(rng):
    query = normal(rng, 1, 2, 1, 4)
    with capture() as outer:
        attend(query[:, :1], query, query)
        with capture() as inner:
            attend(query, query, query)
        attend(query, query, query)
    assert {name: x.shape[2] for name, x in outer.items()} == {"attend": 1, "attend#2": 2, "attend#3": 2}
    assert inner["attend"] is outer["attend#2"]


def test_what_an_outer_capture_adds_is_seen_within(rng):
    query, key, value = normal(rng, 3, 1, 2, 1, 4)
    with capture() as plain:
        attend(query, key, value)
    added = normal(rng, 2, 1, 1, 2, 2)
    with capture({"attend": added[0]}), capture({"attend": added[1]}) as inner:
        y = attend(query, key, value)
    weights = ops.convert_to_numpy(plain["attend"]) + added[0]
    np.testing.assert_allclose(ops.convert_to_numpy(inner["attend"]), weights, atol=1e-6)
    expected = np.einsum("bnts,bsnh->btnh", weights + added[1], value)
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, atol=1e-5)


def test_an_error_closes_the_capture_and_forgets_the_layers_name(rng):
    layer, x = MultiHeadAttention(2, 4, name="fails"), normal(rng, 1, 3, 8)
    with pytest.raises(ValueError, match="mask"), capture() as maps:
        layer(x, attention_mask=np.ones((1, 1, 3, 3), "float32"))
    query = normal(rng, 1, 2, 1, 4)
    attend(query, query, query)
    assert maps == {}
    with capture() as later:
        attend(query, query, query)
    assert list(later) == ["attend"]


def test_maps_are_float32_under_mixed_precision(rng):
    layer = MultiHeadAttention(2, 4, name="half", dtype="mixed_bfloat16")
    with capture() as maps:
        y = layer(normal(rng, 1, 64, 8))
    assert backend.standardize_dtype(y.dtype) == "bfloat16"
    assert backend.standardize_dtype(maps["half"].dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(maps["half"]).sum(axis=-1), 1, atol=1e-5)
