"""A corpus of English sentences with their German translations, made up by a grammar: nothing to download."""

import zlib
from collections.abc import Iterator
from random import Random

from mt.demo.sentences import sentence_pair
from mt.errors import DataError

__all__ = ["demo_pairs"]

# The most pairs that can be asked of each split; the grammar gives more.
MOST = {"train": 1_000_000, "valid": 100_000, "test": 100_000}
# The split of each tenth of all pairs.
TENTHS = ("train",) * 8 + ("valid", "test")


def demo_pairs(split: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Make distinct pairs of an English sentence and its German translation, always the same for the same seed.

    The splits "train", "valid" and "test" have no sentence in common in either language, whatever the counts and seeds.
    Raises DataError when there is no such split or it cannot give that many pairs.
    """
    if split not in MOST:
        raise DataError(f"demo: no split {split}; choose one of {', '.join(MOST)}")
    if not 1 <= count <= MOST[split]:
        raise DataError(f"demo: from 1 to {MOST[split]:,} pairs for {split}, not {count:,}")
    return distinct_pairs(split, count, Random(seed))


def distinct_pairs(split: str, count: int, rng: Random) -> Iterator[tuple[str, str]]:
    """Draw so many distinct pairs of a split."""
    seen: set[str] = set()
    while len(seen) < count:
        english, german = sentence_pair(rng)
        if english not in seen and split_of(german) == split:
            seen.add(english)
            yield english, german


def split_of(german: str) -> str:
    """Tell which split a pair belongs to by its German side, which English sentences of one meaning share."""
    return TENTHS[zlib.crc32(german.encode()) % len(TENTHS)]
