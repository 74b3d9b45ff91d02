"""TrainingConfig: everything about a run that is not the model, the data or the task."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from zoo.config import Config, ConfigError
from zoo.training.optimizers import OptimizerConfig
from zoo.training.precision import Precision


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Config):
    """How a model is trained.

    Args:
        steps: Optimizer steps.
        label_smoothing: Share of the target distribution spread over the whole vocabulary.
        final_label_smoothing: The same at the last step, reached along a straight line; None for no change.
        optimizer: The optimizer and its schedule.
        average_decay: Of the moving average of the weights, which is what is evaluated and kept; 0 for none.
        evaluate_every: Steps between two evaluations on the dev examples; the best weights so far are kept.
        monitor: The dev metric that decides which weights are best; "loss" is better low, all others high.
        patience: Evaluations in a row without a better one before the run stops early; 0 for never.
        save_every: Steps between two checkpoints: what a killed run loses at most.
        log_every: Steps between two lines and TensorBoard points.
        seed: Of the initial weights, the order of the examples and dropout.
        jit: Whether XLA compiles the step.
        precision: What layers compute in while they learn, a dtype policy of Keras: by the mixed ones in 16 bits, with
            weights, sums and softmax in float32. For accelerators. "mixed_float16" scales the loss, so that small
            gradients do not vanish. What is evaluated and saved computes in float32.
        accumulate: Micro-batches, at least, that each batch is cut into: the same step in less memory.
        remat: Whether transformer blocks are computed again on the way back instead of being remembered.
        fused_loss: Whether a vocabulary's logits are made block by block and never held as a whole; null, where a batch
            has 2^26 of them.
        matmul: "bfloat16" multiplies matrices in bfloat16 on CPUs that can (AMX, AVX512-BF16): about twice as fast
            there, on the TensorFlow backend alone. The step is then a graph whose products run in oneDNN, and XLA
            compiles what is between them. No precision: everything but the products stays in float32, and XLA's own
            products would not use these units.
    """

    steps: int = 10000
    label_smoothing: float = 0.1
    final_label_smoothing: float | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    average_decay: float = 0.999
    evaluate_every: int = 500
    monitor: str = "bleu"
    patience: int = 0
    save_every: int = 200
    log_every: int = 50
    seed: int = 42
    jit: bool = True
    precision: Precision = "float32"
    accumulate: int = 1
    remat: bool = False
    fused_loss: bool | None = None
    matmul: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        super().__post_init__()
        for name in ("steps", "evaluate_every", "save_every", "log_every", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; it is at least 1")
        if self.matmul == "bfloat16" and self.precision != "float32":
            raise ConfigError(f"matmul: 'bfloat16', and precision {self.precision!r}, which has its own; choose one")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average_decay: {self.average_decay}; it lies from 0 up to, not including, 1")

    def smoothing(self, batch: Mapping[str, Any]) -> Any:
        """Returns the label smoothing of a batch, which holds "progress", the share of the run that is done."""
        if self.final_label_smoothing is None:
            return self.label_smoothing
        return self.label_smoothing + (self.final_label_smoothing - self.label_smoothing) * batch["progress"]

    def for_epochs(self, epochs: int, batches: int) -> "TrainingConfig":
        """Returns settings for a number of passes over `batches` batches, each followed by an evaluation.

        The warm-up takes at most a tenth of the run.
        """
        if epochs < 1:
            raise ConfigError(f"epochs: {epochs}; it is at least 1")
        steps = epochs * batches
        warmup_steps = min(self.optimizer.warmup_steps, max(1, steps // 10))
        optimizer = dataclasses.replace(self.optimizer, warmup_steps=warmup_steps)
        return dataclasses.replace(self, steps=steps, evaluate_every=batches, optimizer=optimizer)
