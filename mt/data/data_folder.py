"""The folder of prepared data: complete or absent, built by one process at a time, not replaced while it is read.

It is built under another name and renamed when complete. A reader holds a shared lock on its manifest, a builder that
replaces it an exclusive one; the system releases both when the process ends.
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
from mt.files import sync_folder, sync_tree, write_whole, writing

MANIFEST = "manifest.json"
SCRATCH = "scratch"  # the folder, while it is built, of what only preparing needs ...
PLAN = "plan.json"  # ... and in it, what is being prepared


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
        with suppress(OSError):
            if os.path.samestat(os.fstat(manifest.fileno()), (folder / MANIFEST).stat()):
                return manifest
        manifest.close()  # the folder was replaced between opening and locking


def _open(path: Path) -> IO[bytes] | None:
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the user must take care
        return True
    return True


def _holders(file: IO[bytes]) -> str:
    """The processes that hold a lock on a file, where the system names them."""
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
    """Be the only process that prepares a folder, after waiting for any other; raises WriteError if it is read-only."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(_beside(folder, "lock"), "wb")  # noqa: SIM115 (closed below)
    with lock:
        if not _try_lock(lock, fcntl.LOCK_EX):
            console.say(f"{folder}: another run is preparing it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unfinished(folder: Path) -> Path:
    """Where a folder lies while it is built."""
    return _beside(folder, "new")


@contextmanager
def replaced(folder: Path, plan: str, console: Console) -> Iterator[Path]:
    """Yield a folder to fill; without an exception it replaces `folder`. Use it within `only_builder`.

    It is empty, or holds what an earlier process finished that had the same plan, and was killed, stopped, or found the
    disk full. Its folder SCRATCH is left out of what replaces `folder`.
    Raises DataError when a process reads the folder, WriteError when the disk is full or cannot be written.
    """
    folder = folder.resolve()  # a link may lead to another disk, and a rename stays on one
    new, old = unfinished(folder), _beside(folder, "old")
    with writing(folder), _unread(folder):
        if old.exists() and not folder.exists():  # killed between the two renames below
            old.rename(folder)
        _remove(old)
        if _open(new / SCRATCH / PLAN) is None or (new / SCRATCH / PLAN).read_text("utf-8") != plan:
            _remove(new)
            (new / SCRATCH).mkdir(parents=True)
            write_whole(new / SCRATCH / PLAN, plan)
        try:
            yield new
            _remove(new / SCRATCH)
            sync_tree(new)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            sync_folder(folder.parent)
        except BaseException as error:
            if isinstance(error, DataError) or not _is_worth_keeping(new):
                _remove(new)
            else:
                console.say(f"{new}: what is done is kept here; the same command goes on with it")
            raise
        _remove(old)


def _is_worth_keeping(new: Path) -> bool:
    """Whether more than one shard is finished; a single one is done again in seconds."""
    return len(list((new / SCRATCH / "text").glob("*.json"))) > 1


@contextmanager
def _unread(folder: Path) -> Iterator[None]:
    """Keep new readers out; raises DataError naming the processes that read the folder now."""
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
