"""Text files in, whole files out: the only place that renames a file once its content is on the disk."""

import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mt.errors import DataError, DiskError, UsageError, WriteError

Bytes = bytes | memoryview

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


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


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def number(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number under `key`, if there is one."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def write_whole(path: Path, content: str | Bytes) -> None:
    """Write a file whole or not at all, even if the power fails.

    Where `path` is a symbolic link, its target is replaced; a device or a FIFO is written to directly. Text is written
    as UTF-8. Raises WriteError.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    with writing(path):
        if is_special(path):
            with path.open("wb") as file:
                file.write(data)
            return
        target = final_path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            target.parent.mkdir(exist_ok=True)
            write_through(partial, [data])
            with suppress(FileNotFoundError):
                partial.chmod(stat.S_IMODE(target.stat().st_mode))
            rename(partial, target)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def final_path(path: Path) -> Path:
    """The path with symbolic links followed; the file need not exist yet."""
    return Path(os.path.realpath(path))


def is_special(path: Path) -> bool:
    """Whether this is a device, a FIFO or a socket, which can be written to but must never be replaced."""
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = path.stat().st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return False


def check_target(path: Path) -> None:
    """Raise UsageError, before long work, if the path is a folder or its folder does not exist."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not final_path(path).parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")


def write_through(path: Path, parts: Iterable[Bytes]) -> None:
    """Write a file and flush it to the disk (fsync), for a file that is renamed later. Raises OSError."""
    with path.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def rename(old: Path, new: Path) -> None:
    """Rename a flushed file or folder, replacing what has the new name. Raises OSError."""
    old.replace(new)
    sync_folder(new.parent)


def give_name(partial: Path, path: Path) -> None:
    """Flush a file that is whole to the disk, and give it its name. Raises OSError."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    rename(partial, path)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk (fsync). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file below a folder to the disk, before the folder gets its name. Raises OSError."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def check_new(path: Path) -> None:
    """Raise UsageError, before long work, if the path exists or its folder does not."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path}: is there already; name a new folder, or remove it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it gets the name `path` once it is complete and on the disk, else it is removed.

    What a killed process left is removed first. Raises as `check_new` does, and WriteError.
    """
    check_new(path)
    partial = path.absolute().with_name(f".{path.name}.partial")
    with writing(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            sync_tree(partial)
            check_new(path)
            rename(partial, path.absolute())
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into one sentence about `path`: DiskError when the disk is full or fails, else WriteError."""
    try:
        yield
    except OSError as error:
        kind = DiskError if error.errno in _DISK else WriteError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from None
