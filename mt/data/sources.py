"""Sentence pairs from where they lie: text files, tables, `datasets`, or the demo grammar.

Lines end at a line feed and nowhere else: U+2028, U+0085 or a lone carriage return inside a line would otherwise put
the two sides out of step.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from mt.config import Source
from mt.errors import DataError

CHUNK = 10_000  # pairs handed on together
HUB_SECONDS = 3  # a hub that has not answered by then counts as unreachable


@dataclass(frozen=True)
class Chunk:
    """Pairs that follow one another in a source; invalid UTF-8 shows as lone surrogates.

    `first` is the number of the first pair, counted from 1; `problems` says which rows could not be read as a pair,
    and why; `line_feeds` counts the fields in which a line feed was turned into a space; `share` is how much of the
    source has been read with this chunk, 0 where that cannot be told.
    """

    source: list[str]
    target: list[str]
    first: int
    share: float
    problems: dict[int, str] = field(default_factory=dict)
    line_feeds: int = 0


def name_of(source: Source) -> str:
    """A source as errors and reports name it."""
    if source.dataset is not None:
        return " ".join(part for part in (source.dataset, source.config, source.split) if part)
    if source.demo is not None:
        return f"demo {source.split}"
    return str(source.prefix or source.pairs or source.src)


def read_pairs(source: Source, src: str, tgt: str, seed: int) -> Iterator[Chunk]:
    """The pairs of a source, `src` language first, in chunks.

    Raises DataError when a file is missing or damaged, and when two files that should match line for line do not.
    """
    if source.demo is not None:
        return _demo(source, src, tgt, seed)
    if source.dataset is not None:
        return _dataset(source, src, tgt)
    files = source_files(source, src, tgt)
    if source.pairs is None:
        return _text(*files)
    kind = _table_kind(files[0])
    if kind == ".tsv":
        return _tsv(files[0], source, src, tgt)
    if kind == ".jsonl":
        return _jsonl(files[0], src, tgt)
    return _parquet(files[0], src, tgt)


def source_files(source: Source, src: str, tgt: str) -> list[Path]:
    """The local files a source is made of, none for the hub; raises DataError when one is missing."""
    if source.prefix is not None:
        return [_with_any_suffix(source.prefix, language) for language in (src, tgt)]
    if source.pairs is not None:
        return [_existing(source.pairs)]
    if source.src is not None and source.tgt is not None:
        return [_existing(source.src), _existing(source.tgt)]
    if source.demo is not None:
        return sorted((Path(__file__).parent / "demo").glob("*.py"))  # another grammar is another text
    if source.dataset is not None and _is_folder(source.dataset):
        return [path for path in sorted(Path(source.dataset).rglob("[!.]*")) if path.is_file()]
    return []


# --- Files -------------------------------------------------------------------------------------------------------


def _with_any_suffix(prefix: str, language: str) -> Path:
    name = f"{prefix}.{language}"
    for suffix in ("", *_OPENERS):
        if (path := Path(name + suffix)).is_file():
            return path
    hint = f"; {prefix} is one file, name what both have in common" if Path(prefix).is_file() else _start(name)
    raise DataError(f"{name}: no such file, nor {', '.join(_OPENERS)} of it{hint}")


def _existing(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    what = "is a folder, not a file" if path.is_dir() else "no such file"
    raise DataError(f"{name}: {what}{_start(name)}")


def _start(name: str) -> str:
    return "" if Path(name).is_absolute() else f"; paths start at {Path.cwd()}"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file's bytes, decompressed by its suffix; whatever is wrong with them becomes a DataError."""
    with _opened(path) as (_, file):
        yield file


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Any]]:
    """The bytes on disk, and decompressed."""
    try:
        with open(path, "rb") as raw, _OPENERS.get(path.suffix.lower(), nullcontext)(raw) as file:
            yield raw, file
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _open_zst(raw: IO[bytes]) -> Any:
    import pyarrow  # the standard library knows zstd from Python 3.14 on

    return pyarrow.input_stream(raw, compression="zstd")


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zst,
}


