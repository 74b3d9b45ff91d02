"""Reads a SOURCE into memory: the zoo's own builders, any TFDS builder, the user's files, or a toy.

multi30k/en-de, sst2  the zoo's own TFDS builders: raw files from data_dir or $ZOO_DATA, else downloaded
tfds:NAME[:SPLIT]     any builder of tensorflow-datasets
tsv:FILE, jsonl:FILE  the user's own examples, gzipped or not
toy:NAME              generated on the spot
A+B                   the training examples of several; the other splits are the first one's

Images stay encoded, or where they are: see zoo/data/captions.py.
"""

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import random
import re
import sys
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.config import nearest
from zoo.data.captions import CAPTIONS, IMAGE, TFDS_FIELDS, read_images, read_tfds_images
from zoo.data.files import SourceError, read_jsonl, read_tsv

# TFDS takes seconds to import and most sources do without: it is imported inside the functions that need it.
if TYPE_CHECKING:
    import tensorflow_datasets as tfds

BUILDERS = {
    name: f"zoo.data.builders.{name}.{name}_dataset_builder"
    for name in (
        *("multi30k", "dialogsum", "flickr8k"),
        *("sst2", "trec", "ag_news_10k", "bbc_news", "atis", "snips", "fdu_mtl"),
    )
}

Example = TypeVar("Example", bound=Mapping[str, Any])

_FILES = {"tsv": read_tsv, "jsonl": read_jsonl}
_PREFIXES = (*_FILES, "tfds", "toy")
# A plus is also a character of file names, and joins splits of TFDS.
_JOINT = re.compile(rf"\+(?=({'|'.join(_PREFIXES)}):|({'|'.join(BUILDERS)})(?![^/+]))")
_TFDS_NAME = re.compile(
    r"(?P<name>[^/:]+)(/(?P<config>[^:]+))?(:(?P<version>[\d*]+\.[\d*]+\.[\d*]+))?(:(?P<split>.+))?"
)


