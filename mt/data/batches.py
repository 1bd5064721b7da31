"""Length-bucketed batches (section 5.1), planned by a pure function, so that a run can resume at any batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mt.errors import DataError

Rows = npt.NDArray[np.int64]  # row numbers of the corpus
Lengths = npt.NDArray[np.int64]

# Target lengths are grouped until a group fills this many batches; within a group pairs are sorted by source length.
# Larger groups mix more target lengths in a batch, smaller ones more source lengths; for corpora of 30,000 to 5 million
# pairs, 6 gives the least padding.
GROUP = 6


@dataclass(frozen=True)
class Cursor:
    """A place in the training data: the next batch is number `batch` of a window of an epoch, all from 0."""

    epoch: int = 0
    batch: int = 0
    window: int = 0


def plan_batches(lengths_N2: Lengths, max_tokens: int, seed: int, epoch: int, window: Sequence[int] = ()) -> list[Rows]:
    """Group pairs of similar length into batches of at most `max_tokens` a side, in random order (section 5.1).

    Lengths in tokens, EOS counted; padding counts against the budget. window: tells parts of an epoch apart.
    Pure: the same arguments give the same plan, so a resume recomputes it.
    Raises DataError when one sentence alone exceeds the budget.
    """
    longest = int(lengths_N2.max())
    if longest > max_tokens:
        row = int(lengths_N2.max(axis=1).argmax())
        raise DataError(
            f"pair {row + 1} has {longest:,} tokens on one side, but a batch holds {max_tokens:,}: raise batch.tokens"
        )
    lengths_N2 = lengths_N2.astype(np.min_scalar_type(longest))  # numpy sorts 16 bits or fewer several times faster
    random = np.random.Generator(np.random.PCG64([seed, epoch, *window]))
    order = _by_length(lengths_N2, GROUP * max_tokens, random)
    batches = np.split(order, _cuts(np.maximum(*lengths_N2.T)[order], max_tokens))
    return [batches[index] for index in random.permutation(len(batches))]


def _by_length(lengths_N2: Lengths, group_tokens: int, random: np.random.Generator) -> Rows:
    """Rows in groups of similar target length, by source length within a group, in random order among equals.

    Source lengths rise in one group and fall in the next, so that pairs at the border of two groups are similar too.
    """
    source_N, target_N = lengths_N2.T
    group_N = _groups(np.bincount(target_N), group_tokens, random).astype(lengths_N2.dtype)[target_N]
    zigzag_N = np.where(group_N % 2 == 0, source_N, source_N.max() - source_N)
    # Numbers that are not negative are in the order of their bits, of which numpy sorts 16 at a time.
    bits_N4 = random.random(len(lengths_N2)).view(np.uint16).reshape(-1, 4)
    return np.lexsort((*bits_N4.T, target_N, zigzag_N, group_N))


def _groups(count_L: Lengths, group_tokens: int, random: np.random.Generator) -> Lengths:
    """The group of each target length: neighbouring lengths are grouped until they fill `group_tokens`.

    The first group has a random size, so that each epoch combines other sentences.
    """
    group_L = np.zeros_like(count_L)
    group, filled = 0, random.random() * group_tokens
    for length, count in enumerate(count_L):
        if filled >= group_tokens:
            group, filled = group + 1, 0.0
        group_L[length] = group
        filled += length * count
    return group_L


def _cuts(longer_N: Lengths, max_tokens: int) -> list[int]:
    """Where to cut sorted pairs into batches, each as large as rows * longest <= max_tokens allows.

    longer_N: of each pair, the length of its longer side.
    """
    cuts: list[int] = []
    start, N = 0, len(longer_N)
    while start < N:
        # The first pair's length bounds the rows of the batch, so no later pair needs to be looked at.
        longest_N = np.maximum.accumulate(longer_N[start : start + max_tokens // int(longer_N[start])])
        padded_N = longest_N * np.arange(1, len(longest_N) + 1)
        start += max(1, int(np.searchsorted(padded_N, max_tokens, side="right")))
        cuts.append(start)
    return cuts[:-1]


def micro_batches(rows: Rows, lengths_N2: Lengths, max_tokens: int, parts: int = 1) -> list[Rows]:
    """Cut an update's batch into micro-batches of at most `max_tokens` a side, their number a multiple of `parts`.

    Some are empty when `parts` exceeds the rows.
    """
    longest_R = lengths_N2[rows].max(axis=1)
    count = -(-len(rows) * int(longest_R.max()) // max_tokens)
    count = -(-count // parts) * parts
    return np.array_split(rows, count)


def padding_share(plan: list[Rows], lengths_N2: Lengths) -> float:
    """The share of the positions of all batches, both sides, that are padding."""
    real = int(lengths_N2.sum())
    padded = sum(int(lengths_N2[rows].max(axis=0).sum()) * len(rows) for rows in plan)
    return 1 - real / padded
