"""The stages of preparing: read and clean, learn the pieces, encode; each streams, so a corpus of any size fits."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path
from typing import IO

import numpy as np

from mt.config import Config
from mt.console import Console, counted
from mt.data.clean import Drops, SeenPairs, length_problems, text_problems, valid_unicode
from mt.data.corpus import ORIGIN, Integers, corpus_writer, write_origins
from mt.data.encoding import PairEncoder
from mt.data.lines import refuse_giant
from mt.data.pairs import BLOCK, Pairs
from mt.data.prepared import read_text
from mt.data.protect import Protection
from mt.data.sources import read_pairs
from mt.data.tokenizer import Tokenizer, train_tokenizer
from mt.data.vocabulary import Tokenizers
from mt.data_config import Input, name_of
from mt.errors import DataError

SOURCE, TARGET = 0, 1  # sides of a pair
ROW_BYTES = 40  # memory of a training pair: offsets and lengths of both sides, and its origin


@dataclass
class Reading:
    """What was read from one entry of the config, in numbers."""

    name: str
    read: int = 0  # pairs
    kept: int = 0  # pairs whose text passed the rules
    line_feeds: int = 0  # fields in which a line feed became a space
    repaired: int = 0  # lines in which bytes that are not UTF-8 became U+FFFD

    def add(self, pairs: Pairs, kept: int) -> None:
        self.read += len(pairs.source)
        self.kept += kept
        self.line_feeds += pairs.line_feeds

    def valid(self, line: str) -> str:
        """The line with U+FFFD for bytes that are not UTF-8."""
        valid = valid_unicode(line)
        self.repaired += valid != line
        return valid

    def warn(self, console: Console) -> None:
        """Warn of changes in the text."""
        if self.repaired:
            lines = counted(self.repaired, "line")
            console.warn(f"{self.name}: {lines} not in UTF-8; U+FFFD replaces the bytes that could not be read")
        if self.line_feeds:
            fields = counted(self.line_feeds, "field")
            console.warn(f"{self.name}: {fields} with a line feed, which became a space")


@dataclass(frozen=True)
class CleanText:
    """The usable pairs of one training entry in a scratch file, three lines each: line number, source, target."""

    entry: Input
    path: Path
    reading: Reading

    def blocks(self) -> Iterator[tuple[list[str], list[str], list[str]]]:
        """Line numbers, sources, targets."""
        with open(self.path, encoding="utf-8", newline="\n") as file:
            while lines := [line[:-1] for line in islice(file, 3 * BLOCK)]:
                yield lines[0::3], lines[1::3], lines[2::3]


# --- Training pairs: read and clean ------------------------------------------------------------------------------


def clean_training(config: Config, scratch: Path, drops: Drops, console: Console) -> list[CleanText]:
    """Copy the training pairs that pass the rules on text to scratch files; the others go to `drops`."""
    seen = SeenPairs()
    entries = enumerate(config.data.train, 1)
    return [_clean_entry(entry, scratch / f"{index}.txt", config, seen, drops, console) for index, entry in entries]


def _clean_entry(
    entry: Input, path: Path, config: Config, seen: SeenPairs, drops: Drops, console: Console
) -> CleanText:
    data, reading = config.data, Reading(name_of(entry))
    with new_text(path) as file, console.track(f"reading {reading.name}", unit="pair") as advance:
        for pairs in read_pairs(entry, data.src, data.tgt, config.seed):
            problems = _problems(pairs, entry, config, seen)
            for row, problem in problems.items():
                drops.add(problem, f"{reading.name}:{pairs.numbers[row]}", pairs.source[row], pairs.target[row])
            rows = [row for row in range(len(pairs.source)) if row not in problems]
            for row in rows:
                source, target = reading.valid(pairs.source[row]), reading.valid(pairs.target[row])
                file.write(f"{pairs.numbers[row]}\n{source}\n{target}\n")
            reading.add(pairs, len(rows))
            advance(len(pairs.source), pairs.share)
    reading.warn(console)
    return CleanText(entry, path, reading)


def _problems(pairs: Pairs, entry: Input, config: Config, seen: SeenPairs) -> dict[int, str]:
    problems = text_problems(pairs, config.data.clean)
    if not config.data.clean.duplicates:
        return problems
    rows = [row for row in range(len(pairs.source)) if row not in problems]
    tag = f"{entry.tag}\n" if entry.tag else ""  # the same pair with another tag is another one
    repeated = seen.repeated([f"{tag}{pairs.source[row]}" for row in rows], [pairs.target[row] for row in rows])
    return problems | {row: "duplicate" for row, again in zip(rows, repeated, strict=True) if again}


def refuse_weights(texts: Sequence[CleanText], folder: Path) -> None:
    """Raise DataError when weights make more training pairs than disk or memory hold."""
    rows = sum(text.reading.kept * text.entry.weight for text in texts)
    memory = rows * ROW_BYTES
    disk = memory + sum(text.path.stat().st_size / 2 * text.entry.weight for text in texts)  # 4 characters a piece
    free, installed = shutil.disk_usage(folder).free, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    heaviest = max(texts, key=lambda text: text.entry.weight)
    if heaviest.entry.weight > 1 and (disk > free or memory > installed):
        raise DataError(
            f"{heaviest.reading.name}: weight {heaviest.entry.weight:g} makes {rows:,.0f} training pairs, which take "
            f"about {disk / 1e9:,.1f} GB on disk ({free / 1e9:,.1f} free) and {memory / 1e9:,.1f} GB of memory "
            f"({installed / 1e9:,.1f} here); lower it"
        )


# --- Training pairs: the pieces and the ids ----------------------------------------------------------------------


def learn_tokenizers(texts: Sequence[CleanText], config: Config, console: Console) -> Tokenizers:
    """Train a tokenizer on both sides of a random sample of the kept pairs, or one on each."""
    if config.data.vocab == "joint":
        return Tokenizers(_learn(texts, (SOURCE, TARGET), config, console))
    return Tokenizers(*(_learn(texts, (side,), config, console) for side in (SOURCE, TARGET)))


def _learn(texts: Sequence[CleanText], sides: Sequence[int], config: Config, console: Console) -> Tokenizer:
    data, protection = config.data, Protection(config.data.protect)
    language = (data.src, data.tgt)[sides[0]] if len(sides) == 1 else ""
    available = len(sides) * sum(text.reading.kept * text.entry.weight for text in texts)
    rate = min(1.0, data.tokenizer_sample / available)
    expected = round(rate * available)
    label = f"learning {data.vocab_size:,} pieces" + (f" of {language}" if language else "")
    with console.track(label, expected, unit="sentence") as advance:

        def sampled() -> Iterator[str]:
            for pairs in _sample(texts, rate, config.seed):
                advance(len(sides) * len(pairs))
                if protection.patterns:
                    pairs = [(source.text, target.text) for source, target in starmap(protection.pair, pairs)]
                yield from (pair[side] for pair in pairs for side in sides)

        try:
            return train_tokenizer(sampled(), data.vocab_size, data.all_symbols)
        except DataError as error:
            raise DataError(f"{language}: {error}" if language else f"{error}") from None


def _sample(texts: Sequence[CleanText], rate: float, seed: int) -> Iterator[list[tuple[str, str]]]:
    """Draw each pair with probability `rate` times the weight of its entry; yield those drawn block by block."""
    random = np.random.default_rng(seed)
    for text in texts:
        for _, source_lines, target_lines in text.blocks():
            drawn = np.flatnonzero(random.random(len(source_lines)) < rate * text.entry.weight)
            yield [(source_lines[row], target_lines[row]) for row in drawn]


def encode_training(
    texts: Sequence[CleanText], encoder: PairEncoder, folder: Path, config: Config, drops: Drops, console: Console
) -> Counter[str]:
    """Write the pairs that pass the rules on length, as often as their entry's weight says: ids and origins.

    Returns how many pairs of the texts have protected text, and how many not for which reason.
    """
    random = np.random.default_rng(config.seed)
    total = sum(text.reading.kept for text in texts)
    blocks = ((index, *block) for index, text in enumerate(texts) for block in text.blocks())
    origins, outcomes = [np.empty(0, dtype=ORIGIN)], Counter[str]()
    with corpus_writer(folder) as write, console.track("encoding", total, unit="pair") as advance:
        for index, numbers, source_lines, target_lines in blocks:
            entry = texts[index].entry
            pairs, of_block = encoder.encode(source_lines, target_lines, entry.tag)
            outcomes += of_block
            problems = length_problems(pairs, config.data.clean)
            for row, problem in problems.items():
                drops.add(problem, f"{name_of(entry)}:{numbers[row]}", source_lines[row], target_lines[row])
            times_N = _times(len(pairs), entry.weight, random)
            times_N[list(problems)] = 0
            origins_N = np.array([(index, int(number)) for number in numbers], dtype=ORIGIN)
            for rows in _repeated(times_N):
                write(pairs.take(rows))
                origins.append(origins_N[rows])
            advance(len(pairs))
    write_origins(folder, origins)
    return outcomes


def _repeated(times_N: Integers) -> Iterator[Integers]:
    """Each row as often as it is used, in order; in slices, as a large weight makes many rows of one block."""
    ends_N = times_N.cumsum()
    for start in range(0, int(ends_N[-1]), BLOCK):
        yield np.searchsorted(ends_N, np.arange(start, min(start + BLOCK, ends_N[-1])), side="right")


def _times(count: int, weight: float, random: np.random.Generator) -> Integers:
    """How often each row is used: the whole part of the weight, and once more with its fraction as probability."""
    whole = int(weight)
    return np.full(count, whole) + (random.random(count) < weight - whole)


# --- Validation and test pairs: all of them ----------------------------------------------------------------------


def copy_text(split: str, folder: Path, config: Config, console: Console) -> list[Reading]:
    """Write source.txt and target.txt.

    Raises DataError where a row is not a pair or longer than any sentence, and where an entry holds no text.
    """
    folder.mkdir(parents=True)
    with new_text(folder / "source.txt") as source_file, new_text(folder / "target.txt") as target_file:
        readings = [
            _copy_entry(entry, source_file, target_file, config, console) for entry in config.data.splits[split]
        ]
    for reading in readings:
        if not reading.read:
            raise DataError(f"{reading.name}: no pairs; data.{split.replace('/', '.')} names it")
    return readings


def _copy_entry(entry: Input, source_file: IO[str], target_file: IO[str], config: Config, console: Console) -> Reading:
    reading = Reading(name_of(entry))
    blank: list[int] = []  # numbers of the pairs without text on one side
    for pairs in read_pairs(entry, config.data.src, config.data.tgt, config.seed):
        for row, problem in pairs.problems.items():
            place = f"{reading.name}:{pairs.numbers[row]}"
            raise DataError(f"{place}: {problem}; validation and test pairs are never left out")
        for number, *pair in zip(pairs.numbers, pairs.source, pairs.target, strict=True):
            for file, line in zip((source_file, target_file), pair, strict=True):
                refuse_giant(line, f"{reading.name}:{number}")
                file.write(f"{reading.valid(line)}\n")
            if not all(line.strip() for line in pair):
                blank.append(number)
        reading.add(pairs, len(pairs.source))
    name, read = reading.name, reading.read
    if read and len(blank) == read:
        raise DataError(f"{name}: in all of its {read:,} pairs a side is blank; validation and test need text")
    if blank:
        console.warn(f"{name}:{blank[0]}: a side is blank, as in {len(blank):,} of {read:,} pairs; all pairs count")
    reading.warn(console)
    return reading


def encode_text(folder: Path, encoder: PairEncoder, entries: Sequence[Input], readings: Sequence[Reading]) -> None:
    """Write the ids of a folder's source.txt and target.txt, which these entries were copied to."""
    sources, targets = iter(read_text(folder / "source.txt")), iter(read_text(folder / "target.txt"))
    with corpus_writer(folder) as write:
        for entry, reading in zip(entries, readings, strict=True):
            source_lines, target_lines = list(islice(sources, reading.read)), list(islice(targets, reading.read))
            write(encoder.encode(source_lines, target_lines, entry.tag)[0])


def new_text(path: Path) -> IO[str]:
    """A new file for text as prepared: UTF-8, a line feed after each line and nowhere else."""
    return open(path, "w", encoding="utf-8", newline="\n")
