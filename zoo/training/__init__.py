"""Training: losses, schedules, one compiled step, and the loop around it."""

from zoo.training.config import TrainingConfig
from zoo.training.distribution import Distribution, open_strategy
from zoo.training.loop import Position, Run, TrainingError
from zoo.training.losses import cross_entropy, token_mean
from zoo.training.optimizers import OptimizerConfig, make_optimizer
from zoo.training.step import MovingAverage, make_train_step
from zoo.training.vocabulary import linear_cross_entropy, vocabulary_loss

__all__ = [
    "Distribution",
    "MovingAverage",
    "OptimizerConfig",
    "Position",
    "Run",
    "TrainingConfig",
    "TrainingError",
    "cross_entropy",
    "linear_cross_entropy",
    "make_optimizer",
    "make_train_step",
    "open_strategy",
    "token_mean",
    "vocabulary_loss",
]
