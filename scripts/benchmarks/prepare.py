#!/usr/bin/env python
"""Time and peak memory of `mt prepare` by number of pairs.

    scripts/benchmarks/prepare.py ../text/train --pairs 500000 1500000 4500000

Each PREFIX is read as PREFIX.en and PREFIX.de, plain or compressed. When the pairs run out they come round again with
the number of the round at the end of each line, so that no pair is a duplicate of an earlier one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from common import MAXRSS_GIB, machine

from mt.data.build import new_text
from mt.data.sources import read_pairs
from mt.data_config import Input

CONFIG = """
data: {{dir: {work}/data, train: {work}/train, valid: {work}/valid, vocab_size: {vocab}}}
"""


def main() -> None:
    options = parse_options()
    print(f"{'pairs':>10} {'seconds':>8} {'pairs/s':>8} {'peak MiB':>9} {'text MiB':>9} {'made MiB':>9}", flush=True)
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            work = Path(folder)
            write_text(options.prefixes, work / "valid", 1_000)
            write_text(options.prefixes, work / "train", pairs)
            (work / "config.yaml").write_text(CONFIG.format(work=work, vocab=options.vocab_size))
            seconds, peak = run_prepare(work / "config.yaml", options.verbose)
            text = sum((work / f"train.{language}").stat().st_size for language in ("en", "de"))
            made = sum(path.stat().st_size for path in (work / "data").rglob("*") if path.is_file())
            print(
                f"{pairs:>10,} {seconds:>8.1f} {pairs / seconds:>8,.0f} {peak:>9,} {text >> 20:>9,} {made >> 20:>9,}",
                flush=True,
            )
    print(f"vocabulary {options.vocab_size:,}; {machine()}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefixes", nargs="+", metavar="PREFIX")
    parser.add_argument("--pairs", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--vocab-size", type=int, default=37_000)
    parser.add_argument("--work", type=Path, help="where text and data are written meanwhile")
    parser.add_argument("--verbose", action="store_true", help="show the stages")
    return parser.parse_args()


def rounds(prefixes: list[str]) -> Iterator[tuple[str, str]]:
    """The pairs of all prefixes, endlessly."""
    for number in count():
        mark = f" {number}" if number else ""
        for prefix in prefixes:
            for chunk in read_pairs(Input(prefix=prefix), "en", "de", seed=1):
                for source, target in zip(chunk.source, chunk.target, strict=True):
                    yield source + mark, target + mark


def write_text(prefixes: list[str], prefix: Path, pairs: int) -> None:
    with new_text(Path(f"{prefix}.en")) as english, new_text(Path(f"{prefix}.de")) as german:
        for source, target in islice(rounds(prefixes), pairs):
            english.write(f"{source}\n")
            german.write(f"{target}\n")


def run_prepare(config: Path, verbose: bool) -> tuple[float, int]:
    """Wall seconds, and the largest resident memory in MiB."""
    start = time.monotonic()
    output = None if verbose else subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-m", "mt", "prepare", config], stderr=output)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"mt prepare ended with status {process.returncode}; --verbose shows why")
    return time.monotonic() - start, round(1024 * usage.ru_maxrss / MAXRSS_GIB)


if __name__ == "__main__":
    main()
