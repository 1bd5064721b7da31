"""A folder that is either whole or not there: built beside, renamed when complete, one builder at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mt.console import Console
from mt.errors import DataError


@contextmanager
def locked(folder: Path, console: Console) -> Iterator[None]:
    """Hold a folder's lock, waiting for whoever has it; the system lets go of it should this process be killed."""
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(_beside(folder, "lock"), "w")  # noqa: SIM115 (closed below)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"{folder}: another run is preparing it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `folder` when all went well. Needs its lock.

    Raises DataError when the disk is full or cannot be written.
    """
    new, old = _beside(folder, "new"), _beside(folder, "old")
    with _writing(folder):
        if old.exists() and not folder.exists():  # killed between the two renames below
            old.rename(folder)
        _remove(old, new)
        new.mkdir()
        try:
            yield new
            _sync(new)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            _sync_folder(folder.parent)
        finally:
            _remove(old, new)


def _beside(folder: Path, purpose: str) -> Path:
    return folder.parent / f".{folder.name}.{purpose}"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{folder} cannot be written: {reason}; free the disk or set data.dir to another place"
        ) from None


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the disk hold every file before a name promises them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
