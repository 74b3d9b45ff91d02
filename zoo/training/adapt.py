"""Fine-tuning: which weights of a pretrained model learn, and how fast."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal

import keras

from zoo.checkpoints import by_path
from zoo.config import Config, ConfigError
from zoo.layers.adapters import RankedDense
from zoo.training.ranks import RankAllocator, RankConfig


@dataclasses.dataclass(frozen=True)
class AdaptConfig(Config):
    """How a pretrained model is adapted.

    Args:
        method: "full", all weights learn; "frozen", the heads alone; "lora", the heads and a low-rank addition to
            some projections; "adalora", the same with ranks that wander to the projections that need them most.
        rank: Of the addition; for adalora, where it begins.
        final_rank: Of adalora's additions in the end, on the average.
        ranks: How adalora gives its ranks out.
        alpha: The addition is scaled by alpha / rank.
        targets: The projections that get one, by name.
        layer_decay: Each block learns at this share of the rate of the block above it; 1 for one rate.

    Source: LoRA: Hu et al. 2022; AdaLoRA: Zhang et al. 2023; layer-wise rates: Howard & Ruder 2018, section 3.2.
    """

    method: Literal["full", "frozen", "lora", "adalora"] = "full"
    rank: int = 8
    final_rank: int = 4
    ranks: RankConfig = RankConfig()
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")
    layer_decay: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.rank < 1 or self.alpha <= 0 or not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f"rank, alpha, layer_decay: {self.rank}, {self.alpha}, {self.layer_decay}; "
                "they are at least 1, positive, and above 0 up to 1"
            )
        if self.method == "adalora" and not 1 <= self.final_rank <= self.rank:
            raise ConfigError(f"final_rank: {self.final_rank}; it lies from 1 to the initial rank, {self.rank}")


def adapt(model: keras.Model, config: AdaptConfig, head_layers: list[keras.layers.Layer]) -> None:
    """Adds what the method adds, and sets which weights learn.

    Args:
        model: A built model.
        config: The method.
        head_layers: The layers that are new, and learn in every method.

    Raises:
        ConfigError: If no projection has one of the names that lora or adalora asks for.
    """
    if config.method == "full":
        return
    if config.method in ("lora", "adalora"):
        found = [dense for dense in _dense_layers(model) if dense.name in config.targets and dense not in head_layers]
        if not found:
            raise ConfigError(f"targets: no projection is called {' or '.join(config.targets)}")
        for dense in found:
            if config.method == "lora":
                dense.enable_lora(config.rank, lora_alpha=config.alpha)
            else:
                RankedDense.add_ranks(dense, config.rank, config.alpha, config.ranks.orthogonality)
    heads = {id(weight) for layer in head_layers for weight in layer.weights}
    for path, weight in by_path(model.weights).items():
        weight.trainable = id(weight) in heads or "/lora_kernel_" in path


def rank_allocator(model: keras.Model, config: AdaptConfig, steps: int) -> RankAllocator | None:
    """Makes what gives the ranks of an adapted model out over a run of `steps` steps; None but for adalora.

    Raises:
        ConfigError: If the model was not adapted.
    """
    if config.method != "adalora":
        return None
    layers = [dense for dense in _dense_layers(model) if isinstance(dense, RankedDense)]
    if not layers:
        raise ConfigError("adapt.method: 'adalora', but the model has no additions; it was made by another recipe")
    return RankAllocator(layers, config.final_rank, config.ranks, steps)


def learning_rates(model: keras.Model, decay: float) -> dict[str, float]:
    """Gives each trainable variable its share of the learning rate: heads 1, the last block `decay`, and so on down.

    Args:
        model: With blocks whose paths hold "/block_I/".
        decay: The step from one block to the one below.

    Returns:
        Variable path -> factor; embeddings have the least.
    """
    paths = by_path(model.trainable_variables)
    blocks = {path: int(match[1]) for path in paths if (match := re.search(r"/block_(\d+)/", path))}
    count = max(blocks.values(), default=-1) + 1
    below = {path for path in paths if path.startswith(("embedding", "positions", "segment_embedding"))}
    return {
        path: decay ** (count - blocks[path]) if path in blocks else decay ** (count + 1) if path in below else 1.0
        for path in paths
    }


def merge(model: keras.Model) -> None:
    """Adds every low-rank addition to its kernel for good; the outputs stay the same."""
    for dense in _dense_layers(model):
        if dense.lora_enabled:
            dense._kernel.assign(dense.kernel)
            dense.lora_kernel_b.assign(keras.ops.zeros_like(dense.lora_kernel_b.value))


def merged_weights(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the weights by path, with every low-rank addition in its kernel and none beside it."""
    kernels = {dense._kernel.path: dense.kernel for dense in _dense_layers(model) if dense.lora_enabled}
    weights = {path: weight.value for path, weight in by_path(model.weights).items() if "/lora_kernel_" not in path}
    return weights | kernels


def _dense_layers(model: keras.Model) -> Iterator[keras.layers.Dense]:
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Dense):
            yield layer
