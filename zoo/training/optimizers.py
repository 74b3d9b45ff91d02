"""The optimizer and its learning rate, from a training configuration."""

import dataclasses
from typing import Literal

import keras

from zoo.config import Config
from zoo.training.schedules import WarmupCosine, WarmupInverseSqrt


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Config):
    """AdamW and its schedule.

    Args:
        learning_rate: The schedule's peak.
        schedule: How the learning rate goes after the warm-up.
        warmup_steps: Steps of linear rise.
        weight_decay: Decoupled decay of matrices; biases, normalizations and a loss' log-variances have none.
        beta_1, beta_2, epsilon: Adam's.
        clip_norm: The longest gradient, over all variables together.

    Source: Loshchilov & Hutter 2019.
    """

    learning_rate: float = 1e-3
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup_steps: int = 1000
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.98
    epsilon: float = 1e-9
    clip_norm: float = 1.0


def make_optimizer(config: OptimizerConfig, steps: int) -> keras.optimizers.Optimizer:
    """Builds the optimizer for a run of `steps` steps."""
    schedule = {
        "inverse_sqrt": lambda: WarmupInverseSqrt(config.learning_rate, config.warmup_steps),
        "cosine": lambda: WarmupCosine(config.learning_rate, config.warmup_steps, steps),
        "constant": lambda: WarmupCosine(config.learning_rate, config.warmup_steps, steps, floor=1.0),
    }[config.schedule]()
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=config.weight_decay,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        name="optimizer",
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "log_variance"])
    return optimizer
