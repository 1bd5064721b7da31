"""Sentence pairs in blocks, as every reader of text hands them on, and the reader of two files line for line."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mt.console import counted
from mt.data.lines import Lines
from mt.errors import DataError

BLOCK = 10_000  # pairs handed on together


@dataclass(frozen=True)
class Pairs:
    """Pairs that follow one another in a source of text; invalid UTF-8 shows as lone surrogates."""

    source: list[str]
    target: list[str]
    numbers: Sequence[int]  # the line or row each pair stands on, counted from 1
    share: float  # how much of the source of text has been read with these, 0 where that cannot be told
    problems: dict[int, str] = field(default_factory=dict)  # index: why this could not be read as a pair
    line_feeds: int = 0  # fields in which a line feed was turned into a space


Row = tuple[int, str, str, str]  # number, source, target, and "" or why this is no pair


def text_pairs(source: Path, target: Path) -> Iterator[Pairs]:
    """Two text files line for line; raises DataError when one has more lines."""
    sources, targets = Lines(source), Lines(target)
    first = 1
    while True:
        source_lines, target_lines = list(islice(sources, BLOCK)), list(islice(targets, BLOCK))
        read = len(source_lines), len(target_lines)
        if read[0] != read[1]:
            counts = first - 1 + read[0] + _count(sources), first - 1 + read[1] + _count(targets)
            longer = source if counts[0] > counts[1] else target
            raise DataError(
                f"{source} has {counted(counts[0], 'line')} but {target} has {counts[1]:,}: "
                f"{longer}:{min(counts) + 1} is the first line without a partner"
            )
        if not read[0]:
            return
        yield Pairs(source_lines, target_lines, range(first, first + read[0]), sources.share())
        first += read[0]


def _count(items: Iterable[str]) -> int:
    return sum(1 for _ in items)


def row_pairs(rows: Iterator[Row], share: Callable[[int], float]) -> Iterator[Pairs]:
    """Rows in blocks; share: how much has been read, given how many rows have."""
    read = 0
    while block := list(islice(rows, BLOCK)):
        numbers, sources, targets, reasons = (list(column) for column in zip(*block, strict=True))
        problems = {index: reason for index, reason in enumerate(reasons) if reason}
        read += len(block)
        yield one_line_pairs(sources, targets, numbers, share(read), problems)


def one_line_pairs(
    sources: list[str], targets: list[str], numbers: Sequence[int], share: float, problems: dict[int, str]
) -> Pairs:
    """Fields of tables may hold line feeds, which would break the rule of one sentence a line: they become spaces."""
    changed = 0
    for side in (sources, targets):
        for index, text in enumerate(side):
            if "\n" in text:
                side[index] = text.replace("\r\n", " ").replace("\n", " ")
                changed += 1
    return Pairs(sources, targets, numbers, share, problems, changed)
