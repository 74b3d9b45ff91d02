"""Learning-rate schedules, as functions of the optimizer step."""

import math

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable("zoo")
class WarmupInverseSqrt(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then falls with the inverse square root of the step.

    Args:
        peak: The highest learning rate, reached at step `warmup_steps`.
        warmup_steps: At least 1.

    Source: Vaswani et al. 2017, section 5.3.
    """

    def __init__(self, peak: float, warmup_steps: int):
        self.peak = peak
        self.warmup_steps = max(1, warmup_steps)

    def __call__(self, step: int | KerasTensor) -> KerasTensor:
        step = ops.cast(step, "float32") + 1
        return self.peak * ops.minimum(step / self.warmup_steps, ops.sqrt(self.warmup_steps / step))

    def get_config(self) -> dict:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable("zoo")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then falls along half a cosine.

    Args:
        peak: The highest learning rate, reached at step `warmup_steps`.
        warmup_steps: At least 1.
        steps: Where the fall ends.
        floor: The last learning rate, as a share of the peak.

    Source: Loshchilov & Hutter 2017, equation 5.
    """

    def __init__(self, peak: float, warmup_steps: int, steps: int, floor: float = 0.0):
        self.peak = peak
        self.warmup_steps = max(1, warmup_steps)
        self.steps = max(steps, self.warmup_steps + 1)
        self.floor = floor

    def __call__(self, step: int | KerasTensor) -> KerasTensor:
        step = ops.cast(step, "float32") + 1
        done = ops.clip((step - self.warmup_steps) / (self.steps - self.warmup_steps), 0.0, 1.0)
        fall = self.floor + (1 - self.floor) * 0.5 * (1 + ops.cos(math.pi * done))
        return self.peak * ops.where(step < self.warmup_steps, step / self.warmup_steps, fall)

    def get_config(self) -> dict:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps, "floor": self.floor}
