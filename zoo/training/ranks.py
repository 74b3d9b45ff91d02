"""AdaLoRA: a budget of ranks that shrinks in the course of a run and goes where it matters most."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
from keras import KerasTensor, ops

from zoo.config import Config, ConfigError
from zoo.layers.adapters import RankedDense


@dataclasses.dataclass(frozen=True)
class RankConfig(Config):
    """How the ranks of low-rank additions are given out.

    Args:
        warmup: Share of the run before the budget begins to shrink.
        final: Share of the run, at its end, in which the budget has shrunk and ranks no longer change hands.
        every: Steps from one giving out to the next.
        beta_1: Share of the old sensitivity kept at each step.
        beta_2: Share of the old uncertainty kept at each step.
        orthogonality: Weight of the cost that keeps P's columns and Q's rows orthonormal.

    Source: Zhang et al. 2023, sections 3.2 and 3.3.
    """

    warmup: float = 0.1
    final: float = 0.4
    every: int = 10
    beta_1: float = 0.85
    beta_2: float = 0.85
    orthogonality: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if min(self.warmup, self.final) < 0 or self.warmup + self.final >= 1:
            raise ConfigError(f"warmup, final: {self.warmup}, {self.final}; shares of a run, together less than 1")
        if not (0 <= self.beta_1 < 1 and 0 <= self.beta_2 < 1):
            raise ConfigError(f"beta_1, beta_2: {self.beta_1}, {self.beta_2}; they lie from 0 up to, not including, 1")
        if self.every < 1 or self.orthogonality < 0:
            raise ConfigError(f"every, orthogonality: {self.every}, {self.orthogonality}; at least 1, not negative")


class RankAllocator:
    """Takes ranks away from low-rank additions, all layers together, until the least important ones are gone.

    A rank is a triplet: a column of P, its lambda, a row of Q. An element's sensitivity is how much the loss would
    change without it, abs(w dL/dw); its importance is the moving average of that times the moving average of how far
    the sensitivity strays from its average. A triplet's importance is its lambda's plus the mean of its column's plus
    the mean of its row's. As many triplets as the budget allows keep their lambdas; the others' become zero, and may
    come back until the last phase.

    Args:
        layers: The layers, all of one rank.
        final_rank: How many ranks a layer has in the end, on the average.
        config: The schedule.
        steps: Length of the run.

    Attributes:
        variables: The moving averages, which belong to the run's state.

    Source: Zhang et al. 2023, sections 3.2 and 3.3, algorithm 1. The budget is a cubic that falls without a jump from
        the initial rank, at the end of the warm-up, to the final one, where the last phase begins.
    """

    def __init__(self, layers: Sequence[RankedDense], final_rank: int, config: RankConfig, steps: int):
        self.triplets = [(d.lora_kernel_a, d.lora_kernel_lambda, d.lora_kernel_b) for d in layers]
        self.config = config
        self.shape = (len(layers), layers[0].lora_rank)
        self.budgets = (len(layers) * layers[0].lora_rank, len(layers) * final_rank)
        self.first, self.last = round(config.warmup * steps), steps - round(config.final * steps)
        weights = [weight for triplet in self.triplets for weight in triplet]
        self._sensitivity = {weight.path: _zeros_like(weight, "sensitivity") for weight in weights}
        self._uncertainty = {weight.path: _zeros_like(weight, "uncertainty") for weight in weights}
        self.variables = [*self._sensitivity.values(), *self._uncertainty.values()]

    def budget(self, step: KerasTensor) -> KerasTensor:
        """Returns how many triplets stay after step number `step`, not rounded: float32."""
        initial, final = self.budgets
        left = 1 - (ops.cast(step, "float32") - self.first) / max(1, self.last - self.first)
        return final + (initial - final) * ops.clip(left, 0.0, 1.0) ** 3

    def observe(self, gradients: Mapping[str, KerasTensor], step: KerasTensor) -> None:
        """Moves the averages, before the weights are updated.

        Args:
            gradients: Variable path -> gradient of the loss.
            step: Number of the step; from the last phase on the averages stand still.
        """
        moving = ops.cast(step < self.last, "float32")
        for weight in (weight for triplet in self.triplets for weight in triplet):
            sensitivity, uncertainty = self._sensitivity[weight.path], self._uncertainty[weight.path]
            now = ops.abs(weight * gradients[weight.path])
            sensitivity.assign(sensitivity + moving * (1 - self.config.beta_1) * (now - sensitivity))
            strays = ops.abs(now - sensitivity)
            uncertainty.assign(uncertainty + moving * (1 - self.config.beta_2) * (strays - uncertainty))

    @property
    def importance(self) -> KerasTensor:
        """The importance of each triplet: (layers, rank)."""
        score = {path: self._sensitivity[path] * self._uncertainty[path] for path in self._sensitivity}
        return ops.stack(
            [
                score[lambdas.path] + ops.mean(score[p.path], axis=0) + ops.mean(score[q.path], axis=1)
                for p, lambdas, q in self.triplets
            ]
        )

    def prune(self, step: KerasTensor, copies: Mapping[str, keras.Variable]) -> dict[str, KerasTensor]:
        """Sets the lambdas of triplets beyond the budget to zero, where it is time to, after the update.

        Args:
            step: Number of the step.
            copies: Variable path -> a moving average, where lambdas become zero too.

        Returns:
            "rank", how many lambdas of a layer are not zero, on the average.
        """
        place = ops.argsort(ops.argsort(-ops.reshape(self.importance, (-1,))))
        kept = ops.reshape(place < ops.cast(ops.round(self.budget(step)), "int32"), self.shape)
        kept = kept | ((step % self.config.every != 0) & (step < self.last))
        for layer, (_, lambdas, _) in enumerate(self.triplets):
            for variable in (lambdas, copies.get(lambdas.path)):
                if variable is not None:
                    variable.assign(ops.where(kept[layer], variable.value, 0.0))
        counts = [ops.count_nonzero(lambdas.value) for _, lambdas, _ in self.triplets]
        return {"rank": ops.mean(ops.cast(ops.stack(counts), "float32"))}


def _zeros_like(weight: keras.Variable, name: str) -> keras.Variable:
    return keras.Variable(ops.zeros(weight.shape), trainable=False, name=f"{name}/{weight.path}".replace("/", ":"))
