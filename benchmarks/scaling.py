"""What training translators of 60 million to 7 billion parameters would take and cost on slices of TPU v5e chips.

    python benchmarks/scaling.py --out benchmarks/scaling.json [--only 60M:v5e:1x1 220M:v5e:2x4 ...]

No chip is needed: every step is compiled ahead of time (pip install -e ".[tpu]"), with as many rows a chip, a power of
two, as are found to fit. Results go into the file one by one, so that a run that was stopped goes on. Rates are the
chip's published ones: what is written are bounds that no run beats, not times that one was seen to take.
"""

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
from jax.sharding import PartitionSpec

from zoo.ahead.chips import CHIPS, chip_count
from zoo.ahead.programs import TooLarge, abstractly, compile_training_step
from zoo.files import replacing
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder
from zoo.training import OptimizerConfig, make_optimizer, make_train_step, vocabulary_loss
from zoo.training.losses import share, token_counts

# Width, width of the hidden layer, heads, layers in each of the two stacks. The first two are T5's small and base.
SIZES = {
    "60M": (512, 2048, 8, 6),
    "220M": (768, 3072, 12, 12),
    "1B": (1280, 5120, 20, 22),
    "7B": (3072, 12288, 24, 26),
}
SLICES = ("v5e:1x1", "v5e:2x4", "v5e:16x16")
VOCABULARY, SOURCE, TARGET = 32000, 512, 128
MEMORY = CHIPS["v5e"].memory
# Dollars a chip and hour, on demand, us-central1. Source: github.com/skypilot-org/skypilot-catalog,
# catalogs/v8/gcp/vms.csv, commit 006059e, tpu-v5litepod-1.
PRICE = 1.20


def make_step(size: str):
    """Makes the step of a size: bfloat16 products, Adam in float32, blocks computed again, no moving average."""
    width, hidden, heads, layers = SIZES[size]
    config = EncoderDecoderConfig(
        vocabulary_size=VOCABULARY,
        width=width,
        feedforward_dim=hidden,
        num_heads=heads,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        max_length=SOURCE,
    )
    model = encoder_decoder(config)

    def loss(model, batch, training):
        counts = token_counts(batch["labels"])
        inputs = {name: batch[name] for name in ("source", "target")}
        total = vocabulary_loss(model, inputs, batch["labels"], counts, 0.1, training=training)
        return total / share(counts, counts), {}

    optimizer = make_optimizer(OptimizerConfig(), 100_000, "mixed_bfloat16")
    return make_train_step(model, optimizer, loss, clip_norm=1.0, precision="mixed_bfloat16", remat=True), model


def spread(chips: int):
    """Spreads each array of the state over all chips along its longest side that they can share evenly."""

    def placing(shape: tuple[int, ...]) -> PartitionSpec:
        sides = [side for side, length in enumerate(shape) if length % chips == 0]
        longest = max(sides, key=lambda side: shape[side], default=None)
        return PartitionSpec(*("rows" if side == longest else None for side in range(len(shape))))

    return placing


def measure(size: str, topology: str, most: int, smaller: list[dict]) -> dict:
    """Compiles a size's step for a slice: each chip with the whole state, or with a share where that does not fit.

    Args:
        size, topology: Of the model and of the slice.
        most: Rows a chip that are tried first.
        smaller: What was found of the same size on smaller slices.
    """
    chips = chip_count(topology)
    step, model = abstractly(lambda: make_step(size))
    state = sum(x.size * x.dtype.itemsize for x in step.abstract_state)
    result: dict = {"size": size, "topology": topology, "parameters": int(model.count_params()), "tried": []}
    layouts = {"whole": None} if state < MEMORY else {}
    layouts |= {"spread": spread(chips)} if chips > 1 and state / chips < MEMORY else {}
    for layout, placing in layouts.items():
        held = state / chips if placing else state
        # With the whole state a chip has no more room for rows than it has by itself.
        first = min([most, *(one["rows a chip"] for one in smaller if one.get("layout") == layout == "whole")])
        rows, found, needs = first, None, {}
        while 1 <= rows <= first and rows not in needs:
            began = time.time()
            try:
                found = compile_training_step(topology, step, batch_of(rows * chips), placing)
                best, needs[rows], further = rows, found.memory, 2 * rows
            except TooLarge as error:
                needs[rows] = error.needed
                guess = max(1.0, (MEMORY - held) * rows / (error.needed - held))
                further = min(rows // 2, 2 ** int(math.log2(guess)))
            tried = {"layout": layout, "rows a chip": rows, "bytes": needs[rows], "seconds": time.time() - began}
            print(size, topology, tried, file=sys.stderr, flush=True)
            result["tried"].append(tried)
            rows = further
        if found is None:
            continue
        tokens = best * chips * (SOURCE + TARGET)
        a_second = tokens / found.ideal_seconds
        return result | {
            "layout": layout,
            "rows a chip": best,
            "bytes a chip": found.memory,
            "seconds": found.seconds,
            "products a token": found.products * chips / tokens,
            "tokens a second": a_second,
            "dollars a billion tokens": PRICE * chips * 1e9 / a_second / 3600,
            "sent by a chip": found.exchanged,
            "exchanges": Counter(kind for one in found.collectives for kind in [one.kind] * one.times),
        }
    return result


def batch_of(rows: int) -> dict:
    lengths = {"source": SOURCE, "target": TARGET, "labels": TARGET}
    return {name: keras.KerasTensor((rows, length), "int32") for name, length in lengths.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file of results, gone on with where it is there")
    parser.add_argument("--only", nargs="+", help="SIZE:TOPOLOGY, for example 60M:v5e:1x1")
    parser.add_argument("--rows", type=int, default=64, help="a chip, at most; a power of two; default: %(default)s")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else []
    for size in SIZES:
        for topology in SLICES:
            done = any((found["size"], found["topology"]) == (size, topology) for found in results)
            if done or (options.only and f"{size}:{topology}" not in options.only):
                continue
            results.append(measure(size, topology, options.rows, [found for found in results if found["size"] == size]))
            with replacing(options.out) as temporary:
                temporary.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
