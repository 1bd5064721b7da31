"""Protected text: what `data.protect` names becomes numbered symbols, which the model copies, and is put back.

A training pair is protected when the same text matches on both sides: match number n of the source becomes symbol
number n there, and so does the same text in the target. A line to translate is protected by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mt.data.tokenizer import Tokenizer
from mt.data.vocabulary import Tokenizers
from mt.errors import DataError
from mt.patterns import NUMBERED, SlowPatternError, find_all

PROTECTED = "protected"
UNPROTECTED = "translated without data.protect"


@dataclass(frozen=True)
class Marked:
    """A line with numbered symbols: text, symbol, text, symbol, and so on; and what the symbols stand for."""

    parts: list[str]
    values: list[str]
    note: str = ""  # why it has no symbols although something matches

    @property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass(frozen=True)
class Encoded:
    """A line as ids, and what its numbered symbols stand for."""

    ids: list[int]
    values: list[str]
    note: str = ""


class Protection:
    """What `data.protect` names; nothing by default."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.patterns = patterns

    def line(self, line: str) -> Marked:
        """A line by itself. It stays as it is where more matches than there are symbols."""
        try:
            spans = find_all(self.patterns, line)
        except SlowPatternError as error:
            return Marked([line], [], f"{UNPROTECTED}: {error}")
        if len(spans) > len(NUMBERED):
            return Marked([line], [], f"{UNPROTECTED}: {len(spans):,} matches, more than {len(NUMBERED)}")
        return _marked(line, spans, [line[start:end] for start, end in spans])

    def pair(self, source: str, target: str) -> tuple[Marked, Marked]:
        """Both sides of a pair. They stay as they are, with a note, where the sides do not match equally.

        Raises DataError for a pattern that takes too long.
        """
        try:
            source_spans, target_spans = find_all(self.patterns, source), find_all(self.patterns, target)
        except SlowPatternError as error:
            raise DataError(str(error)) from None
        values = [source[start:end] for start, end in source_spans]
        note = ""
        if sorted(values) != sorted(target[start:end] for start, end in target_spans):
            note = "as they are: their sides do not match equally"
        elif len(values) > len(NUMBERED):
            note = f"as they are: more than {len(NUMBERED)} matches"
        if note:
            return Marked([source], [], note), Marked([target], [], note)
        return _marked(source, source_spans, values), _marked(target, target_spans, values)

    def prefix(self, prefix: str, values: Sequence[str]) -> Marked:
        """The beginning of a translation, in which text that stands in the source becomes its symbol."""
        left = list(values)
        spans = []
        for start, end in find_all(self.patterns, prefix) if values else ():
            if prefix[start:end] in left:
                left.remove(prefix[start:end])
                spans.append((start, end))
        return _marked(prefix, spans, values)


def _marked(line: str, spans: Sequence[tuple[int, int]], values: Sequence[str]) -> Marked:
    """A line with the symbol of its value in place of each span; equal values take their symbols in order."""
    free = list(zip(values, NUMBERED, strict=False))
    parts, done = [], 0
    for start, end in spans:
        chosen = next(pair for pair in free if pair[0] == line[start:end])
        free.remove(chosen)
        parts += [line[done:start], chosen[1]]
        done = end
    return Marked([*parts, line[done:]], list(values))


class Encoder:
    """Lines to ids and back, with what is protected in them as numbered symbols."""

    def __init__(self, tokenizers: Tokenizers, protection: Protection | None = None) -> None:
        self.tokenizers = tokenizers
        self._protection = protection or Protection()
        self._source_ids = [tokenizers.source.symbols.get(symbol, -1) for symbol in NUMBERED]
        self._target_ids = [tokenizers.target.symbols.get(symbol, -1) for symbol in NUMBERED]

    def sources(self, lines: Iterable[str]) -> list[Encoded]:
        """Lines to translate."""
        return _encoded(self.tokenizers.source, [self._protection.line(line) for line in lines])

    def pairs(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[list[Encoded], list[Encoded]]:
        """Sources and targets that go together; raises DataError for a pattern that takes too long."""
        if not self._protection.patterns:
            sides = self.tokenizers.source.encode(list(sources)), self.tokenizers.target.encode(list(targets))
            return [Encoded(ids, []) for ids in sides[0]], [Encoded(ids, []) for ids in sides[1]]
        marked = [self._protection.pair(source, target) for source, target in zip(sources, targets, strict=True)]
        source_side = _encoded(self.tokenizers.source, [source for source, _ in marked])
        return source_side, _encoded(self.tokenizers.target, [target for _, target in marked])

    def prefix(self, prefix: str, source: Encoded) -> list[int]:
        """The ids that the translation of a source has to begin with."""
        (ids,) = self.tokenizers.target.encode_with_symbols([self._protection.prefix(prefix, source.values).parts])
        return ids

    def joined(self, left: Encoded, right: Encoded) -> Encoded | None:
        """Two parts of a line as one source, numbered anew; None where there are too few numbers."""
        values = left.values + right.values
        if len(values) > len(NUMBERED):
            return None
        renumbered = dict(zip(self._source_ids, self._source_ids[len(left.values) :], strict=False))
        moved = [renumbered.get(index, index) for index in right.ids] if left.values and right.values else right.ids
        return Encoded(left.ids + moved, values, left.note or right.note)

    def decode(self, outputs: Sequence[tuple[Sequence[int], Sequence[str]]]) -> list[str | None]:
        """The text of each output, given with the values of its source, these in place.

        None where its symbols are not those of its source. All go to sentencepiece at once: each call takes 30 us.
        """
        numbers = {index: number for number, index in enumerate(self._target_ids) if index >= 0}
        places = [[place for place, index in enumerate(ids) if index in numbers] for ids, _ in outputs]
        # A part that begins with its symbol keeps the space after it, which a line loses at its beginning.
        parts = self.tokenizers.target.decode(
            [
                ids[start:end]
                for (ids, _), cuts in zip(outputs, places, strict=True)
                for start, end in pairwise([0, *cuts, len(ids)])
            ]
        )
        texts, rest = list[str | None](), iter(parts)
        for (ids, values), cuts in zip(outputs, places, strict=True):
            text, found = next(rest), [numbers[ids[place]] for place in cuts]
            after = [part.removeprefix(NUMBERED[number]) for number, part in zip(found, rest, strict=False)]
            is_whole = sorted(found) == list(range(len(values)))
            shown = (values[number].replace("\n", " ") + part for number, part in zip(found, after, strict=True))
            texts.append("".join([text, *shown]) if is_whole else None)
        return texts

    def values_in(self, ids: Sequence[int], values: Sequence[str]) -> list[str]:
        """Those of a source's values that are left where the line was cut."""
        return list(values[: sum(index in self._source_ids for index in ids)])

    def never(self, values: Sequence[str]) -> list[bool]:
        """Of each symbol of the target, whether no output of a source with these values may contain it."""
        allowed = set(self._target_ids[: len(values)])
        return [index not in allowed for index in self.tokenizers.target.symbols.values()]


def _encoded(tokenizer: Tokenizer, lines: Sequence[Marked]) -> list[Encoded]:
    ids = tokenizer.encode_with_symbols([line.parts for line in lines])
    return [Encoded(of_line, line.values, line.note) for of_line, line in zip(ids, lines, strict=True)]
