"""Rollout, gradients of attention weights and importance of heads against numpy and finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from zoo.attention import MultiHeadAttention, capture, gradient_weighted, head_importance, rollout, weight_gradients


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def maps_of(rng, blocks, batch=2, heads=3, length=4):
    weights = rng.random((blocks, batch, heads, length, length)).astype("float32")
    return list(weights / weights.sum(axis=-1, keepdims=True))


# === Rollout ===


def test_two_places_by_hand():
    first = np.array([[[[1, 0], [1, 0]], [[0, 1], [1, 0]]]], "float32")
    second = np.array([[[[0, 1], [0, 1]], [[0, 1], [0, 1]]]], "float32")
    # The heads' means are [[1/2, 1/2], [1, 0]] and [[0, 1], [0, 1]]; half of each step stays where it is.
    one_step = [[0.75, 0.25], [0.5, 0.5]]
    np.testing.assert_allclose(array(rollout([first])), [one_step], atol=1e-6)
    np.testing.assert_allclose(array(rollout([first, second])), [[[0.625, 0.375], [0.5, 0.5]]], atol=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(0, 2**32))
def test_the_loop_over_paths(blocks, residual, seed):
    maps = maps_of(np.random.default_rng(seed), blocks)
    expected = np.eye(4)
    for weights in maps:
        expected = ((1 - residual) * weights.mean(axis=1) + residual * np.eye(4)) @ expected
    total = array(rollout(maps, residual))
    np.testing.assert_allclose(total, np.broadcast_to(expected, (2, 4, 4)), atol=1e-5)
    np.testing.assert_allclose(total.sum(axis=-1), 1, atol=1e-5)


def test_rows_that_saw_nothing_stay_where_they_are(rng):
    maps = maps_of(rng, 2)
    for weights in maps:
        weights[:, :, 2] = 0
    total = array(rollout(maps))
    np.testing.assert_allclose(total.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(total[:, 2], np.broadcast_to([0, 0, 1, 0], (2, 4)), atol=1e-6)


def test_no_later_place_takes_part_where_none_is_seen(rng):
    maps = [np.tril(weights) for weights in maps_of(rng, 3)]
    assert not np.triu(array(rollout(maps)), 1).any()


@pytest.mark.parametrize("maps", [[], [np.ones((1, 2, 3, 4), "float32")]])
def test_no_map_and_maps_of_a_memory_are_refused(maps):
    with pytest.raises(ValueError, match=r"maps: .* it takes one or more \(B, N, T, T\)"):
        rollout(maps)


# === Gradients of weights ===


class Stack:
    """Two attentions one behind the other, and a loss that sums over examples."""

    def __init__(self, rng, scramble, **changes):
        self.x = normal(rng, 2, 3, 8)
        self.target = normal(rng, 2, 3, 8)
        self.first, self.second = (MultiHeadAttention(2, 4, name=name, **changes) for name in ("first", "second"))
        for layer in (self.first, self.second):
            layer(self.x)
            scramble(layer)

    def __call__(self):
        mask = np.array([[1, 1, 1], [1, 1, 0]], bool)[:, None, None, :]
        y = self.x + self.first(self.x, attention_mask=mask)
        return ops.sum((y + self.second(y, attention_mask=mask) - self.target) ** 2)


@pytest.fixture
def stack(rng, scramble):
    return Stack(rng, scramble)


def slope(stack, name, added, step=0.05):
    """Differentiates the loss by central differences in the direction `added` of one layer's weights."""
    around = []
    for sign in (1, -1):
        with capture({name: ops.convert_to_tensor(sign * step * added)}):
            around.append(float(stack()))
    return (around[0] - around[1]) / (2 * step)


