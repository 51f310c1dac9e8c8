"""Dataset manifest: a Parquet file with a row for each clip, which training reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from taghead.data.annotations import Annotations, Clip, Split
from taghead.data.index.scan_result import ClipKey, ScanResult, written_by
from taghead.errors import DataError, first_line
from taghead.files import (
    atomic_file,
    check_regular,
    json_text,
    name_to_text,
    parse_json,
    text_to_name,
)

SCHEMA_VERSION = 1
_METADATA = b"taghead"
_TEXT = ("file", "reason", "same_as")  # columns with names of files, which may be any bytes
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
_RESULT_COLUMNS = [(field.name, _TYPES[str(field.type)]) for field in fields(ScanResult)]
_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("label", pa.int64()),
        ("class_name", pa.string()),
        ("listed_frames", pa.int64()),
        *_RESULT_COLUMNS,
        ("same_as", pa.string()),
    ]
)


@dataclass(frozen=True)
class ManifestEntry:
    """A clip of the manifest: one row.

    Args:
        split: Its split.
        clip: What the annotation says of it.
        result: What reading it found out.
        same_as: Another clip of the dataset that shows the same frames, as `<split>: <id>`.
    """

    split: Split
    clip: Clip
    result: ScanResult
    same_as: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds.

    Args:
        description: What wrote it, and of which dataset.
        known: The scan result of every clip that has a file.
        listed: All clips of each split.
    """

    description: dict[str, Any]
    known: dict[ClipKey, ScanResult]
    listed: dict[str, list[ClipKey]]


def write_manifest(
    path: str | Path, root: str | Path, annotations: Annotations, entries: Sequence[ManifestEntry]
) -> None:
    """Writes a manifest; the file appears when it is complete.

    Its metadata, JSON under the key `taghead`, have `schema_version`, what wrote it, and the
    dataset: its root, format, sources and class names. Names of files that are no UTF-8 stand as
    :func:`~taghead.files.name_to_text` has them.

    Raises:
        OSError: If it cannot be written.
    """
    description = {
        "schema_version": SCHEMA_VERSION,
        "written_by": written_by(),
        "root": name_to_text(root),
        "format": annotations.format,
        "sources": {split: name_to_text(name) for split, name in annotations.sources.items()},
        "class_names": annotations.class_names,
    }
    columns: dict[str, list[Any]] = {
        "split": [entry.split for entry in entries],
        "label": [entry.clip.label for entry in entries],
        "class_name": [entry.clip.class_name for entry in entries],
        "listed_frames": [entry.clip.listed_frames for entry in entries],
        **{name: [getattr(entry.result, name) for entry in entries] for name, _ in _RESULT_COLUMNS},
        "same_as": [entry.same_as for entry in entries],
    }
    for name in _TEXT:  # Parquet has valid text alone
        columns[name] = [name_to_text(text) for text in columns[name]]
    schema = _SCHEMA.with_metadata({_METADATA: json_text(description, path)})
    with atomic_file(path) as partial, partial.open("wb") as file:  # whose name may be any bytes
        parquet.write_table(pa.table(columns, schema=schema), file)


def read_manifest(path: str | Path) -> Manifest:
    """What a manifest holds.

    Raises:
        DataError: If it is no manifest, or one of another version.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such manifest: taghead index writes it")
    check_regular(path)
    try:
        with path.open("rb") as file:
            table = parquet.read_table(file)
        description = parse_json((table.schema.metadata or {})[_METADATA])
        version = description.get("schema_version")
    except Exception as error:  # pyarrow raises types of its own, and the file may be anyone's
        raise DataError(f"{path}: not a manifest that taghead index wrote") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: has the schema version {version}, this version of taghead reads "
            f"{SCHEMA_VERSION}: write it again with taghead index"
        )
    try:
        _check_description(description)
        results = [ScanResult.from_record(row) for row in _rows(table)]
        splits = table["split"].to_pylist()
    except Exception as error:  # a missing column, a null, text that is no UTF-8
        raise DataError(f"{path}: not a whole manifest: {first_line(error)}") from error
    listed: dict[str, list[ClipKey]] = {}
    for split, one in zip(splits, results, strict=True):
        listed.setdefault(split, []).append(one.key)
    return Manifest(description, {one.key: one for one in results if one.size}, listed)


def _check_description(description: Mapping[str, Any]) -> None:
    for name in ("written_by", "root"):
        if not isinstance(description.get(name), str):
            raise ValueError(f"{name} must be text (got {description.get(name)!r})"[:200])


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of the table, with names of files for the texts that stand for them."""
    columns = [name for name, _ in _RESULT_COLUMNS if name in table.column_names]
    for row in table.select(columns).to_pylist():
        yield {**row, "file": text_to_name(row["file"])}
