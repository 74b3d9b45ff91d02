"""The user's own files: lines, tab-separated columns and JSON lines, in UTF-8, gzipped or not."""

import gzip
import json
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from zoo.config import nearest

# The field that may have several references.
TARGET = "target"
# What a file holds unless the caller names its columns or keys.
_PAIR = {"source": "source", TARGET: TARGET}


class SourceError(ValueError):
    """Says in one line what is wrong with a source of data, where, and what would be right."""


def read_lines(path: str | Path) -> list[str]:
    """Reads a text file into its lines.

    Args:
        path: A UTF-8 file. A byte order mark and carriage returns at the ends of lines are left out.

    Returns:
        The lines, without their ends.

    Raises:
        SourceError: If the file is missing, empty, or not UTF-8: then with line number and byte offset.
    """
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):  # gzip's magic number, which no UTF-8 text starts with
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise SourceError(
            f"{path}, line {line}: byte 0x{byte:02x} at byte offset {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise SourceError(f"{path}: the file is empty")
    # Only a line feed ends a line: str.splitlines knows ten more characters, which would shift parallel files.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_tsv(path: str | Path, fields: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Reads a file of tab-separated columns into examples; blank lines are skipped.

    Args:
        path: The file. There is no quoting: a tab always ends a column.
        fields: Our name of each field -> the column's name in the header line. None: no header, and the two columns
            are source and target.

    Returns:
        One example a line: {our name: text}.

    Raises:
        SourceError: As `read_lines`, and for a line with another number of columns or nothing in one that is read.
    """
    lines = read_lines(path)
    if fields is None:
        header, expected, first = list(_PAIR), "it takes 2 columns, source TAB target", 1
    else:
        header, first = lines[0].split("\t"), 2
        expected = f"it takes {len(header)} columns, as in the header"
    columns = {}
    for ours, theirs in (fields or _PAIR).items():
        if theirs not in header:
            raise SourceError(f"{path}, line 1: no column {theirs!r} in the header; {nearest(theirs, header)}")
        columns[ours] = header.index(theirs)
    examples, bad = [], []
    for number, line in enumerate(lines[first - 1 :], first):
        cells = line.split("\t")
        if not line.strip():
            continue
        if len(cells) != len(header):
            bad.append((number, f"{_count(len(cells), 'column')}: {_excerpt(line)}; {expected}"))
        elif empty := [header[column] for column in columns.values() if not _is_visible(cells[column])]:
            bad.append((number, f"nothing in column {empty[0]!r}: {_excerpt(line)}; {expected}"))
        else:
            examples.append({ours: cells[column] for ours, column in columns.items()})
    return _checked(path, examples, bad)


def read_jsonl(
    path: str | Path, fields: Mapping[str, str] | None = None, lists: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Reads a file with one JSON object a line into examples; blank lines are skipped.

    Args:
        path: The file.
        fields: Our name of each field -> the key, with "/" into nested objects. None: source and target.
        lists: Our names of fields that may be lists of texts, and come as such.

    Returns:
        One example a line: {our name: text}; numbers become text, and a list of references under the target's key
        becomes "target", "target2", "target3" ...

    Raises:
        SourceError: As `read_lines`, and for a line that is not JSON, lacks a key or holds no text under it.
    """
    examples, bad = [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            example: dict[str, Any] = {}
            for ours, theirs in (fields or _PAIR).items():
                texts = _texts_at(row, theirs, several=ours in (*lists, TARGET))
                numbered = {_numbered(ours, number): text for number, text in enumerate(texts, 1)}
                example |= {ours: texts} if ours in lists else numbered
            examples.append(example)
        except json.JSONDecodeError as error:
            bad.append((number, f"not JSON ({error.msg} at column {error.colno}): {_excerpt(line)}"))
        except SourceError as error:
            bad.append((number, str(error)))
    return _checked(path, examples, bad)


def references(example: Mapping[str, str], field: str = TARGET) -> list[str]:
    """Returns all that an example has to say under one field: "target", "target2", "target3" ...

    Args:
        example: An example as `load` returns it; an empty text is no reference.
        field: The name of the first one.

    Returns:
        At least one text.

    Raises:
        SourceError: If there is none.
    """
    texts: list[str] = []
    while (name := _numbered(field, len(texts) + 1)) in example:
        texts.append(example[name])
    found = [text for text in texts if _is_visible(text)]
    if not found:
        problem = f"nothing under {field!r}" if texts else f"no field {field!r}; {nearest(field, example)}"
        raise SourceError(f"the example {_excerpt(json.dumps(dict(example), ensure_ascii=False))}: {problem}")
    return found


def _numbered(field: str, number: int) -> str:
    return field if number == 1 else f"{field}{number}"


def _texts_at(row: Any, key: str, several: bool) -> list[str]:
    """Returns the text under a key, or all texts of the list there."""
    value = row
    for part in [key] if isinstance(row, dict) and key in row else key.split("/"):
        if not isinstance(value, dict):
            raise SourceError(f"{_excerpt(json.dumps(value))} is no object with a key {part!r}")
        if part not in value:
            raise SourceError(f"no key {part!r}; {nearest(part, value)}")
        value = value[part]
    expected = "it takes a text or a list of texts" if several else "it takes text"
    texts = value if several and isinstance(value, list) and value else [value]
    for text in texts:
        if not isinstance(text, (int, float)) and not (isinstance(text, str) and _is_visible(text)):
            raise SourceError(f"{_excerpt(json.dumps(text))} under the key {key!r}; {expected}")
    return [str(text) for text in texts]


def _checked(path: str | Path, examples: list[dict[str, str]], bad: list[tuple[int, str]]) -> list[dict[str, str]]:
    """Returns the examples, or raises for the first bad line, with the count and the numbers of the bad ones."""
    if bad:
        number, problem = bad[0]
        numbers = ", ".join(str(number) for number, _ in bad[:5]) + ", ..." * (len(bad) > 5)
        others = f" ({len(bad)} bad lines: {numbers})" if len(bad) > 1 else ""
        raise SourceError(f"{path}, line {number}: {problem}{others}")
    if not examples:
        raise SourceError(f"{path}: a header and no examples")
    return examples


def _is_visible(text: str) -> bool:
    """Tells whether a text holds more than white space and control characters."""
    return any(character.isprintable() and not character.isspace() for character in text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _excerpt(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:37] + "...")
