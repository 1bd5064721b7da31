"""The stages of preparing: read and clean, learn the pieces, encode; each one streams, so a corpus of any size fits."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from mt.config import Config, Source
from mt.console import Console
from mt.data.clean import Drops, SeenPairs, length_problems, text_problems, valid_unicode
from mt.data.corpus import ORIGIN, Corpus, CorpusWriter, Sentences, Whole, write_origins
from mt.data.sources import CHUNK, Chunk, name_of, read_pairs
from mt.data.tokenizer import Tokenizer, train_tokenizer
from mt.errors import DataError


@dataclass(frozen=True)
class Reading:
    """What came of reading one source."""

    name: str
    read: int  # pairs
    kept: int  # of them, those whose text passed the rules
    line_feeds: int  # fields in which a line feed became a space
    repaired: int  # lines in which bytes that are not UTF-8 became U+FFFD


@dataclass(frozen=True)
class Kept:
    """The usable pairs of one training source in a scratch file, three lines each: line number, source, target."""

    source: Source
    path: Path
    reading: Reading

    def chunks(self) -> Iterator[tuple[list[str], list[str], list[str]]]:
        """Line numbers, sources, targets."""
        with open(self.path, encoding="utf-8", newline="\n") as file:
            while lines := [line[:-1] for line in islice(file, 3 * CHUNK)]:
                yield lines[0::3], lines[1::3], lines[2::3]


# --- Training pairs: read and clean ------------------------------------------------------------------------------


def keep_usable(config: Config, scratch: Path, drops: Drops, console: Console) -> list[Kept]:
    """Copy the training pairs that pass the rules on text to scratch files; the others go to `drops`."""
    seen = SeenPairs()
    sources = enumerate(config.data.train, 1)
    return [_keep_source(source, scratch / f"{index}.txt", config, seen, drops, console) for index, source in sources]


def _keep_source(source: Source, path: Path, config: Config, seen: SeenPairs, drops: Drops, console: Console) -> Kept:
    data, name = config.data, name_of(source)
    read = kept = line_feeds = repaired = 0
    with new_text(path) as file, console.track(f"reading {name}", unit="pair") as advance:
        for chunk in read_pairs(source, data.src, data.tgt, config.seed):
            problems = _problems(chunk, config, seen)
            for row, problem in problems.items():
                drops.add(problem, f"{name}:{chunk.first + row}", chunk.source[row], chunk.target[row])
            for row in (row for row in range(len(chunk.source)) if row not in problems):
                source_line, target_line = valid_unicode(chunk.source[row]), valid_unicode(chunk.target[row])
                file.write(f"{chunk.first + row}\n{source_line}\n{target_line}\n")
                repaired += (source_line != chunk.source[row]) + (target_line != chunk.target[row])
            read, kept = read + len(chunk.source), kept + len(chunk.source) - len(problems)
            line_feeds += chunk.line_feeds
            advance(len(chunk.source), chunk.share)
    return Kept(source, path, Reading(name, read, kept, line_feeds, repaired))


def _problems(chunk: Chunk, config: Config, seen: SeenPairs) -> dict[int, str]:
    problems = text_problems(chunk, config.data.clean)
    if not config.data.clean.duplicates:
        return problems
    rows = [row for row in range(len(chunk.source)) if row not in problems]
    repeated = seen.repeated([chunk.source[row] for row in rows], [chunk.target[row] for row in rows])
    return problems | {row: "duplicate" for row, again in zip(rows, repeated, strict=True) if again}


# --- Training pairs: the pieces and the ids ----------------------------------------------------------------------


def learn_tokenizer(sources: Sequence[Kept], config: Config, console: Console) -> Tokenizer:
    """Train the tokenizer on a random sample of the kept sentences, both sides of each pair drawn."""
    available = 2 * sum(kept.reading.kept * kept.source.weight for kept in sources)
    rate = min(1.0, config.data.tokenizer_sample / available)
    expected = round(rate * available)
    with console.track(f"learning {config.data.vocab_size:,} pieces", expected, unit="sentence") as advance:

        def counted() -> Iterator[str]:
            for sentences in _sample(sources, rate, config.seed):
                advance(len(sentences))
                yield from sentences

        return train_tokenizer(counted(), config.data.vocab_size)


def _sample(sources: Sequence[Kept], rate: float, seed: int) -> Iterator[list[str]]:
    """Each pair with the chance `rate`, times the weight of its source: the sentences drawn from chunk after chunk."""
    random = np.random.default_rng(seed)
    for kept in sources:
        for _, source_lines, target_lines in kept.chunks():
            drawn = np.flatnonzero(random.random(len(source_lines)) < rate * kept.source.weight)
            yield [line for row in drawn for line in (source_lines[row], target_lines[row])]


def encode_training(
    sources: Sequence[Kept], tokenizer: Tokenizer, folder: Path, config: Config, drops: Drops, console: Console
) -> None:
    """Write the kept pairs that pass the rules on length, as often as their source's weight says: ids and origins."""
    random = np.random.default_rng(config.seed)
    total = sum(kept.reading.kept for kept in sources)
    chunks = ((index, *chunk) for index, kept in enumerate(sources) for chunk in kept.chunks())
    origins = []
    with CorpusWriter(folder) as writer, console.track("encoding", total, unit="pair") as advance:
        for (index, numbers, source_lines, target_lines), pairs in _encoded(tokenizer, chunks):
            source = sources[index].source
            problems = length_problems(pairs, config.data.clean)
            for row, problem in problems.items():
                drops.add(problem, f"{name_of(source)}:{numbers[row]}", source_lines[row], target_lines[row])
            times_N = _times(len(pairs), source.weight, random)
            times_N[list(problems)] = 0
            writer.write(pairs.take(np.repeat(np.arange(len(pairs)), times_N)))
            origins.append(np.repeat(_origins(index, numbers), times_N))
            advance(len(pairs))
    write_origins(folder, origins)


