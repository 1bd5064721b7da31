"""Text files by lines, decompressed by their suffix.

Lines end at a line feed and nowhere else: U+2028, U+0085 or a lone carriage return inside a line would otherwise put
the two sides out of step.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Any

from mt.errors import DataError
from mt.remote import is_url, opened_url, stamp

LONGEST_LINE = 1_000_000  # characters; encoding takes about 50 bytes of memory for each


def refuse_giant(line: str | bytes, where: str) -> None:
    """Raise DataError for a line of more than LONGEST_LINE characters (or bytes), before it is encoded."""
    if len(line) > LONGEST_LINE:
        raise DataError(f"{where}: more than {LONGEST_LINE:,} characters in one line; put one sentence on each line")


class Lines:
    """The lines of a file without their line ends; a byte-order mark is removed.

    Invalid UTF-8 becomes lone surrogates. A line longer than LONGEST_LINE is cut one character after it: memory stays
    bounded, and the reader can still see that the line is too long.
    Raises DataError when the file cannot be read or is UTF-16.
    """

    def __init__(self, path: str) -> None:
        """path: or a URL."""
        self._path = path
        self._lines = self._read()

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self) -> Iterator[str]:
        with _opened(self._path) as (self._raw, file):
            self._bytes = (stamp(self._path) or (0, ""))[0] if is_url(self._path) else Path(self._path).stat().st_size
            text = io.TextIOWrapper(io.BufferedReader(file), "utf-8", errors="surrogateescape", newline="\n")
            is_first = True
            for line in iter(partial(text.readline, LONGEST_LINE + 1), ""):
                if is_first:
                    line, is_first = self._first(line), False
                if len(line) > LONGEST_LINE and not line.endswith("\n"):
                    _skip_to_line_feed(text)
                yield line.removesuffix("\n").removesuffix("\r")

    def _first(self, line: str) -> str:
        if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise DataError(f"{self._path}: UTF-16, not UTF-8 text; convert the file, with iconv for instance")
        return line.removeprefix("\ufeff")

    def share(self) -> float:
        """The share of the file read so far, 0 to 1, in its bytes on disk; 0 where its size is unknown."""
        if self._raw.closed:
            return 1.0
        return self._raw.tell() / self._bytes if self._bytes else 0.0


def _skip_to_line_feed(text: io.TextIOWrapper) -> None:
    while (part := text.readline(LONGEST_LINE)) and not part.endswith("\n"):
        pass


# --- Compression -------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path | str) -> Iterator[Any]:
    """The bytes of a file or URL, decompressed by its suffix; raises DataError when they cannot be read."""
    with _opened(str(path)) as (_, file):
        yield file


@contextmanager
def _opened(path: str) -> Iterator[tuple[IO[bytes], Any]]:
    """The bytes on disk, and decompressed."""
    decompressed = _OPENERS.get(Path(path.split("?")[0] if is_url(path) else path).suffix.lower(), nullcontext)
    try:
        with opened_url(path) if is_url(path) else open(path, "rb") as raw, decompressed(raw) as file:
            yield raw, file
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _open_zst(raw: IO[bytes]) -> Any:
    import pyarrow  # the standard library has zstd only from Python 3.14 on

    return pyarrow.input_stream(raw, compression="zstd")


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zst,
}

COMPRESSED = tuple(_OPENERS)  # the suffixes of compressed files
