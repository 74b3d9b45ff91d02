"""Times greedy and beam search generation by zoo, transformers and CTranslate2, all of the same size, in float32.

Every side turns the same number of random sources of the same length into targets of exactly --length tokens: the end
token is forbidden before, so every side takes the same number of decoding steps, and tokens/s can be compared.

    zoo            Generator over an encoder_decoder of random weights, one XLA program; in this process
    transformers   generate() of a random MarianMTModel, torch, eager; in a process of the peers' environment
    ctranslate2    the same Marian converted; in another process of the peers' environment

The sides take turns (see alternation.py); who does not have the turn, waits. What XLA's compilation takes is
measured at the first call and reported apart.

    .venv/bin/python benchmarks/generation.py --peers .venv-peers/bin/python [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
from alternation import alternate, describe_ratio, machine, ratio, seconds_each, write_json

from zoo.generation import GenerationConfig, Generator
from zoo.models.encoder_decoder import EncoderDecoderConfig, encoder_decoder

PEERS = ("transformers", "ctranslate2")
SIZES = {"width": 128, "feedforward": 512, "heads": 4, "layers": 4, "vocabulary": 5000, "sources": 32, "length": 32}


class Zoo:
    """Our side."""

    def __init__(self, options: argparse.Namespace):
        keras.utils.set_random_seed(0)
        self.length = options.length
        model = encoder_decoder(
            EncoderDecoderConfig(
                vocabulary_size=options.vocabulary,
                width=options.width,
                num_heads=options.heads,
                feedforward_dim=options.feedforward,
                num_encoder_layers=options.layers,
                num_decoder_layers=options.layers,
                max_length=max(256, options.length + 1),
            )
        )
        self.parameters = model.count_params()
        self.generator = Generator(model)
        # The generator adds the end token to each source.
        size = (options.sources, options.length - 1)
        self.sources = np.random.default_rng(0).integers(4, options.vocabulary, size).tolist()

    def generate(self, beams: int) -> list[int]:
        """Generates once; returns the targets' lengths, end token included."""
        config = GenerationConfig(beams=beams, min_length=self.length - 1, max_length=self.length)
        return [len(best.tokens) + 1 for best, *_ in self.generator(self.sources, config)]

    def measure(self, beams: int, repeats: int) -> tuple[float, list[int]]:
        """Returns the seconds of one generation, and the targets' lengths."""
        return seconds_each(lambda: self.generate(beams), repeats)


class Peer:
    """Another side: generation_peer.py in a process of the peers' environment."""

    def __init__(self, python: str, engine: str, options: argparse.Namespace):
        script = Path(__file__).with_name("generation_peer.py")
        settings = json.dumps({name: getattr(options, name) for name in (*SIZES, "folder") if hasattr(options, name)})
        self.engine = engine
        self.process = subprocess.Popen(
            [python, str(script), engine, settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        about = self._reply()
        self.parameters, self.versions = about["parameters"], about["versions"]

    def measure(self, beams: int, repeats: int) -> tuple[float, list[int]]:
        """Returns the seconds of one generation, and the targets' lengths."""
        print(json.dumps({"beams": beams, "repeats": repeats}), file=self.process.stdin, flush=True)
        reply = self._reply()
        return reply["seconds"], reply["lengths"]

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()

    def _reply(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.engine}: the peer's process ended with status {self.process.wait()}; see above")
        return json.loads(line)


def parse(
    arguments: list[str] | None = None,
    sizes: dict[str, int] = SIZES,
    description: str = "Time generation by zoo and by its peers.",
) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peers", metavar="PYTHON", required=True, help="the peers' environment's interpreter")
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4], help="1 is greedy; default: 1 4")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="timed generations a turn; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args(arguments)


def compare(sides: dict[str, Zoo | Peer], beams: int, options: argparse.Namespace) -> dict:
    """Measures every side's tokens a second with so many beams, and reports."""
    began = time.perf_counter()
    sides["zoo"].generate(beams)
    first = time.perf_counter() - began

    def tokens_per_second(name: str) -> float:
        seconds, lengths = sides[name].measure(beams, options.repeats)
        if lengths != [options.length] * options.sources:
            raise RuntimeError(f"{name}: targets of {sorted(set(lengths))} tokens instead of {options.length}")
        return sum(lengths) / seconds

    speeds = alternate({name: partial(tokens_per_second, name) for name in sides}, options.rounds)

    figures = {"zoo_first_call_seconds": first, "sides": {}, "ratios": {}}
    print(f"\n{'greedy' if beams == 1 else f'beam search, {beams} beams'}")
    print(f"  {'':<14} {'tokens/s median':>16} {'max':>10}")
    for name, speed in speeds.items():
        median = statistics.median(speed)
        figures["sides"][name] = {"tokens_per_second": speed, "median": median, "max": max(speed)}
        print(f"  {name:<14} {median:>16,.0f} {max(speed):>10,.0f}")
    for peer in PEERS:
        name = f"zoo / {peer}"
        figures["ratios"][name] = ratio(speeds["zoo"], speeds[peer])
        print("  " + describe_ratio(name, figures["ratios"][name], "tokens/s: above 1, zoo is faster"))
    print(f"  zoo's first call, compilation included, not counted above: {first:.1f} s", flush=True)
    return figures


def main() -> None:
    """Starts the sides, measures and reports."""
    options = parse()
    figures = {
        "benchmark": "generation",
        "settings": vars(options),
        "machine": machine(("tensorflow", "keras", "numpy")),
    }
    peers = {engine: Peer(options.peers, engine, options) for engine in PEERS}
    sides: dict[str, Zoo | Peer] = {"zoo": Zoo(options), **peers}
    for peer in peers.values():
        figures["machine"] |= peer.versions
    figures["parameters"] = {name: side.parameters for name, side in sides.items()}
    print("  ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    print("parameters: " + ", ".join(f"{name} {count:,}" for name, count in figures["parameters"].items()), flush=True)
    figures["beams"] = {beams: compare(sides, beams, options) for beams in options.beams}
    for peer in peers.values():
        peer.close()
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
