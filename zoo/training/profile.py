"""A profile of some steps, by the profiler of the backend, for TensorBoard's Profile tab."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from zoo.config import ConfigError


class Profiler:
    """Watches a run's steps from one to another.

    Args:
        logdir: Folder for TensorBoard.
        steps: The first and the last step.

    Raises:
        ConfigError: If the steps are none.
    """

    def __init__(self, logdir: str | Path, steps: tuple[int, int]):
        self.logdir = str(logdir)
        self.first, self.last = steps
        if not 1 <= self.first <= self.last:
            raise ConfigError(f"profile: steps {self.first} to {self.last}; it takes two from 1, in order")
        self.running = False

    def before(self, step: int) -> None:
        """Begins, if it is time to."""
        if not self.running and self.first <= step <= self.last:
            self.running = True
            if keras.backend.backend() == "jax":
                import jax

                jax.profiler.start_trace(self.logdir)
            else:
                import tensorflow as tf

                tf.profiler.experimental.start(self.logdir)

    def after(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Waits for the last step, of which these are the numbers, and ends."""
        if self.running and step >= self.last:
            float(metrics["loss"])
            self.close()

    def close(self) -> None:
        """Writes what was seen."""
        if self.running:
            self.running = False
            if keras.backend.backend() == "jax":
                import jax

                jax.profiler.stop_trace()
            else:
                import tensorflow as tf

                tf.profiler.experimental.stop()
