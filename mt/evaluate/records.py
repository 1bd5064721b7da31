"""JSON files in a run directory to which evaluation adds records: lists of objects, read by `mt report`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mt.console import Console
from mt.errors import DataError, WriteError
from mt.files import write_whole

Record = dict[str, Any]


def add_records(path: Path, new: Sequence[Record], identity: Sequence[str], console: Console) -> None:
    """Add records to those in a file, in place of earlier ones that agree with a new one in the keys of `identity`.

    Warns when that cannot be done: a result that took long to get must not be lost over its record.
    """
    names = {_name(record, identity) for record in new}
    try:
        kept = [record for record in _records(path) if _name(record, identity) not in names]
        write_whole(path, json.dumps([*kept, *new], ensure_ascii=False, indent=1) + "\n")
    except (DataError, WriteError) as error:
        console.warn(f"{error}; mt report will not show this result")


def _name(record: Record, identity: Sequence[str]) -> tuple[Any, ...]:
    return tuple(record.get(key) for key in identity)


def _records(path: Path) -> list[Record]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise DataError(f"{path}: not a list of records")
    return found
