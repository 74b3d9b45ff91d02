"""Generation: greedy, sampling and beam search, each one XLA program with a KV cache."""

from zoo.generation.generate import GenerationConfig, Generator, Hypothesis

__all__ = ["GenerationConfig", "Generator", "Hypothesis"]
