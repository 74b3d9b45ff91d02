"""Learned weights of losses: their gradients by hand, and the noise that they find."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.models.encoder import HeadConfig
from zoo.training import OptimizerConfig, make_optimizer, make_train_step
from zoo.training.weighting import LEARNING_RATE, UncertaintyWeighting

HEADS = {"topic": HeadConfig(classes=("a", "b")), "stars": HeadConfig(kind="number")}
ASKED = np.array([1.0, 0.0], "float32")


@pytest.mark.parametrize(("name", "half"), [("topic", 1.0), ("stars", 0.5)])
def test_cost_and_gradients_are_those_of_the_formula(name, half, derivatives):
    weighting = UncertaintyWeighting(HEADS)
    s, loss = weighting.log_variances[name], keras.Variable(3.0)
    s.assign(0.7)
    _, factor = weighting(name, loss, ASKED)
    cost, by_s, by_loss = derivatives(lambda: weighting(name, loss, ASKED)[0], [s, loss])
    assert float(factor) == pytest.approx(half * np.exp(-0.7))
    assert float(cost) == pytest.approx(half * np.exp(-0.7) * 3.0 + 0.35)
    assert float(by_s) == pytest.approx(-half * np.exp(-0.7) * 3.0 + 0.5)
    assert float(by_loss) == pytest.approx(half * np.exp(-0.7))


def test_weights_begin_where_the_fixed_ones_are():
    weighting = UncertaintyWeighting(HEADS)
    assert float(weighting("topic", ops.convert_to_tensor(3.0), ASKED)[0]) == 3.0
    assert float(weighting("stars", ops.convert_to_tensor(3.0), ASKED)[0]) == 1.5


def test_a_head_that_nobody_asks_for_costs_and_learns_nothing(derivatives):
    weighting = UncertaintyWeighting(HEADS)
    s = weighting.log_variances["topic"]
    s.assign(0.7)
    found = derivatives(lambda: weighting("topic", ops.zeros(()), np.zeros(2, "float32"))[0], [s])
    assert [float(x) for x in found] == [0, 0]


def test_each_log_variance_becomes_that_of_its_heads_noise(rng):
    # One weight tells two numbers, one of them with eight times the noise.
    noise = {"sharp": 0.25, "blurred": 2.0}
    weighting = UncertaintyWeighting({name: HeadConfig(kind="number") for name in noise})
    model = keras.Model(inputs := keras.Input((1,)), keras.layers.Dense(1, use_bias=False)(inputs))
    x = rng.normal(size=(2000, 1)).astype("float32")
    batch = {name: (3 * x + rng.normal(0, noise[name], x.shape)).astype("float32") for name in noise} | {"x": x}

    def loss(model, batch, training):
        found = model(batch["x"], training=training)
        costs = [weighting(n, ops.mean(ops.square(found - batch[n])), ops.ones(1)) for n in noise]
        return sum(cost for cost, _ in costs), {f"loss_weight_{n}": factor for n, (_, factor) in zip(noise, costs)}

    variables = list(weighting.log_variances.values())
    config = OptimizerConfig(learning_rate=0.05, schedule="constant", warmup_steps=1, weight_decay=0.2)
    step = make_train_step(
        model, make_optimizer(config, 400), loss, clip_norm=10.0, loss_variables=variables, jit=False
    )
    for _ in range(400):
        metrics = step(batch)
    for name, deviation in noise.items():
        # Of 2000 draws the variance is known to about 3 %; weight decay would pull it to 1.
        assert float(ops.exp(weighting.log_variances[name])) == pytest.approx(deviation**2, rel=0.1)
        assert float(metrics[f"loss_weight_{name}"]) == pytest.approx(0.5 / deviation**2, rel=0.1)


def test_log_variances_have_a_rate_of_their_own():
    weighting = UncertaintyWeighting(HEADS)
    model = keras.Model(inputs := keras.Input((1,)), keras.layers.Dense(1)(inputs))

    def loss(model, batch, training):
        value = ops.mean(ops.square(model(batch["x"], training=training) - 5.0))
        return weighting("topic", value, ops.ones(1))[0], {}

    config = OptimizerConfig(learning_rate=2e-5, schedule="constant", warmup_steps=1, weight_decay=0.0)
    s = weighting.log_variances["topic"]
    step = make_train_step(
        model,
        make_optimizer(config, 10),
        loss,
        clip_norm=1.0,
        learning_rates=weighting.learning_rates(config.learning_rate),
        loss_variables=[s],
        jit=False,
    )
    step({"x": np.ones((2, 1), "float32")})
    assert float(ops.convert_to_tensor(s)) == pytest.approx(LEARNING_RATE, rel=0.01)  # Adam's first step
