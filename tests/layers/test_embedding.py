"""TokenEmbedding against its table."""

import numpy as np
import pytest
from keras import backend, ops

from zoo.layers import LogitBias, TokenEmbedding


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.fixture
def embedding():
    layer = TokenEmbedding(400, 64)
    layer.build()
    return layer


def test_a_token_is_its_row_times_the_root_of_the_width(embedding):
    ids = np.array([[0, 399, 7], [7, 7, 1]])
    np.testing.assert_allclose(array(embedding(ids)), array(embedding.embeddings)[ids] * 8, rtol=1e-6)


def test_a_logit_is_a_rows_dot_product(embedding, rng):
    x = rng.normal(size=(2, 3, 64)).astype("float32")
    logits = array(embedding(x, reverse=True))
    assert logits.shape == (2, 3, 400)
    np.testing.assert_allclose(logits, x @ array(embedding.embeddings).T, atol=1e-5)


def test_one_table_serves_both_ways(embedding):
    assert [tuple(weight.shape) for weight in embedding.weights] == [(400, 64)]


def test_it_starts_with_unit_elements_and_unit_logits(embedding, rng):
    elements = array(embedding(np.arange(400)[None]))
    logits = array(embedding(rng.normal(size=(1, 50, 64)).astype("float32"), reverse=True))
    assert abs(elements.std() - 1) < 0.03
    assert abs(elements.mean()) < 0.03
    assert abs(logits.std() - 1) < 0.05


def test_bfloat16_stays_bfloat16():
    layer = TokenEmbedding(10, 16, dtype="mixed_bfloat16")
    x = layer(np.array([[1, 2]]))
    assert backend.standardize_dtype(x.dtype) == "bfloat16"
    assert backend.standardize_dtype(layer(x, reverse=True).dtype) == "bfloat16"
    assert layer.embeddings.dtype == "float32"


def test_it_survives_its_configuration(embedding, rng, reborn):
    ids, x = np.array([[3, 5]]), rng.normal(size=(1, 2, 64)).astype("float32")
    copy = reborn(embedding, ids)
    np.testing.assert_array_equal(array(copy(ids)), array(embedding(ids)))
    np.testing.assert_array_equal(array(copy(x, reverse=True)), array(embedding(x, reverse=True)))


def test_each_token_has_a_bias_of_its_own(rng):
    layer, logits = LogitBias(), rng.normal(size=(2, 3, 7)).astype("float32")
    np.testing.assert_array_equal(array(layer(logits)), logits)
    bias = rng.normal(size=7).astype("float32")
    layer.set_weights([bias])
    np.testing.assert_allclose(array(layer(logits)), logits + bias, rtol=1e-6)
