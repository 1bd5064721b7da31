"""Shards: about a million consecutive training pairs each, read, encoded and kept one by one.

First a shard is the text of the pairs that pass the rules on text, with the place of each and the hashes that tell
duplicates; then it is ids. Its record says also what it holds, so that a later run goes on with the shards that are
there, and knows where in the text these end.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mt.config import Config
from mt.data.clean import Drops, length_problems, text_problems, valid_unicode
from mt.data.corpus import (
    LONGEST_SENTENCE,
    ORIGIN,
    Bools,
    Corpus,
    Integers,
    Origins,
    corpus_writer,
    open_origins,
    write_origins,
)
from mt.data.duplicates import Hashes, pair_hashes, write_hashes
from mt.data.encoding import PairEncoder
from mt.data.finished import Record, begin, finish, part_of
from mt.data.pairs import BLOCK, Pairs
from mt.data.protect import Protection
from mt.data.sources import read_pairs
from mt.data.vocabulary import Tokenizers, read_tokenizer_files
from mt.data_config import CleanConfig, Input, name_of
from mt.errors import DataError

SHARD = 1_000_000  # pairs; weights above 1 count
MOST_SOURCES = 2**16  # of which an origin can name one ...
MOST_LINES = 2**32 - 1  # ... and its line
TEXT = "text"  # the file of a shard's text: source and target, a line each

Advance = Callable[[int], object]


# --- Text: read, cleaned -------------------------------------------------------------------------------------------


def text_place(scratch: Path, number: int) -> tuple[Path, Path]:
    """Record and folder of a shard's text."""
    return scratch / "text" / f"{number:05}.json", scratch / "text" / f"{number:05}"


class NumberedPairs(NamedTuple):
    """A block of pairs, the shard it goes to, and the source that it comes from."""

    shard: int
    number: int  # of the source
    source: Input
    pairs: Pairs


class CleanBlock(NamedTuple):
    """What is left of a block, with counts of what was read and changed."""

    shard: int
    entry: int
    read: int  # pairs
    line_feeds: int
    repaired: int  # lines
    share: float  # of the entry, read so far
    text: bytes
    origins_N: Origins
    hashes_N: Hashes
    drops: Record


class Beginning(NamedTuple):
    """Where reading begins: with this entry, whose first pairs go to that shard, as full as it is then."""

    entry: int = 0
    shard: int = 0
    filled: float = 0.0


def place_after(records: Sequence[Record], config: Config) -> Beginning:
    """Where to read on after the first shards, given their records: from the start of the last entry in them."""
    if not records:
        return Beginning()
    last = records[-1]["counts"][-1][0]
    shard = next(number for number, record in enumerate(records) if last in dict(record["counts"]))
    earlier = [(entry, read) for entry, (read, *_) in records[shard]["counts"] if entry < last]
    return Beginning(last, shard, sum((_filling(config, entry) * read for entry, read in earlier), 0.0))


def numbered_pairs(config: Config, start: Beginning) -> Iterator[NumberedPairs]:
    """The training pairs from a place on, in blocks; where shards end depends on the text and its weights alone."""
    shard, filled = start.shard, start.filled
    for index, entry in enumerate(config.data.train[start.entry :], start.entry):
        each, here = _filling(config, index), 0  # pairs of this entry in this shard
        for pairs in read_pairs(entry, config.data.src, config.data.tgt, config.data.seed):
            if filled + each * here >= SHARD:
                shard, filled, here = shard + 1, 0.0, 0
            yield NumberedPairs(shard, index, entry, pairs)
            here += len(pairs.source)
        filled += each * here


def _filling(config: Config, entry: int) -> float:
    """As how many pairs each pair of an entry counts."""
    return max(1.0, config.data.train[entry].weight)


