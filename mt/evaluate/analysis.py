"""What is behind a score: by sentence length, and the ways in which translation goes wrong."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mt.errors import DataError
from mt.evaluate.bleu import bleu_metric, check_lengths

_BUCKETS = (10, 20, 30, 40, 50)  # reference words, upper bounds; the last bucket is open

# Two or more characters at least three times in a row, as in "sehr gut sehr gut sehr gut"
_LOOP = re.compile(r"(\S.{1,80}?)\1{2,}")
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>|\ufffd")
_LONE_STOP = re.compile(r"\s[.!?]\s*$")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Bucket:
    """Sentences of like length, in words between white space of the first reference."""

    words: str  # such as 11-20
    sentences: int
    bleu: float
    length_ratio: float


@dataclass(frozen=True)
class Analysis:
    """Findings over a test set; each tuple holds the numbers of the lines concerned, from 1."""

    sentences: int
    bleu: float
    length_ratio: float  # output to reference, in BLEU's tokens
    exact: tuple[int, ...]  # equal to a reference
    empty: tuple[int, ...]
    repeated: tuple[int, ...]  # caught in a loop
    copied: tuple[int, ...]  # left in the source language
    byte_pieces: tuple[int, ...]  # byte-fallback pieces printed as <0x..>, or bytes that are no text
    tokenized: tuple[int, ...]  # ends in a full stop set apart, so not detokenised
    buckets: tuple[Bucket, ...]


Row = tuple[str, tuple[str, ...]]  # a translation and its references


def analyse(
    hypotheses: Sequence[str], *references: Sequence[str], sources: Sequence[str] | None = None, lang: str = ""
) -> Analysis:
    """Look for what a corpus score hides; a fault that a reference shares is not counted.

    Without sources, no copies are found. Raises DataError for unequal lengths.
    """
    check_lengths(hypotheses, *references)
    if sources is not None and len(sources) != len(hypotheses):
        raise DataError(f"{len(hypotheses):,} hypotheses but {len(sources):,} sources: they must match line for line")
    rows = [(hypothesis, tuple(given)) for hypothesis, *given in zip(hypotheses, *references, strict=True)]
    score, ratio = _bleu(rows, lang)
    return Analysis(
        sentences=len(hypotheses),
        bleu=score,
        length_ratio=ratio,
        exact=_lines(hypothesis.strip() in [reference.strip() for reference in given] for hypothesis, given in rows),
        empty=_faulty(rows, lambda text: not text.strip()),
        repeated=_faulty(rows, _is_repeated),
        copied=_copied(sources, rows) if sources is not None else (),
        byte_pieces=_faulty(rows, lambda text: _BYTE_PIECE.search(text) is not None),
        tokenized=_faulty(rows, lambda text: _LONE_STOP.search(text) is not None),
        buckets=tuple(_buckets(rows, lang)),
    )


def _lines(found: Iterable[bool]) -> tuple[int, ...]:
    return tuple(number for number, here in enumerate(found, 1) if here)


def _faulty(rows: Sequence[Row], is_faulty: Callable[[str], bool]) -> tuple[int, ...]:
    return _lines(is_faulty(hypothesis) and not any(map(is_faulty, given)) for hypothesis, given in rows)


def _is_repeated(text: str) -> bool:
    """Whether a stretch with a letter in it comes three times in a row over a dozen characters or more."""
    plain = re.sub(r"\W+", " ", text) + " "
    return any(len(loop[0]) >= 12 and _WORD.search(loop[1]) for loop in _LOOP.finditer(plain))


def _copied(sources: Sequence[str], rows: Sequence[Row]) -> tuple[int, ...]:
    return _lines(
        _is_copy(hypothesis, source) and not any(_is_copy(reference, source) for reference in given)
        for source, (hypothesis, given) in zip(sources, rows, strict=True)
    )


def _is_copy(text: str, source: str) -> bool:
    """Whether half the words or more are the source's, punctuation and numbers aside (Ott et al., 2018)."""
    words, source_words = _WORD.findall(text.lower()), set(_WORD.findall(source.lower()))
    return bool(words) and 2 * sum(word in source_words for word in words) >= len(words)


def _buckets(rows: Sequence[Row], lang: str) -> Iterator[Bucket]:
    low = 0
    for high in (*_BUCKETS, None):
        inside = [row for row in rows if low <= _words(row) and (high is None or _words(row) <= high)]
        if inside:
            score, ratio = _bleu(inside, lang)
            yield Bucket(f"{low}-{high}" if high else f"{low}+", len(inside), score, ratio)
        low = (high or 0) + 1


def _words(row: Row) -> int:
    return len(row[1][0].split())


def _bleu(rows: Sequence[Row], lang: str) -> tuple[float, float]:
    hypotheses = [hypothesis for hypothesis, _ in rows]
    references = list(zip(*(given for _, given in rows), strict=True))
    result = bleu_metric(lang).corpus_score(hypotheses, references)
    return float(result.score), float(result.ratio)
