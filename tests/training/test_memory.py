"""Steps in parts, in 16 bits and with recomputed blocks, against the plain step."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from zoo.config import ConfigError
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder
from zoo.training import (
    MovingAverage,
    OptimizerConfig,
    TrainingConfig,
    make_optimizer,
    make_train_step,
    vocabulary_loss,
)
from zoo.training.losses import share, token_counts

SIZES = {"vocabulary_size": 16, "width": 8, "num_heads": 2, "feedforward_dim": 12}


def tiny_model(dropout=0.0):
    keras.utils.set_random_seed(0)
    return encoder_decoder(EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1, dropout=dropout))


def loss(model, batch, training):
    counts, whole = (token_counts(part["labels"]) for part in (batch, batch.get("whole", batch)))
    inputs = {"source": batch["source"], "target": batch["target"]}
    total = vocabulary_loss(model, inputs, batch["labels"], counts, 0.1, training=training)
    return batch["scale"] * total / share(counts, whole), {"tokens": ops.sum(whole)}


def padded_batch(scale=1.0):
    """Six rows of very different lengths."""
    rng = np.random.default_rng(0)
    batch = dict(zip(("source", "target", "labels"), rng.integers(4, 16, (3, 6, 7)).astype("int32")))
    for row, length in enumerate((7, 1, 2, 6, 3, 1)):
        batch["source"][row, length - 1] = 2
        for name in batch:
            batch[name][row, length:] = 0
    batch["target"][:, 0] = 1
    return {**batch, "scale": np.array(scale, "float32")}


def one_step(optimizer=None, dropout=0.0, scale=1.0, **settings):
    """Takes a step; returns what it reports, how each variable moved, and the model."""
    model = tiny_model(dropout)
    before = [np.array(variable) for variable in model.trainable_variables]
    optimizer = optimizer or keras.optimizers.SGD(1.0)
    settings = {"clip_norm": 1e9, "jit": False, **settings}
    report = make_train_step(model, optimizer, loss, **settings)(padded_batch(scale))
    moved = [np.array(variable) - old for variable, old in zip(model.trainable_variables, before)]
    return {name: float(value) for name, value in report.items()}, moved, model


def length(arrays):
    return np.sqrt(sum(np.square(array).sum() for array in arrays))


@pytest.fixture(scope="module")
def plain():
    return one_step()


# === In parts ===


@pytest.mark.parametrize("accumulate", [2, 3, 4, 100], ids=["two", "three", "four become six", "one row each"])
def test_a_batch_in_parts_is_the_whole_batch(accumulate, plain):
    report, moved, _ = one_step(accumulate=accumulate)
    assert report == pytest.approx(plain[0], rel=1e-5)
    for mine, expected in zip(moved, plain[1], strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)


@pytest.mark.slow
def test_parts_recomputed_blocks_and_logits_in_blocks_are_one_program(plain, monkeypatch):
    from zoo.training import vocabulary

    monkeypatch.setattr(vocabulary, "MANY", 1)
    monkeypatch.setattr(vocabulary, "BLOCK", 64)
    report, moved, _ = one_step(accumulate=2, remat=True, jit=True)
    assert report == pytest.approx(plain[0], rel=1e-4)
    for mine, expected in zip(moved, plain[1], strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_parts_drop_different_elements():
    # Two parts that are alike would otherwise be one, done twice.
    model = tiny_model(dropout=0.5)

    def squared(model, batch, training):
        value, _ = loss(model, batch, training)
        return value, {"square": value * value}

    twice = {name: np.repeat(x[:3], 2, axis=0) if x.ndim else x for name, x in padded_batch().items()}
    step = make_train_step(model, keras.optimizers.SGD(0.0), squared, clip_norm=1.0, jit=False, accumulate=2)
    report = {name: float(value) for name, value in step(twice).items()}
    assert report["square"] > report["loss"] ** 2 * (1 + 1e-6)


# === Recomputed blocks ===


def test_recomputed_blocks_learn_the_same(plain):
    report, moved, _ = one_step(remat=True)
    assert report == pytest.approx(plain[0], rel=1e-5)
    for mine, expected in zip(moved, plain[1], strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-6)


def test_recomputed_blocks_drop_the_same_elements_again(monkeypatch):
    _, again, _ = one_step(remat=True, dropout=0.5)
    monkeypatch.setattr(keras, "remat", lambda function: function)
    _, remembered, _ = one_step(remat=True, dropout=0.5)
    for mine, expected in zip(again, remembered, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-6)


# === In 16 bits ===


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_16_bits_move_the_weights_about_as_32_do(precision, plain):
    optimizer = keras.optimizers.SGD(1.0)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    report, moved, model = one_step(optimizer, precision=precision)
    assert report["loss"] == pytest.approx(plain[0]["loss"], rel=0.02)
    assert report["gradient_norm"] == pytest.approx(plain[0]["gradient_norm"], rel=0.05)
    difference = length([mine - expected for mine, expected in zip(moved, plain[1], strict=True)])
    assert 1e-5 < difference / length(plain[1]) < 0.1
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    # What is behind the step computes in 32 bits again.
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


def test_products_are_in_16_bits():
    model = tiny_model()
    step = make_train_step(model, keras.optimizers.SGD(1.0), loss, clip_norm=1.0, precision="mixed_bfloat16", jit=False)
    if keras.backend.backend() == "jax":
        import jax

        text = str(jax.make_jaxpr(step.function)(step.abstract_state, padded_batch()))
        made = re.findall(r":(\w+)\[[\d,]*\] = (\w+)\[", text)
    else:
        operations = step.get_concrete_function(padded_batch()).graph.get_operations()
        made = [(operation.outputs[0].dtype.name, operation.type) for operation in operations if operation.outputs]
    assert {dtype for dtype, kind in made if "MatMul" in kind or kind == "dot_general"} <= {"bfloat16", "bf16"}
    assert {dtype for dtype, kind in made if kind in ("Softmax", "exp")} <= {"float32", "f32"}


def test_a_step_whose_gradients_overflow_is_left_out():
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), 10, "mixed_float16")
    report, moved, _ = one_step(optimizer, scale=1e35, precision="mixed_float16")
    assert np.isfinite(report["loss"])
    assert (report["gradient_norm"], report["loss_scale"]) == (0.0, 2.0**15)
    assert length(moved) == 0
    assert float(optimizer.scale_loss(1.0)) == 2.0**14
    assert int(optimizer.iterations) == 0


def test_a_gradient_that_is_no_number_at_any_scale_is_reported():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=0.5)
    report, moved, _ = one_step(optimizer, scale=float("inf"), precision="mixed_float16")
    assert not np.isfinite(report["gradient_norm"])
    assert length(moved) == 0


def test_two_ways_to_16_bits_are_one_too_many():
    with pytest.raises(ConfigError, match=r"^matmul: 'bfloat16', and precision 'mixed_float16'"):
        TrainingConfig(matmul="bfloat16", precision="mixed_float16")


def test_an_average_follows_in_32_bits():
    model = tiny_model()
    average = MovingAverage(model, 0.5)
    step = make_train_step(
        model, keras.optimizers.SGD(0.1), loss, clip_norm=1.0, average=average, precision="mixed_bfloat16", jit=False
    )
    step(padded_batch())
    assert {variable.dtype for variable in average.variables} == {"float32"}
