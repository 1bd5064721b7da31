"""Sentence pairs in blocks, which every reader of text yields, and the reader of two files line for line."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from mt.console import counted
from mt.data.lines import Lines
from mt.errors import DataError

BLOCK = 10_000  # pairs


@dataclass(frozen=True)
class Pairs:
    """Consecutive pairs of one entry of the config; invalid UTF-8 is lone surrogates."""

    source: list[str]
    target: list[str]
    numbers: Sequence[int]  # line or row of each pair, from 1
    share: float  # of the entry, read so far; 0 where that is unknown
    problems: dict[int, str] = field(default_factory=dict)  # index: why this row is not a pair
    line_feeds: int = 0  # fields in which a line feed became a space


Row = tuple[int, str, str, str]  # number, source, target, and why it is not a pair ("" when it is)


def text_pairs(source: str, target: str) -> Iterator[Pairs]:
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
    """Rows in blocks; `share` gives the share read so far, of the number of rows read."""
    read = 0
    while block := list(islice(rows, BLOCK)):
        numbers, sources, targets, reasons = (list(column) for column in zip(*block, strict=True))
        problems = {index: reason for index, reason in enumerate(reasons) if reason}
        read += len(block)
        yield one_line_pairs(sources, targets, numbers, share(read), problems)


def one_line_pairs(
    sources: list[str], targets: list[str], numbers: Sequence[int], share: float, problems: dict[int, str]
) -> Pairs:
    """Pairs from fields of tables, whose line feeds become spaces: prepared text has one sentence on each line."""
    changed = 0
    for side in (sources, targets):
        for index, text in enumerate(side):
            if "\n" in text:
                side[index] = text.replace("\r\n", " ").replace("\n", " ")
                changed += 1
    return Pairs(sources, targets, numbers, share, problems, changed)
