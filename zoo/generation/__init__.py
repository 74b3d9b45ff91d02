"""Generation: greedy, sampling and beam search, each one XLA program with a KV cache."""

from zoo.generation.config import GenerationConfig
from zoo.generation.generate import Generator, Hypothesis

__all__ = ["GenerationConfig", "Generator", "Hypothesis"]
