"""Opening a model for translation, and translating whole files with it."""

import os
import sys
from pathlib import Path
from typing import BinaryIO

from mt.console import Console
from mt.errors import DataError
from mt.translate.translator import Translator


def open_translator(
    path: Path, device: str, beam: int | None, alpha: float | None, average: int | None, console: Console
) -> Translator:
    """A translator from a run or a checkpoint; None means what the run's config says.

    Raises CheckpointError when there is no whole checkpoint.
    """
    asked = {name: value for name, value in (("beam", beam), ("alpha", alpha)) if value is not None}
    translator = Translator(path, device=device, average=average, decode=asked)
    mean = f"average of {average} up to " if average else ""
    console.say(f"model: {mean}{translator.checkpoints[0]}")
    return translator


# Lines translated together: enough to sort into full batches, few enough to hold of a file of any size.
CHUNK_LINES = 10_000


def translate_file(translator: Translator, input_file: Path | None, output_file: Path | None, console: Console) -> None:
    """Translate a file (None: stdin) into another (None: stdout), one line for each line, in order.

    The output gets its name when it is whole. Raises DataError when a file cannot be read or written.
    """
    source = _open_input(input_file)
    if output_file is None:
        _translate_lines(translator, source, sys.stdout.buffer, input_file, console)
        return
    partial = output_file.with_name(f".{output_file.name}.partial")
    try:
        with partial.open("wb") as target:
            _translate_lines(translator, source, target, input_file, console)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(output_file)
    except OSError as error:
        raise DataError(f"{output_file}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _open_input(path: Path | None) -> BinaryIO:
    if path is None:
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _translate_lines(
    translator: Translator, source: BinaryIO, target: BinaryIO, name: Path | None, console: Console
) -> None:
    # Someone typing wants each line answered; a file wants full batches.
    chunk_lines = 1 if source.isatty() else CHUNK_LINES
    first = 1
    with source, console.track("translating") as advance:
        while chunk := _read_chunk(source, chunk_lines):
            lines = [_decoded(line, name, number) for number, line in enumerate(chunk, first)]
            target.write("".join(f"{line}\n" for line in translator(lines, advance)).encode())
            target.flush()
            first += len(chunk)


def _read_chunk(source: BinaryIO, count: int) -> list[bytes]:
    """The next lines, split at line feeds alone."""
    chunk: list[bytes] = []
    while len(chunk) < count and (line := source.readline()):
        chunk.append(line)
    return chunk


def _decoded(line: bytes, name: Path | None, number: int) -> str:
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise DataError(
            f"{name or 'stdin'}:{number}: not UTF-8 text; convert the file, with iconv for instance"
        ) from None