def _origins(source: int, numbers: list[str]) -> npt.NDArray[np.void]:
    origins_N = np.empty(len(numbers), dtype=ORIGIN)
    origins_N["source"], origins_N["line"] = source, [int(number) for number in numbers]
    return origins_N


def _times(count: int, weight: float, random: np.random.Generator) -> Whole:
    """How often each row is used: the whole part of the weight, and once more with the chance of its fraction."""
    whole = int(weight)
    return np.full(count, whole) + (random.random(count) < weight - whole)


NumberedChunk = tuple[int, list[str], list[str], list[str]]  # number of the source, of lines; source and target lines


def _encoded(tokenizer: Tokenizer, chunks: Iterable[NumberedChunk]) -> Iterator[tuple[NumberedChunk, Corpus]]:
    """Encode on all cores, a few chunks ahead, and hand on in order."""
    workers = os.cpu_count() or 1
    waiting: deque[tuple[NumberedChunk, Future[Corpus]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(encode, tokenizer, chunk[2], chunk[3])))
            if len(waiting) > 2 * workers:
                done, pairs = waiting.popleft()
                yield done, pairs.result()
        for done, pairs in waiting:
            yield done, pairs.result()


def encode(tokenizer: Tokenizer, sources: list[str], targets: list[str]) -> Corpus:
    """Lines as a corpus in memory."""
    return Corpus(Sentences.from_lists(tokenizer.encode(sources)), Sentences.from_lists(tokenizer.encode(targets)))


# --- Validation and test pairs: all of them ----------------------------------------------------------------------


def copy_text(sources: Sequence[Source], folder: Path, config: Config) -> list[Reading]:
    """Write source.txt and target.txt; raises DataError where a row is not a pair."""
    with new_text(folder / "source.txt") as source_file, new_text(folder / "target.txt") as target_file:
        return [_copy_source(source, source_file, target_file, config) for source in sources]


def _copy_source(source: Source, source_file: IO[str], target_file: IO[str], config: Config) -> Reading:
    name = name_of(source)
    read = line_feeds = repaired = 0
    for chunk in read_pairs(source, config.data.src, config.data.tgt, config.seed):
        for row, problem in chunk.problems.items():
            raise DataError(f"{name}:{chunk.first + row}: {problem}; of validation and test pairs none is left out")
        for file, lines in ((source_file, chunk.source), (target_file, chunk.target)):
            for line in lines:
                valid = valid_unicode(line)
                file.write(f"{valid}\n")
                repaired += valid != line
        read, line_feeds = read + len(chunk.source), line_feeds + chunk.line_feeds
    return Reading(name, read, read, line_feeds, repaired)


def encode_text(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the ids of a folder's source.txt and target.txt."""
    with CorpusWriter(folder) as writer:
        writer.write(encode(tokenizer, read_text(folder / "source.txt"), read_text(folder / "target.txt")))


# --- Text as prepared: UTF-8, a line feed after each line and nowhere else ---------------------------------------


def new_text(path: Path) -> IO[str]:
    return open(path, "w", encoding="utf-8", newline="\n")


def read_text(path: Path) -> list[str]:
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]
