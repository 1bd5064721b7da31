"""Sentence pairs as subword ids on disk, memory-mapped: a corpus of any size takes little memory.

Each side is two arrays: `ids` (uint16), all sentences one after another, each with EOS at its end and no BOS, and
`offsets` (int64), where each sentence begins, with the total at the end. A row is a sentence pair.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from mt.data.tokenizer import EOS, PAD
from mt.errors import DataError

Ids = npt.NDArray[np.uint16]
Integers = npt.NDArray[np.int64]  # rows, lengths, offsets, and ids in a batch

ORIGIN = np.dtype([("source", "<u2"), ("line", "<u4")])  # where a pair was read: sources count from 0, lines from 1

_HEADER_BYTES = 128  # numpy's header of a one-dimensional array, the same for every length


class Sentences:
    """One side of a corpus: sentence i is `ids[offsets[i]:offsets[i + 1]]`; lengths count the EOS."""

    def __init__(self, ids: Ids, offsets: Integers) -> None:
        self.ids = ids
        self.offsets = offsets
        self.lengths = np.diff(offsets)

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
        start = self.offsets[:-1][row]
        return np.asarray(self.ids[start : start + self.lengths[row]])

    def __iter__(self) -> Iterator[Ids]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: Integers) -> "Sentences":
        """The sentences of `rows`, in that order."""
        lengths_B = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths_B)])
        shift = np.repeat(self.offsets[rows] - offsets[:-1], lengths_B)
        return Sentences(self.ids[np.arange(offsets[-1]) + shift], offsets)

    def padded(self) -> Integers:
        """All sentences, padded with PAD: [B, longest]."""
        positions_L = np.arange(self.lengths.max(initial=0))
        is_piece_BL = positions_L < self.lengths[:, None]
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

    def lengths(self) -> Integers:
        """Tokens of each pair, EOS counted, [N, 2]: source and target."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)

    def take(self, rows: Integers) -> "Corpus":
        """The pairs of `rows`, in that order."""
        return Corpus(self.source.take(rows), self.target.take(rows))

    def padded(self) -> tuple[Integers, Integers]:
        """All pairs, padded with PAD: [B, S] and [B, T]."""
        return self.source.padded(), self.target.padded()


def open_corpus(folder: Path) -> Corpus:
    """Memory-map a written corpus. Raises DataError when a file is missing or damaged."""
    return Corpus(_open_sentences(folder, "source"), _open_sentences(folder, "target"))


def open_origins(folder: Path) -> npt.NDArray[np.void]:
    """Memory-map the origins of a training corpus, one for each pair. Raises DataError as `open_corpus` does."""
    return _mapped(folder / "origins.npy")


def write_origins(folder: Path, origins: list[npt.NDArray[np.void]]) -> None:
    np.save(folder / "origins.npy", np.concatenate(origins), allow_pickle=False)


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
def corpus_writer(folder: Path) -> Iterator[Callable[[Corpus], None]]:
    """Yield a function that adds pairs to a new corpus in `folder`; only the lengths stay in memory."""
    folder.mkdir(exist_ok=True)
    with _sentences_writer(folder, "source") as write_source, _sentences_writer(folder, "target") as write_target:

        def write(pairs: Corpus) -> None:
            write_source(pairs.source)
            write_target(pairs.target)

        yield write


@contextmanager
def _sentences_writer(folder: Path, side: str) -> Iterator[Callable[[Sentences], None]]:
    lengths = [np.zeros(1, dtype=np.int64)]
    with open(folder / f"{side}.ids.npy", "wb") as file:

        def write(sentences: Sentences) -> None:
            file.write(sentences.ids.tobytes())
            lengths.append(sentences.lengths)

        file.write(bytes(_HEADER_BYTES))  # replaced below, when the length is known
        yield write
        offsets = np.concatenate(lengths).cumsum()
        header = {"descr": "<u2", "fortran_order": False, "shape": (int(offsets[-1]),)}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)
    np.save(folder / f"{side}.offsets.npy", offsets, allow_pickle=False)
