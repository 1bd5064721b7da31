"""Training pairs to ids. Words come back, so their pieces are remembered: twice as quick as cutting each line anew."""

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mt.data.corpus import Corpus, Ids, Sentences
from mt.data.protect import PROTECTED, Protection
from mt.data.tokenizer import EOS, SPACE_MARK, Tokenizer
from mt.data.vocabulary import Tokenizers

MOST_CHARACTERS = 4_000_000  # of the words remembered, about 350,000 of them, which take 80 MB; then it starts anew
END, EMPTY = "\n", "\n\n"  # which no word can be


class PairEncoder:
    """Sources and targets that go together as a corpus in memory. Threads must not share an object."""

    def __init__(self, tokenizers: Tokenizers, protection: Protection | None = None) -> None:
        self.tokenizers = tokenizers
        self._protection = protection or Protection()
        self._source = WordMemory(tokenizers.source)
        self._target = self._source if tokenizers.is_joint else WordMemory(tokenizers.target)

    def encode(self, sources: list[str], targets: list[str], tag: str | None = None) -> tuple[Corpus, Counter[str]]:
        """The pairs with a tag before each source; and what became of those in which something is to be protected.

        Raises DataError for a pattern that takes too long.
        """
        start = [self.tokenizers.source.tag_id(tag)] if tag else []
        if not self._protection.patterns:
            sides = self.tokenizers.source.escaped(sources), self.tokenizers.target.escaped(targets)
            return Corpus(self._source.sentences(sides[0], start), self._target.sentences(sides[1])), Counter()
        marked = [self._protection.pair(source, target) for source, target in zip(sources, targets, strict=True)]
        sides = (
            self.tokenizers.source.escaped_around_symbols(source.parts for source, _ in marked),
            self.tokenizers.target.escaped_around_symbols(target.parts for _, target in marked),
        )
        outcomes = Counter(source.note or PROTECTED for source, _ in marked if source.note or source.values)
        return Corpus(self._source.sentences(sides[0], start), self._target.sentences(sides[1])), outcomes


class WordMemory:
    """The pieces of words met before, of a tokenizer that cuts each word alone; any other one cuts whole lines."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, bytes] = {}  # of words, of which a line without text and a line's end are two
        self._characters = 0

    def sentences(self, escaped: list[str], start: Sequence[int] = ()) -> Sentences:
        """What the tokenizer makes of escaped lines, with these ids before each and EOS after it."""
        if not escaped or not self._tokenizer.cuts_words_alone:
            return Sentences.from_lists([[*start, *ids] for ids in self._tokenizer.cut(escaped)])
        words = f" {END} ".join(line or EMPTY for line in escaped).split(" ")  # one split of all is quicker than many
        self._remember(set(words))
        first, end = _as_bytes(start), _as_bytes([EOS])
        self._ids[END] = end + first
        ids: Ids = np.frombuffer(b"".join([first, *map(self._ids.__getitem__, words), end]), dtype=np.uint16)
        return Sentences(ids, np.append(0, np.flatnonzero(ids == EOS) + 1))

    def _remember(self, words: set[str]) -> None:
        if self._characters > MOST_CHARACTERS:
            self._ids, self._characters = {}, 0
        self._ids |= {EMPTY: b"", END: b"", "": _as_bytes([self._tokenizer.text_pieces[SPACE_MARK][0]])}
        new = list(words.difference(self._ids))
        self._ids.update(zip(new, map(_as_bytes, self._tokenizer.cut(new)), strict=True))
        self._characters += sum(map(len, new))


def _as_bytes(ids: Sequence[int]) -> bytes:
    return array("H", ids).tobytes()
