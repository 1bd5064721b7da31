"""How probable a target piece is given a source piece: IBM model 1 (Brown et al., 1993), estimated from a sample."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.data.corpus import Corpus, Integers, Sentences

Floats = npt.NDArray[np.float64]

MOST_CELLS = 3_000_000  # source pieces times target pieces, over the sampled pairs: 200 MB and a second or two
CHUNK_CELLS = 4_000_000  # numbered at a time: each takes 50 bytes meanwhile, and 8 afterwards
MOST_ROWS = 3_000_000  # pairs that a sample is taken from: of a large corpus its first shards
LONGEST = 64  # pieces of a sampled sentence
ROUNDS = 5  # of expectation maximisation
_SHIFT = 16  # ids have 16 bits
_TARGET = (1 << _SHIFT) - 1


@dataclass(frozen=True)
class WordModel:
    """The translation probabilities of all pairs of pieces in the sample."""

    code_N: Integers  # source id << 16 | target id, ascending
    probability_N: Floats

    def probabilities(self, source_S: npt.NDArray[Any], target_T: npt.NDArray[Any]) -> Floats:
        """p(t | s), [T, S]; 0 for pairs of pieces that are not in the sample."""
        if not len(self.code_N):  # all pairs of the corpus were longer than LONGEST
            return np.zeros((len(target_T), len(source_S)))
        wanted_TS = (source_S[None, :].astype(np.int64) << _SHIFT) | target_T[:, None].astype(np.int64)
        place_TS = np.searchsorted(self.code_N, wanted_TS).clip(max=len(self.code_N) - 1)
        found: Floats = np.where(self.code_N[place_TS] == wanted_TS, self.probability_N[place_TS], 0.0)
        return found

    def without(self, target_F: Integers) -> "WordModel":
        """The same but for these targets."""
        is_other_N = ~np.isin(self.code_N & _TARGET, target_F)
        return WordModel(self.code_N[is_other_N], self.probability_N[is_other_N])

    def best(self, sources: int, count: int, filler: int) -> Integers:
        """The `count` likeliest targets of each of so many source ids, likeliest first, [sources, count].

        filler: stands where the sample has fewer.
        """
        source_N = self.code_N >> _SHIFT
        order_N = np.lexsort((-self.probability_N, source_N))
        rank_N = np.arange(len(order_N)) - np.searchsorted(source_N, source_N)  # the order leaves sources in place
        kept = rank_N < count
        best_SC = np.full((sources, count), filler, dtype=np.int64)
        best_SC[source_N[kept], rank_N[kept]] = self.code_N[order_N[kept]] & _TARGET
        return best_SC


def estimate_word_model(pairs: Corpus, most_cells: int = MOST_CELLS, most_rows: int | None = MOST_ROWS) -> WordModel:
    """Estimate from pairs spread evenly over the first `most_rows`; the same corpus gives the same model.

    EOS takes no part.
    """
    lengths_N2 = pairs.lengths(slice(most_rows)) - 1
    rows = np.flatnonzero((lengths_N2.min(axis=1) > 0) & (lengths_N2.max(axis=1) <= LONGEST))
    cells_N = lengths_N2[rows].prod(axis=1)
    step = max(1, -(-int(cells_N.sum()) // most_cells))
    chunks = _chunks(rows[::step], cells_N[::step])
    code_N = np.empty(0, np.int64)
    for chunk in chunks:
        code_N = np.union1d(code_N, _codes(pairs.take(chunk))[0])
    numbered = [_numbered(code_N, *_codes(pairs.take(chunk))) for chunk in chunks]
    source_N = code_N >> _SHIFT
    probability_N = np.ones(len(code_N))
    for _ in range(ROUNDS):
        count_N = np.zeros(len(code_N))
        for kind_C, starts_T in numbered:
            share_C = probability_N[kind_C]
            share_C /= np.repeat(np.add.reduceat(share_C, starts_T), np.diff(starts_T, append=len(share_C)))
            np.add.at(count_N, kind_C, share_C)
        probability_N = count_N / np.bincount(source_N, count_N)[source_N]
    return WordModel(code_N, probability_N)


def _chunks(rows: Integers, cells_N: Integers) -> list[Integers]:
    """The rows in parts of about CHUNK_CELLS."""
    cuts = np.flatnonzero(np.diff(cells_N.cumsum() // CHUNK_CELLS)) + 1
    return [chunk for chunk in np.split(rows, cuts) if len(chunk)]


def _codes(pairs: Corpus) -> tuple[Integers, Integers]:
    """Each pair of a source and a target piece of the same sentence pair, target by target; and where targets begin."""
    source_M, source_starts, sources = _without_ends(pairs.source)
    target_T, _, targets = _without_ends(pairs.target)
    sizes_T = np.repeat(sources, targets)  # each target piece meets all of its source
    starts_T = sizes_T.cumsum() - sizes_T
    place_C = np.arange(sizes_T.sum()) + np.repeat(np.repeat(source_starts, targets) - starts_T, sizes_T)
    return (source_M[place_C] << _SHIFT) | np.repeat(target_T, sizes_T), starts_T


def _without_ends(sentences: Sentences) -> tuple[Integers, Integers, Integers]:
    """All pieces but EOS, where each sentence begins among them, and its length."""
    is_piece = np.ones(len(sentences.ids), dtype=bool)
    is_piece[sentences.offsets[1:] - 1] = False
    lengths = sentences.lengths - 1
    return sentences.ids[is_piece].astype(np.int64), lengths.cumsum() - lengths, lengths


def _numbered(code_N: Integers, code_C: Integers, starts_T: Integers) -> tuple[npt.NDArray[np.int32], Integers]:
    """The codes as places among all codes."""
    distinct, kind_C = np.unique(code_C, return_inverse=True)
    return np.searchsorted(code_N, distinct).astype(np.int32)[kind_C], starts_T
