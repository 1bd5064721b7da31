"""Which training pairs are dropped, why, and a sample of them to read."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mt.data.corpus import Corpus
from mt.data.lines import LONGEST_LINE
from mt.data.pairs import Pairs
from mt.data_config import CleanConfig

SAMPLE = 100  # dropped pairs kept for each reason
MANY = 0.1  # share of the pairs read above which one reason for drops is a warning
EXAMPLES = 3  # dropped pairs that the warning shows
SHOWN = 10_000  # characters of a dropped sentence that are kept

# What to do about many drops, by the beginning of their reason.
ADVICE = {
    "empty side": "is a side of the text missing?",
    "source equals target": "is one side untranslated? data.clean.copies=no keeps such pairs",
    "invalid UTF-8": "convert the text to UTF-8, from Latin-1 with iconv -f LATIN1 -t UTF-8",
    "control character": "data.clean.control=no keeps such pairs",
    "duplicate": "data.clean.duplicates=no keeps them",
    "too long": "split the text into sentences, or raise data.clean.max_pieces",
    "length ratio": "do the two sides go together, line for line? data.clean.max_ratio=0 allows any",
    "not JSON": "each line of a .jsonl file is one JSON object",
    "no text under": "data.src and data.tgt name the keys",
    "not ": "does text hold tabs? quoted: true reads tables that are quoted as spreadsheets do",
}

# Control characters except the tab, and the lone surrogates that stand for bytes which are not UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_problems(pairs: Pairs, rules: CleanConfig) -> dict[int, str]:
    """For each unusable pair, by its text alone: the row and the first reason that holds."""
    problems = dict(pairs.problems)
    for row, (source, target) in enumerate(zip(pairs.source, pairs.target, strict=True)):
        if row not in problems and (problem := _problem(source, target, rules)):
            problems[row] = problem
    return problems


def _problem(source: str, target: str, rules: CleanConfig) -> str:
    if rules.empty and (not source or source.isspace() or not target or target.isspace()):
        return "empty side"
    if len(source) > LONGEST_LINE or len(target) > LONGEST_LINE:
        return "too long"
    if rules.copies and source == target:
        return "source equals target"
    if source.isprintable() and target.isprintable():  # quick, and true of nearly all
        return ""
    if rules.invalid_utf8 and (_SURROGATE.search(source) or _SURROGATE.search(target)):
        return "invalid UTF-8"
    if rules.control and (_CONTROL.search(source) or _CONTROL.search(target)):
        return "control character"
    return ""


def valid_unicode(text: str) -> str:
    """The text with U+FFFD in place of bytes that are not UTF-8."""
    return text if text.isprintable() else _SURROGATE.sub("\ufffd", text)


def length_problems(pairs: Corpus, rules: CleanConfig) -> dict[int, str]:
    """The rows that are too long or whose sides differ too much in length, in pieces with their EOS."""
    long_N, short_N = pairs.lengths().max(axis=1), pairs.lengths().min(axis=1)
    unequal_N = long_N > (rules.max_ratio or np.inf) * short_N
    problems = dict.fromkeys(np.flatnonzero(unequal_N).tolist(), "length ratio")
    return problems | dict.fromkeys(np.flatnonzero(long_N > rules.max_pieces).tolist(), "too long")


Dropped = tuple[int, int, int, str, str]  # by chance, then the entry of data.train, line, source, target


class Drops:
    """Counts dropped pairs by reason, and keeps a random sample of each reason's.

    A pair's chance depends on the seed and its place alone, so that parts of a corpus can be added up in any order.
    """

    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._sample: dict[str, list[Dropped]] = {}

    def add(self, reason: str, place: tuple[int, int], source: str, target: str) -> None:
        """place: the entry of data.train, and the line in it."""
        self.counts[reason] += 1
        key = f"{self._seed} {place[0]} {place[1]}".encode()
        chance = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
        self._keep(reason, [(chance, *place, source[:SHOWN], target[:SHOWN])])

    def _keep(self, reason: str, dropped: Sequence[Dropped]) -> None:
        sample = self._sample.setdefault(reason, [])
        sample += dropped
        if len(sample) >= 2 * SAMPLE:
            self._sample[reason] = sorted(sample)[:SAMPLE]

    def merge(self, record: Mapping[str, Any]) -> None:
        """Add what `record` gave."""
        self.counts.update(record["counts"])
        for reason, sample in record["sample"].items():
            self._keep(reason, [(chance, entry, line, *pair) for chance, entry, line, *pair in sample])

    def record(self) -> dict[str, Any]:
        """What JSON can say of it."""
        return {"counts": dict(self.counts), "sample": {reason: self._chosen(reason) for reason in self._sample}}

    def _chosen(self, reason: str) -> list[Dropped]:
        return sorted(self._sample[reason])[:SAMPLE]

    def _to_read(self, reason: str) -> Iterator[tuple[int, int, str, str]]:
        """Of a reason, in the order of the text."""
        yield from sorted((entry, line, source, target) for _, entry, line, source, target in self._chosen(reason))

    def warnings(self, read: int, names: Sequence[str]) -> Iterator[str]:
        """Each reason that dropped more than a tenth of the pairs read, with examples and what to do about it.

        names: of the entries of data.train.
        """
        for reason in (reason for reason, count in self.counts.items() if count > MANY * read):
            advice = next(advice for start, advice in ADVICE.items() if reason.startswith(start))
            examples = [
                f"\n  {names[entry]}:{line}  {_shortened(source)} | {_shortened(target)}"
                for entry, line, source, target in islice(self._to_read(reason), EXAMPLES)
            ]
            yield f"{self.counts[reason]:,} of {read:,} training pairs dropped ({reason}): {advice}{''.join(examples)}"

    def write(self, path: Path, names: Sequence[str]) -> None:
        """A table of reason, place, source and target; tabs and the like in the text are written as escapes."""
        rows = [("reason", "where", "source", "target")]
        for reason in sorted(self._sample):
            found = self._to_read(reason)
            rows += [(reason, f"{names[entry]}:{line}", source, target) for entry, line, source, target in found]
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines("\t".join(_printable(field) for field in row) + "\n" for row in rows)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """A character as an escape; a byte that is not UTF-8, which was read as a surrogate, as that byte."""
    byte = ord(char) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode()


def _shortened(text: str) -> str:
    return _printable(text if len(text) <= 40 else f"{text[:39]}…")