def clean_block(rules: CleanConfig, seed: int, block: NumberedPairs) -> CleanBlock:
    """Drop the pairs that break the rules on text; raises DataError for a line whose number does not fit."""
    pairs, source, drops = block.pairs, block.source, Drops(seed)
    problems = text_problems(pairs, rules)
    for row, problem in problems.items():
        drops.add(problem, (block.number, pairs.numbers[row]), pairs.source[row], pairs.target[row])
    if max(pairs.numbers) > MOST_LINES:
        raise DataError(f"{name_of(source)}: more than {MOST_LINES:,} lines; cut it into several sources")
    rows = [row for row in range(len(pairs.source)) if row not in problems]
    sources, targets = [pairs.source[row] for row in rows], [pairs.target[row] for row in rows]
    hashes_N = pair_hashes(sources, targets, source.tag) if rules.duplicates else np.empty(0, np.uint64)
    lines = [line for pair in zip(sources, targets, strict=True) for line in pair]
    valid = list(map(valid_unicode, lines))
    return CleanBlock(
        shard=block.shard,
        entry=block.number,
        read=len(pairs.source),
        line_feeds=pairs.line_feeds,
        repaired=sum(map(str.__ne__, valid, lines)),
        share=pairs.share,
        text="".join(f"{line}\n" for line in valid).encode(),
        origins_N=np.array([(block.number, pairs.numbers[row]) for row in rows], dtype=ORIGIN),
        hashes_N=hashes_N,
        drops=drops.record(),
    )


def write_text(record: Path, folder: Path, blocks: Iterable[CleanBlock], config: Config) -> Record:
    """Write the text of a shard, with its origins and the hashes that tell duplicates."""
    drops, origins, hashes = Drops(config.data.seed), list[Origins](), list[Hashes]()
    counts: dict[int, list[int]] = {}  # entry: pairs read, line feeds, lines repaired
    part = begin(folder)
    with open(part / TEXT, "wb") as file:
        for block in blocks:
            file.write(block.text)
            origins.append(block.origins_N)
            hashes.append(block.hashes_N)
            drops.merge(block.drops)
            before = counts.get(block.entry, [0, 0, 0])
            counts[block.entry] = [
                total + more for total, more in zip(before, (block.read, block.line_feeds, block.repaired), strict=True)
            ]
    write_origins(part, origins)
    if config.data.clean.duplicates:
        write_hashes(part, np.concatenate(hashes))
    return finish(folder, record, rows=sum(map(len, origins)), counts=list(counts.items()), drops=drops.record())


# --- Text: read again ----------------------------------------------------------------------------------------------


class TextBlock(NamedTuple):
    """Pairs as they were written; some may be duplicates."""

    origins_N: Origins
    sources: list[str]
    targets: list[str]
    repeated_N: Bools


@dataclass(frozen=True)
class TextShard:
    """The text of a shard, of which the pairs that are no duplicates are kept."""

    number: int
    folder: Path
    marks: Path | None  # which of its pairs are duplicates; None where these are kept
    kept_before: int  # in the shards before

    @cached_property
    def origins(self) -> Origins:
        """Where its pairs were read."""
        return open_origins(self.folder)

    @cached_property
    def repeated(self) -> Bools:
        """Which of its pairs are duplicates that are dropped."""
        return np.zeros(len(self.origins), dtype=bool) if self.marks is None else np.load(self.marks)

    @property
    def kept(self) -> Origins:
        """Where the others were read."""
        return self.origins[~self.repeated]

    def blocks(self) -> Iterator[TextBlock]:
        with open(self.folder / TEXT, encoding="utf-8", newline="\n") as file:
            for start in range(0, len(self.origins), BLOCK):
                lines = [line[:-1] for line in islice(file, 2 * BLOCK)]
                rows = slice(start, start + BLOCK)
                yield TextBlock(self.origins[rows], lines[0::2], lines[1::2], self.repeated[rows])

    def random(self, seed: int) -> np.random.Generator:
        """Random numbers of which each pair that is kept takes one, whichever shard it lies in."""
        stream = np.random.PCG64(seed)
        stream.advance(self.kept_before)
        return np.random.Generator(stream)


def sample_blocks(config: Config, rate: float, shard: TextShard) -> Iterator[list[tuple[str, str]]]:
    """Draw each pair with probability `rate` times the weight of its entry; protected text is in symbols."""
    random, protection = shard.random(config.data.seed), Protection(config.data.protect)
    rate_E = rate * np.array([entry.weight for entry in config.data.train])
    for block in shard.blocks():
        rows_K = np.flatnonzero(~block.repeated_N)
        rows_K = rows_K[random.random(len(rows_K)) < rate_E[block.origins_N["source"][rows_K]]]
        drawn = [(block.sources[row], block.targets[row]) for row in rows_K.tolist()]
        if protection.patterns:
            drawn = [(source.text, target.text) for source, target in starmap(protection.pair, drawn)]
        yield drawn


