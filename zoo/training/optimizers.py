"""The optimizer and its learning rate, from a training configuration."""

import dataclasses
from typing import Literal

import keras

from zoo.config import Config
from zoo.training.precision import Precision
from zoo.training.schedules import WarmupCosine, WarmupInverseSqrt

# Paths of the kernels that logits come from, which are no matrices to Muon.
HEADS = ["^output/", "_logits/"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Config):
    """An optimizer and its schedule.

    Args:
        name: "adamw"; "adafactor", whose rates are shares of a matrix' size, tens of times higher; "lion", which moves
            by signs: its rates are some times lower, its weight decay as much higher; or "muon", which moves matrices
            along orthogonal ones at AdamW's rates, and leaves embeddings, heads and vectors to AdamW.
        learning_rate: The schedule's peak.
        schedule: How the learning rate goes after the warm-up.
        warmup_steps: Steps of linear rise.
        weight_decay: Decoupled decay of matrices; biases, normalizations and a loss' log-variances have none.
        beta_1, beta_2: Of adamw, lion, and muon's AdamW.
        epsilon: Of adamw, and muon's AdamW.
        clip_norm: The longest gradient, over all variables together.

    Source: Loshchilov & Hutter 2019; Shazeer & Stern 2018; Chen et al. 2023; Jordan et al. 2024.
    """

    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup_steps: int = 1000
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.98
    epsilon: float = 1e-9
    clip_norm: float = 1.0


def make_optimizer(config: OptimizerConfig, steps: int, precision: Precision = "float32") -> keras.optimizers.Optimizer:
    """Builds the optimizer for a run of `steps` steps; in mixed_float16 one that scales the loss."""
    schedule = {
        "inverse_sqrt": lambda: WarmupInverseSqrt(config.learning_rate, config.warmup_steps),
        "cosine": lambda: WarmupCosine(config.learning_rate, config.warmup_steps, steps),
        "constant": lambda: WarmupCosine(config.learning_rate, config.warmup_steps, steps, floor=1.0),
    }[config.schedule]()
    shared = {"learning_rate": schedule, "weight_decay": config.weight_decay, "name": "optimizer"}
    betas = {"beta_1": config.beta_1, "beta_2": config.beta_2}
    optimizer = {
        "adamw": lambda: keras.optimizers.AdamW(**shared, **betas, epsilon=config.epsilon),
        "adafactor": lambda: keras.optimizers.Adafactor(**shared, relative_step=False),
        "lion": lambda: keras.optimizers.Lion(**shared, **betas),
        "muon": lambda: keras.optimizers.Muon(
            **shared,
            **{f"adam_{name}": beta for name, beta in betas.items()},
            adam_weight_decay=config.weight_decay,
            epsilon=config.epsilon,
            exclude_layers=HEADS,
        ),
    }[config.name]()
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "log_variance"])
    if precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    return optimizer
