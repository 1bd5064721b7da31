"""Output files that grow by whole chunks, survive a kill, and get their name when they are complete."""

import bz2
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mt.errors import UsageError
from mt.files import rename, write_through, write_whole, writing

POLL_SECONDS = 0.05  # between two looks for the chunk of another process


@dataclass(frozen=True)
class Progress:
    """How far a job has come: input lines done, the hash of their bytes, and output bytes written."""

    lines: int = 0
    input_sha256: str = ""
    bytes: int = 0


class Output:
    """A file being written: .NAME.partial beside it holds the chunks so far, .NAME.progress says how far they reach.

    settings: all that decides what the file will hold; a job goes on only with the same settings.
    Raises UsageError when another job is writing the file, or left it unfinished with other settings, WriteError when
    the file cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, dict(settings)
        self._partial = path.with_name(f".{path.name}.partial")
        self.sidecar = path.with_name(f".{path.name}.progress")
        self._compress = compressor(path)
        self.progress = self._read_progress()

    def __enter__(self) -> Self:
        with writing(self._path):
            self._file = self._partial.open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{self._path}: another job is writing it") from None
            self._file.truncate(self.progress.bytes)  # a chunk that was written, but not yet noted, is made again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name if all went well; else keep what is there, to go on from it."""
        with writing(self._path), self._file:
            if kind is None:
                with suppress(FileNotFoundError):
                    self._partial.chmod(stat.S_IMODE(self._path.stat().st_mode))
                rename(self._partial, self._path)
                self.sidecar.unlink(missing_ok=True)
            elif not self.progress.lines:
                self._partial.unlink(missing_ok=True)

    def append(self, text: str, lines: int, input_sha256: str) -> None:
        """Write a chunk to the disk, then note how many lines of input are done, and the hash of these."""
        data = self._compress(text.encode(errors="replace"))  # JSON can hold lone surrogates
        with writing(self._path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.progress = Progress(lines, input_sha256, self.progress.bytes + len(data))
            new, noted = self.sidecar.with_suffix(".new"), {"settings": self._settings, **vars(self.progress)}
            write_through(new, [json.dumps(noted, indent=1).encode()])
            rename(new, self.sidecar)

    def _read_progress(self) -> Progress:
        try:
            found = json.loads(self.sidecar.read_text(encoding="utf-8"))
            settings, progress = found.pop("settings"), Progress(**found)
            there = self._partial.stat().st_size
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Progress()
        if there < progress.bytes:
            return Progress()
        changed = [key for key in {**settings, **self._settings} if settings.get(key) != self._settings.get(key)]
        if changed:
            raise UsageError(
                f"{self._path}: an unfinished job with other settings is there ({', '.join(sorted(changed))} differ): "
                f"give those again to go on, or remove {self.sidecar} to start anew"
            )
        return progress


class Parts:
    """Chunks that several processes have made: files in the folder .NAME.parts until each is appended to its output.

    A chunk's name says the line it ends with and hashes all that it was made from, so that a chunk of an earlier job is
    used where the same would be made again.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        self._folder = target.with_name(f".{target.name}.parts")
        self._settings = json.dumps(dict(settings), sort_keys=True)

    def open(self) -> None:
        """Called by the main process before the others; raises WriteError where no folder can be made."""
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)

    def has(self, lines: int, input_sha256: str) -> bool:
        """Whether the chunk that ends with this line has been made; the hash is that of all input up to there."""
        return self._file(lines, input_sha256).exists()

    def wait(self, lines: int, input_sha256: str) -> str:
        """That chunk, once it has been made; if the process that makes it dies, the launcher ends this one too."""
        while not self.has(lines, input_sha256):
            time.sleep(POLL_SECONDS)
        return self._file(lines, input_sha256).read_bytes().decode()

    def put(self, text: str, lines: int, input_sha256: str) -> None:
        """Keep a chunk; raises WriteError."""
        write_whole(self._file(lines, input_sha256), text)

    def drop(self, lines: int, input_sha256: str) -> None:
        """Remove a chunk that is part of the output now."""
        self._file(lines, input_sha256).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder, as the output is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, lines: int, input_sha256: str) -> Path:
        made_from = hashlib.sha256(f"{self._settings}{input_sha256}".encode()).hexdigest()
        return self._folder / f"{lines:012d}-{made_from[:16]}"


def compressor(path: Path) -> Callable[[bytes], bytes]:
    """The function that compresses a chunk, by the suffix of its file: each chunk becomes a member of its own."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return lambda data: gzip.compress(data, mtime=0)
    if suffix == ".zst":
        import pyarrow  # the standard library knows zstd from Python 3.14 on

        return lambda data: bytes(pyarrow.compress(data, codec="zstd", asbytes=True))
    if suffix == ".xz":
        return lambda data: lzma.compress(data)
    return bz2.compress if suffix == ".bz2" else lambda data: data
