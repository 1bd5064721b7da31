"""Files cut into blocks that any machine can translate, and put together again in order; knows no model."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mt.console import Console, counted
from mt.errors import DataError, Interrupted, MtError
from mt.files import give_name, writing
from mt.remote import is_url, upload
from mt.translate.parquet import ParquetOutput, arrow_streams
from mt.translate.plan import Job, Source, table_field
from mt.translate.reading import Reader, next_size

REPORT_SECONDS = 30  # between lines of progress where there is no terminal
SHOWN_NOTES = 20  # so many lines with a note are named one by one


@dataclass(frozen=True)
class Block:
    """Lines or rows that follow one another; the block before a file's first says how its output begins."""

    file: int  # which of the sources
    first: int  # the number of the first line or row, counted from 1; 0: none yet
    data: bytes = b""  # lines with their ends; of Parquet an Arrow stream
    head: str = ""  # the first line of a table with tabs
    error: str = ""  # why the file cannot be read from here on


@dataclass(frozen=True)
class Translated:
    """What a block became."""

    file: int
    rows: int
    data: bytes  # as in the output; of Parquet an Arrow stream
    notes: list[str]  # what was done to lines that are too long, and the like
    error: str = ""  # why the block could not be translated


def read_blocks(file: int, source: Source, job: Job, language: str, most: int) -> Iterator[Block]:
    """The blocks of a file, of at most so many lines or rows, cut where `mt translate` cuts; language: of the source.

    An error that a person can act on ends them, as the last block.
    """
    try:
        if source.kind == "parquet":
            for first, data in arrow_streams(source.name, most):
                yield Block(file, first, data)
        else:
            yield from _line_blocks(file, source, job, language, most)
    except MtError as error:
        yield Block(file, 0, error=str(error))


def _line_blocks(file: int, source: Source, job: Job, language: str, most: int) -> Iterator[Block]:
    reader = Reader(source.name, None, job.errors)
    head = reader.peek() if source.kind == "tsv" else ""
    yield Block(file, 0, head=head)
    if source.kind == "tsv" and not table_field(job.field, language, head).isdecimal():
        reader.read(1)
    while (chunk := reader.read(next_size(most, reader.done))).lines:
        yield Block(file, chunk.first, b"".join(chunk.lines), head)


def write_outputs(sources: Sequence[Source], blocks: Iterable[Translated], console: Console) -> None:
    """Write the outputs of files whose blocks come in order.

    Raises DataError for the first block that could not be translated, WriteError naming the output that cannot be
    written, Interrupted after a Ctrl-C.
    """
    begun = last_told = time.monotonic()
    rows, written, notes = 0, 0, 0
    try:
        with console.track("translating") as advance:
            for file, of_file in groupby(blocks, key=lambda block: block.file):
                with _output_of(sources[file]) as write:
                    for block in of_file:
                        if block.error:
                            raise DataError(block.error)
                        write(block.data)
                        for note in block.notes[: max(0, SHOWN_NOTES - notes)]:
                            console.warn(note)
                        rows, notes = rows + block.rows, notes + len(block.notes)
                        advance(block.rows, written / len(sources))
                        if not console.is_terminal and time.monotonic() - last_told > REPORT_SECONDS:
                            last_told = time.monotonic()
                            rate = f"{rows / (last_told - begun):,.0f} lines/s"
                            console.say(f"{sources[file].name}: {counted(rows, 'line')} of all files, {rate}")
                written += 1
                console.say(f"{written:,} of {counted(len(sources), 'file')}: {sources[file].target}")
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after {counted(written, 'file')}; the same command goes on with the rest") from None
    if notes > SHOWN_NOTES:
        console.warn(f"{counted(notes - SHOWN_NOTES, 'more line')} like these")


@contextmanager
def _output_of(source: Source) -> Iterator[Callable[[bytes], None]]:
    """Yield what writes the next block; the output gets its name when all is written, and after an error nothing does.

    Raises WriteError.
    """
    path = Path(source.target)
    if not is_url(source.target):
        partial = path.with_name(f".{path.name}.partial")
        try:
            with _growing(partial, source) as write:
                yield write
            with writing(path):
                give_name(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    else:
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / path.name
            with _growing(partial, source) as write:
                yield write
            upload(partial, source.target)


@contextmanager
def _growing(path: Path, source: Source) -> Iterator[Callable[[bytes], None]]:
    if source.kind == "parquet":
        with ParquetOutput(path, source.target) as output:
            yield output.write
        return
    with writing(Path(source.target)):
        file = path.open("wb")

    def write(data: bytes) -> None:
        with writing(Path(source.target)):
            file.write(data)

    with file:
        yield write
