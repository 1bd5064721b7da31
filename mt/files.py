"""Small text files: read by lines that end at a line feed alone, written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from mt.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, split at line feeds alone, as sacreBLEU does.

    Raises DataError when the file is missing, cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text; convert the file, with iconv for instance") from None
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def write_whole(path: Path, text: str) -> None:
    """Write a file beside and give it its name when it is on disk; raises DataError when it cannot be written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
