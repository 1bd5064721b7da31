"""Lines of text from a file or stdin, with those of a parallel file, and how far they have been read."""

import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO

from mt.data.lines import COMPRESSED, opened
from mt.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


# Lines translated together: enough to sort into full batches, few enough that a kill costs little.
CHUNK_LINES, GPU_CHUNK_LINES = 2_000, 8_000
FIRST_CHUNK_LINES = 250  # so that a job stopped early keeps something


def next_size(most: int, done: int) -> int:
    """How many lines to take next, at most so many, where so many are done."""
    return min(most, max(FIRST_CHUNK_LINES, done))


@dataclass(frozen=True)
class Chunk:
    """Lines that follow one another, as bytes with their ends; `first` is the number of the first, counted from 1."""

    first: int
    lines: list[bytes]
    beside: list[bytes]  # none where no file goes beside


class Reader:
    """Reads a file, decompressed by its suffix, or stdin; with it a parallel file, if any.

    source: a path, a URL, or None for stdin. Knows how many lines were read, and the SHA-256 of their bytes.
    errors: "strict" or "replace", for bytes that are not UTF-8. Reading raises DataError when a file cannot be read.
    """

    def __init__(self, source: Path | str | None, beside: Path | None, errors: str) -> None:
        self.name, self._beside_name, self._errors = str(source or "stdin"), str(beside), errors
        self.done = 0
        self._digest = hashlib.sha256()
        self._lines: Iterator[bytes] = _stdin_lines() if source is None else _file_lines(source)
        self._beside = None if beside is None else _file_lines(beside)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def peek(self) -> str:
        """The next line, which stays the next; empty at the end."""
        first = list(islice(self._lines, 1))
        self._lines = chain(first, self._lines)
        return b"".join(first).rstrip(b"\r\n").decode(errors="replace")

    def read(self, count: int) -> Chunk:
        """The next lines, at most `count`; none at the end.

        Raises DataError for a line that has no partner in the file beside.
        """
        lines = list(islice(self._lines, count))
        beside = [] if self._beside is None else list(islice(self._beside, max(len(lines), 1)))
        if self._beside is not None and len(lines) != len(beside):
            longer, shorter = sorted([(len(lines), self.name), (len(beside), self._beside_name)], reverse=True)
            number = self.done + shorter[0] + 1
            raise DataError(f"{longer[1]}:{number}: has no partner in {shorter[1]}, which ends before it")
        for line in (*lines, *beside):
            self._digest.update(line)
        self.done += len(lines)
        return Chunk(self.done - len(lines) + 1, lines, beside)

    def skip(self, count: int) -> None:
        while count > 0 and (passed := len(self.read(min(count, 10_000)).lines)):
            count -= passed

    def texts(self, chunk: Chunk) -> list[str]:
        """The lines without their ends; raises DataError for one that is not UTF-8."""
        return decoded(chunk.lines, chunk.first, self.name, self._errors)

    def texts_beside(self, chunk: Chunk) -> list[str]:
        """Those of the file beside, likewise."""
        return decoded(chunk.beside, chunk.first, self._beside_name, self._errors)


def decoded(lines: Sequence[bytes], first: int, name: str, errors: str) -> list[str]:
    """Lines as text, without their ends; `first` is the number of the first of them.

    errors: "strict" or "replace". Raises DataError naming the file and the line that is not UTF-8.
    """
    return [_text(line, f"{name}:{number}", errors) for number, line in enumerate(lines, first)]


def _text(line: bytes, where: str, errors: str) -> str:
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode(errors=errors)
    except UnicodeDecodeError:
        raise DataError(
            f"{where}: not UTF-8 text; convert the file, with iconv for instance, or give --errors replace"
        ) from None


def _file_lines(path: Path | str) -> Iterator[bytes]:
    with opened(path) as file:
        yield from _lines(io.BufferedReader(file))


def _stdin_lines() -> Iterator[bytes]:
    try:
        yield from _lines(sys.stdin.buffer)
    except OSError as error:
        raise DataError(f"stdin: cannot be read: {error.strerror}; give --input") from None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines with their ends, split at line feeds alone, each as soon as it comes; a byte-order mark is removed."""
    first = file.readline().removeprefix(_BYTE_ORDER_MARK)
    yield from chain([first] if first else [], iter(file.readline, b""))


def count_lines(path: Path | None) -> int | None:
    """How many lines a file has; None for a compressed one, which would take long, and for what is no regular file."""
    if path is None or not path.is_file() or path.suffix.lower() in COMPRESSED:
        return None
    with opened(path) as file:
        count: int = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return count
