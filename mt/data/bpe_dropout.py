"""BPE-dropout: in training, each merge of a word's pieces is skipped at random (Provilkov et al., 2020).

Each word of each epoch has one random number in [0, 1), which decides all its merges as in arithmetic decoding: each
decision splits the interval that the number lies in, so that every segmentation belongs to an interval of numbers.
A cache keeps segmentations with their intervals; it changes the speed, never the result.
"""

from bisect import bisect_right
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mt.data.batches import Rows
from mt.data.corpus import Ids, Integers, Sentences
from mt.data.tokenizer import SPACE_MARK, Tokenizer
from mt.errors import DataError

KEPT = 300_000  # segmentations in the cache, about 170 bytes each ...
LONGEST_KEPT = 16  # ... of words of at most this many pieces; longer words hardly recur
NARROWEST = 2.0**-32  # a narrower interval no longer splits exactly in float64: the next decisions take a new number
MOST_MERGES = 1_000  # words of more merges are always segmented
ID_BYTES = 2
SOURCE, TARGET = 1, 2  # sides of a corpus; each has random numbers of its own


class Segmentation(NamedTuple):
    """A text's pieces and the interval of numbers that give them; it is empty when one number was not enough."""

    pieces: list[str]
    start: float
    end: float


Kept = tuple[list[float], list[tuple[float, bytes]]]  # where intervals start, in order; where each ends, and its ids


