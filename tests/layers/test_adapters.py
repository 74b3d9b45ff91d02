"""RankedDense against its formula, and the cost of lacking orthonormal columns by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.layers.adapters import Orthogonal, RankedDense


def ranked(rng, rank=2):
    """A layer of a model, whose addition has learned something."""
    dense = keras.layers.Dense(3, name="dense")
    model = keras.Model(inputs := keras.Input((5,)), dense(inputs))
    before = [np.array(weight) for weight in dense.weights]
    layer = RankedDense.add_ranks(dense, rank, alpha=6.0, orthogonality=0.5)
    layer.lora_kernel_lambda.assign(rng.normal(size=rank))
    return model, layer, before


def test_a_layer_becomes_one_and_gives_the_same_outputs(rng):
    dense = keras.layers.Dense(3, activation="tanh")
    model = keras.Model(inputs := keras.Input((5,)), dense(inputs))
    x = rng.normal(size=(4, 5)).astype("float32")
    before = np.array(model(x))
    assert RankedDense.add_ranks(dense, 2, alpha=6.0, orthogonality=0.5) is dense
    np.testing.assert_array_equal(np.array(model(x)), before)
    shapes = {weight.path.split("/")[-1]: tuple(weight.shape) for weight in model.trainable_weights}
    assert shapes == {"bias": (3,), "lora_kernel_a": (5, 2), "lora_kernel_b": (2, 3), "lora_kernel_lambda": (2,)}


def test_the_formula_written_out(rng):
    model, layer, (kernel, bias) = ranked(rng)
    p, q, lambdas = (
        np.array(w, "float64") for w in (layer.lora_kernel_a, layer.lora_kernel_b, layer.lora_kernel_lambda)
    )
    x = rng.normal(size=(4, 5)).astype("float32")
    expected = x @ (kernel + 6.0 / 2 * p @ np.diag(lambdas) @ q) + bias
    np.testing.assert_allclose(np.array(model(x)), expected, atol=1e-5)


def test_a_rank_is_gone_where_lambda_is_zero(rng):
    _, layer, (kernel, _) = ranked(rng)
    layer.lora_kernel_lambda.assign([0.7, 0.0])
    addition = np.array(layer.kernel) - kernel
    assert np.linalg.matrix_rank(addition, tol=1e-5) == 1
    layer.lora_kernel_lambda.assign([0.0, 0.0])
    np.testing.assert_array_equal(np.array(layer.kernel), kernel)


def test_half_precision_is_for_computing_only(rng):
    dense = keras.layers.Dense(3, dtype="mixed_bfloat16")
    keras.Model(inputs := keras.Input((5,)), dense(inputs))
    layer = RankedDense.add_ranks(dense, 2, alpha=6.0, orthogonality=0.5)
    assert {str(weight.dtype) for weight in layer.weights} == {"float32"}
    assert keras.backend.standardize_dtype(layer(rng.normal(size=(4, 5))).dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0], [0, 1], [0, 0]], 0.0),
        # Columns of length 2 and 1 with a product of 2: (4 - 1)^2 + 2 * 2^2 + (1 - 1)^2.
        ([[2, 1], [0, 0], [0, 0]], 17.0),
        # The same matrix lying down has to have orthonormal rows.
        ([[2, 0, 0], [1, 0, 0]], 17.0),
        ([[0, 0], [0, 0]], 2.0),
    ],
)
def test_what_lacks_to_orthonormal_columns_costs_its_square(matrix, expected):
    assert float(Orthogonal(0.5)(ops.convert_to_tensor(matrix, "float32"))) == pytest.approx(0.5 * expected)


def test_the_layer_adds_the_cost_of_both_matrices_to_the_model(rng):
    model, layer, _ = ranked(rng)
    layer.lora_kernel_a.assign(2 * np.eye(5, 2))  # each of two columns: (4 - 1)^2
    layer.lora_kernel_b.assign(np.eye(2, 3))
    assert [float(loss) for loss in model.losses] == pytest.approx([0.5 * 18, 0.0])
    assert keras.regularizers.deserialize(keras.regularizers.serialize(Orthogonal(0.25))).weight == 0.25
