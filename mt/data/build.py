"""The stages of preparing: read and clean, learn the pieces, encode; each streams, so a corpus of any size fits."""

import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import IO

import numpy as np

from mt.config import Config
from mt.console import Console, counted
from mt.data.clean import valid_unicode
from mt.data.corpus import corpus_writer
from mt.data.duplicates import mark_repeated, repeated_path
from mt.data.encoding import PairEncoder
from mt.data.finished import Record, begin, finish, finished, read_record, write_record
from mt.data.lines import refuse_giant
from mt.data.pairs import Pairs
from mt.data.prepared import read_text
from mt.data.processes import Workers
from mt.data.shards import (
    TEXT,
    CleanBlock,
    Encoding,
    TextShard,
    clean_block,
    encode_shard,
    numbered_pairs,
    place_after,
    sample_blocks,
    text_place,
    whole_sample,
    write_text,
)
from mt.data.sources import read_pairs
from mt.data.tokenizer import Tokenizer, train_tokenizer
from mt.data.vocabulary import Tokenizers
from mt.data_config import Input, name_of
from mt.errors import DataError

SOURCE, TARGET = 0, 1  # sides of a pair
ROW_BYTES = 22  # of a training pair on disk, beside its ids: offsets of both sides, and its origin
ALONE = 10  # blocks cleaned before other processes are started, as small texts are done by then


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


# --- Training pairs ----------------------------------------------------------------------------------------------


def clean_training(config: Config, scratch: Path, workers: Workers, console: Console) -> list[Record]:
    """Write the training pairs that pass the rules on text, in shards; returns the records of these.

    Shards that are there and whole are kept. Text is read from the entry on in which the first missing one begins, and
    up to the end of the last.
    """
    folder, entries = scratch / "text", config.data.train
    folder.mkdir(exist_ok=True)
    records = _finished([text_place(scratch, int(path.stem)) for path in folder.glob("*.json")], workers)
    total = read_record(scratch / "shards.json")  # how many there are, once all text has been read
    if len(records) != total:
        first = [records[f"{n:05}"] for n in takewhile(lambda n: f"{n:05}" in records, itertools.count())]
        last = max((number for number in range(total or 0) if f"{number:05}" not in records), default=None)
        label = name_of(entries[0]) if len(entries) == 1 else counted(len(entries), "source")
        with console.track(f"reading {label}", unit="pair") as advance:
            read = numbered_pairs(config, place_after(first, config))
            read = read if last is None else takewhile(lambda block: block.shard <= last, read)
            missing = (block for block in read if f"{block.shard:05}" not in records)

            def cleaned() -> Iterator[CleanBlock]:
                for block in workers.map(partial(clean_block, config.data.clean, config.data.seed), missing, ALONE):
                    advance(block.read, (block.entry + block.share) / len(entries))
                    yield block

            for number, blocks in groupby(cleaned(), lambda block: block.shard):
                records[f"{number:05}"] = write_text(*text_place(scratch, number), blocks, config)
        write_record(scratch / "shards.json", len(records))
    return [records[name] for name in sorted(records)]


def _finished(places: Iterable[tuple[Path, Path]], workers: Workers) -> dict[str, Record]:
    """The records of the shards that are whole, by name."""
    places = list(places)
    found = workers.map(finished, places, len(places) if len(places) < 2 else 0)
    return {record.stem: whole for (record, _), whole in zip(places, found, strict=True) if whole is not None}


def text_shards(records: Sequence[Record], scratch: Path, config: Config, console: Console) -> list[TextShard]:
    """The shards with these records, with what is repeated in them marked where data.clean.duplicates says so."""
    folders = [text_place(scratch, number)[1] for number in range(len(records))]
    repeated, record = scratch / "repeated", scratch / "repeated.json"
    if config.data.clean.duplicates and not finished((record, repeated)):
        rows = [record["rows"] for record in records]
        with console.track("finding duplicates", unit="pair") as advance:
            mark_repeated(folders, rows, begin(repeated), lambda share: advance(0, share))
            advance(sum(rows) if len(rows) > 1 else 0)  # nothing is said of what takes no time
        finish(repeated, record)
    shards, kept = list[TextShard](), 0
    for number, folder in enumerate(folders):
        marks = repeated_path(repeated, number) if config.data.clean.duplicates else None
        shards.append(TextShard(number, folder, marks, kept))
        kept += len(shards[-1].kept)
    return shards


