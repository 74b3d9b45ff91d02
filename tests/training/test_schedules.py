"""Learning rates at points worked out by hand. Optimizer steps are counted from 0, so step 9 is the tenth."""

import itertools
import math

import keras
import pytest

from zoo.training import OptimizerConfig, make_optimizer
from zoo.training.schedules import WarmupCosine, WarmupInverseSqrt

INVERSE_SQRT = WarmupInverseSqrt(0.5, 10)
COSINE = WarmupCosine(0.5, 10, 110, floor=0.2)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        # a line up to the peak
        *((schedule, step, 0.05 * (step + 1)) for schedule in (INVERSE_SQRT, COSINE) for step in (0, 1, 4, 9)),
        # four times the steps, half the rate
        (INVERSE_SQRT, 39, 0.25),
        (INVERSE_SQRT, 159, 0.125),
        (INVERSE_SQRT, 19, 0.5 / math.sqrt(2)),
        # a quarter, half, all of the way down from 0.5 to 0.1, and behind it
        (COSINE, 34, 0.1 + 0.4 * (1 + math.cos(math.pi / 4)) / 2),
        (COSINE, 59, 0.3),
        (COSINE, 109, 0.1),
        (COSINE, 500, 0.1),
        # the fall begins behind the peak, not before it
        (COSINE, 10, 0.1 + 0.4 * (1 + math.cos(math.pi / 100)) / 2),
        # ends at nothing unless told otherwise
        (WarmupCosine(0.5, 10, 110), 109, 0.0),
        # no warm-up is a warm-up of one step
        (WarmupInverseSqrt(0.5, 0), 0, 0.5),
        (WarmupCosine(0.5, 0, 11), 0, 0.5),
        # a run shorter than its warm-up
        (WarmupCosine(0.5, 10, 3), 2, 0.15),
    ],
)
def test_points(schedule, step, expected):
    assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)
    assert float(schedule(keras.ops.convert_to_tensor(step, "int32"))) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("schedule", [INVERSE_SQRT, COSINE], ids=["inverse_sqrt", "cosine"])
def test_the_peak_is_reached_once_and_never_exceeded(schedule):
    rates = [float(schedule(step)) for step in range(300)]
    assert max(rates) == pytest.approx(0.5)
    assert rates.index(max(rates)) == 9
    assert all(before < after for before, after in itertools.pairwise(rates[:10]))
    assert all(before >= after for before, after in itertools.pairwise(rates[9:]))


@pytest.mark.parametrize("schedule", [INVERSE_SQRT, COSINE], ids=["inverse_sqrt", "cosine"])
def test_a_schedule_survives_json(schedule):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(copy(step)) for step in (0, 30, 90)] == [float(schedule(step)) for step in (0, 30, 90)]


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("inverse_sqrt", {9: 0.5, 39: 0.25}),
        ("cosine", {9: 0.5, 59: 0.25, 109: 0.0}),
        ("constant", {4: 0.25, 9: 0.5, 59: 0.5, 109: 0.5}),
    ],
)
def test_the_optimizer_follows_its_schedule(name, rates):
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, schedule=name, warmup_steps=10), steps=110)
    for step, expected in rates.items():
        optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == pytest.approx(expected, abs=1e-7)
