"""Checkpoints: arrays by name, in safetensors files; loading one never runs code from it."""

from zoo.checkpoints.weights import CheckpointError, by_path, load, load_base, save

__all__ = ["CheckpointError", "by_path", "load", "load_base", "save"]
