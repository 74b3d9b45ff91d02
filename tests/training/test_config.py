"""Settings of a run."""

import pytest

from zoo.config import ConfigError
from zoo.training import OptimizerConfig, TrainingConfig


@pytest.mark.parametrize("field", ["steps", "evaluate_every", "save_every", "log_every"])
def test_intervals_are_at_least_one(field):
    with pytest.raises(ConfigError, match=f"^{field}: 0; it is at least 1$"):
        TrainingConfig(**{field: 0})


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_the_average_decays_by_a_share(decay):
    with pytest.raises(ConfigError, match=f"^average_decay: {decay}"):
        TrainingConfig(average_decay=decay)


def test_epochs_become_steps():
    config = TrainingConfig(steps=7, optimizer=OptimizerConfig(warmup_steps=1000, learning_rate=0.5))
    found = config.for_epochs(3, 50)
    assert (found.steps, found.evaluate_every) == (150, 50)
    assert found.optimizer == OptimizerConfig(warmup_steps=15, learning_rate=0.5)
    # A warm-up that is short enough stays.
    assert config.for_epochs(3, 10**6).optimizer.warmup_steps == 1000
    assert config.for_epochs(1, 1).optimizer.warmup_steps == 1
    with pytest.raises(ConfigError, match=r"^epochs: 0; it is at least 1$"):
        config.for_epochs(0, 5)
