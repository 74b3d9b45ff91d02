"""Data: sources of examples, read into memory as lists of {"source": ..., "target": ...} and the like."""

from zoo.data.files import SourceError, read_lines, references
from zoo.data.sources import hold_out, load, load_train_and_dev

__all__ = ["SourceError", "hold_out", "load", "load_train_and_dev", "read_lines", "references"]
