"""Reads and writes JSON files with a checksum, so that a damaged number is not taken for another one."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffjax.errors import UserError, read_json
from diffjax.files import write

CHECKSUM = "checksum"
"""The name of the last entry of a file: the CRC-32 of the others."""


def checksum(value: Any) -> int:
    """Returns the CRC-32 of a JSON value, whatever the order of its names and the spaces in its file."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record as plain JSON values (lists for tuples), with its checksum as the last entry."""
    plain = json.loads(json.dumps(record))
    return plain | {CHECKSUM: checksum(plain)}


def without_checksum(found: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the record without its checksum, if it has one; None if that does not fit, or if there is nothing."""
    if not found:
        return None
    *names, last = found
    record = {name: found[name] for name in names}
    if last == CHECKSUM:
        return record if found[last] == checksum(record) else None
    return None if found[last] == checksum(record) else found  # the name of the checksum is damaged


def write_record(path: str | os.PathLike, record: Mapping[str, Any]) -> Path:
    """Writes a record to a JSON file, atomically and with its checksum, and returns the path."""
    return write(path, json.dumps(with_checksum(record), indent=2, ensure_ascii=False) + "\n")


def read_record(path: Path, missing: str) -> dict[str, Any]:
    """Returns the record in a file of `write_record`, or in one without a checksum, as earlier versions wrote it.

    Raises:
      UserError: the file does not exist (`missing` describes it for the message), cannot be read, or is not as it was
        written.
    """
    if not (found := read_json(path, missing)):
        raise UserError(f"cannot read {path}: it holds an empty object")
    if (record := without_checksum(found)) is None:
        raise UserError(
            f"cannot read {path}: it is not as it was written (damaged, or edited: without its line "
            f"{CHECKSUM!r} it is read as it is)"
        )
    return record
