"""What lies behind a score: BLEU by sentence length, and the faults of single lines."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mt.evaluate.bleu import bleu_metric, check_lengths, is_exact

_BUCKETS = (10, 20, 30, 40, 50)  # reference words, upper bounds; the last bucket is open

# Two or more characters at least three times in a row, as in "sehr gut sehr gut sehr gut"
_LOOP = re.compile(r"(\S.{1,80}?)\1{2,}")
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>|\ufffd")
_SPACED_STOP = re.compile(r"\s[.!?]\s*$")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Bucket:
    """Sentences of similar length, in white-space separated words of the first reference."""

    words: str  # such as 11-20
    sentences: int
    bleu: float
    length_ratio: float


@dataclass(frozen=True)
class Analysis:
    """Findings over a test set; each tuple holds the numbers of the lines that show the fault, from 1."""

    sentences: int
    bleu: float
    length_ratio: float  # output to reference, in BLEU's tokens
    exact: tuple[int, ...]  # equal to a reference
    empty: tuple[int, ...]
    repeated: tuple[int, ...]  # caught in a loop
    copied: tuple[int, ...]  # left in the source language
    byte_pieces: tuple[int, ...]  # byte-fallback pieces printed as <0x..>, or bytes that are no text
    tokenized: tuple[int, ...]  # ends in a space and a full stop, so not detokenised
    buckets: tuple[Bucket, ...]


Row = tuple[str, str, tuple[str, ...]]  # source, translation, references


def analyse(
    hypotheses: Sequence[str], *references: Sequence[str], sources: Sequence[str] = (), lang: str = ""
) -> Analysis:
    """Look for what a corpus score hides; a fault that a reference shares is not counted.

    Without sources, no copies are found. Raises DataError when hypotheses and references differ in number.
    """
    check_lengths(hypotheses, *references)
    columns = zip(sources or [""] * len(hypotheses), hypotheses, *references, strict=True)
    rows = [(source, hypothesis, tuple(given)) for source, hypothesis, *given in columns]
    score, ratio = _bleu(rows, lang)
    return Analysis(
        sentences=len(hypotheses),
        bleu=score,
        length_ratio=ratio,
        exact=_lines(is_exact(hypothesis, given) for _, hypothesis, given in rows),
        empty=_faulty(rows, lambda text, _: not text.strip()),
        repeated=_faulty(rows, lambda text, _: _is_repeated(text)),
        copied=_faulty(rows, _is_copy),
        byte_pieces=_faulty(rows, lambda text, _: bool(_BYTE_PIECE.search(text))),
        tokenized=_faulty(rows, lambda text, _: bool(_SPACED_STOP.search(text))),
        buckets=tuple(_buckets(rows, lang)),
    )


def _lines(found: Iterable[bool]) -> tuple[int, ...]:
    return tuple(number for number, here in enumerate(found, 1) if here)


def _faulty(rows: Sequence[Row], is_faulty: Callable[[str, str], bool]) -> tuple[int, ...]:
    """The lines whose translation has a fault that no reference has; `is_faulty` is asked of a text and its source."""
    return _lines(
        is_faulty(hypothesis, source) and not any(is_faulty(reference, source) for reference in given)
        for source, hypothesis, given in rows
    )


def _is_repeated(text: str) -> bool:
    """Whether the same text, with a letter in it, comes three times in a row: 12 characters in all or more."""
    plain = re.sub(r"\W+", " ", text) + " "
    return any(len(loop[0]) >= 12 and _WORD.search(loop[1]) for loop in _LOOP.finditer(plain))


def _is_copy(text: str, source: str) -> bool:
    """Whether at least half of the words occur in the source, punctuation and numbers aside (Ott et al., 2018)."""
    words, source_words = _WORD.findall(text.lower()), set(_WORD.findall(source.lower()))
    return bool(words) and 2 * sum(word in source_words for word in words) >= len(words)


def _buckets(rows: Sequence[Row], lang: str) -> Iterator[Bucket]:
    low = 0
    for high in (*_BUCKETS, None):
        inside = [row for row in rows if low <= len(row[2][0].split()) <= (high or math.inf)]
        if inside:
            score, ratio = _bleu(inside, lang)
            yield Bucket(f"{low}-{high}" if high else f"{low}+", len(inside), score, ratio)
        low = (high or 0) + 1


def _bleu(rows: Sequence[Row], lang: str) -> tuple[float, float]:
    _, hypotheses, references = zip(*rows, strict=True)
    result = bleu_metric(lang).corpus_score(hypotheses, list(zip(*references, strict=True)))
    return float(result.score), float(result.ratio)
