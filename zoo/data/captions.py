"""Images with captions, {"image": bytes or path, "captions": [...], "name": ...}, out of files and of TFDS."""

import mmap
import tempfile
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.files import SourceError, read_jsonl, read_tsv

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Fields with a meaning of their own: an encoded image, and a list of texts.
IMAGE, CAPTIONS, NAME = "image", "captions", "name"

# What is read of TFDS builders whose features are called otherwise.
TFDS_FIELDS = {"coco_captions": {IMAGE: "image", CAPTIONS: "captions/text", NAME: "image/filename"}}

# Encoded images of a TFDS builder that are kept in memory.
MOST_BYTES = 512 * 2**20


def read_images(kind: str, path: str | Path, fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """Reads a file that names images and what is said of them; rows of the same image become one example.

    Args:
        kind: "tsv" or "jsonl".
        path: The file; images are looked for beside it.
        fields: Our name of each field -> the file's column or key: "image", and usually "captions", which in a JSON
            file may be a list. Other fields are texts.

    Returns:
        Examples {"image": path, "captions": texts, "name": the image as the file names it, ...}, in the file's order.

    Raises:
        SourceError: As `read_tsv` and `read_jsonl`, and where an image does not exist.
    """
    rows: list[dict[str, Any]] = read_tsv(path, fields) if kind == "tsv" else read_jsonl(path, fields, lists=[CAPTIONS])
    folder = Path(path).expanduser().parent
    examples: dict[str, dict[str, Any]] = {}
    for row in rows:
        name, captions = row[IMAGE], row.get(CAPTIONS, [])
        example = examples.setdefault(name, {NAME: name, **row, IMAGE: folder / name, CAPTIONS: []})
        example[CAPTIONS] += [captions] if isinstance(captions, str) else captions
    missing = [name for name, example in examples.items() if not example[IMAGE].is_file()]
    if missing:
        others = f", and {len(missing) - 1} more of {len(examples)}" if len(missing) > 1 else ""
        raise SourceError(f"{path}: no image {str(folder / missing[0])!r}{others}")
    return list(examples.values())


def read_tfds_images(
    builder: "tfds.core.DatasetBuilder", split: str, paths: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Reads images as they are encoded, captions as lists and everything else as TFDS has it.

    Args:
        builder: A prepared builder.
        split: A split of it.
        paths: Our name of each field -> where the feature is, from the outermost in.

    Returns:
        Examples such as {"image": bytes, "captions": texts, "name": bytes}. From MOST_BYTES on, images are in a
        temporary file and read when they are looked at.
    """
    import tensorflow_datasets as tfds

    decoders: dict[str, Any] = {}
    *parents, last = paths[IMAGE]
    reduce(lambda node, parent: node.setdefault(parent, {}), parents, decoders)[last] = tfds.decode.SkipDecoding()

    def select(example: Any) -> dict[str, Any]:
        return {ours: reduce(getitem, path, example) for ours, path in paths.items()}

    examples, kept, spilled = [], 0, _Spill()
    for example in tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders).map(select)):
        if CAPTIONS in example:
            example[CAPTIONS] = [caption.decode("utf-8") for caption in np.atleast_1d(example[CAPTIONS]).tolist()]
        kept += len(example[IMAGE])
        if kept > MOST_BYTES:
            spilled.add(example)
        examples.append(example)
    spilled.finish()
    return examples


class _Spill:
    """Images of examples, moved into a temporary file that goes away with the last of them."""

    def __init__(self) -> None:
        self.places: list[tuple[dict[str, Any], int, int]] = []
        self.file = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, example: dict[str, Any]) -> None:
        start = self.file.tell()
        self.file.write(example[IMAGE])
        self.places.append((example, start, self.file.tell()))
        example[IMAGE] = b""

    def finish(self) -> None:
        with self.file:
            if not self.places:
                return
            self.file.flush()
            view = memoryview(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
            for example, start, end in self.places:
                example[IMAGE] = view[start:end]
