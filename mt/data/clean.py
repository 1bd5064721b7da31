"""Which training pairs are dropped, why, and a sample of them to read."""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

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


class SeenPairs:
    """The pairs met so far, as hashes of 8 bytes: of 4.5 million pairs, two collide with a chance of 1 in 2 million."""

    def __init__(self) -> None:
        self._runs: list[npt.NDArray[np.uint64]] = []  # sorted, each at least twice as long as the next

    def repeated(self, sources: list[str], targets: list[str]) -> npt.NDArray[np.bool_]:
        """Whether each pair equals an earlier one, in this call or before; remembers the others."""
        hashes_N = np.array([_hash(*pair) for pair in zip(sources, targets, strict=True)], dtype=np.uint64)
        repeated_N = np.ones(len(hashes_N), dtype=bool)
        repeated_N[np.unique(hashes_N, return_index=True)[1]] = False
        for run in self._runs:
            repeated_N |= run[np.minimum(np.searchsorted(run, hashes_N), len(run) - 1)] == hashes_N
        self._remember(hashes_N[~repeated_N])
        return repeated_N

    def _remember(self, hashes: npt.NDArray[np.uint64]) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(hashes):
            hashes = np.concatenate([self._runs.pop(), hashes])
        if len(hashes):
            self._runs.append(np.sort(hashes))


def _hash(source: str, target: str) -> int:
    text = f"{source}\n{target}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Drops:
    """Counts dropped pairs by reason, and keeps a random sample of each reason's."""

    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._sample: dict[str, list[tuple[str, str, str]]] = {}

    def add(self, reason: str, place: str, source: str, target: str) -> None:
        self.counts[reason] += 1
        sample = self._sample.setdefault(reason, [])
        # Reservoir sampling: every dropped pair is kept with the same probability.
        index = len(sample) if len(sample) < SAMPLE else self._random.randrange(self.counts[reason])
        if index < SAMPLE:
            sample[index : index + 1] = [(place, source[:SHOWN], target[:SHOWN])]

    def warnings(self, read: int) -> Iterator[str]:
        """Each reason that dropped more than a tenth of the pairs read, with examples and what to do about it."""
        for reason in (reason for reason, count in self.counts.items() if count > MANY * read):
            advice = next(advice for start, advice in ADVICE.items() if reason.startswith(start))
            examples = [
                f"\n  {place}  {_shortened(source)} | {_shortened(target)}"
                for place, source, target in self._sample[reason][:EXAMPLES]
            ]
            yield f"{self.counts[reason]:,} of {read:,} training pairs dropped ({reason}): {advice}{''.join(examples)}"

    def write(self, path: Path) -> None:
        """A table of reason, place, source and target; tabs and the like in the text are written as escapes."""
        rows = [("reason", "where", "source", "target")]
        for reason in sorted(self._sample):
            rows += [(reason, *dropped) for dropped in self._sample[reason]]
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
