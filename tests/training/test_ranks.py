"""AdaLoRA's budget, importance and pruning against sums written out; a run of it stops and goes on."""

import os
import signal

import keras
import numpy as np
import pytest
import safetensors.numpy
from keras import ops

from zoo.config import ConfigError
from zoo.layers.adapters import RankedDense
from zoo.training import MovingAverage, OptimizerConfig, Run, TrainingConfig, make_train_step
from zoo.training.adapt import AdaptConfig, adapt, merge, rank_allocator
from zoo.training.ranks import RankAllocator, RankConfig

RANK, FINAL_RANK = 4, 1
STEPS = 20
SCHEDULE = RankConfig(warmup=0.1, final=0.3, every=3, beta_1=0.8, beta_2=0.6, orthogonality=0.01)
CONFIG = AdaptConfig(
    method="adalora", rank=RANK, final_rank=FINAL_RANK, ranks=SCHEDULE, targets=("low", "high"), alpha=4.0
)


def build(config=CONFIG):
    """Two projections and a head; what they learn needs both columns of "low" and hardly anything of "high"."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(6, name="low")(inputs)
    x = x + 0.01 * keras.layers.Dense(6, name="high")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    adapt(model, config, [model.get_layer("head")])
    return model


def loss(model, batch, training):
    return ops.mean(ops.square(model(batch["x"], training=training) - batch["y"])), {}


class Batches:
    """A linear problem; `before(step)` is called before each batch."""

    def __init__(self, before=lambda step: None):
        self.before = before

    def epoch(self, epoch, start=0):
        rng = np.random.default_rng(epoch)
        matrix = np.random.default_rng(99).normal(size=(6, 2))
        for number in range(5):
            x = rng.normal(size=(16, 6))
            if number >= start:
                self.before(5 * epoch + number + 1)
                yield {"x": x.astype("float32"), "y": (x @ matrix).astype("float32")}


def make_run(checkpoint=None, before=lambda step: None, **settings):
    model = build()
    config = TrainingConfig(
        **{
            "steps": STEPS,
            "save_every": 100,
            "evaluate_every": 100,
            "log_every": 5,
            "average_decay": 0.9,
            "monitor": "score",
            "jit": False,
            "optimizer": OptimizerConfig(learning_rate=0.05, warmup_steps=1, schedule="constant"),
            **settings,
        }
    )
    return Run(
        model,
        loss,
        Batches(before),
        config,
        evaluate=lambda: {"score": 1.0},
        keep_best=lambda: None,
        ranks=rank_allocator(model, CONFIG, config.steps),
        checkpoint=checkpoint,
    )


def lambdas(model):
    return np.stack([np.array(model.get_layer(name).lora_kernel_lambda) for name in ("low", "high")])


# === The budget ===


def test_the_budget_is_the_cubic_of_the_paper():
    # 2 layers of rank 4, later 1: 8 triplets fall to 2 between steps 2 and 14 of 20.
    ranks = rank_allocator(build(), CONFIG, STEPS)
    expected = {1: 8.0, 2: 8.0, 5: 2 + 6 * 0.75**3, 8: 2 + 6 * 0.5**3, 11: 2 + 6 * 0.25**3, 14: 2.0, 20: 2.0}
    assert {step: float(ranks.budget(step)) for step in expected} == pytest.approx(expected)


def test_the_budget_is_reached_in_a_run_without_a_last_phase():
    ranks = RankAllocator(layers(build()), 1, RankConfig(warmup=0.0, final=0.0), 7)
    assert [float(ranks.budget(step)) for step in (0, 7)] == [8.0, 2.0]


def layers(model):
    return [model.get_layer(name) for name in ("low", "high")]


# === Importance ===


def test_importance_is_smoothed_sensitivity_times_uncertainty(rng):
    model = build()
    ranks = rank_allocator(model, CONFIG, STEPS)
    weights = [weight for layer in layers(model) for weight in layer.weights if "lora_kernel" in weight.path]
    smooth = {weight.path: np.zeros(weight.shape) for weight in weights}
    strays = {weight.path: np.zeros(weight.shape) for weight in weights}
    for step in range(1, 6):
        gradients = {weight.path: rng.normal(size=weight.shape).astype("float32") for weight in weights}
        ranks.observe(gradients, ops.convert_to_tensor(step))
        for weight in weights:
            now = np.abs(np.array(weight) * gradients[weight.path])
            smooth[weight.path] = 0.8 * smooth[weight.path] + 0.2 * now
            strays[weight.path] = 0.6 * strays[weight.path] + 0.4 * np.abs(now - smooth[weight.path])
            weight.assign(rng.normal(size=weight.shape))
    score = {path: smooth[path] * strays[path] for path in smooth}
    importance = dict(zip([lambdas.path for _, lambdas, _ in ranks.triplets], np.array(ranks.importance)))
    for name in ("low", "high"):
        expected = (
            score[f"{name}/lora_kernel_lambda"]
            + score[f"{name}/lora_kernel_a"].sum(axis=0) / 6
            + score[f"{name}/lora_kernel_b"].sum(axis=1) / 6
        )
        np.testing.assert_allclose(importance[f"{name}/lora_kernel_lambda"], expected, rtol=1e-4)


def test_importance_stands_still_in_the_last_phase(rng):
    model = build()
    ranks = rank_allocator(model, CONFIG, STEPS)
    gradients = {w.path: rng.normal(size=w.shape).astype("float32") for w in model.trainable_weights}
    ranks.observe(gradients, ops.convert_to_tensor(13))
    before = np.array(ranks.importance)
    assert before.any()
    ranks.observe(gradients, ops.convert_to_tensor(14))
    np.testing.assert_array_equal(np.array(ranks.importance), before)


# === Pruning ===


def with_importance(values):
    """A model whose triplets have a given importance, and its allocator."""
    model = build()
    ranks = rank_allocator(model, CONFIG, STEPS)
    for layer, row in zip(layers(model), values):
        path = layer.lora_kernel_lambda.path
        ranks._sensitivity[path].assign(row)
        ranks._uncertainty[path].assign(np.ones(RANK))
        layer.lora_kernel_lambda.assign(np.ones(RANK))
    return model, ranks


IMPORTANCE = [[0.8, 0.1, 0.7, 0.6], [0.2, 0.3, 0.05, 0.4]]


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (1, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (5, [[1, 1, 1, 1], [1, 1, 1, 1]]),  # 4.53 triplets, but not every third step
        (6, [[1, 0, 1, 1], [0, 0, 0, 1]]),  # 2 + 6 * (8 / 12)^3 = 3.8, so 4
        (9, [[1, 0, 1, 0], [0, 0, 0, 0]]),  # 2 + 6 * (5 / 12)^3 = 2.4, so 2
        (14, [[1, 0, 1, 0], [0, 0, 0, 0]]),
        (16, [[1, 0, 1, 0], [0, 0, 0, 0]]),  # the last phase takes every step
    ],
)
def test_the_most_important_triplets_of_all_layers_stay(step, kept):
    model, ranks = with_importance(IMPORTANCE)
    average = MovingAverage(model, 0.9)
    metrics = ranks.prune(ops.convert_to_tensor(step), average.copies)
    np.testing.assert_array_equal(lambdas(model), kept)
    copies = [average.copies[layer.lora_kernel_lambda.path] for layer in layers(model)]
    np.testing.assert_array_equal(np.stack([np.array(copy) for copy in copies]), kept)
    assert float(metrics["rank"]) == np.sum(kept) / 2


def test_as_many_stay_where_all_are_of_equal_importance():
    model, ranks = with_importance([[0.5] * 4] * 2)
    ranks.prune(ops.convert_to_tensor(STEPS), {})
    assert np.count_nonzero(lambdas(model)) == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing happened to, its weights before it, and its checkpoint."""
    checkpoint = tmp_path_factory.mktemp("finished") / "checkpoint.safetensors"
    run = make_run(checkpoint)
    before = {weight.path: np.array(weight) for weight in run.model.weights}
    run.train()
    return run, before, checkpoint