class _Lines:
    """Lines without their end: a line feed, or carriage return and line feed. A byte-order mark is no text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = self._read()

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self) -> Iterator[str]:
        with _opened(self._path) as (self._raw, file):
            text = io.TextIOWrapper(io.BufferedReader(file), "utf-8", errors="surrogateescape", newline="\n")
            first = next(text, "").removeprefix("\ufeff")
            if first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
                raise DataError(f"{self._path}: UTF-16, not UTF-8 text; convert the file, with iconv for instance")
            for line in chain([first] if first else [], text):
                yield line.removesuffix("\n").removesuffix("\r")

    def share(self) -> float:
        """How much of the file has been read, in bytes as they lie on disk."""
        return 1.0 if self._raw.closed else self._raw.tell() / self._path.stat().st_size


def _text(source: Path, target: Path) -> Iterator[Chunk]:
    sources, targets = _Lines(source), _Lines(target)
    first = 1
    while True:
        chunk = Chunk(list(islice(sources, CHUNK)), list(islice(targets, CHUNK)), first, sources.share())
        read = len(chunk.source), len(chunk.target)
        if read[0] != read[1]:
            counts = first - 1 + read[0] + _count(sources), first - 1 + read[1] + _count(targets)
            longer = source if counts[0] > counts[1] else target
            raise DataError(
                f"{source} has {counts[0]:,} lines but {target} has {counts[1]:,}: "
                f"{longer}:{min(counts) + 1} is the first line without a partner"
            )
        if not read[0]:
            return
        yield chunk
        first += read[0]


def _count(items: Iterable[str]) -> int:
    return sum(1 for _ in items)


# --- Tables ------------------------------------------------------------------------------------------------------

Row = tuple[str, str, str]  # source, target, and "" or why this is no pair


def _table_kind(path: Path) -> str:
    for suffix in reversed(path.suffixes[-2:]):
        if suffix.lower() in (".tsv", ".jsonl", ".parquet"):
            return suffix.lower()
    raise DataError(f"{path}: pairs come from .tsv, .jsonl and .parquet files; give text files as prefix or src + tgt")


def _tsv(path: Path, source: Source, src: str, tgt: str) -> Iterator[Chunk]:
    """Columns are named by `columns`, else by a first line that names both languages, else they are source, target."""
    lines = _Lines(path)
    rows = _quoted_rows(lines, path) if source.quoted else (line.split("\t") for line in lines)
    head = next(rows, None)
    if head is None:
        return
    has_names = not source.columns and src in head and tgt in head
    names = head if has_names else list(source.columns or (src, tgt))
    if src not in names or tgt not in names:
        raise DataError(f"{path}: its columns {', '.join(names)} lack {src} or {tgt}")
    at = names.index(src), names.index(tgt)
    if len(head) != len(names):
        raise DataError(
            f"{path}:1: {len(head)} column(s), parted by tabs, where {', '.join(names)} are expected; "
            "columns: [...] says what each one holds"
        )
    all_rows, first = (rows, 2) if has_names else (chain([head], rows), 1)
    yield from _chunks((_tsv_row(row, at, len(head)) for row in all_rows), first, lambda read: lines.share())


def _tsv_row(row: list[str], at: tuple[int, int], width: int) -> Row:
    if len(row) == width:
        return row[at[0]], row[at[1]], ""
    return "\t".join(row), "", f"not {width} columns"


def _quoted_rows(lines: _Lines, path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader((line + "\n" for line in lines), delimiter="\t")
    try:
        yield from rows
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: cannot be read as a quoted .tsv: {error}") from None


def _jsonl(path: Path, src: str, tgt: str) -> Iterator[Chunk]:
    lines = _Lines(path)
    yield from _chunks((_json_row(line, src, tgt) for line in lines), 1, lambda read: lines.share())


def _json_row(line: str, src: str, tgt: str) -> Row:
    """One object a line, with a key for each language, at the top or under `translation`."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return line, "", "not JSON"
    if isinstance(record, dict) and isinstance(record.get("translation"), dict):
        record = record["translation"]
    if isinstance(record, dict):
        source, target = record.get(src), record.get(tgt)
        if isinstance(source, str) and isinstance(target, str):
            return source, target, ""
    return line, "", f"no text under {src} and {tgt}"


def _chunks(rows: Iterator[Row], first: int, share: Callable[[int], float]) -> Iterator[Chunk]:
    """share: of the source that has been read, given how many pairs have."""
    read = 0
    while chunk := list(islice(rows, CHUNK)):
        problems = {index: problem for index, (_, _, problem) in enumerate(chunk) if problem}
        start, read = first + read, read + len(chunk)
        yield _chunk([row[0] for row in chunk], [row[1] for row in chunk], start, share(read), problems)


