"""TensorBoard as the reader of a run meets it: each tab shows this run's data."""

import re
import subprocess
import sys
import threading
import time

import pytest

from zoo.data.texts import TextBatchingConfig
from zoo.models.encoder import EncoderConfig, EncoderHeadsConfig, HeadConfig
from zoo.tasks.classification import Classification, ClassificationRecipe
from zoo.training import OptimizerConfig, TrainingConfig

pytestmark = pytest.mark.browser

WORDS = {"good": "positive", "lovely": "positive", "bad": "negative", "awful": "negative"}
EXAMPLES = [
    {"text": f"the {thing} was {word}", "label": label}
    for thing in ("soup", "bread", "film", "song")
    for word, label in WORDS.items()
]
RECIPE = ClassificationRecipe(
    model=EncoderHeadsConfig(
        EncoderConfig(vocabulary_size=0, width=16, num_heads=2, feedforward_dim=32, num_layers=1, dropout=0.0),
        {"label": HeadConfig(pooling="mean", dropout=0.0)},
    ),
    batching=TextBatchingConfig(buckets=(8,), batch_size=16),
    training=TrainingConfig(
        steps=40,
        evaluate_every=20,
        log_every=5,
        average_decay=0.0,
        jit=False,
        monitor="accuracy",
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=5),
    ),
)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """The logs of two classifiers that were trained with different learning rates."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in (("fast", 0.0321), ("slow", 0.0012)):
        recipe = RECIPE.override([f"training.optimizer.learning_rate={rate}"])
        task = Classification.from_examples(recipe, EXAMPLES)
        task.fit(EXAMPLES, EXAMPLES, logdir=folder / name)
    return folder


@pytest.fixture(scope="module")
def address(logdir):
    """TensorBoard's address, once it serves the run."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stderr)))
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield found.group()
    finally:
        server.terminate()
        server.wait()


# Everything that can be read, and the pictures that were loaded, in all shadow trees and in a tab's frame.
_SEEN = """
const texts = [], pictures = [];
const visit = node => {
  if (node.nodeType === Node.TEXT_NODE) texts.push(node.textContent);
  if (node.tagName === "IMG" && node.complete && node.naturalWidth) pictures.push(node.naturalWidth);
  if (node.shadowRoot) visit(node.shadowRoot);
  if (node.tagName === "IFRAME" && node.contentDocument) visit(node.contentDocument);
  if (!["SCRIPT", "STYLE"].includes(node.tagName)) node.childNodes.forEach(visit);
};
visit(document.body);
return [texts.join(" ").replace(/\\s+/g, " "), pictures];
"""


@pytest.fixture
def tab(chromium, address):
    """Opens a tab and waits until it shows all of some texts; returns all texts and the widths of its pictures."""

    def visit(name, *texts, pictures=0, timeout=60):
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
        )
        chromium.get("about:blank")
        chromium.get(f"{address}#{name}")
        end = time.monotonic() + timeout
        while True:
            seen, widths = chromium.execute_script(_SEEN)
            missing = [text for text in texts if text not in seen]
            if not missing and len(widths) >= pictures:
                return seen, widths
            if time.monotonic() > end:
                pytest.fail(f"{name}: no {missing}, {len(widths)} pictures; it shows {seen[:2000]!r}")
            time.sleep(0.5)

    return visit


def test_scalars(tab):
    tab("timeseries", "fast/train", "slow/dev", "accuracy", "gradient_norm", "seconds", "update_norm")


def test_texts(tab):
    seen, _ = tab("text", "samples/1", "the soup was good", "reference", "positive", "step 40")
    assert "step 20" in seen


def test_images(tab):
    tab("images", "attention", "confusion", pictures=2)


def test_hparams(tab):
    tab("hparams", "training.optimizer.learning_rate", "0.0321", "0.0012", "accuracy", "100.00")


def test_the_projector(tab):
    tab("projector", "texts", "Points: 16", "Dimension: 16")


def test_precision_and_recall(tab):
    tab("pr_curves", "label/positive", "label/negative")


def test_the_graph(tab):
    tab("graphs", "encoder")