def test_a_run_ends_with_the_final_rank_where_it_matters(finished):
    run, *_ = finished
    assert np.count_nonzero(lambdas(run.model)) == 2 * FINAL_RANK
    # "high" is a hundredth of the sum.
    assert not lambdas(run.model)[1].any()
    copies = run.average.copies
    averages = np.stack([np.array(copies[layer.lora_kernel_lambda.path]) for layer in layers(run.model)])
    np.testing.assert_array_equal(averages != 0, lambdas(run.model) != 0)


def test_what_is_frozen_stays(finished):
    run, before, _ = finished
    changed = {w.path for w in run.model.weights if (np.array(w) != before[w.path]).any()}
    additions = {f"{name}/lora_kernel_{part}" for name in ("low", "high") for part in ("a", "b", "lambda")}
    assert {weight.path for weight in run.model.trainable_weights} == {*additions, "head/kernel", "head/bias"}
    assert changed == {*additions, "head/kernel", "head/bias"} - {"high/lora_kernel_lambda"}


def test_the_step_takes_the_cost_of_orthogonality_and_says_the_rank():
    model = build()
    step = make_train_step(
        model, keras.optimizers.SGD(0.0), loss, clip_norm=1.0, ranks=rank_allocator(model, CONFIG, STEPS), jit=False
    )
    batch = next(Batches().epoch(0))
    plain = float(loss(model, batch, training=False)[0])
    cost = 0.0
    for layer in layers(model):
        p, q = np.array(layer.lora_kernel_a), np.array(layer.lora_kernel_b)
        cost += np.square(p.T @ p - np.eye(RANK)).sum() + np.square(q @ q.T - np.eye(RANK)).sum()
    metrics = step(batch)
    assert float(metrics["loss"]) == pytest.approx(plain + 0.01 * cost, rel=1e-5)
    assert float(metrics["rank"]) == 0  # nothing has learned at this rate


