"""Trains one classifier a domain, for the preset reviews-fdu to be compared with, which knows all domains at once.

Every domain begins with the same pretrained encoder, the same low-rank additions and the same first head, and gets the
preset's sizes, learning rate and schedule: only the other domains' reviews are missing. The last weights are scored on
the domain's test reviews, of which as much is read as the preset reads; nothing is held out and nothing is chosen.

    .venv/bin/python benchmarks/domains.py [--epochs 4] [--domains books dvd] [--json FILE]
"""

import argparse
import dataclasses
import math
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo.config import BFLOAT16_FLAGS

# TensorFlow reads them once, while it is imported.
os.environ["TF_XLA_FLAGS"] = BFLOAT16_FLAGS
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from alternation import machine, write_json

import zoo
from zoo.data.texts import TextBatchingConfig
from zoo.models.encoder import EncoderHeadsConfig, HeadConfig
from zoo.tasks.classification import Classification, ClassificationRecipe
from zoo.training import OptimizerConfig, make_optimizer, make_train_step
from zoo.training.adapt import AdaptConfig

RECIPE = ClassificationRecipe(
    base="hf://sentence-transformers/all-MiniLM-L6-v2",
    model=EncoderHeadsConfig(heads={"label": HeadConfig(pooling="mean")}),
    batching=TextBatchingConfig(buckets=(32, 64, 96, 128)),
    adapt=AdaptConfig(method="lora", rank=8, alpha=16, targets=("query", "key", "value", "output", "hidden")),
)
READ = TextBatchingConfig(buckets=(32, 64, 128, 256))
OPTIMIZER = OptimizerConfig(learning_rate=7e-4, schedule="cosine", beta_2=0.999, warmup_steps=20)


def main() -> None:
    """Trains, scores and reports domain by domain."""
    parser = argparse.ArgumentParser(description="Train and score one classifier for each domain of FDU-MTL.")
    parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--domains", nargs="+", help="default: all of them")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    options = parser.parse_args()

    train, test = (zoo.data.load("fdu_mtl", split) for split in ("train", "test"))
    domains = options.domains or list(dict.fromkeys(example["domain"] for example in train))
    task = Classification.from_examples(RECIPE, train)
    steps = options.epochs * math.ceil(max(sum(e["domain"] == name for e in train) for name in domains) / 32)
    optimizer = make_optimizer(OPTIMIZER, steps=steps)
    step = make_train_step(task.model, optimizer, task.loss, clip_norm=1.0, matmul="bfloat16")
    state = [*task.model.variables, *optimizer.variables]
    first = [np.array(variable) for variable in state]

    learning, reading = task.recipe, dataclasses.replace(task.recipe, batching=READ)
    accuracies = {}
    for domain in domains:
        for variable, value in zip(state, first, strict=True):
            variable.assign(value)
        task.recipe = learning
        batches = task.batches([example for example in train if example["domain"] == domain])
        for epoch in range(options.epochs):
            for batch in batches.epoch(epoch):
                step(batch)
        task.recipe = reading
        accuracies[domain] = task.evaluate([example for example in test if example["domain"] == domain])["accuracy"]
        print(f"{domain:<24} {accuracies[domain]:.2f}", flush=True)
    print(f"{'mean':<24} {statistics.mean(accuracies.values()):.2f}")
    write_json(options.json, {"benchmark": "domains", "machine": machine(("tensorflow", "keras")), **accuracies})


if __name__ == "__main__":
    main()