def load(
    source: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    fields: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Reads one split of a source into memory.

    Args:
        source: "multi30k/en-de", "sst2", "tfds:NAME[:SPLIT]", "tsv:FILE", "jsonl:FILE" or "toy:NAME"; or several,
            "sst2+fdu_mtl": the training examples of all of them, and the other splits of the first.
        split: A split of the source. TFDS builders take slices too ("train[:10%]"); a file is all "train". A SPLIT in
            the source goes before this one.
        data_dir: For the zoo's own builders the folder of the raw files, or its parent; None looks into $ZOO_DATA,
            then downloads. For "tfds:" the folder of the prepared data.
        fields: Our name of each field -> the source's: a TFDS feature, a TSV column, a JSON key; "/" leads into nested
            ones. A TSV file has a header line exactly if this is given. None: files hold source and target, the
            others keep their own names. With "image", files hold paths of images, beside them; "captions" are lists
            of texts, for which a TSV file has a line each.

    Returns:
        Examples such as {"source": text, "target": text} or {"image": bytes or path, "captions": texts, "name": text},
        in the source's order. More references of an example are "target2", "target3" ..., which `references` gathers.

    Raises:
        SourceError: With one line that says what is wrong, where, and what would be right.
    """
    opened = _open(source, data_dir, fields)
    return opened.read(opened.named_split or split)


def load_train_and_dev(
    source: str,
    *,
    dev: str | Path | None = None,
    data_dir: str | Path | None = None,
    fields: Mapping[str, str] | None = None,
    holdout: float = 0.05,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads a source's training examples, and development examples to go with them.

    Args:
        source: As for `load`.
        dev: Where the development examples are: a SOURCE, or a file in `source`'s format. None takes the source's
            own "validation" split or, where it has none, holds out a share of the training examples.
        data_dir: As for `load`.
        fields: As for `load`; a `dev` in another format than `source` is read without.
        holdout: The share that is held out, at least one example.
        seed: Chooses which examples.

    Returns:
        Training examples and development examples, neither empty.

    Raises:
        SourceError: As `load`, and where one of the two would be empty.
    """
    opened = _open(source, data_dir, fields)
    train_split = opened.named_split or "train"
    train = opened.read(train_split)
    if dev is not None:
        dev = _dev_source(source, str(dev))
        opened_dev = _open(dev, data_dir, fields if _parse(dev)[0] == _parse(source)[0] else None)
        dev_split = "validation" if "validation" in opened_dev.splits else "train"
        dev_examples = opened_dev.read(opened_dev.named_split or dev_split)
    elif "validation" in opened.splits and "validation" not in train_split:
        dev_examples = opened.read("validation")
    else:
        train, dev_examples = hold_out(train, holdout, seed)
    for where, name, examples in ((source, "training", train), (dev or source, "development", dev_examples)):
        if not examples:
            raise SourceError(f"{where}: no {name} examples; name a source that has some")
    return train, dev_examples


def hold_out(examples: Sequence[Example], share: float = 0.05, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Sets a share of examples aside for development.

    Args:
        examples: At least two.
        share: The share that is held out, at least one example.
        seed: Chooses which.

    Returns:
        The rest, and the examples held out, each in the given order.

    Raises:
        SourceError: If there are fewer than two examples, or the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise SourceError(f"holdout {share}: it takes a share between 0 and 1, for example 0.05")
    if len(examples) < 2:
        raise SourceError(f"{len(examples)} training example: too few to hold one out; name development data (dev)")
    count = min(max(1, round(share * len(examples))), len(examples) - 1)
    held_out = set(random.Random(seed).sample(range(len(examples)), count))
    rest = [example for i, example in enumerate(examples) if i not in held_out]
    return rest, [examples[i] for i in sorted(held_out)]


@dataclasses.dataclass(frozen=True)
class _Source:
    """An opened source: the names of its splits, how to read one, and the split that the source's text names."""

    splits: Collection[str]
    read: Callable[[str], list[dict[str, Any]]]
    named_split: str | None = None


def _parse(source: str) -> tuple[str, str]:
    """Takes a source apart: its kind, which is a prefix or the name of one of our builders, and the rest."""
    prefix, colon, rest = source.partition(":")
    if colon and prefix in _PREFIXES:
        if not rest:
            raise SourceError(f"{source!r} names nothing; it takes {prefix}:{'FILE' if prefix in _FILES else 'NAME'}")
        return prefix, rest
    name, _, config = source.partition("/")
    if name in BUILDERS:
        return name, config
    for kind in _FILES:
        if source.removesuffix(".gz").endswith(f".{kind}"):
            raise SourceError(f"no source {source!r}; did you mean '{kind}:{source}'?")
    raise SourceError(f"no source {source!r}; {nearest(prefix if colon else name, [*BUILDERS, *_PREFIXES])}")


def _open(source: str, data_dir: str | Path | None, fields: Mapping[str, str] | None) -> _Source:
    joint = _JOINT.search(source)
    if joint:
        first, others = source[: joint.start()], source[joint.end() :]
        return _join(_open(first, data_dir, fields), _open(others, data_dir, fields))
    kind, name = _parse(source)
    fields = fields or None
    if kind in _FILES:
        return _Source(["train"], partial(_read_file, source, kind, name, fields))
    if kind == "toy":
        from zoo.data.toy import SIZES, TOYS

        if name not in TOYS:
            raise SourceError(f"no toy {name!r}; {nearest(name, TOYS)}")
        return _Source(SIZES, partial(_read_toy, source, TOYS[name], SIZES, fields))
    builder, named_split = _tfds_builder(name, data_dir) if kind == "tfds" else _own_builder(kind, name, data_dir)
    _prepare(source, builder)
    return _Source(builder.info.splits, partial(_read_builder, source, builder, fields), named_split)


def _join(first: _Source, others: _Source) -> _Source:
    def read(split: str) -> list[dict[str, Any]]:
        if split != "train":
            return first.read(split)
        return [example for one in (first, others) for example in one.read(one.named_split or split)]

    return _Source(first.splits, read)


def _check_split(source: str, split: str, splits: Collection[str]) -> None:
    if split not in splits:
        raise SourceError(f"{source}: no split {split!r}; {nearest(split, splits)}")


def _read_file(source: str, kind: str, path: str, fields: Mapping[str, str] | None, split: str) -> list[dict[str, Any]]:
    _check_split(source, split, ["train"])
    if fields and IMAGE in fields:
        return read_images(kind, path, fields)
    return _FILES[kind](path, fields)


def _read_toy(
    source: str, toy: Callable, splits: Collection[str], fields: Mapping[str, str] | None, split: str
) -> list[dict[str, Any]]:
    _check_split(source, split, splits)
    examples = toy(split=split)
    fields = fields or {name: name for name in examples[0]}
    return [{ours: _at(source, example, theirs) for ours, theirs in fields.items()} for example in examples]


def _dev_source(source: str, dev: str) -> str:
    """Returns `dev` as a SOURCE: as it is, or as a file in `source`'s format."""
    is_source = dev.partition(":")[0] in _PREFIXES or dev.partition("/")[0] in BUILDERS
    if is_source and not Path(dev).is_file():
        return dev
    kind, _ = _parse(source)
    if kind not in _FILES:
        raise SourceError(f"dev {dev!r}: {source} is no file that would tell its format; write tsv:FILE or jsonl:FILE")
    return f"{kind}:{dev}"


# === TFDS builders ===


def _own_builder(name: str, config: str, data_dir: str | Path | None) -> tuple["tfds.core.DatasetBuilder", str | None]:
    builder_class = importlib.import_module(BUILDERS[name]).Builder
    configs = builder_class.builder_configs
    config = config or builder_class.DEFAULT_BUILDER_CONFIG_NAME or ""
    if (configs or config) and config not in configs:
        raise SourceError(f"{name} has no config {config!r}; {nearest(config, configs)}")
    raw_dir = _raw_dir(name, data_dir)
    return builder_class(config=config or None, raw_dir=raw_dir, data_dir=_cache_dir(raw_dir)), None


def _tfds_builder(name: str, data_dir: str | Path | None) -> tuple["tfds.core.DatasetBuilder", str | None]:
    import tensorflow_datasets as tfds

    match = _TFDS_NAME.fullmatch(name)
    if not match:
        raise SourceError(f"no source 'tfds:{name}'; it takes tfds:NAME[/CONFIG][:VERSION][:SPLIT]")
    split = match["split"]
    data_dir = os.path.expanduser(data_dir) if data_dir else _cache_dir(None)
    try:
        return tfds.builder(name.removesuffix(f":{split}"), data_dir=data_dir), split
    except Exception as error:  # TFDS raises several kinds, over several lines.
        names = tfds.list_builders(with_community_datasets=False)
        if match["name"] not in names:
            raise SourceError(f"no TFDS builder {match['name']!r}; {nearest(match['name'], names)}") from None
        configs = tfds.builder_cls(match["name"]).builder_configs
        if match["config"] and match["config"] not in configs:
            config = match["config"]
            raise SourceError(f"tfds:{match['name']} has no config {config!r}; {nearest(config, configs)}") from None
        raise SourceError(f"tfds:{name}: {_first_line(error)}") from error


def _raw_dir(name: str, data_dir: str | Path | None) -> Path | None:
    """Returns the folder with the raw files of one of our builders, or None where they are to be downloaded."""
    parent = data_dir or os.environ.get("ZOO_DATA")
    if not parent:
        return None
    parent = Path(parent).expanduser()
    if not parent.is_dir():
        raise SourceError(f"{'data_dir' if data_dir else 'ZOO_DATA'} {parent}: no such folder")
    if (parent / name).is_dir():
        return parent / name
    return parent if data_dir else None


def _cache_dir(raw_dir: Path | None) -> str:
    """Returns the folder where TFDS keeps what it prepares."""
    root = os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    if raw_dir is None:
        return root
    # TFDS finds prepared data by name and version alone: the stamp keeps different folders of raw files apart.
    paths = sorted(path for path in raw_dir.iterdir() if path.is_file())
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return os.path.join(root, f"local-{zlib.crc32(repr(files).encode()):08x}")


def _prepare(source: str, builder: "tfds.core.DatasetBuilder") -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    # TFDS's ten retries, each waiting twice as long and with a warning, leave a user without network in the dark
    # for three minutes.
    downloader.MAX_RETRIES = 4
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # TFDS reports on standard output, which belongs to the answers of our commands.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except SourceError:
        raise
    except Exception as error:  # A builder raises whatever its download, its archive or its parser raises.
        hint = "" if source.startswith("tfds:") else "; raw files on disk are read from data_dir or $ZOO_DATA"
        raise SourceError(f"{source}: cannot be prepared: {_first_line(error)}{hint}") from error


def _read_builder(
    source: str, builder: "tfds.core.DatasetBuilder", fields: Mapping[str, str] | None, split: str
) -> list[dict[str, Any]]:
    import tensorflow_datasets as tfds

    for part in split.split("+"):
        _check_split(source, part.partition("[")[0].strip(), builder.info.splits)
    fields = fields or TFDS_FIELDS.get(builder.name) or {name: name for name in builder.info.features}
    features = {ours: _at(source, builder.info.features, theirs) for ours, theirs in fields.items()}
    for ours, feature in features.items():
        image = ours == IMAGE and isinstance(feature, tfds.features.Image)
        captions = ours == CAPTIONS and isinstance(feature, tfds.features.Sequence) and len(feature.shape) == 1
        if feature.shape != () and not image and not captions:
            kind = type(feature).__name__
            raise SourceError(f"{source}: feature {fields[ours]!r} is no text but {kind}; name others (fields)")
    try:
        dataset = builder.as_dataset(split=split)
    except Exception as error:  # A slice that cannot be parsed, or is out of range.
        raise SourceError(f"{source}: split {split!r}: {_first_line(error)}") from error
    if IMAGE in fields:
        paths = {ours: _path(builder.info.features, theirs) for ours, theirs in fields.items()}
        return [
            {
                ours: value if ours in (IMAGE, CAPTIONS) else _text(features[ours], value)
                for ours, value in found.items()
            }
            for found in read_tfds_images(builder, split, paths)
        ]
    dataset = dataset.map(lambda example: {ours: _at(source, example, theirs) for ours, theirs in fields.items()})
    examples = []
    for batch in tfds.as_numpy(dataset.batch(1024)):  # one by one takes five times as long
        columns = {ours: [_text(features[ours], value) for value in values] for ours, values in batch.items()}
        examples += [dict(zip(columns, values)) for values in zip(*columns.values())]
    return examples


def _at(source: str, tree: Any, path: str) -> Any:
    """Follows a path such as "translation/de" into nested features or into an example."""
    for name in _path(tree, path):
        names = tree.keys() if hasattr(tree, "keys") else ()
        if name not in names:
            raise SourceError(f"{source}: no field {path!r}; {nearest(name, names)}")
        tree = tree[name]
    return tree


def _path(tree: Any, path: str) -> list[str]:
    """Takes a path apart; "image/filename" may also be the name of one feature."""
    return [path] if path in tree else path.split("/")


def _text(feature: "tfds.features.FeatureConnector", value: Any) -> str:
    if hasattr(feature, "int2str"):
        return feature.int2str(int(value))
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
