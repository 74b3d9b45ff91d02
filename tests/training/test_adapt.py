"""Fine-tuning trains what it says and nothing else; merging changes no output."""

import keras
import numpy as np
import pytest

from zoo.config import ConfigError
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig, encoder
from zoo.training import OptimizerConfig, make_optimizer, make_train_step
from zoo.training.adapt import AdaptConfig, adapt, learning_rates, merge

TOKENS = np.array([[5, 6, 7, 8], [9, 10, 0, 0]], "int32")
LABELS = np.array([0, 1])


def model():
    sizes = EncoderConfig(vocabulary_size=20, width=8, num_heads=2, feedforward_dim=12, num_layers=2, dropout=0.0)
    return encoder(EncoderHeadsConfig(sizes, {"label": HeadConfig(classes=("a", "b"), pooling="mean", dropout=0.0)}))


def heads(model):
    return [layer for layer in model.layers if layer.name.startswith("label_")]


def trained(model, steps=3, rates=None, learning_rate=0.1):
    def loss(model, batch, training):
        logits = model({"tokens": batch["tokens"]}, training=training)["label"]
        return keras.ops.mean(keras.ops.square(logits - 3.0)), {}

    config = OptimizerConfig(learning_rate=learning_rate, schedule="constant", warmup_steps=1, weight_decay=0.0)
    step = make_train_step(model, make_optimizer(config, steps), loss, clip_norm=1.0, learning_rates=rates, jit=False)
    before = {weight.path: np.array(weight) for weight in model.weights}
    for _ in range(steps):
        step({"tokens": TOKENS})
    return {path: np.abs(np.array(w) - before[path]).max() for path, w in ((w.path, w) for w in model.weights)}


def changed(model, **kwargs):
    return {path for path, change in trained(model, **kwargs).items() if change > 0}


def test_frozen_trains_the_head_alone():
    adapted = model()
    adapt(adapted, AdaptConfig(method="frozen"), heads(adapted))
    assert changed(adapted) == {"label_logits/kernel", "label_logits/bias"}


def test_lora_trains_the_head_and_the_additions():
    adapted = model()
    before = np.array(adapted({"tokens": TOKENS})["label"])
    adapt(adapted, AdaptConfig(method="lora", rank=2, targets=("query", "value")), heads(adapted))
    np.testing.assert_array_equal(np.array(adapted({"tokens": TOKENS})["label"]), before)
    additions = {
        f"encoder/block_{i}/self_attention/{name}/lora_kernel_{part}"
        for i in range(2)
        for name in ("query", "value")
        for part in "ab"
    }
    assert changed(adapted) == {"label_logits/kernel", "label_logits/bias", *additions}
    sizes = [np.prod(w.shape) for w in adapted.trainable_weights]
    assert sum(sizes) == 8 * 2 + 2 + 4 * (8 * 2 + 2 * 8)


def test_merging_changes_no_output():
    adapted = model()
    adapt(adapted, AdaptConfig(method="lora", rank=2), heads(adapted))
    plain = np.array(adapted({"tokens": TOKENS})["label"])
    trained(adapted)
    before = np.array(adapted({"tokens": TOKENS})["label"])
    assert np.abs(before - plain).max() > 1e-3
    merge(adapted)
    np.testing.assert_allclose(np.array(adapted({"tokens": TOKENS})["label"]), before, atol=1e-5)
    kernels = {w.path: np.array(w) for w in adapted.weights}
    other = model()
    for weight in other.weights:
        weight.assign(kernels[weight.path])
    np.testing.assert_allclose(np.array(other({"tokens": TOKENS})["label"]), before, atol=1e-5)


def test_lower_blocks_learn_slower():
    rates = learning_rates(model(), 0.5)
    assert rates["label_logits/kernel"] == rates["encoder/final_norm/gamma"] == 1
    assert rates["encoder/block_1/feedforward/hidden/kernel"] == 0.5
    assert rates["encoder/block_0/feedforward/hidden/kernel"] == 0.25
    assert rates["embedding/embeddings"] == 0.125
    # Adam's first step moves every weight by the learning rate.
    moved = trained(model(), steps=1, rates=rates, learning_rate=0.01)
    for path in ("encoder/block_1/feedforward/hidden/kernel", "encoder/block_0/feedforward/hidden/kernel"):
        assert moved[path] == pytest.approx(0.01 * rates[path], rel=0.01)
    assert moved["label_logits/bias"] == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptConfig(rank=0), "rank, alpha, layer_decay: 0"),
        (lambda: AdaptConfig(method="lra"), "did you mean 'lora'"),
        (lambda: adapt(model(), AdaptConfig(method="lora", targets=("qery",)), []), "no projection is called qery"),
    ],
)
def test_bad_configurations_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
