"""What is behind a score: by sentence length, and the ways in which translation goes wrong."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sacrebleu import BLEU

from mt.errors import DataError
from mt.evaluate.bleu import check_lengths

_BUCKETS = (10, 20, 30, 40, 50)  # reference words, upper bounds; the last bucket is open

# Two or more characters at least three times in a row, as in "sehr gut sehr gut sehr gut"
_LOOP = re.compile(r"(\S.{1,80}?)\1{2,}")
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>|\ufffd")
_LONE_STOP = re.compile(r"\s[.!?]\s*$")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Bucket:
    """Sentences of like reference length, in words between white space."""

    words: str  # such as 11-20
    sentences: int
    bleu: float
    length_ratio: float


@dataclass(frozen=True)
class Analysis:
    """Findings over a test set; each tuple holds the numbers of the lines concerned, from 1."""

    sentences: int
    length_ratio: float  # output to reference, in BLEU's tokens
    exact: tuple[int, ...]  # equal to the reference
    empty: tuple[int, ...]
    repeated: tuple[int, ...]  # caught in a loop
    copied: tuple[int, ...]  # left in the source language
    byte_pieces: tuple[int, ...]  # byte-fallback pieces printed as <0x..>, or bytes that are no text
    tokenized: tuple[int, ...]  # ends in a full stop set apart, so not detokenised
    buckets: tuple[Bucket, ...]


def analyse(hypotheses: Sequence[str], references: Sequence[str], sources: Sequence[str] | None = None) -> Analysis:
    """Look for what a corpus score hides; a fault that the reference shares is not counted.

    Without sources, no copies are found. Raises DataError for unequal lengths.
    """
    check_lengths(hypotheses, references)
    if sources is not None and len(sources) != len(hypotheses):
        raise DataError(f"{len(hypotheses):,} hypotheses but {len(sources):,} sources: they must match line for line")
    pairs = list(zip(hypotheses, references, strict=True))
    return Analysis(
        sentences=len(hypotheses),
        length_ratio=_bleu(hypotheses, references)[1],
        exact=_lines(hypothesis.strip() == reference.strip() for hypothesis, reference in pairs),
        empty=_faulty(pairs, lambda text: not text.strip()),
        repeated=_faulty(pairs, _is_repeated),
        copied=_copied(sources, pairs) if sources is not None else (),
        byte_pieces=_faulty(pairs, lambda text: _BYTE_PIECE.search(text) is not None),
        tokenized=_faulty(pairs, lambda text: _LONE_STOP.search(text) is not None),
        buckets=tuple(_buckets(pairs)),
    )


def _lines(found: Iterable[bool]) -> tuple[int, ...]:
    return tuple(number for number, here in enumerate(found, 1) if here)


def _faulty(pairs: Sequence[tuple[str, str]], is_faulty: Callable[[str], bool]) -> tuple[int, ...]:
    return _lines(is_faulty(hypothesis) and not is_faulty(reference) for hypothesis, reference in pairs)


def _is_repeated(text: str) -> bool:
    """Whether a stretch with a letter in it comes three times in a row over a dozen characters or more."""
    plain = re.sub(r"\W+", " ", text) + " "
    return any(len(loop[0]) >= 12 and _WORD.search(loop[1]) for loop in _LOOP.finditer(plain))


def _copied(sources: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    return _lines(
        _is_copy(hypothesis, source) and not _is_copy(reference, source)
        for source, (hypothesis, reference) in zip(sources, pairs, strict=True)
    )


def _is_copy(text: str, source: str) -> bool:
    """Whether half the words or more are the source's, punctuation and numbers aside (Ott et al., 2018)."""
    words, source_words = _WORD.findall(text.lower()), set(_WORD.findall(source.lower()))
    return bool(words) and 2 * sum(word in source_words for word in words) >= len(words)


def _buckets(pairs: Sequence[tuple[str, str]]) -> Iterator[Bucket]:
    low = 0
    for high in (*_BUCKETS, None):
        inside = [
            pair for pair in pairs if low <= len(pair[1].split()) and (high is None or len(pair[1].split()) <= high)
        ]
        if inside:
            hypotheses, references = zip(*inside, strict=True)
            score, ratio = _bleu(hypotheses, references)
            yield Bucket(f"{low}-{high}" if high else f"{low}+", len(inside), score, ratio)
        low = (high or 0) + 1


def _bleu(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    result = BLEU(force=True).corpus_score(hypotheses, [references])
    return float(result.score), float(result.ratio)
