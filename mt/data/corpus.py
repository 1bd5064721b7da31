"""Sentence pairs as subword ids on disk, memory-mapped: a corpus of any size takes little memory.

Each side is two arrays: `ids` (uint16), all sentences one after another, each with EOS at its end and no BOS, and
`offsets` (int64), where each sentence begins, with the total at the end. A row is a sentence pair.
"""

import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, SupportsIndex

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


class CorpusWriter:
    """Writes a corpus part by part; only the lengths stay in memory."""

    def __init__(self, folder: Path) -> None:
        self._source = _SentencesWriter(folder, "source")
        self._target = _SentencesWriter(folder, "target")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()
        self._target.close()

    def write(self, pairs: Corpus) -> None:
        self._source.write(pairs.source)
        self._target.write(pairs.target)


class _SentencesWriter:
    """Appends to `SIDE.ids.npy`; its header is written at the end, when the length is known."""

    def __init__(self, folder: Path, side: str) -> None:
        self._offsets_path = folder / f"{side}.offsets.npy"
        self._file: IO[bytes] = open(folder / f"{side}.ids.npy", "wb")  # noqa: SIM115 (closed by close)
        self._file.write(bytes(_HEADER_BYTES))
        self._lengths = [np.zeros(1, dtype=np.int64)]

    def write(self, sentences: Sentences) -> None:
        self._file.write(sentences.ids.tobytes())
        self._lengths.append(sentences.lengths)

    def close(self) -> None:
        offsets = np.concatenate(self._lengths).cumsum()
        with self._file:
            self._file.seek(0)
            self._file.write(_header(int(offsets[-1])))
        np.save(self._offsets_path, offsets, allow_pickle=False)


def _header(length: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": (length,)})
    return header.getvalue()
