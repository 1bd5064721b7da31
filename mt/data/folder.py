"""A folder that is either whole or not there: built beside, renamed when complete, one builder at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mt.console import Console
from mt.errors import DataError


@contextmanager
def locked(folder: Path, console: Console) -> Iterator[None]:
    """Hold a folder's lock, waiting for whoever has it; the system lets go of it should this process be killed."""
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(_beside(folder, "lock"), "w")  # noqa: SIM115 (closed below)
    with lock:
        if not _try_lock(lock):
            console.say(f"{folder}: another run is preparing it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `folder` when all went well. Needs its lock.

    What an earlier, killed run left is cleared away first. Raises DataError when the disk is full or cannot be written.
    """
    folder = folder.resolve()  # a link may lead to another disk, and a rename stays on one
    new, old = _beside(folder, "new"), _beside(folder, "old")
    with _writing(folder):
        if old.exists() and not folder.exists():  # killed between the two renames below
            old.rename(folder)
        _remove(old)
        _remove(new)
        new.mkdir()
        try:
            yield new
            _sync(new)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            _sync_folder(folder.parent)
        except BaseException:
            _remove(new)
            raise
        _remove(old)


def _beside(folder: Path, purpose: str) -> Path:
    return folder.resolve().with_name(f".{folder.resolve().name}.{purpose}")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder} cannot be written: {reason}; make room, or set data.dir to another place") from None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the disk hold every file before a name promises them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync_file(path)
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
