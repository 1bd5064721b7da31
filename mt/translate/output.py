"""An output file that grows by whole chunks, survives a kill, and gets its name when it is complete."""

import bz2
import fcntl
import gzip
import json
import lzma
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mt.errors import DataError, UsageError


@dataclass(frozen=True)
class Progress:
    """How far a job has come: the lines read, the hash of their bytes, and the bytes written."""

    lines: int = 0
    input_sha256: str = ""
    bytes: int = 0


class Output:
    """A file in the making: beside it lie .NAME.partial, the chunks so far, and .NAME.progress, how far they reach.

    settings: all that decides what the file will hold; a job goes on only under the same.
    Raises UsageError when an unfinished job of other settings is there, or one at work, DataError when the disk fails.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, dict(settings)
        self._partial = path.with_name(f".{path.name}.partial")
        self._sidecar = path.with_name(f".{path.name}.progress")
        self._compress = _compressor(path)
        self.progress = self._read_progress()

    def __enter__(self) -> Self:
        try:
            self._file = self._partial.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(self.progress.bytes)  # a chunk that was written, but not yet noted, is made again
        except BlockingIOError:
            raise UsageError(f"{self._path}: another job is writing it") from None
        except OSError as error:
            raise self._failure(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name if all went well; else leave what is there to go on from."""
        with self._file:
            if kind is None:
                try:
                    self._partial.replace(self._path)
                    self._sidecar.unlink(missing_ok=True)
                except OSError as failure:
                    raise self._failure(failure) from None
            elif not self.progress.lines:
                self._partial.unlink(missing_ok=True)

    def append(self, text: str, lines: int, input_sha256: str) -> None:
        """Write a chunk through to the disk, then note it: `lines` lines of input are done, whose hash is given."""
        data = self._compress(text.encode(errors="replace"))  # JSON can say half a character
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.progress = Progress(lines, input_sha256, self.progress.bytes + len(data))
            new = self._sidecar.with_suffix(".new")
            new.write_text(json.dumps({"settings": self._settings, **vars(self.progress)}, indent=1), encoding="utf-8")
            new.replace(self._sidecar)
        except OSError as error:
            raise self._failure(error) from None

    def _read_progress(self) -> Progress:
        try:
            found = json.loads(self._sidecar.read_text(encoding="utf-8"))
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
                f"give those again to go on, or remove {self._sidecar} to start anew"
            )
        return progress

    def _failure(self, error: OSError) -> DataError:
        return DataError(f"{self._path}: cannot be written: {error.strerror or error}")


def _compressor(path: Path) -> Callable[[bytes], bytes]:
    """What turns a chunk into bytes of the file: a compressed member each, which all readers take one after another."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return lambda data: gzip.compress(data, mtime=0)
    if suffix == ".zst":
        import pyarrow  # the standard library knows zstd from Python 3.14 on

        return lambda data: bytes(pyarrow.compress(data, codec="zstd", asbytes=True))
    if suffix == ".xz":
        return lambda data: lzma.compress(data)
    return bz2.compress if suffix == ".bz2" else lambda data: data
