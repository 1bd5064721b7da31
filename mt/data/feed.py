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
from mt.data.source_noise import SourceNoise
from mt.data.vocabulary import Tokenizers

T = TypeVar("T")

LONG = 1.4  # times the median of the lengths of a pass


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

    def with_long_apart(self) -> Self:
        """Sources that are much longer than usual in their pass have one of their own: noise makes few long.

        Words in upper case are about three times as many pieces, and all others would be padded to them.
        """
        passes = []
        for index, pairs in self.passes:
            is_long = pairs.source.lengths > LONG * np.median(pairs.source.lengths)
            parts = [pairs.take(np.flatnonzero(which)) for which in (~is_long, is_long)]
            passes += [(2 * index + part, few) for part, few in enumerate(parts) if len(few)]
        return replace(self, passes=passes)


def cut_batch(
    corpus: Corpus,
    rows: Rows,
    config: BatchConfig,
    rank: int = 0,
    processes: int = 1,
    take: Callable[[Rows], Corpus] | None = None,
) -> MicroBatches:
    """Cut an update's pairs into passes and take those of process `rank`.

    The cuts, and with them the dropout masks, are the same for any number of processes up to `batch.multiple`; above
    it, each process has as many passes as the others.
    take: returns the pairs of given rows; by default `corpus.take`.
    """
    take = take or corpus.take
    lengths_R2 = np.stack([corpus.source.lengths[rows], corpus.target.lengths[rows]], axis=1)
    parts = config.multiple if processes <= config.multiple else int(np.lcm(config.multiple, processes))
    all_cuts = micro_batches(np.arange(len(rows)), lengths_R2, config.micro_tokens or config.tokens, parts)
    cuts = [(index, cut) for index, cut in enumerate(all_cuts) if len(cut)]
    return MicroBatches(
        rows=rows,
        passes=[(index, take(rows[cut])) for index, cut in cuts[rank::processes]],
        tokens=int(lengths_R2[:, 1].sum()),
        padding=padding_share([cut for _, cut in cuts], lengths_R2),
    )


def pairs_by_epoch(corpus: Corpus, tokenizers: Tokenizers, config: Config) -> Callable[[int, Rows], Corpus]:
    """A function of epoch and rows that returns the pairs to train on, with noise and BPE-dropout where they are on."""
    rate, noise = config.train.bpe_dropout, _noise(tokenizers, config)
    if not rate and noise is None:
        return lambda epoch, rows: corpus.take(rows)
    source = BpeDropout(tokenizers.source, rate, config.seed) if rate else None
    target = BpeDropout(tokenizers.target, rate, config.seed) if rate and not tokenizers.is_joint else source

    def take(epoch: int, rows: Rows) -> Corpus:
        sources = corpus.source.take(rows) if noise is None else noise.take(corpus.source, epoch, rows)
        if source is None or target is None:
            return Corpus(sources, corpus.target.take(rows))
        sources = source.take(corpus.source, epoch, SOURCE, rows, sources)
        return Corpus(sources, target.take(corpus.target, epoch, TARGET, rows))

    return take


def _noise(tokenizers: Tokenizers, config: Config) -> SourceNoise | None:
    if not config.train.noise:
        return None
    tags = {tokenizers.source.tag_id(source.tag) for source in config.data.train if source.tag is not None}
    longest = config.model.longest or config.batch.tokens
    return SourceNoise(tokenizers.source, config.train.noise, config.seed, tags, longest)


def updates_from(
    update: int, cursor: Cursor, prepared: Prepared, config: Config, rank: int = 0, processes: int = 1
) -> Iterator[tuple[MicroBatches, Cursor]]:
    """Endless updates from `cursor` on, with the passes of process `rank`, each with the cursor of the next update.

    update: how many are done.
    """
    take = pairs_by_epoch(prepared.train, prepared.tokenizers, config)
    for rows, stage, following in batches_of_run(prepared, config, update, cursor):
        taken = partial(take, cursor.epoch)
        batches = cut_batch(prepared.train, rows, config.batch, rank, processes, taken)
        yield replace(batches.with_long_apart() if config.train.noise else batches, stage=stage), following
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
