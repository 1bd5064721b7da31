"""Noise in training: a share of the source sentences is written as people in a hurry write (Belinkov and Bisk, 2018).

Prepared data are pieces, so the sentences that are chosen become text, get their noise, and are encoded again.
"""

import random
from collections.abc import Collection
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mt.data.batches import Rows
from mt.data.corpus import Sentences
from mt.data.tokenizer import UNK, Tokenizer
from mt.noise import KINDS, noisy

_DRAW = 4  # which sentences are chosen: a stream of random numbers beside those of BPE-dropout and of weights


class SourceNoise:
    """Sentences of a corpus, of which the given share has one kind of noise, each kind as often as the others.

    A sentence's noise depends only on the seed, the epoch and its place in the corpus, not on where a run stopped or
    which process trains it. Threads must not share an object.
    tags: ids that stand for no text at the beginning of a sentence.
    longest: a sentence that noise makes longer than so many pieces, EOS counted, stays as it is.
    """

    def __init__(self, tokenizer: Tokenizer, share: float, seed: int, tags: Collection[int], longest: int) -> None:
        self._tokenizer = tokenizer
        self._share = share
        self._seed = seed
        self._tags = tags
        self._longest = longest
        self._symbols = {index: text for text, index in tokenizer.symbols.items()}

    def take(self, sentences: Sentences, epoch: int, rows: Rows) -> Sentences:
        """The sentences of `rows`, in that order."""
        plain = sentences.take(rows)
        chosen = np.flatnonzero(self._chosen(epoch, rows))
        if not len(chosen):
            return plain
        found = [ids.tolist()[:-1] for ids in plain]  # without EOS, which from_lists appends
        changed: dict[int, list[str]] = {}
        starts: dict[int, list[int]] = {}
        for place in chosen.tolist():
            ids = found[place]
            if ids and min(ids) > UNK:
                starts[place] = ids[: ids[0] in self._tags]
                parts = self._parts(ids[len(starts[place]) :])
                drawn = random.Random(f"{self._seed} {epoch} {rows[place]}").random
                with_noise = noisy(parts, KINDS[int(drawn() * len(KINDS))], drawn)
                if with_noise != parts:
                    changed[place] = with_noise
        for place, ids in zip(changed, self._tokenizer.encode_with_symbols(changed.values()), strict=True):
            if len(starts[place]) + len(ids) < self._longest:
                found[place] = starts[place] + ids
        return Sentences.from_lists(found)

    def _chosen(self, epoch: int, rows: Rows) -> npt.NDArray[np.bool_]:
        """Each sentence of the corpus has one random number of the epoch, at its place in the stream."""
        stream, place, numbers = np.random.PCG64([self._seed, epoch, _DRAW]), 0, []
        random = np.random.Generator(stream)
        for row in rows.tolist():
            stream.advance(row - place)
            numbers.append(random.random())
            place = row + 1
        return np.array(numbers) < self._share

    def _parts(self, ids: list[int]) -> list[str]:
        """Text, symbol, text, and so on; a part after a symbol is decoded with it, to keep its first space."""
        places = [place for place, index in enumerate(ids) if index in self._symbols]
        texts = self._tokenizer.decode([ids[start:end] for start, end in pairwise([0, *places, len(ids)])])
        parts = texts[:1]
        for place, text in zip(places, texts[1:], strict=True):
            symbol = self._symbols[ids[place]]
            parts += [symbol, text.removeprefix(symbol)]
        return parts
