"""The small run of small_run.py."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small():
    path = Path(__file__).parent / "small_run.py"
    spec = importlib.util.spec_from_file_location("small_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
