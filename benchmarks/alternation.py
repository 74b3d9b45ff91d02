"""Fair timing on a machine whose speed drifts: the sides take turns, and each turn is compared with its neighbours'.

A ratio of two medians mixes turns of a fast and a slow minute. A ratio of two turns of the same round, seconds
apart, does not: `ratio` forms one a round and reports their median.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# Thread pools go on spinning for some tenths of a second after their last work; no side pays for another's.
PAUSE_SECONDS = 0.5


def seconds_each(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Times one turn: some calls in a row, behind an untimed one that fetches the side's memory back into caches.

    Returns:
        Seconds a call, and what the last call returned.
    """
    work()
    began = time.perf_counter()
    for _ in range(repeats):
        result = work()
    return (time.perf_counter() - began) / repeats, result


def alternate(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list]:
    """Lets every side take one turn a round: A B C, A B C, ...

    Args:
        sides: Each takes a turn and returns what was measured.
        rounds: Turns of each side.

    Returns:
        What each side measured, round by round.
    """
    measured: dict[str, list] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, turn in sides.items():
            time.sleep(PAUSE_SECONDS)
            measured[name].append(turn())
    return measured


def ratio(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Divides ours by theirs, round by round.

    Returns:
        "pairs", the ratio of each round, and their "median".
    """
    pairs = [our / their for our, their in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(pairs), "pairs": pairs}


def describe_ratio(name: str, figures: Mapping[str, Any], meaning: str) -> str:
    """Writes a ratio as one line."""
    pairs = figures["pairs"]
    return f"{name:<40} {figures['median']:.3f}  ({min(pairs):.3f} to {max(pairs):.3f}; {meaning})"


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Describes what the figures depend on; a load far above 0 before the run makes them worthless."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def write_json(file: str | Path | None, figures: Mapping[str, Any]) -> None:
    """Writes the figures where --json says so."""
    if file is not None:
        Path(file).write_text(json.dumps(figures, indent=2) + "\n")
