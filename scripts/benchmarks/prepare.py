#!/usr/bin/env python
"""Time, peak memory and disk of `mt prepare` by stage, and what they say of a billion pairs.

    scripts/benchmarks/prepare.py --pairs 1000000                      # made-up words, about 100 bytes a pair
    scripts/benchmarks/prepare.py ../text/train --pairs 500000 4500000 --processes 1 2

Each PREFIX is read as PREFIX.en and PREFIX.de, plain or compressed. When the pairs run out they come round again with
the number of the round at the end of each line, so that no pair is a duplicate of an earlier one. Without a PREFIX the
words are made up, as frequent as Zipf's law says. Memory is that of all processes together, what they share counted in
each of them; disk is what data.dir takes, and the folder beside it until it is done. Linux only.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from common import machine

from mt.data.build import new_text
from mt.data.sources import read_pairs
from mt.data_config import Input

CONFIG = """
data: {{dir: {work}/data, train: {work}/train, valid: {work}/valid, vocab_size: {vocab}, processes: {processes}}}
"""
WORDS = 300_000  # different made-up words of a language
LENGTH = 8  # of them in a sentence, on average
BLOCK = 10_000  # pairs made at a time
BILLION = 10**9
EVERY = 0.2  # seconds between two looks at memory and disk


@dataclass
class Stage:
    """What a stage of preparing took; of memory and disk the peaks."""

    name: str
    seconds: float
    memory: int
    disk: int


def main() -> None:
    options = parse_options()
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            work = Path(folder)
            write_text(options.prefixes, work / "valid", 1_000)
            write_text(options.prefixes, work / "train", pairs)
            text = sum((work / f"train.{language}").stat().st_size for language in ("en", "de"))
            for processes in options.processes:
                config = work / f"{processes}.yaml"
                config.write_text(CONFIG.format(work=work, vocab=options.vocab_size, processes=processes))
                stages = run_prepare(config, work / "data", options)
                made = disk_of(work / "data")
                subprocess.run(["rm", "-rf", work / "data"], check=True)
                report(pairs, processes, stages, text, made)
    print(f"vocabulary {options.vocab_size:,}; {machine()}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX")
    parser.add_argument("--pairs", type=int, nargs="+", default=[200_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vocab-size", type=int, default=37_000)
    parser.add_argument("--work", type=Path, help="where text and data are written meanwhile")
    parser.add_argument("--verbose", action="store_true", help="show what mt prepare says")
    return parser.parse_args()


def report(pairs: int, processes: int, stages: list[Stage], text: int, made: int) -> None:
    """Print a row for each stage; its seconds for a billion pairs, but for learning, which reads a sample."""
    print(f"{pairs:,} pairs, processes {processes}: {text >> 20:,} MiB of text, {made >> 20:,} MiB made")
    print(f"{'stage':<24}{'seconds':>9}{'pairs/s':>10}{'peak MiB':>10}{'disk MiB':>10}{'hours a billion':>17}")
    hours = 0.0
    for stage in stages:
        scale = 1.0 if stage.name.startswith("learning") else BILLION / pairs
        hours += stage.seconds * scale / 3600
        print(
            f"{stage.name:<24}{stage.seconds:>9.1f}{pairs / stage.seconds:>10,.0f}{stage.memory >> 20:>10,}"
            f"{stage.disk >> 20:>10,}{stage.seconds * scale / 3600:>17.2f}"
        )
    seconds, peak, disk = sum(s.seconds for s in stages), max(s.memory for s in stages), max(s.disk for s in stages)
    all_of_it = f"{'all':<24}{seconds:>9.1f}{pairs / seconds:>10,.0f}{peak >> 20:>10,}{disk >> 20:>10,}{hours:>17.2f}"
    print(f"{all_of_it}\na billion pairs would need {disk * BILLION / pairs / 2**30:,.0f} GiB of disk", flush=True)


# --- Text --------------------------------------------------------------------------------------------------------


def rounds(prefixes: list[str]) -> Iterator[tuple[str, str]]:
    """The pairs of all prefixes, endlessly."""
    for number in count():
        mark = f" {number}" if number else ""
        for prefix in prefixes:
            for chunk in read_pairs(Input(prefix=prefix), "en", "de", seed=1):
                for source, target in zip(chunk.source, chunk.target, strict=True):
                    yield source + mark, target + mark


def made_up() -> Iterator[tuple[str, str]]:
    """Pairs of sentences of made-up words, endlessly."""
    random = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = [["".join(random.choice(letters, length)) for length in random.integers(2, 11, WORDS)] for _ in range(2)]
    chance = (1 / np.arange(1, WORDS + 1)).cumsum()
    while True:
        lengths = np.maximum(2, random.poisson(LENGTH, BLOCK))
        ends = lengths.cumsum()
        sides = [np.searchsorted(chance, random.random(ends[-1]) * chance[-1]).tolist() for _ in words]
        for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
            source, target = (
                " ".join([of[index] for index in side[start:end]]) for of, side in zip(words, sides, strict=True)
            )
            yield source, target


def write_text(prefixes: list[str], prefix: Path, pairs: int) -> None:
    with new_text(Path(f"{prefix}.en")) as english, new_text(Path(f"{prefix}.de")) as german:
        for source, target in islice(rounds(prefixes) if prefixes else made_up(), pairs):
            english.write(f"{source}\n")
            german.write(f"{target}\n")


# --- Measuring ---------------------------------------------------------------------------------------------------


def run_prepare(config: Path, folder: Path, options: argparse.Namespace) -> list[Stage]:
    """Run it, and look at its memory and disk until each line that ends a stage."""
    command = [sys.executable, "-m", "mt", "prepare", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    peaks = {"memory": 0, "disk": 0}

    def look() -> None:
        while process.poll() is None:
            peaks["memory"] = max(peaks["memory"], memory_of(process.pid))
            peaks["disk"] = max(peaks["disk"], disk_of(folder) + disk_of(folder.with_name(".data.new")))
            time.sleep(EVERY)

    looking = threading.Thread(target=look)
    looking.start()
    stages: list[Stage] = []
    assert process.stderr is not None
    start = time.monotonic()
    for line in process.stderr:
        if options.verbose:
            print(line, end="", file=sys.stderr)
        if found := re.match(r"(reading|finding duplicates|learning|encoding)\b.*: [\d,]+ \w+ in [\d.]+ s", line):
            stages.append(Stage(found[1], time.monotonic() - start, peaks["memory"], peaks["disk"]))
            start, peaks["memory"], peaks["disk"] = time.monotonic(), 0, 0
    looking.join()
    if process.wait():
        sys.exit(f"mt prepare ended with status {process.returncode}; --verbose shows why")
    return [*stages, Stage("hashes, fsync", time.monotonic() - start, peaks["memory"], peaks["disk"])]


def memory_of(session: int) -> int:
    """Bytes of all processes of a session."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total


def disk_of(folder: Path) -> int:
    """Bytes of the files below a folder that may be changing."""
    total = 0
    for path in folder.rglob("*") if folder.exists() else ():
        with suppress(OSError):
            total += path.stat().st_size
    return total


if __name__ == "__main__":
    main()
