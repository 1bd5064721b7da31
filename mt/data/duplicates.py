"""Which training pairs came before: exact, in any number of shards, within a limit of memory.

Each shard keeps the hashes of its pairs in order, so that all pairs whose hashes lie between two values are found in
each shard side by side. One range after another is compared over all shards.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

MEMORY = 2**30  # bytes that finding duplicates may take, beside a bit for each ...
PAIR_BYTES = 48  # ... of which each pair of a range takes so many

Hashes = npt.NDArray[np.uint64]


def pair_hashes(sources: Sequence[str], targets: Sequence[str], tag: str | None) -> Hashes:
    """Hashes of 8 bytes: of 100 million pairs, two collide with a chance of 1 in 3,700. Another tag, another pair."""
    start = f"{tag}\n" if tag else ""
    texts = (
        f"{start}{source}\n{target}".encode("utf-8", "surrogatepass")
        for source, target in zip(sources, targets, strict=True)
    )
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8")


def write_hashes(folder: Path, hashes_N: Hashes) -> None:
    """Write the different hashes of a shard's pairs in order, and the first row of each."""
    hashes_U, rows_U = np.unique(hashes_N, return_index=True)
    np.save(folder / "hashes.npy", hashes_U, allow_pickle=False)
    np.save(folder / "rows.npy", rows_U.astype(np.uint32), allow_pickle=False)


def mark_repeated(
    shards: Sequence[Path], rows: Sequence[int], folder: Path, advance: Callable[[float], object] = lambda share: None
) -> None:
    """Write for each shard, given in order, whether each of its rows equals an earlier one, there or in another shard.

    rows: how many each shard has. advance: told the share done.
    """
    unique = 0
    for number, (shard, count) in enumerate(zip(shards, rows, strict=True)):
        repeated_N = np.ones(count, dtype=bool)
        first_U = np.load(shard / "rows.npy")
        repeated_N[first_U] = False
        unique += len(first_U)
        np.save(repeated_path(folder, number), repeated_N, allow_pickle=False)
    ranges = -(-unique * PAIR_BYTES // MEMORY)
    for index in range(ranges):
        _mark_range(shards, folder, (index * 2**64 // ranges, (index + 1) * 2**64 // ranges - 1))
        advance((index + 1) / ranges)


def _mark_range(shards: Sequence[Path], folder: Path, bounds: tuple[int, int]) -> None:
    hashes, rows = [], []
    for shard in shards:
        hashes_U = np.load(shard / "hashes.npy", mmap_mode="r")
        start = int(np.searchsorted(hashes_U, np.uint64(bounds[0])))
        end = int(np.searchsorted(hashes_U, np.uint64(bounds[1]), side="right"))
        hashes.append(np.array(hashes_U[start:end]))  # copied, as each mapping keeps a file open
        rows.append(np.array(np.load(shard / "rows.npy", mmap_mode="r")[start:end]))
    hashes_R = np.concatenate(hashes)
    order_R = np.argsort(hashes_R, kind="stable")  # equal ones stay in the order of their shards
    hashes_R = hashes_R[order_R]
    again_R = np.zeros(len(hashes_R), dtype=bool)
    again_R[order_R[1:]] = hashes_R[1:] == hashes_R[:-1]
    for number, again_U in enumerate(np.split(again_R, np.cumsum([len(part) for part in rows])[:-1])):
        if again_U.any():
            repeated_N = np.load(repeated_path(folder, number), mmap_mode="r+")
            repeated_N[rows[number][again_U]] = True


def repeated_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.npy"
