"""Lines longer than a model can read at once: split at sentence ends, or cut."""

import re
from collections.abc import Iterator

from mt.data.tokenizer import Tokenizer

# A sentence ends with its mark, closing quotes or brackets, then space; Chinese and Japanese marks need no space.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+|(?<=[。！？])")
_SPACE = re.compile(r"\s+")


def split_line(line: str, tokenizer: Tokenizer, limit: int) -> list[list[int]]:
    """The ids of consecutive parts of a line, each of at most `limit` pieces.

    Parts end at sentence ends; inside a sentence longer than the limit, at spaces; inside such a word, anywhere.
    """
    parts: list[list[int]] = []
    room = 0
    for ids in _units(line, tokenizer, limit):
        if len(ids) > room:
            parts.append([])
            room = limit
        parts[-1] += ids
        room -= len(ids)
    return parts


def _units(line: str, tokenizer: Tokenizer, limit: int) -> Iterator[list[int]]:
    """The ids of what must not be taken apart: sentences, where they are too long words, then as many pieces as fit."""
    sentences = _cut_after(_SENTENCE_END, line)
    for sentence, ids in zip(sentences, tokenizer.encode(sentences), strict=True):
        if len(ids) <= limit:
            yield ids
            continue
        for word in tokenizer.encode(_cut_after(_SPACE, sentence)):
            yield from (word[start : start + limit] for start in range(0, len(word), limit))


def _cut_after(pattern: re.Pattern[str], text: str) -> list[str]:
    ends = [found.end() for found in pattern.finditer(text)]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part]