def readings_of(records: Sequence[Record], shards: Sequence[TextShard], config: Config) -> list[Reading]:
    """What was read from each entry of data.train."""
    readings = [Reading(name_of(entry)) for entry in config.data.train]
    for record, shard in zip(records, shards, strict=True):
        for entry, (read, line_feeds, repaired) in record["counts"]:
            readings[entry].read += read
            readings[entry].line_feeds += line_feeds
            readings[entry].repaired += repaired
        for entry, kept in enumerate(np.bincount(shard.kept["source"]).tolist()):
            readings[entry].kept += kept
    return readings


def refuse_weights(readings: Sequence[Reading], records: Sequence[Record], config: Config, folder: Path) -> None:
    """Raise DataError when weights make more training pairs than the disk holds."""
    weights = [entry.weight for entry in config.data.train]
    rows = sum(reading.kept * weight for reading, weight in zip(readings, weights, strict=True))
    text = sum(record["files"][TEXT]["bytes"] for record in records) / sum(record["rows"] for record in records)
    disk, free = rows * (ROW_BYTES + text / 2), shutil.disk_usage(folder).free  # 4 characters a piece
    if max(weights) > 1 and disk > free:
        heaviest = weights.index(max(weights))
        raise DataError(
            f"{readings[heaviest].name}: weight {weights[heaviest]:g} makes {rows:,.0f} training pairs, which take "
            f"about {disk / 1e9:,.1f} GB on disk ({free / 1e9:,.1f} free); lower it"
        )


def learn_tokenizers(shards: Sequence[TextShard], config: Config, workers: Workers, console: Console) -> Tokenizers:
    """Train a tokenizer on both sides of a random sample of the kept pairs, or one on each."""
    if config.data.vocab == "joint":
        return Tokenizers(_learn(shards, (SOURCE, TARGET), config, workers, console))
    return Tokenizers(*(_learn(shards, (side,), config, workers, console) for side in (SOURCE, TARGET)))


def _learn(
    shards: Sequence[TextShard], sides: Sequence[int], config: Config, workers: Workers, console: Console
) -> Tokenizer:
    data = config.data
    language = (data.src, data.tgt)[sides[0]] if len(sides) == 1 else ""
    weights = np.array([entry.weight for entry in data.train])
    available = len(sides) * sum(float(weights[shard.kept["source"]].sum()) for shard in shards)
    rate = min(1.0, data.tokenizer_sample / available)
    label = f"learning {data.vocab_size:,} pieces" + (f" of {language}" if language else "")
    with console.track(label, round(rate * available), unit="sentence") as advance:

        def sampled() -> Iterator[str]:
            drawn: Iterator[list[tuple[str, str]]]
            if len(shards) == 1:
                drawn = sample_blocks(config, rate, shards[0])
            else:
                drawn = workers.map(partial(whole_sample, config, rate), shards)
            for pairs in drawn:
                advance(len(sides) * len(pairs))
                yield from (pair[side] for pair in pairs for side in sides)

        try:
            return train_tokenizer(sampled(), data.vocab_size, data.all_symbols)
        except DataError as error:
            raise DataError(f"{language}: {error}" if language else f"{error}") from None


def encode_training(
    encoding: Encoding, shards: Sequence[TextShard], workers: Workers, console: Console
) -> list[Record]:
    """Encode the shards that are not yet, or not as they were written; returns the records of all."""
    encoding.records.mkdir(exist_ok=True)
    records = _finished([encoding.place(shard.number) for shard in shards], workers)
    todo = [shard for shard in shards if f"{shard.number:05}" not in records]
    with console.track("encoding", sum(len(shard.origins) for shard in todo), unit="pair") as advance:
        if len(todo) == 1:
            records[f"{todo[0].number:05}"] = encode_shard(encoding, todo[0], advance)
        else:
            for shard, record in zip(todo, workers.map(partial(encode_shard, encoding), todo), strict=True):
                records[f"{shard.number:05}"] = record
                advance(len(shard.origins))
    return [records[name] for name in sorted(records)]


# --- Validation and test pairs: all of them ----------------------------------------------------------------------


def copy_text(split: str, folder: Path, config: Config, console: Console) -> list[Reading]:
    """Write source.txt and target.txt.

    Raises DataError where a row is not a pair or longer than any sentence, and where an entry holds no text.
    """
    shutil.rmtree(folder, ignore_errors=True)
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
    for pairs in read_pairs(entry, config.data.src, config.data.tgt, config.data.seed):
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