def whole_sample(config: Config, rate: float, shard: TextShard) -> list[tuple[str, str]]:
    """All that `sample_blocks` draws from a shard."""
    return list(chain.from_iterable(sample_blocks(config, rate, shard)))


# --- Ids -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoding:
    """How shards become ids, and where."""

    config: Config
    folder: Path  # with the tokenizers; the ids go to its folder train
    records: Path
    is_single: bool  # a shard alone is written as corpora have always been

    def name(self, number: int) -> str:
        """Of a shard's folder in that of all."""
        return "train" if self.is_single else f"train/{number:05}"

    def place(self, number: int) -> tuple[Path, Path]:
        """A shard's record and folder."""
        return self.records / f"{number:05}.json", self.folder / self.name(number)


def encode_shard(encoding: Encoding, shard: TextShard, advance: Advance = lambda count: None) -> Record:
    """Write the pairs that pass the rules on length, as often as their entry's weight says: ids and origins."""
    config, (record, folder) = encoding.config, encoding.place(shard.number)
    tokenizers = Tokenizers.read(read_tokenizer_files(encoding.folder))
    encoder, random = PairEncoder(tokenizers, Protection(config.data.protect)), shard.random(config.data.seed)
    drops, origins, outcomes = Drops(config.data.seed), [np.empty(0, dtype=ORIGIN)], Counter[str]()
    longest_2, pieces_2 = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    with corpus_writer(begin(folder), offsets=encoding.is_single) as write:
        for block in shard.blocks():
            for row in np.flatnonzero(block.repeated_N).tolist():
                drops.add("duplicate", block.origins_N[row].tolist(), block.sources[row], block.targets[row])
            for rows_K in _of_one_entry(block):
                entry = config.data.train[block.origins_N["source"][rows_K[0]]]
                lines = [block.sources[row] for row in rows_K], [block.targets[row] for row in rows_K]
                pairs, of_block = encoder.encode(*lines, entry.tag)
                outcomes += of_block
                problems = length_problems(pairs, config.data.clean)
                origins_K = block.origins_N[rows_K]
                for row, problem in problems.items():
                    drops.add(problem, origins_K[row].tolist(), lines[0][row], lines[1][row])
                times_K = _times(len(pairs), entry.weight, random)
                times_K[list(problems)] = 0
                for taken in _repeated(times_K):
                    some = pairs.take(taken)
                    longest_2 = np.maximum(longest_2, some.lengths().max(axis=0))
                    pieces_2 += some.lengths().sum(axis=0)
                    _refuse_long(some, origins_K[taken], config)
                    write(some)
                    origins.append(origins_K[taken])
            advance(len(block.sources))
    write_origins(part_of(folder), origins)
    return finish(
        folder,
        record,
        rows=sum(map(len, origins)),
        pieces=pieces_2.tolist(),
        longest=longest_2.tolist(),
        drops=drops.record(),
        protected=outcomes,
    )


def _of_one_entry(block: TextBlock) -> list[Integers]:
    """The rows of a block that are kept, apart by the entry that they come from."""
    rows_K = np.flatnonzero(~block.repeated_N)
    entries_K = block.origins_N["source"][rows_K]
    return np.split(rows_K, np.flatnonzero(entries_K[1:] != entries_K[:-1]) + 1) if len(rows_K) else []


def _times(count: int, weight: float, random: np.random.Generator) -> Integers:
    """How often each row is used: the whole part of the weight, and once more with its fraction as probability."""
    whole = int(weight)
    return np.full(count, whole) + (random.random(count) < weight - whole)


def _repeated(times_N: Integers) -> Iterator[Integers]:
    """Each row as often as it is used, in order; in slices, as a large weight makes many rows of one block."""
    ends_N = times_N.cumsum()
    for start in range(0, int(ends_N[-1]), BLOCK):
        yield np.searchsorted(ends_N, np.arange(start, min(start + BLOCK, ends_N[-1])), side="right")


def _refuse_long(pairs: Corpus, origins_N: Origins, config: Config) -> None:
    longest_N = pairs.lengths().max(axis=1)
    row = int(longest_N.argmax())
    if longest_N[row] > LONGEST_SENTENCE:
        entry, line = origins_N[row].tolist()
        raise DataError(
            f"{name_of(config.data.train[entry])}:{line} has {longest_N[row]:,} pieces on one side, more than the "
            f"{LONGEST_SENTENCE:,} of the longest sentence: lower data.clean.max_pieces"
        )
