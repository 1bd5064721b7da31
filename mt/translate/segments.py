"""What is decoded at once: lines in pieces, each with its tag; a line too long for the model in parts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mt.config import DecodeConfig
from mt.console import counted
from mt.data.clean import valid_unicode
from mt.data.lines import refuse_giant
from mt.data.protect import Encoded, Encoder
from mt.data.tokenizer import Tokenizer
from mt.errors import DataError, UsageError

Tag = str | Sequence[str | None] | None  # for all lines, or one for each

# A sentence ends with its mark, closing quotes or brackets, then space; Chinese and Japanese marks need no space.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+|(?<=[。！？])")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Segment:
    """What is decoded at once: a line, or a part of a long one."""

    line: int
    part: int
    ids: list[int]
    values: list[str]  # what the numbered symbols among the ids stand for
    prefix: list[int]
    note: str
    whole: bool


def checked_lines(lines: Iterable[str], first: int = 1, name: str = "line") -> list[str]:
    """The lines as a list, lone surrogates replaced.

    Raises UsageError for what is not a list of strings, DataError for a line too long to be encoded.
    """
    if isinstance(lines, str):
        raise UsageError('a list of lines is needed, such as ["A man sleeps."]; this is one string')
    lines = list(lines)
    for number, line in enumerate(lines, first):
        if not isinstance(line, str):
            raise UsageError(f"{name} {number}: is {type(line).__name__}, not a string")
        refuse_giant(line, f"{name} {number}")
    return [valid_unicode(line) for line in lines]


def tag_ids(tag: Tag, count: int, source: Tokenizer) -> list[list[int]]:
    """The pieces before each line: its tag, or none."""
    tags = [tag] * count if isinstance(tag, str | None) else list(tag)
    if len(tags) != count:
        raise UsageError(f"{counted(count, 'line')} and {counted(len(tags), 'tag')}: give one for all, or one each")
    ids = {name: [source.tag_id(name)] for name in set(tags) if name}
    return [ids[name] if name else [] for name in tags]


def segments_of(
    lines: Sequence[str],
    encoder: Encoder,
    decode: DecodeConfig,
    first: int = 1,
    prefixes: Sequence[str] = (),
    tag: Tag = None,
) -> list[Segment]:
    """What is to be decoded: blank lines left out, long lines in parts."""
    wanted = [index for index, line in enumerate(lines) if line.strip()]
    sources = encoder.sources([lines[index] for index in wanted])
    starts = tag_ids(tag, len(lines), encoder.tokenizers.source)
    segments = []
    for index, source in zip(wanted, sources, strict=True):
        limit = max(1, decode.max_source - len(starts[index]))
        parts, note = [source], source.note
        if len(source.ids) > limit and decode.long_lines == "cut":
            kept = source.ids[:limit]
            parts = [Encoded(kept, encoder.values_in(kept, source.values))]
            note = f"cut after {limit} of {len(source.ids):,} pieces"
        elif len(source.ids) > limit:
            parts = split_line(lines[index], encoder, limit)
            note = f"{len(source.ids):,} pieces, translated in {len(parts):,} parts"
        prefix = encoder.prefix(prefixes[index], parts[0]) if prefixes else []
        if len(prefix) > decode.max_source:  # far longer than in training; time grows with the square
            raise DataError(
                f"prefix of line {first + index}: {len(prefix):,} pieces, more than decode.max_source="
                f"{decode.max_source}; shorten it, or raise that"
            )
        for part, encoded in enumerate(parts):
            begins = [] if part else prefix
            ids, whole = starts[index] + encoded.ids, len(source.ids) <= limit
            segments.append(Segment(first + index, part, ids, encoded.values, begins, note, whole))
    return segments


# --- Lines longer than a model can read at once ----------------------------------------------------------------------


def split_line(line: str, encoder: Encoder, limit: int) -> list[Encoded]:
    """Consecutive parts of a line, each of at most `limit` pieces.

    Parts end at sentence ends; inside a sentence longer than the limit, at spaces; inside such a word, anywhere.
    """
    parts: list[Encoded] = []
    for unit in _units(line, encoder, limit):
        fits = bool(parts) and len(parts[-1].ids) + len(unit.ids) <= limit
        if fits and (joined := encoder.joined(parts[-1], unit)) is not None:
            parts[-1] = joined
        else:
            parts.append(unit)
    return parts


def _units(line: str, encoder: Encoder, limit: int) -> Iterator[Encoded]:
    """What is kept together: a sentence; where it is too long, a word; or as many of its pieces as fit."""
    sentences = _cut_after(_SENTENCE_END, line)
    for sentence, encoded in zip(sentences, encoder.sources(sentences), strict=True):
        if len(encoded.ids) <= limit:
            yield encoded
            continue
        words = _cut_after(_SPACE, sentence)
        for word, encoded in zip(words, encoder.sources(words), strict=True):
            if len(encoded.ids) <= limit:
                yield encoded
                continue
            (ids,) = encoder.tokenizers.source.encode([word])
            yield from (Encoded(ids[start : start + limit], []) for start in range(0, len(ids), limit))


def _cut_after(pattern: re.Pattern[str], text: str) -> list[str]:
    ends = [found.end() for found in pattern.finditer(text)]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part]
