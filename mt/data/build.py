"""The stages of preparing: read and clean, learn the pieces, encode; each one streams, so a corpus of any size fits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from mt.config import Config, Source
from mt.console import Console
from mt.data.clean import Drops, SeenPairs, length_problems, text_problems, valid_unicode
from mt.data.corpus import Corpus, CorpusWriter, Sentences, Whole
from mt.data.sources import CHUNK, Chunk, name_of, read_pairs
from mt.data.tokenizer import Tokenizer, train_tokenizer
from mt.errors import DataError


@dataclass(frozen=True)
class Kept:
    """The usable pairs of one training source in a scratch file, three lines each: line number, source, target."""

    source: Source
    path: Path
    read: int
    pairs: int
    line_feeds: int  # fields in which a line feed became a space

    def chunks(self) -> Iterator[tuple[list[str], list[str], list[str]]]:
        """Line numbers, sources, targets."""
        with open(self.path, encoding="utf-8", newline="\n") as file:
            while lines := [line[:-1] for line in islice(file, 3 * CHUNK)]:
                yield lines[0::3], lines[1::3], lines[2::3]


# --- Training pairs ----------------------------------------------------------------------------------------------


def keep_usable(source: Source, path: Path, config: Config, seen: SeenPairs, drops: Drops, console: Console) -> Kept:
    """Copy the pairs of a source that pass the rules on text to a scratch file; the others go to `drops`."""
    data, name = config.data, name_of(source)
    read = pairs = line_feeds = 0
    with new_text(path) as scratch, console.track(f"reading {name}", unit="pairs") as advance:
        for chunk in read_pairs(source, data.src, data.tgt, config.seed):
            problems = _problems(chunk, config, seen)
            for row, problem in problems.items():
                drops.add(problem, f"{name}:{chunk.first + row}", chunk.source[row], chunk.target[row])
            rows = [row for row in range(len(chunk.source)) if row not in problems]
            scratch.writelines(
                f"{chunk.first + row}\n{valid_unicode(chunk.source[row])}\n{valid_unicode(chunk.target[row])}\n"
                for row in rows
            )
            read, pairs, line_feeds = read + len(chunk.source), pairs + len(rows), line_feeds + chunk.line_feeds
            advance(len(chunk.source))
    return Kept(source, path, read, pairs, line_feeds)


def _problems(chunk: Chunk, config: Config, seen: SeenPairs) -> dict[int, str]:
    problems = text_problems(chunk, config.data.clean)
    if not config.data.clean.duplicates:
        return problems
    rows = [row for row in range(len(chunk.source)) if row not in problems]
    repeated = seen.repeated([chunk.source[row] for row in rows], [chunk.target[row] for row in rows])
    return problems | {row: "duplicate" for row, again in zip(rows, repeated, strict=True) if again}


def learn_tokenizer(sources: Sequence[Kept], config: Config, console: Console) -> Tokenizer:
    """Train the tokenizer on a random sample of the kept sentences, both sides of each pair drawn."""
    sentences = 2 * sum(kept.pairs * kept.source.weight for kept in sources)
    rate = min(1.0, config.data.tokenizer_sample / max(sentences, 1))
    with console.track(f"learning {config.data.vocab_size:,} pieces", unit="sentences") as advance:

        def counted() -> Iterator[str]:
            for sentence in _sample(sources, rate, config.seed):
                advance(1)
                yield sentence

        return train_tokenizer(counted(), config.data.vocab_size)


def _sample(sources: Sequence[Kept], rate: float, seed: int) -> Iterator[str]:
    random = np.random.default_rng(seed)
    for kept in sources:
        for _, chunk_source, chunk_target in kept.chunks():
            for row in np.flatnonzero(random.random(len(chunk_source)) < rate * kept.source.weight):
                yield chunk_source[row]
                yield chunk_target[row]


def encode_training(
    sources: Sequence[Kept], tokenizer: Tokenizer, folder: Path, config: Config, drops: Drops, console: Console
) -> None:
    """Write the ids of the kept pairs that pass the rules on length, as often as their source's weight says."""
    random = np.random.default_rng(config.seed)
    total = sum(kept.pairs for kept in sources)
    with CorpusWriter(folder) as writer, console.track("encoding", total, unit="pairs") as advance:
        for kept in sources:
            for lines, chunk_source, chunk_target in kept.chunks():
                pairs = encode(tokenizer, chunk_source, chunk_target)
                problems = length_problems(pairs, config.data.clean)
                for row, problem in sorted(problems.items()):
                    drops.add(problem, f"{name_of(kept.source)}:{lines[row]}", chunk_source[row], chunk_target[row])
                times_N = _times(len(pairs), kept.source.weight, random)
                times_N[list(problems)] = 0
                writer.write(pairs.take(np.repeat(np.arange(len(pairs)), times_N)))
                advance(len(pairs))


def _times(count: int, weight: float, random: np.random.Generator) -> Whole:
    """How often each row is used: the weight, its fraction left to chance."""
    whole = int(weight)
    return np.full(count, whole) + (random.random(count) < weight - whole)


def encode(tokenizer: Tokenizer, sources: list[str], targets: list[str]) -> Corpus:
    """Lines as a corpus in memory."""
    return Corpus(Sentences.from_lists(tokenizer.encode(sources)), Sentences.from_lists(tokenizer.encode(targets)))


# --- Validation and test pairs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """What was done to validation or test pairs, of which none is ever dropped."""

    pairs: int
    line_feeds: int  # fields in which a line feed became a space
    repaired: int  # lines in which bytes that are not UTF-8 became U+FFFD


def copy_text(sources: Iterable[Source], folder: Path, config: Config) -> HeldOut:
    """Write source.txt and target.txt; raises DataError where a row is not a pair."""
    pairs = line_feeds = repaired = 0
    with new_text(folder / "source.txt") as source_file, new_text(folder / "target.txt") as target_file:
        for source in sources:
            for chunk in read_pairs(source, config.data.src, config.data.tgt, config.seed):
                for row, problem in chunk.problems.items():
                    raise DataError(
                        f"{name_of(source)}:{chunk.first + row}: {problem}; a validation or test pair must be one"
                    )
                for file, lines in ((source_file, chunk.source), (target_file, chunk.target)):
                    valid = [valid_unicode(line) for line in lines]
                    repaired += sum(before != after for before, after in zip(lines, valid, strict=True))
                    file.writelines(f"{line}\n" for line in valid)
                pairs, line_feeds = pairs + len(chunk.source), line_feeds + chunk.line_feeds
    return HeldOut(pairs, line_feeds, repaired)


def encode_text(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the ids of a folder's source.txt and target.txt."""
    with CorpusWriter(folder) as writer:
        writer.write(encode(tokenizer, read_text(folder / "source.txt"), read_text(folder / "target.txt")))


# --- Text as prepared: UTF-8, a line feed after each line, no other line end ----------------------------------------


def new_text(path: Path) -> IO[str]:
    return open(path, "w", encoding="utf-8", newline="\n")


def read_text(path: Path) -> list[str]:
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]
