"""The steps between two reports: their numbers, checked and summed up, and where their time went."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from zoo.training.machine import memory, product_rate
from zoo.training.norms import GroupNorms


class TrainingError(RuntimeError):
    """Says why a run stopped, at which step, and what was kept."""


class Window:
    """The steps since the last report; their numbers are fetched together, so that no step waits for the host."""

    def __init__(self, step: int):
        self.last_checked = step
        self.metrics: list[dict] = []
        self.products: list[int | None] = []
        self.checked = 0
        self.began = time.perf_counter()
        self.waited = 0.0

    def waited_for(self, batches: Iterable[dict]) -> Iterator[dict]:
        """Passes batches on, and measures how long each takes to come."""
        batches = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def add(self, metrics: dict) -> None:
        self.metrics.append(metrics)

    def check(self) -> None:
        """Raises where a loss or a gradient is not a number."""
        for metrics in self.metrics[self.checked :]:
            self.last_checked += 1
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(float(metrics[name])):
                    raise TrainingError(
                        f"{name} is {float(metrics[name])} at step {self.last_checked}; the last good checkpoint is "
                        "kept; a lower training.optimizer.learning_rate or clip_norm may help"
                    )
        self.checked = len(self.metrics)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps the block's time out of the window."""
        began = time.perf_counter()
        yield
        self.began += time.perf_counter() - began

    def close(self, norms: GroupNorms | None, devices: int = 1) -> tuple[dict[str, float], dict[str, float]]:
        """Sums the window up and begins the next.

        Args:
            norms: What the norms of groups of layers belong to; None where only a reader of lines is there.
            devices: How many share the work.

        Returns:
            What a reader of lines wants to know, and more.
        """
        self.check()
        means = {name: np.mean([np.asarray(m[name]) for m in self.metrics], axis=0) for name in self.metrics[0]}
        steps, seconds = len(self.metrics), time.perf_counter() - self.began
        times = {"step": seconds, "input": self.waited, "compute": seconds - self.waited}
        more = {f"seconds/{name}": value / steps for name, value in times.items()}
        if norms is not None:
            for kind in ("gradient_norm", "update_norm"):
                more |= {f"{kind}/{name}": value for name, value in zip(norms.names, means.pop(f"{kind}s"))}
            more |= memory()
            counted = [count for count in self.products if count is not None]
            if len(counted) == steps:
                more["products/tflops"] = sum(counted) / seconds / 1e12
                if rate := product_rate():
                    more["products/utilisation"] = sum(counted) / seconds / (rate * devices)
        means["learning_rate"] = float(self.metrics[-1]["learning_rate"])
        for name in ("tokens", "images"):
            if name in means:
                means[f"{name}_per_second"] = means.pop(name) * steps / seconds
        self.metrics, self.products, self.checked, self.began, self.waited = [], [], 0, time.perf_counter(), 0.0
        return {name: float(value) for name, value in means.items()}, more