def test_gradients_are_those_of_finite_differences(rng, stack):
    maps, gradients = weight_gradients(stack)
    assert set(maps) == set(gradients) == {"first", "second"}
    for name in maps:
        gradient = array(gradients[name])
        assert gradient.shape == (2, 2, 3, 3)
        for place in [(0, 0, 0, 0), (0, 1, 2, 1), (1, 0, 1, 2), (1, 1, 0, 1)]:
            added = np.zeros((2, 2, 3, 3), "float32")
            added[place] = 1
            np.testing.assert_allclose(gradient[place], slope(stack, name, added), rtol=1e-2, atol=1e-2)
        direction = normal(rng, 2, 2, 3, 3)
        np.testing.assert_allclose((gradient * direction).sum(), slope(stack, name, direction, 0.01), rtol=1e-2)


def test_looking_changes_no_output(stack):
    before = float(stack())
    with capture() as maps:
        stack()
    found, _ = weight_gradients(stack)
    assert float(stack()) == before
    for name in ("first", "second"):
        np.testing.assert_array_equal(array(found[name]), array(maps[name]))


def test_zeros_added_change_nothing(stack):
    with capture({"first": ops.zeros((2, 2, 3, 3))}) as maps:
        after = float(stack())
    assert list(maps) == ["first", "second"]
    assert after == float(stack())


def test_what_is_added_mixes_values_but_is_not_in_the_map(rng, stack):
    with capture() as plain:
        before = float(stack())
    with capture({"second": ops.ones((2, 2, 3, 3))}) as maps:
        after = float(stack())
    np.testing.assert_array_equal(array(maps["second"]), array(plain["second"]))
    assert abs(after - before) > 1e-2


def test_a_map_without_influence_has_zero_gradients(stack):
    def loss():
        stack.second(stack.x)
        return ops.sum(stack.first(stack.x) ** 2)

    _, gradients = weight_gradients(loss)
    assert array(gradients["first"]).any()
    np.testing.assert_array_equal(array(gradients["second"]), np.zeros((2, 2, 3, 3)))


def test_a_layer_called_twice_has_two_maps_and_two_gradients(rng, scramble):
    layer, x = MultiHeadAttention(2, 4, name="twice"), normal(rng, 1, 3, 8)
    layer(x)
    scramble(layer)
    maps, gradients = weight_gradients(lambda: ops.sum(layer(layer(x)) ** 2))
    assert set(maps) == set(gradients) == {"twice", "twice#2"}
    assert all(array(gradient).any() for gradient in gradients.values())


def test_gradient_weighted_is_the_mean_of_what_helps(rng):
    weights, gradients = maps_of(rng, 1)[0], normal(rng, 2, 3, 4, 4)
    relevance = array(gradient_weighted(weights, gradients))
    assert relevance.shape == (2, 4, 4)
    assert (relevance >= 0).all()
    np.testing.assert_allclose(relevance, np.maximum(weights * gradients, 0).mean(axis=1), atol=1e-6)


# === Importance of heads ===


def test_importance_is_the_slope_of_the_loss_by_a_factor_on_the_heads_weights(rng, scramble):
    stack = Stack(rng, scramble)
    maps, gradients = weight_gradients(stack)
    for name in ("first", "second"):
        weights = array(maps[name])
        importance = array(head_importance(maps[name], gradients[name]))
        assert importance.shape == (2,)
        for n in range(2):
            by_example = []
            for b in range(2):
                added = np.zeros_like(weights)
                added[b, n] = weights[b, n]
                by_example.append(abs(slope(stack, name, added)))
            np.testing.assert_allclose(importance[n], np.mean(by_example), rtol=2e-2, atol=1e-2)


def test_examples_do_not_cancel():
    weights, gradients = np.ones((2, 1, 1, 1), "float32"), np.array([3, -1], "float32").reshape(2, 1, 1, 1)
    assert array(head_importance(weights, gradients)).tolist() == [2]


def test_a_head_without_values_has_no_importance(stack):
    kernel, bias = stack.second.value.get_weights()
    kernel[:, :4] = bias[:4] = 0
    stack.second.value.set_weights([kernel, bias])
    maps, gradients = weight_gradients(stack)
    importance = array(head_importance(maps["second"], gradients["second"]))
    assert importance[0] == 0
    assert importance[1] > 1e-2
