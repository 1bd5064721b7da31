#!/usr/bin/env python
"""A batch job under `kill -9`: memory over time, what a restart costs, and whether the output is that of one go.

    scripts/benchmarks/job.py --ckpt runs/tiny --input big.en --work /tmp/job --kill-at 50000 500000 --compare 100000

Linux only: memory is read from /proc. Further options go to mt translate.
"""

import argparse
import filecmp
import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TextIO

from common import machine

SAMPLE_SECONDS = 10
MT = [sys.executable, "-m", "mt"]


def main() -> None:
    options, further = parse_options()
    work: Path = options.work
    work.mkdir(parents=True)
    print(machine(), flush=True)
    command = [*MT, "translate", "--ckpt", options.ckpt, "--quiet", *further]
    target = work / "output"
    begun = time.monotonic()
    with (work / "samples.tsv").open("w") as samples:
        for stop in [*options.kill_at, None]:
            watch([*command, "--input", options.input, "--output", target], target, stop, samples)
    wanted, found = count_lines(options.input), count_lines(target)
    print(f"{found:,} lines of output for {wanted:,} in {time.monotonic() - begun:,.0f} s", flush=True)
    show_memory(work / "samples.tsv")
    if options.compare:
        write_head(options.input, work / "head", options.compare)
        write_head(target, work / "head.killed", options.compare)
        subprocess.run([*command, "--input", work / "head", "--output", work / "head.straight"], check=True)
        same = filecmp.cmp(work / "head.killed", work / "head.straight", shallow=False)
        print(f"the first {options.compare:,} lines made in one go: {'the same bytes' if same else 'OTHER BYTES'}")
        sys.exit(not same or found != wanted)


def parse_options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a new folder for the output and the samples")
    parser.add_argument("--kill-at", type=int, nargs="*", default=[], metavar="LINES")
    parser.add_argument("--compare", type=int, default=0, metavar="LINES")
    return parser.parse_known_args()


def watch(command: list[str | Path], target: Path, stop: int | None, samples: TextIO) -> None:
    """Run the job until it ends or has done `stop` lines, then kill it; sample its memory on the way."""
    before, begun, sampled = lines_done(target), time.monotonic(), 0.0
    process, first = subprocess.Popen(command), True
    while process.poll() is None:
        done = lines_done(target)
        if first and done > before:
            print(f"from line {before:,}: the first new lines after {time.monotonic() - begun:.1f} s", flush=True)
            first = False
        if time.monotonic() - sampled > SAMPLE_SECONDS:
            sampled = time.monotonic()
            samples.write(f"{done}\t{resident_mib(process.pid)}\n")
            samples.flush()
        if stop is not None and done >= stop:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed at line {done:,}, after {time.monotonic() - begun:,.0f} s", flush=True)
            return
        time.sleep(0.05)
    if process.returncode or stop is not None:
        sys.exit(f"the job ended with status {process.returncode}, before anything killed it")


def lines_done(target: Path) -> int:
    """How far the job says it has come."""
    sidecar = target.with_name(f".{target.name}.progress")
    try:
        return int(json.loads(sidecar.read_text())["lines"])
    except FileNotFoundError:
        return 0


def resident_mib(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS")), 0)


def show_memory(samples: Path) -> None:
    """The most memory in each tenth of the job."""
    rows = [tuple(map(int, line.split("\t"))) for line in samples.read_text().splitlines()]
    tenth = max(lines for lines, _ in rows) / 10 or 1
    for number in range(1, 11):
        found = [mib for lines, mib in rows if (number - 1) * tenth <= lines <= number * tenth]
        if found:
            print(f"to line {number * tenth:>9,.0f}: at most {max(found):,} MiB of {len(found)} samples")


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def write_head(path: Path, head: Path, count: int) -> None:
    with path.open("rb") as file, head.open("wb") as out:
        out.writelines(islice(file, count))


if __name__ == "__main__":
    main()