@pytest.mark.slow
def test_xla_computes_what_the_step_without_it_computes(finished):
    run = make_run(jit=True)
    run.train()
    expected = {w.path: np.array(w) for w in [*finished[0].model.weights, *finished[0].ranks.variables]}
    for weight in [*run.model.weights, *run.ranks.variables]:
        np.testing.assert_allclose(np.array(weight), expected[weight.path], atol=1e-4, err_msg=weight.path)


def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(finished, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def interrupt(number):
        if number == 12:  # between two prunings, in the middle of a pass
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_run(checkpoint, before=interrupt).train()
    make_run(checkpoint).train()
    expected, found = safetensors.numpy.load_file(finished[2]), safetensors.numpy.load_file(checkpoint)
    assert expected.keys() == found.keys()
    assert any(name.startswith("sensitivity:") for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_merging_changes_no_output(rng):
    model = build()
    for layer in layers(model):
        layer.lora_kernel_lambda.assign([0.9, 0.0, -0.4, 0.0])
    x = rng.normal(size=(3, 6)).astype("float32")
    before = np.array(model(x))
    merge(model)
    np.testing.assert_allclose(np.array(model(x)), before, atol=1e-5)
    plain = build(AdaptConfig())
    kernels = {weight.path: np.array(weight) for weight in model.weights}
    for weight in plain.weights:
        weight.assign(kernels[weight.path])
    assert not any(isinstance(layer, RankedDense) for layer in plain.layers)
    np.testing.assert_allclose(np.array(plain(x)), before, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptConfig(method="adalora", rank=2, final_rank=3), "final_rank: 3; it lies from 1 to the initial"),
        (lambda: RankConfig(warmup=0.5, final=0.5), "together less than 1"),
        (lambda: RankConfig(every=0), "every, orthogonality: 0"),
        (lambda: RankConfig(beta_1=1.0), "beta_1, beta_2: 1.0"),
    ],
)
def test_bad_schedules_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_final_rank_is_adaloras_alone():
    assert AdaptConfig(method="lora", rank=2).rank == 2
    assert rank_allocator(build(AdaptConfig()), AdaptConfig(), STEPS) is None
