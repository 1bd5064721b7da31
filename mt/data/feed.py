"""The pairs of each update, cut into micro-batches; a thread prepares them while earlier updates are computed."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Self, TypeVar

import numpy as np

from mt.config import BatchConfig, Config
from mt.data.batches import Cursor, Rows, micro_batches, padding_share
from mt.data.bpe_dropout import SOURCE, TARGET, BpeDropout
from mt.data.corpus import Corpus
from mt.data.epochs import batches_of_run
from mt.data.prepared import Prepared
from mt.data.vocabulary import Tokenizers

T = TypeVar("T")


@dataclass(frozen=True)
class MicroBatches:
    """One update's pairs, cut into passes through the model, of which this holds those of one process."""

    rows: Rows  # of the whole update, over all processes
    passes: Sequence[tuple[int, Corpus]]  # each with its number, which goes into the seed of its dropout
    tokens: int  # target tokens of the whole update, counted without BPE-dropout, as every process knows that number
    padding: float  # share of its positions
    stage: int = 0  # how many of train.stages have begun

    def halved(self, times: int) -> Self:
        """Each pass cut into 2^times parts."""
        if not times:
            return self
        parts = 2**times
        passes = [
            (index * parts + part, pairs.take(rows))
            for index, pairs in self.passes
            for part, rows in enumerate(np.array_split(np.arange(len(pairs)), parts))
            if len(rows)
        ]
        return replace(self, passes=passes)


def cut_batch(
    corpus: Corpus,
    rows: Rows,
    config: BatchConfig,
    rank: int = 0,
    processes: int = 1,
    take: Callable[[Rows], Corpus] | None = None,
) -> MicroBatches:
    """Cut an update's pairs into passes, the same number for each process, and take those of process `rank`.

    take: returns the pairs of given rows; by default `corpus.take`.
    """
    take = take or corpus.take
    lengths_R2 = np.stack([corpus.source.lengths[rows], corpus.target.lengths[rows]], axis=1)
    parts = int(np.lcm(config.multiple, processes))
    all_cuts = micro_batches(np.arange(len(rows)), lengths_R2, config.micro_tokens, parts)
    cuts = [(index, cut) for index, cut in enumerate(all_cuts) if len(cut)]
    return MicroBatches(
        rows=rows,
        passes=[(index, take(rows[cut])) for index, cut in cuts[rank::processes]],
        tokens=int(lengths_R2[:, 1].sum()),
        padding=padding_share([cut for _, cut in cuts], lengths_R2),
    )


def pairs_by_epoch(corpus: Corpus, tokenizers: Tokenizers, config: Config) -> Callable[[int, Rows], Corpus]:
    """A function of epoch and rows that returns the pairs to train on, with BPE-dropout where it is on."""
    rate = config.train.bpe_dropout
    if not rate:
        return lambda epoch, rows: corpus.take(rows)
    source = BpeDropout(tokenizers.source, rate, config.seed)
    target = source if tokenizers.is_joint else BpeDropout(tokenizers.target, rate, config.seed)

    def take(epoch: int, rows: Rows) -> Corpus:
        sources = source.take(corpus.source, epoch, SOURCE, rows)
        return Corpus(sources, target.take(corpus.target, epoch, TARGET, rows))

    return take


def updates_from(
    update: int, cursor: Cursor, prepared: Prepared, config: Config, rank: int = 0, processes: int = 1
) -> Iterator[tuple[MicroBatches, Cursor]]:
    """Endless updates from `cursor` on, with the passes of process `rank`, each with the cursor of the next update.

    update: how many are done.
    """
    take = pairs_by_epoch(prepared.train, prepared.tokenizers, config)
    for rows, stage, following in batches_of_run(prepared, config, update, cursor):
        taken = partial(take, cursor.epoch)
        yield replace(cut_batch(prepared.train, rows, config.batch, rank, processes, taken), stage=stage), following
        cursor = following


def prefetched(items: Iterator[T], ahead: int = 2) -> Generator[T]:
    """The same items; a thread makes up to `ahead` of them in advance.

    An error in making an item is raised in its place. Closing the iterator ends the thread.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(list, islice(items, 1)) for _ in range(ahead))
        while made := waiting.popleft().result():
            waiting.append(pool.submit(list, islice(items, 1)))
            yield made[0]
    finally:
        pool.shutdown(cancel_futures=True)
