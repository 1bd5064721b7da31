"""Parquet files as Arrow streams of rows: read in parts, with the column of text, and written whole."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mt.data.lines import opened
from mt.errors import DataError
from mt.files import writing
from mt.translate.reading import next_size

GROUP_ROWS, GROUP_BYTES = 100_000, 64 << 20  # of a row group


def arrow_streams(name: str, most: int) -> Iterator[tuple[int, bytes]]:
    """Arrow streams of rows, cut where lines of text would be, each with the number of its first; 0: the schema alone.

    Raises DataError naming the file where it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    with opened(name) as file:
        try:
            # Parquet is read from its end, which not every store and no compressed file can give.
            whole = pyarrow.parquet.ParquetFile(file if file.seekable() else io.BytesIO(file.read()))
            yield 0, to_stream(whole.schema_arrow.empty_table())
            first, rows = 1, pyarrow.Table.from_batches([], whole.schema_arrow)
            for batch in whole.iter_batches(most):
                rows = pyarrow.concat_tables([rows, pyarrow.Table.from_batches([batch])])
                while rows.num_rows >= (size := next_size(most, first - 1)):
                    yield first, to_stream(rows.slice(0, size))
                    first, rows = first + size, rows.slice(size)
            if rows.num_rows:
                yield first, to_stream(rows)
        except pyarrow.ArrowException as error:
            raise DataError(f"{name}: cannot be read as Parquet: {error}") from None


def to_stream(table: Any) -> bytes:
    import pyarrow

    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def from_stream(data: bytes) -> Any:
    import pyarrow

    with pyarrow.ipc.open_stream(data) as stream:
        return stream.read_all()


def texts_in(table: Any, fields: Sequence[str], name: str) -> list[str]:
    """The text of each row, from the first of the columns that is there; an empty cell gives an empty text.

    fields: names of columns, or of columns and what lies in them, with dots between. Raises DataError naming the file.
    """
    import pyarrow

    found = next((column for column in (_column(table, field) for field in fields) if column is not None), None)
    if found is None:
        have = ", ".join(table.column_names)
        raise DataError(f"{name}: no column {' or '.join(fields)}, but {have}; name one with --field")
    if pyarrow.types.is_dictionary(found.type):
        found = found.cast(found.type.value_type)
    if not (pyarrow.types.is_string(found.type) or pyarrow.types.is_large_string(found.type)):
        raise DataError(f"{name}: column {fields[0]} holds {found.type}, not text; name another with --field")
    return ["" if text is None else text.replace("\n", " ") for text in found.to_pylist()]


def _column(table: Any, field: str) -> Any:
    """A column, or a part of a structured one; None where there is none of that name."""
    import pyarrow
    import pyarrow.compute

    if field in table.column_names:
        return table.column(field)
    outer, _, inner = field.partition(".")
    if not inner or outer not in table.column_names:
        return None
    column = table.column(outer)
    is_there = pyarrow.types.is_struct(column.type) and column.type.get_field_index(inner) >= 0
    return pyarrow.compute.struct_field(column, inner) if is_there else None


class ParquetOutput:
    """A Parquet file that is written in groups of rows; raises WriteError naming the output."""

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target = path, Path(target)
        self._writer: Any = None
        self._tables: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes) -> None:
        """Take rows as an Arrow stream; the first stream says which columns there are."""
        import pyarrow.parquet

        table = from_stream(data)
        if self._writer is None:
            with writing(self._target):
                self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        self._tables.append(table)
        if sum(map(len, self._tables)) >= GROUP_ROWS or sum(table.nbytes for table in self._tables) >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        table = pyarrow.concat_tables(self._tables)
        with writing(self._target):
            if len(table):
                self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._tables = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._tables:
            self._flush()
        if self._writer is not None:
            with writing(self._target):
                self._writer.close()