def _chunk(source: list[str], target: list[str], first: int, share: float, problems: dict[int, str]) -> Chunk:
    """Fields of tables may hold line feeds, which would break the rule of one sentence a line."""
    broken = 0
    for side in (source, target):
        for index, text in enumerate(side):
            if "\n" in text:
                side[index] = text.replace("\r\n", " ").replace("\n", " ")
                broken += 1
    return Chunk(source, target, first, share, problems, broken)


# --- Arrow: Parquet files and the datasets library -------------------------------------------------------------------


def _parquet(path: Path, src: str, tgt: str) -> Iterator[Chunk]:
    import pyarrow
    import pyarrow.parquet

    with opened(path) as file:
        try:
            # Parquet is read from its end: what is compressed as a whole has to be in memory.
            table = pyarrow.parquet.ParquetFile(file if path.suffix.lower() == ".parquet" else io.BytesIO(file.read()))
            batches = (pyarrow.Table.from_batches([batch]) for batch in table.iter_batches(batch_size=CHUNK))
            yield from _arrow(batches, table.metadata.num_rows, src, tgt, str(path))
        except pyarrow.ArrowException as error:
            raise DataError(f"{path}: cannot be read as Parquet: {error}") from None


def _dataset(source: Source, src: str, tgt: str) -> Iterator[Chunk]:
    """A name on the hub, or a local folder in the same layout, which is streamed and so never copied into a cache."""
    is_local = _is_folder(source.dataset or "")
    is_offline = not is_local and not _hub_answers()
    if is_offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # else the library tries again for 23 s; what is in its cache still opens
    import datasets

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(source.dataset, source.config, split=source.split, streaming=is_local)
        rows = _rows_of_stream(data, source.split) if is_local else data.num_rows
        yield from _arrow(data.with_format("arrow").iter(CHUNK), rows, src, tgt, name_of(source))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if is_offline or isinstance(error, ConnectionError):
            raise DataError(
                f"{name_of(source)}: the Hugging Face hub cannot be reached; name a local folder of the same layout as "
                "dataset, or files as prefix, src + tgt, or pairs"
            ) from None
        raise DataError(f"{name_of(source)}: cannot be read: {str(error).splitlines()[0]}") from None


def _rows_of_stream(data: Any, split: str) -> int:
    """As the folder's README has it; 0 where it says nothing."""
    splits = data.info.splits or {}
    return int(splits[split].num_examples) if split in splits else 0


def _is_folder(dataset: str) -> bool:
    """Whether it is a local folder; raises DataError for a path that is none, which could be no hub name either."""
    if Path(dataset).is_dir():
        return True
    if dataset.startswith(("/", ".", "~")) or dataset.count("/") > 1:
        raise DataError(f"{dataset}: no such folder{_start(dataset)}")
    return False


def _hub_answers() -> bool:
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _arrow(tables: Iterable[Any], rows: int, src: str, tgt: str, name: str) -> Iterator[Chunk]:
    """Tables with a `translation` column of both languages, as WMT has, or with a column for each language.

    rows: of all tables, 0 where nobody knows.
    """
    read = 0
    for table in tables:
        flat = table.flatten()
        first, read = read + 1, read + table.num_rows
        share = min(1.0, read / rows) if rows else 0.0
        yield _chunk(_column(flat, src, name), _column(flat, tgt, name), first, share, {})


def _column(table: Any, language: str, name: str) -> list[str]:
    for column in (f"translation.{language}", language):
        if column in table.column_names:
            values = table.column(column).to_pylist()
            if all(isinstance(value, str | None) for value in values):
                return ["" if value is None else value for value in values]
    raise DataError(
        f"{name}: no text column {language}, nor translation with {language}: {', '.join(table.column_names)}"
    )


# --- The demo grammar --------------------------------------------------------------------------------------------


def _demo(source: Source, src: str, tgt: str, seed: int) -> Iterator[Chunk]:
    from mt.demo import demo_pairs

    if {src, tgt} != {"en", "de"}:
        raise DataError(
            f"the demo grammar speaks English and German: data.src and data.tgt are en and de, not {src}, {tgt}"
        )
    count = source.demo or 0
    pairs = demo_pairs(source.split, count, seed)
    rows = ((english, german, "") if src == "en" else (german, english, "") for english, german in pairs)
    yield from _chunks(rows, 1, lambda read: read / count)
