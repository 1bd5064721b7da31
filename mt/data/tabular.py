"""Sentence pairs from tables of text: TSV, plain or quoted as spreadsheets do, and JSON lines."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import chain

from mt.data.lines import Lines
from mt.data.pairs import Pairs, Row, row_pairs
from mt.data_config import Input
from mt.errors import DataError

LONGEST_ROW = 100  # lines; a longer quoted row is taken for an unclosed quote

Cells = tuple[int, list[str]]  # number of the row's first line, its columns


def tsv_pairs(path: str, entry: Input, src: str, tgt: str) -> Iterator[Pairs]:
    """Columns are named by `columns`, else by a header line with both languages; else they are source and target.

    Raises DataError when the columns do not fit, or when a quote is not closed.
    """
    lines = Lines(path)
    rows = (
        _quoted(lines, path) if entry.quoted else ((number, line.split("\t")) for number, line in enumerate(lines, 1))
    )
    first = next(rows, None)
    if first is None:
        return
    head = [cell.strip().lower() for cell in first[1]]
    has_header = not entry.columns and {src.lower(), tgt.lower()} <= set(head)
    names = head if has_header else [name.lower() for name in entry.columns or (src, tgt)]
    if src.lower() not in names or tgt.lower() not in names:
        raise DataError(f"{path}: its columns {', '.join(entry.columns)} lack {src} or {tgt}")
    if len(head) != len(names):
        raise DataError(
            f"{path}:1: {len(head)} column(s), separated by tabs, where {', '.join(entry.columns or names)} are "
            "expected; columns: [...] says what each one holds"
        )
    at = names.index(src.lower()), names.index(tgt.lower())
    is_header = [head[index] for index in at] == [src.lower(), tgt.lower()]
    all_rows = rows if is_header else chain([first], rows)
    yield from row_pairs((_tsv_row(row, at, len(head)) for row in all_rows), lambda read: lines.share())


def _tsv_row(row: Cells, at: Sequence[int], width: int) -> Row:
    number, cells = row
    if len(cells) == width:
        return number, cells[at[0]], cells[at[1]], ""
    return number, "\t".join(cells), "", f"not {width} columns"


def _quoted(lines: Lines, path: str) -> Iterator[Cells]:
    csv.field_size_limit(2**31 - 1)
    start = 1  # the line on which the row being read began

    def fed() -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            if number - start >= LONGEST_ROW:
                raise _bad_quotes(path, start, f"the row has more than {LONGEST_ROW} lines")
            yield f"{line}\n"

    rows = csv.reader(fed(), delimiter="\t", strict=True)
    try:
        for row in rows:
            yield start, row
            start = rows.line_num + 1
    except csv.Error as error:
        raise _bad_quotes(path, start, f"line {rows.line_num}: {error}") from None


def _bad_quotes(path: str, line: int, reason: str) -> DataError:
    return DataError(
        f"{path}:{line}: a quote in the row that begins here is not closed ({reason}); "
        'write a quote inside a quoted field as "", or leave quoted: true out if quotes are text'
    )


def jsonl_pairs(path: str, src: str, tgt: str) -> Iterator[Pairs]:
    """One object a line, with a key for each language, at the top or under `translation`."""
    lines = Lines(path)
    rows = (_json_row(number, line, src, tgt) for number, line in enumerate(lines, 1))
    yield from row_pairs(rows, lambda read: lines.share())


def _json_row(number: int, line: str, src: str, tgt: str) -> Row:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return number, line, "", "not JSON"
    if isinstance(record, dict) and isinstance(record.get("translation"), dict):
        record = record["translation"]
    if isinstance(record, dict):
        source, target = record.get(src), record.get(tgt)
        if isinstance(source, str) and isinstance(target, str):
            return number, source, target, ""
    return number, line, "", f"no text under {src} and {tgt}"
