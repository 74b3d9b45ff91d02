"""Times a Marian of the hub's usual size in zoo, transformers and CTranslate2: loading it, and generation, in float32.

A folder with a random checkpoint of that size, its two SentencePiece models and its vocabulary, is written first, and
all sides read it:

    zoo            zoo.load(FOLDER), one XLA program; in this process
    transformers   MarianMTModel.from_pretrained(FOLDER), torch, eager; in a process of the peers' environment
    ctranslate2    the same, converted by its own converter; in another process of the peers' environment

Loading is timed from the call to a task that is ready to use, with its tokenizers. Generation is timed as in
generation.py, whose sides and rounds are used here: every target has exactly --length tokens.

    .venv/bin/python benchmarks/hub_seq2seq.py --peers .venv-peers/bin/python [--json FILE]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from alternation import machine, seconds_each, write_json
from generation import PEERS, Peer, compare, parse

import zoo

SIZES = {"width": 512, "feedforward": 2048, "heads": 8, "layers": 6, "vocabulary": 58101, "sources": 32, "length": 32}
# How often the checkpoint is loaded.
LOADS = 3


class Zoo:
    """Our side."""

    def __init__(self, options: argparse.Namespace):
        self.length = options.length
        self.loading = []
        for _ in range(LOADS):
            began = time.perf_counter()
            self.task = zoo.load(options.folder)
            self.loading.append(time.perf_counter() - began)
        self.parameters = self.task.model.count_params()
        # The end token, which is added to each source, is its last.
        size = (options.sources, options.length - 1)
        self.sources = np.random.default_rng(0).integers(2, options.vocabulary - 1, size).tolist()

    def generate(self, beams: int) -> list[int]:
        """Generates once; returns the targets' lengths, end token included."""
        config = {"beams": beams, "min_length": self.length - 1, "max_length": self.length, "force_end": "true"}
        settings = self.task.settings([f"{name}={value}" for name, value in config.items()])
        found = self.task.generator(self.sources, type(self.task.recipe.generation)(**settings))
        return [len(best.tokens) + 1 for best, *_ in found]

    def measure(self, beams: int, repeats: int) -> tuple[float, list[int]]:
        """Returns the seconds of one generation, and the targets' lengths."""
        return seconds_each(lambda: self.generate(beams), repeats)


def main() -> None:
    """Writes the checkpoint, starts the sides, measures and reports."""
    options = parse(sizes=SIZES, description="Time a hub checkpoint of Marian's size in zoo and its peers.")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        script = Path(__file__).with_name("hub_seq2seq_peer.py")
        sizes = json.dumps({name: getattr(options, name) for name in SIZES})
        subprocess.run([options.peers, str(script), folder, sizes], check=True)
        figures = {
            "benchmark": "hub_seq2seq",
            "settings": vars(options),
            "machine": machine(("tensorflow", "keras", "numpy")),
        }
        ours = Zoo(options)
        peers = {engine: Peer(options.peers, engine, options) for engine in PEERS}
        for peer in peers.values():
            figures["machine"] |= peer.versions
        sides = {"zoo": ours, **peers}
        figures["parameters"] = {name: side.parameters for name, side in sides.items()}
        figures["loading_seconds"] = ours.loading
        print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
        print("parameters: " + ", ".join(f"{name} {count:,}" for name, count in figures["parameters"].items()))
        print("zoo.load: " + ", ".join(f"{seconds:.1f} s" for seconds in ours.loading), flush=True)
        figures["beams"] = {beams: compare(sides, beams, options) for beams in options.beams}
        for peer in peers.values():
            peer.close()
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
