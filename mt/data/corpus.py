"""Sentence pairs as subword ids on disk, memory-mapped: a corpus of any size takes little memory.

Each side is two arrays: `ids` (uint16), all sentences one after another, each with EOS at its end and no BOS, and
`offsets` (int64), where each sentence begins, with the total at the end. A row is a sentence pair. In the shards of a
large corpus `lengths` (uint16) stand for offsets.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from mt.data.tokenizer import EOS, PAD
from mt.errors import DataError

Ids = npt.NDArray[np.uint16]
Integers = npt.NDArray[np.int64]  # rows, lengths, offsets, and ids in a batch
Bools = npt.NDArray[np.bool_]
Origins = npt.NDArray[np.void]

ORIGIN = np.dtype([("source", "<u2"), ("line", "<u4")])  # where a pair was read: sources count from 0, lines from 1

LONGEST_SENTENCE = 2**16 - 1  # pieces of a training sentence, EOS counted
HELD = 8  # shards whose arrays stay open

_BLOCK = 1 << 20  # lengths counted at a time
_HEADER_BYTES = 128  # numpy's header of a one-dimensional array, the same for every length


class Joined:
    """Arrays on disk one after another, which stands for one array where parts of it are asked for.

    Those used last stay open. sizes: of each array. load: opens one, given its number.
    """

    def __init__(self, sizes: Sequence[int], load: Callable[[int], npt.NDArray[Any]], dtype: npt.DTypeLike) -> None:
        self._starts = np.append(0, np.cumsum(sizes, dtype=np.int64))
        self._load = lru_cache(HELD)(load)
        self._dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        """An element, those of an array of indices, or a copy of a slice."""
        if isinstance(index, slice):
            return self._slice(*index.indices(len(self))[:2])
        index_N = np.asarray(index)
        part_N = np.searchsorted(self._starts, index_N, side="right") - 1
        if not index_N.ndim:
            return self._load(int(part_N))[index_N - self._starts[part_N]]
        found_N = np.empty(len(index_N), dtype=self._dtype)
        for part in np.unique(part_N).tolist():
            here = np.flatnonzero(part_N == part)
            found_N[here] = self._load(part)[index_N[here] - self._starts[part]]
        return found_N

    def _slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        first, last = np.searchsorted(self._starts, [start, max(start, stop - 1)], side="right") - 1
        parts = [
            self._load(part)[max(0, start - self._starts[part]) : max(0, stop - self._starts[part])]
            for part in range(first, min(last + 1, len(self._starts) - 1))
        ]
        return np.concatenate([np.empty(0, dtype=self._dtype), *parts], dtype=self._dtype)


class Sentences:
    """One side of a corpus: sentence i begins at `ids[offsets[i]]`; lengths count the EOS.

    lengths: by default the offsets give them.
    """

    def __init__(self, ids: Ids, offsets: Integers, lengths: Integers | None = None) -> None:
        self.ids = ids
        self.offsets = offsets
        self.lengths: Integers = np.diff(offsets) if lengths is None else lengths

    @classmethod
    def from_lists(cls, sentences: list[list[int]]) -> Self:
        """Sentences from lists of ids without EOS, which is appended to each list."""
        for ids in sentences:
            ids.append(EOS)
        offsets = np.zeros(len(sentences) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in sentences], out=offsets[1:])
        return cls(np.fromiter(chain.from_iterable(sentences), dtype=np.uint16, count=int(offsets[-1])), offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: SupportsIndex) -> Ids:
        row = range(len(self))[row]
        start = int(self.offsets[row])
        return np.asarray(self.ids[start : start + int(self.lengths[row])])

    def __iter__(self) -> Iterator[Ids]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: Integers) -> "Sentences":
        """The sentences of `rows`, in that order."""
        lengths_B = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths_B)])
        shift = np.repeat(self.offsets[rows] - offsets[:-1], lengths_B)
        return Sentences(self.ids[np.arange(offsets[-1]) + shift], offsets)

    def histogram(self) -> Integers:
        """How many sentences have length 0, 1, 2, ..."""
        counts = [np.bincount(self.lengths[start : start + _BLOCK]) for start in range(0, len(self), _BLOCK)]
        total = np.zeros(max(map(len, counts), default=0), dtype=np.int64)
        for count_L in counts:
            total[: len(count_L)] += count_L
        return total

    def padded(self) -> Integers:
        """All sentences, padded with PAD: [B, longest]."""
        lengths_B = self.lengths[:]
        is_piece_BL = np.arange(lengths_B.max(initial=0)) < lengths_B[:, None]
        ids_BL = np.full(is_piece_BL.shape, PAD, dtype=np.int64)
        ids_BL[is_piece_BL] = self.ids
        return ids_BL


class Corpus:
    """Sentence pairs as ids. Raises DataError when the sides have different numbers of sentences."""

    def __init__(self, source: Sentences, target: Sentences) -> None:
        if len(source) != len(target):
            raise DataError(f"the corpus has {len(source):,} source but {len(target):,} target sentences")
        self.source = source
        self.target = target

    def __len__(self) -> int:
        return len(self.source)

    def lengths(self, rows: Integers | slice = slice(None)) -> Integers:
        """Tokens of each pair, EOS counted, [N, 2]: source and target; of all pairs by default."""
        return np.stack([self.source.lengths[rows], self.target.lengths[rows]], axis=1)

    def take(self, rows: Integers) -> "Corpus":
        """The pairs of `rows`, in that order."""
        return Corpus(self.source.take(rows), self.target.take(rows))

    def padded(self) -> tuple[Integers, Integers]:
        """All pairs, padded with PAD: [B, S] and [B, T]."""
        return self.source.padded(), self.target.padded()


def open_corpus(folder: Path) -> Corpus:
    """Memory-map a written corpus. Raises DataError when a file is missing or damaged."""
    return Corpus(_open_sentences(folder, "source"), _open_sentences(folder, "target"))


def open_origins(folder: Path) -> Origins:
    """Memory-map the origins of a training corpus, one for each pair. Raises DataError as `open_corpus` does."""
    return _mapped(folder / "origins.npy")


def write_origins(folder: Path, origins: list[Origins]) -> None:
    np.save(folder / "origins.npy", np.concatenate(origins), allow_pickle=False)


@dataclass(frozen=True)
class ShardSizes:
    """What is known of a shard before it is opened."""

    folder: Path
    rows: int
    pieces: tuple[int, int]  # source, target
    fetch: Callable[[], None]  # makes sure that its files are there

    def mapped(self, name: str, size: int) -> npt.NDArray[Any]:
        """Memory-map one of its arrays. Raises DataError when it is missing, damaged or of another size."""
        self.fetch()
        array = _mapped(self.folder / f"{name}.npy")
        if len(array) != size:
            raise DataError(f"{self.folder / name}.npy is damaged: not {size:,} long; run mt prepare again")
        return array


def open_shards(shards: Sequence[ShardSizes]) -> tuple[Corpus, Origins]:
    """The shards of a training corpus as one, and its origins; each is opened when it is needed.

    Raises DataError then when a file is missing or damaged.
    """
    rows = [shard.rows for shard in shards]
    origins: Any = Joined(rows, lambda part: shards[part].mapped("origins", rows[part]), ORIGIN)
    return Corpus(_joined_sentences(shards, "source", 0), _joined_sentences(shards, "target", 1)), origins


def _joined_sentences(shards: Sequence[ShardSizes], side: str, at: int) -> Sentences:
    rows, pieces = [shard.rows for shard in shards], [shard.pieces[at] for shard in shards]
    starts = np.append(0, np.cumsum(pieces, dtype=np.int64))

    def ids(part: int) -> Ids:
        return shards[part].mapped(f"{side}.ids", pieces[part])

    def lengths(part: int) -> npt.NDArray[Any]:
        return shards[part].mapped(f"{side}.lengths", rows[part])

    def offsets(part: int) -> Integers:
        ends_N = lengths(part).cumsum(dtype=np.int64)
        if ends_N[-1] != pieces[part]:
            raise DataError(f"{shards[part].folder}/{side}.lengths.npy is damaged; run mt prepare again")
        begins_N: Integers = starts[part] + np.append(0, ends_N[:-1])
        return begins_N

    joined: list[Any] = [
        Joined(pieces, ids, np.uint16),
        Joined(rows, offsets, np.int64),
        Joined(rows, lengths, np.int64),
    ]
    return Sentences(*joined)


def _open_sentences(folder: Path, side: str) -> Sentences:
    ids, offsets = (_mapped(folder / f"{side}.{part}.npy") for part in ("ids", "offsets"))
    if not len(offsets) or offsets[-1] != len(ids):
        raise DataError(f"{folder}/{side}.ids.npy does not fit its offsets; run mt prepare again")
    return Sentences(ids, np.asarray(offsets))


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run mt prepare again") from None
    except Exception as error:  # a damaged header ends in whatever Python's tokenizer raises
        raise DataError(f"{path} is damaged ({error}); run mt prepare again") from None
    return array


@contextmanager
def corpus_writer(folder: Path, offsets: bool = True) -> Iterator[Callable[[Corpus], None]]:
    """Yield a function that adds pairs to a new corpus in `folder`; only the lengths stay in memory.

    offsets: write these, as `open_corpus` needs them; else lengths, as `open_shards` does.
    """
    folder.mkdir(exist_ok=True)
    with (
        _sentences_writer(folder, "source", offsets) as write_source,
        _sentences_writer(folder, "target", offsets) as write_target,
    ):

        def write(pairs: Corpus) -> None:
            write_source(pairs.source)
            write_target(pairs.target)

        yield write


@contextmanager
def _sentences_writer(folder: Path, side: str, offsets: bool) -> Iterator[Callable[[Sentences], None]]:
    lengths = [np.zeros(0, dtype=np.int64)]
    with open(folder / f"{side}.ids.npy", "wb") as file:

        def write(sentences: Sentences) -> None:
            file.write(sentences.ids[:].tobytes())
            lengths.append(sentences.lengths[:])

        file.write(bytes(_HEADER_BYTES))  # replaced below, when the length is known
        yield write
        lengths_N = np.concatenate(lengths)
        header = {"descr": "<u2", "fortran_order": False, "shape": (int(lengths_N.sum()),)}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)
    if offsets:
        np.save(folder / f"{side}.offsets.npy", np.append(0, lengths_N.cumsum()), allow_pickle=False)
    else:
        np.save(folder / f"{side}.lengths.npy", lengths_N.astype(np.uint16), allow_pickle=False)
