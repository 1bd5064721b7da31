"""What a long work has finished, folder by folder: whole or absent, so that the work goes on where it was.

A folder gets its name when it is whole, and beside it lies a record with the hashes of its files and one of its own.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from mt.data.manifest import FileEntries, file_entries
from mt.files import write_whole

Record = dict[str, Any]


def finished(place: tuple[Path, Path]) -> Record | None:
    """The record given with its folder, if it and the files there are as they were written; else None."""
    record, folder = place
    found: Record | None = read_record(record)
    if found is None or not folder.is_dir():
        return None
    files = file_entries(folder)
    return found if {name: files.get(name) for name in found["files"]} == found["files"] else None


def finish(folder: Path, record: Path, **found: object) -> Record:
    """Give a folder that was written where `begin` said its name, and write its record."""
    files: FileEntries = file_entries(part_of(folder))
    shutil.rmtree(folder, ignore_errors=True)
    part_of(folder).rename(folder)
    whole = {"files": files, **found}
    write_record(record, whole)
    return whole


def part_of(folder: Path) -> Path:
    """What a folder is called before it is whole."""
    return folder.with_name(f"{folder.name}.part")


def begin(folder: Path) -> Path:
    """An empty folder for what is to become this one."""
    shutil.rmtree(part_of(folder), ignore_errors=True)
    part_of(folder).mkdir(parents=True)
    return part_of(folder)


def write_record(path: Path, found: object) -> None:
    """Write a value as JSON, after its hash."""
    text = json.dumps(found)
    write_whole(path, f"{_sha256(text)} {text}")


def read_record(path: Path) -> Any:
    """What `write_record` wrote; None where it is missing or damaged."""
    try:
        digest, text = path.read_text(encoding="utf-8").split(" ", 1)
    except (OSError, ValueError):
        return None
    return json.loads(text) if digest == _sha256(text) else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
