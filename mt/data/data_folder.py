"""The folder of prepared data: whole or not there, one builder at a time, never replaced under its readers.

It is built beside and renamed when complete. Whoever reads it holds a shared lock on its manifest, and whoever
replaces it an exclusive one; the system lets go of both should the process be killed.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mt.console import Console
from mt.errors import DataError
from mt.files import sync_folder, writing

MANIFEST = "manifest.json"


# --- Reading -----------------------------------------------------------------------------------------------------


def hold(folder: Path) -> IO[bytes] | None:
    """Keep a prepared folder from being replaced until the file returned is closed; None where it has no manifest.

    Raises DataError when it is being replaced now.
    """
    while True:
        manifest = _open(folder / MANIFEST)
        if manifest is None:
            return None
        if not _try_lock(manifest, fcntl.LOCK_SH):
            raise DataError(f"{folder} is being replaced by {_holders(manifest)}; run again when that is done")
        if _is_same(manifest, folder / MANIFEST):
            return manifest
        manifest.close()  # it was replaced meanwhile


def _open(path: Path) -> IO[bytes] | None:
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _is_same(file: IO[bytes], path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: as before, whoever uses it takes care
        return True
    return True


def _holders(file: IO[bytes]) -> str:
    """The processes that hold a lock on a file, as far as the system tells."""
    inode, holders = str(os.fstat(file.fileno()).st_ino), []
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()  # number: FLOCK ADVISORY READ process device:device:inode first last
            if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                holders.append(_process(fields[4]))
    return ", ".join(holders) or "another process"


def _process(number: str) -> str:
    with suppress(OSError):
        command = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return f"process {number} ({' '.join(command).strip()[:100]})"
    return f"process {number}"


# --- Building ----------------------------------------------------------------------------------------------------


@contextmanager
def only_builder(folder: Path, console: Console) -> Iterator[None]:
    """Be the only one that prepares a folder, waiting for whoever does; raises WriteError where nobody can."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(_beside(folder, "lock"), "wb")  # noqa: SIM115 (closed below)
    with lock:
        if not _try_lock(lock, fcntl.LOCK_EX):
            console.say(f"{folder}: another run is preparing it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `folder` when all went well. For its only builder.

    What an earlier, killed run left is cleared away first.
    Raises DataError when somebody reads the folder, WriteError when the disk is full or cannot be written.
    """
    folder = folder.resolve()  # a link may lead to another disk, and a rename stays on one
    new, old = _beside(folder, "new"), _beside(folder, "old")
    with writing(folder), _unread(folder):
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
            sync_folder(folder.parent)
        except BaseException:
            _remove(new)
            raise
        _remove(old)


@contextmanager
def _unread(folder: Path) -> Iterator[None]:
    """Keep readers away. Raises DataError naming those there are."""
    manifest = _open(folder / MANIFEST)
    if manifest is None:
        yield
        return
    with manifest:
        if not _try_lock(manifest, fcntl.LOCK_EX):
            raise DataError(
                f"{folder} is in use by {_holders(manifest)} and cannot be prepared with other settings or text; "
                "wait for the end, or set data.dir to another folder"
            )
        yield


def _beside(folder: Path, purpose: str) -> Path:
    return folder.resolve().with_name(f".{folder.resolve().name}.{purpose}")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the disk hold every file before a name promises them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