class BpeDropout:
    """Sentences of a corpus with each merge skipped with probability `rate`.

    A sentence's segmentation depends only on the seed, the epoch, its side and its place in the corpus, not on where a
    run stopped or which process trains it. Threads must not share an object.
    Raises DataError when the tokenizer is not a BPE whose pieces stay within words.
    """

    def __init__(self, tokenizer: Tokenizer, rate: float, seed: int) -> None:
        self._rate = rate
        self._seed = seed
        self._pieces = tokenizer.text_pieces
        if not tokenizer.is_bpe:
            raise DataError(
                "train.bpe_dropout needs a BPE tokenizer whose pieces stay within words, as mt prepare makes it: "
                "leave data.tokenizer out, or set train.bpe_dropout=0"
            )
        self._texts_V = [""] * len(tokenizer)
        self._merges_V = np.zeros(len(tokenizer), dtype=np.int64)
        self._begins_V = np.ones(len(tokenizer), dtype=bool)
        self._alone_V = np.ones(len(tokenizer), dtype=bool)
        for text, (index, _) in self._pieces.items():
            self._texts_V[index] = text
            self._merges_V[index] = len(text) - 1
            self._begins_V[index] = text.startswith(SPACE_MARK)
            self._alone_V[index] = False
        self._plain_from = _plain_from(rate)
        self._kept: dict[bytes, Kept] = {}
        self._count = 0

    def take(
        self, sentences: Sentences, epoch: int, side: int, rows: Rows, plain: Sentences | None = None
    ) -> Sentences:
        """The sentences of `rows`, in that order, segmented anew; side: SOURCE or TARGET.

        plain: what is to be segmented in their place; by default it is they.
        """
        plain = plain or sentences.take(rows)
        if not len(plain):
            return plain
        starts_W = self._word_starts(plain.ids)
        ends_W = np.append(starts_W[1:], len(plain.ids))
        numbers_W = self._numbers(sentences.offsets[rows], plain.lengths, epoch, side)[starts_W]
        merges_W = np.add.reduceat(self._merges_V[plain.ids], starts_W)
        plain_from_W = self._plain_from[np.minimum(merges_W, len(self._plain_from) - 1)]
        changed = np.flatnonzero(numbers_W < plain_from_W)

        ids, done = plain.ids.tobytes(), 0
        parts: list[bytes] = []
        growth: list[int] = []
        columns = (ID_BYTES * starts_W[changed], ID_BYTES * ends_W[changed], numbers_W[changed])
        for start, end, number in zip(*(column.tolist() for column in columns), strict=True):
            word = self._segmented(ids[start:end], number)
            parts += ids[done:start], word
            growth.append((len(word) - end + start) // ID_BYTES)
            done = end
        parts.append(ids[done:])
        lengths_B = plain.lengths.copy()
        sentence = np.searchsorted(plain.offsets, starts_W[changed], side="right") - 1
        np.add.at(lengths_B, sentence, np.array(growth, dtype=np.int64))
        return Sentences(np.frombuffer(b"".join(parts), dtype=np.uint16), np.append(0, np.cumsum(lengths_B)))

    def _word_starts(self, ids_N: Ids) -> Integers:
        """Where words begin. A special id, or a byte, is a word by itself, as no merge crosses it."""
        begins_N = self._begins_V[ids_N]
        begins_N[1:] |= self._alone_V[ids_N[:-1]]
        return np.flatnonzero(begins_N)

    def _numbers(self, starts_B: Integers, lengths_B: Integers, epoch: int, side: int) -> npt.NDArray[np.float64]:
        """A random number for each id of sentences that begin at these places of the corpus.

        Each seed, epoch and side has its own stream of random numbers, in which each id of the corpus has its place.
        """
        stream = np.random.PCG64([self._seed, epoch, side])
        random, place, numbers = np.random.Generator(stream), 0, []
        for start, length in zip(starts_B.tolist(), lengths_B.tolist(), strict=True):
            stream.advance(start - place)
            numbers.append(random.random(length))
            place = start + length
        return np.concatenate(numbers)

    def _segmented(self, word: bytes, number: float) -> bytes:
        """The segmentation that `number` chooses for a word, both as ids."""
        starts, found = self._kept.get(word, ([], []))
        place = bisect_right(starts, number)
        if place and number < found[place - 1][0]:
            return found[place - 1][1]
        text = "".join(self._texts_V[index] for index in np.frombuffer(word, dtype=np.uint16).tolist())
        pieces, start, end = self.segment(text, number)
        ids = np.array([self._pieces[piece][0] for piece in pieces], dtype=np.uint16).tobytes()
        if start < end and len(word) <= ID_BYTES * LONGEST_KEPT:
            self._keep(word, place, start, end, ids)
        return ids

    def _keep(self, word: bytes, place: int, start: float, end: float, ids: bytes) -> None:
        if self._count == KEPT:
            self._kept, self._count = {}, 0
            place = 0
        starts, found = self._kept.setdefault(word, ([], []))
        starts.insert(place, start)
        found.insert(place, (end, ids))
        self._count += 1

    def segment(self, text: str, number: float) -> Segmentation:
        """Merge the characters of a text, the highest score first, except the merges that `number` decides to skip.

        As in sentencepiece, two neighbours whose merge was skipped are proposed again only when one of them has grown.
        """
        symbols = list(text)
        before, after = list(range(-1, len(text) - 1)), list(range(1, len(text) + 1))
        queue: list[tuple[float, int, int, int]] = []  # by score, then from left to right

        def propose(left: int, right: int) -> None:
            if left >= 0 and right < len(symbols):
                merged = symbols[left] + symbols[right]
                if (known := self._pieces.get(merged)) is not None:
                    heappush(queue, (-known[1], left, right, len(merged)))

        for right in range(1, len(symbols)):
            propose(right - 1, right)
        low, high, more = 0.0, 1.0, None
        while queue:
            _, left, right, length = heappop(queue)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
                continue  # one of them has been merged with something else
            if high - low < NARROWEST:
                more = more or np.random.Generator(np.random.PCG64([self._seed, int(number * 2**53)]))
                low, high, number = 0.0, 1.0, more.random()
            middle = low + (high - low) * self._rate
            if number < middle:
                high = middle
                continue
            low = middle
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[left] < len(symbols):
                before[after[left]] = left
            propose(before[left], left)
            propose(left, after[left])
        pieces = [symbol for symbol in symbols if symbol]
        return Segmentation(pieces, low, high) if more is None else Segmentation(pieces, 0.0, 0.0)


def _plain_from(rate: float) -> npt.NDArray[np.float64]:
    """For each number of merges, the random number from which on a word is left whole; 1 for all larger ones."""
    starts = [0.0]
    while 1.0 - starts[-1] >= NARROWEST and len(starts) < MOST_MERGES:
        starts.append(starts[-1] + (1.0 - starts[-1]) * rate)
    return np.array([*starts, 1.0])
