"""Images with captions, {"image": bytes or path, "captions": [...], "name": ...}, out of files and of TFDS."""

from collections.abc import Iterator, Mapping
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


def reads_images(fields: Mapping[str, str]) -> bool:
    """Tells whether examples are images with captions."""
    return IMAGE in fields


def read_tfds_images(
    builder: "tfds.core.DatasetBuilder", split: str, fields: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Reads images as they are encoded, captions as lists and everything else as TFDS has it.

    Args:
        builder: A prepared builder.
        split: A split of it.
        fields: Our name of each field -> the feature's path.

    Yields:
        Examples such as {"image": bytes, "captions": texts, "name": bytes}.
    """
    import tensorflow_datasets as tfds

    decoders: dict[str, Any] = {}
    *parents, last = parts(builder.info.features, fields[IMAGE])
    node = decoders
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = tfds.decode.SkipDecoding()
    dataset = builder.as_dataset(split=split, decoders=decoders)

    def select(example: Any) -> dict[str, Any]:
        return {ours: reduce(getitem, parts(builder.info.features, path), example) for ours, path in fields.items()}

    for example in tfds.as_numpy(dataset.map(select)):
        if CAPTIONS in example:
            example[CAPTIONS] = [caption.decode("utf-8") for caption in np.atleast_1d(example[CAPTIONS])]
        yield example


def parts(features: "tfds.features.FeaturesDict", path: str) -> list[str]:
    """Takes apart a path such as "captions/text", which may also be one feature's name, as "image/filename" is."""
    return [path] if path in features else path.split("/")
