"""Times a captioner on Flickr8k's test images, from encoded files to captions, after compilation.

    .venv/bin/python benchmarks/captioning.py RUN [--beams 4] [--json FILE]

needs Flickr8k, in $ZOO_DATA or where tensorflow-datasets has prepared it, and the package with the encoder's weights.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternation import machine, write_json

import zoo


def peak() -> float:
    """Returns the most memory that this process has held, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Warms up, measures and reports."""
    parser = argparse.ArgumentParser(description="Time captioning of Flickr8k's test images.")
    parser.add_argument("captioner", help="a preset, or the folder of a run")
    parser.add_argument("--beams", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    options = parser.parse_args()

    captioner = zoo.load(options.captioner)
    images = [example["image"] for example in zoo.data.load("flickr8k", "test")]
    captioner(images[:40], beams=options.beams)
    before, began = peak(), time.perf_counter()
    captioner(images, beams=options.beams)
    seconds = time.perf_counter() - began
    print(f"{len(images)} images, {options.beams} beams: {seconds:.1f} s, {len(images) / seconds:.1f} images/s")
    print(f"peak of memory: {before:.0f} MiB before, {peak():.0f} MiB after")
    figures = {"benchmark": "captioning", "machine": machine(("tensorflow", "keras")), "seconds": seconds}
    write_json(options.json, {**figures, "images": len(images), "beams": options.beams})


if __name__ == "__main__":
    main()
