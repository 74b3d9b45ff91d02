"""How much each of several heads' losses counts, learned beside the model."""

from collections.abc import Mapping

import keras
from keras import KerasTensor, ops

from zoo.models.encoder import HeadConfig

# Of the log-variances, at the schedule's peak: at the rate of an encoder that is fine-tuned they would hardly move.
LEARNING_RATE = 0.01


class UncertaintyWeighting:
    """Weighs each head's loss by how noisy its answers are found to be, so that a noisy head counts less.

    With s the logarithm of a head's variance, its loss L costs exp(-s) L + s / 2; that of a number, a squared error,
    exp(-s) L / 2 + s / 2, which is least where exp(s) is the mean squared error.

    Args:
        heads: The heads; their kinds decide.

    Attributes:
        log_variances: Head -> s, trainable, which begins at 0.

    Source: Kendall et al. 2018, section 3.2.
    """

    def __init__(self, heads: Mapping[str, HeadConfig]):
        self.log_variances = {name: keras.Variable(0.0, name=f"log_variance:{name}") for name in heads}
        self._halves = {name: 0.5 if head.kind == "number" else 1.0 for name, head in heads.items()}

    def __call__(self, name: str, loss: KerasTensor, weights: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Weighs one head's loss.

        Args:
            name: The head.
            loss: Its loss: see head_loss().
            weights: (B,), 0 for examples that say nothing of it; where all are, it costs nothing and learns nothing.

        Returns:
            What the head costs, and the factor of its loss.
        """
        s = ops.convert_to_tensor(self.log_variances[name])
        factor = self._halves[name] * ops.exp(-s)
        asked = ops.cast(ops.any(weights > 0), "float32")
        return asked * (factor * loss + s / 2), factor

    def learning_rates(self, peak: float) -> dict[str, float]:
        """Gives the log-variances their own rate, as a share of the highest one of the run."""
        return {variable.path: LEARNING_RATE / peak for variable in self.log_variances.values()}
