#!/usr/bin/env python
"""What gpu.py wrote down, as tables in Markdown for scripts/README.md.

    scripts/benchmarks/gpu_table.py gpu.jsonl

A heading for each GPU and commit in the file, so that a profile, say, stands there as it was before and after a change.
"of the ceiling" is the share of the GPU's own rate of large products that a system's products have.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import read_records

Found = dict[str, Any]
SPREAD = "lowest to highest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    records = read_records(parser.parse_args().results)
    for device, commit in dict.fromkeys((record["device"], record["commit"]) for record in records):
        same = [record for record in records if (record["device"], record["commit"]) == (device, commit)]
        print(f"### {device}, commit {commit}\n")
        for part in parts({record["piece"]: record for record in same}):  # of a piece measured again, the newest
            print(part, end="\n\n")


def parts(records: dict[str, Found]) -> Iterator[str]:
    """The tables of one GPU and commit; what was not measured has none."""
    found = {name: record["found"] for name, record in records.items() if record["status"] == "done"}
    if about := found.get("environment"):
        packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
        yield f"{about['machine']}; driver {about['driver']}, CUDA {about['cuda']}, {about['gcc']}; {packages}"
    if tests := found.get("tests"):
        faults = [line for line in tests["output"].splitlines() if line.startswith(("FAILED", "ERROR"))]
        yield "\n".join([f"`pytest -m gpu`: {tests['summary']}", *(f"- {line}" for line in faults)])
    ceiling = found.get("ceilings")
    if ceiling:
        yield f"Ceilings: {ceiling['flops'] / 1e12:,.1f} TFLOP/s in bfloat16, {ceiling['bytes'] / 1e12:.3f} TB/s copied"
    yield from training_tables(beginning(found, "training "), ceiling)
    yield from update_tables(beginning(found, "updates "))
    yield from profile_tables(beginning(found, "profile "))
    yield from decoding_tables(beginning(found, "decoding "), beginning(found, "mt translate "))
    yield from run_lines(beginning(found, "run "), beginning(found, "resume "))
    failed = {name: record for name, record in records.items() if record["status"] != "done"}
    if failed:
        yield table("failed | message", *((name, record["error"].split("\n")[0]) for name, record in failed.items()))


def beginning(found: dict[str, Found], start: str) -> dict[str, Found]:
    """The pieces whose names begin so, by the rest of the name."""
    return {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}


def table(head: str, *rows: tuple[object, ...]) -> str:
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def spread(rates: list[float]) -> tuple[str, str]:
    """The median, and from the lowest to the highest."""
    return f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"


def times(ours: list[float] | None, theirs: list[float]) -> str:
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}x" if ours else ""


def training_tables(found: dict[str, Found], ceiling: Found | None) -> Iterator[str]:
    """For each size: "mt is" compares our quickest way that repeats its results with each system."""
    for size in dict.fromkeys(name.split(", ")[0] for name in found):
        systems = [one for name, one in found.items() if name.split(", ")[0] == size]
        ours = [one["tokens_per_second"] for one in systems if one["system"] in ("mt", "mt, compiled")]
        best, rows = max(ours, key=statistics.median, default=None), []
        for one in systems:
            rate = statistics.median(one["tokens_per_second"])
            share = f"{rate * one['flops_per_token'] / ceiling['flops']:.1%}" if ceiling else ""
            hours = 100_000 * one["tokens_per_update"] / rate / 3_600
            memory = "" if one["gib"] is None else f"{one['gib']:.1f}"
            cpu, graphs = f"{1_000 * one['cpu_seconds_per_update']:.1f}", one["graphs"]
            against = times(best, one["tokens_per_second"])
            row = (share, against, memory, graphs, cpu, f"{one['warm_up_seconds']:.0f} s", f"{hours:.2f} h")
            rows.append((one["system"], *spread(one["tokens_per_second"]), *row))
        columns = "of the ceiling | mt is | GiB | graphs | CPU ms an update | warm-up | 100,000 updates"
        yield table(f"training, {size} | tokens/s | {SPREAD} | {columns}", *rows)


def update_tables(found: dict[str, Found]) -> Iterator[str]:
    for size, ways in found.items():
        rows = [
            (
                way,
                f"{one['tokens_per_second']:,.0f}",
                *(f"{one[key]:.1f}" for key in ("ms_per_update", "ms_to_issue", "main_thread_ms_per_update")),
                f"{one['cpu_ms_per_update']:.1f}",
                one["limited_by"],
            )
            for way, one in ways.items()
        ]
        columns = "ms an update | ms to issue one alone | CPU ms, main thread | CPU ms, all threads | what limits"
        yield table(f"updates as `mt train` takes them, {size} | tokens/s | {columns}", *rows)


def profile_tables(found: dict[str, Found]) -> Iterator[str]:
    for size, one in found.items():
        total = one["kernel_ms_per_update"]
        kernels = [
            (f"`{kernel['name'][:70]}`", f"{kernel['ms']:.2f}", f"{kernel['ms'] / total:.1%}", f"{kernel['calls']:.0f}")
            for kernel in one["kernels"]
        ]
        rows = [*kernels, ("all", f"{total:.2f}", "100%", ""), ("the update itself", f"{one['ms_per_update']:.2f}")]
        yield table(f"profile, {size} | ms an update | share | calls", *rows)


def decoding_tables(found: dict[str, Found], translated: dict[str, Found]) -> Iterator[str]:
    for what in dict.fromkeys(name.split(", ")[0] for name in found):
        systems = [one for name, one in found.items() if name.split(", ")[0] == what]
        ours = {(row["beam"], row["together"]): row["tokens_per_second"] for row in systems[0]["rows"]}
        rows = [
            (
                one["system"],
                row["beam"],
                f"{row['together']:,}",
                *spread(row["tokens_per_second"]),
                times(ours.get((row["beam"], row["together"])), row["tokens_per_second"]),
                "" if row["bleu"] is None else f"{row['bleu']:.2f}",
            )
            for one in systems
            for row in one["rows"]
        ]
        head = f"decoding {what}, {systems[0]['sentences']:,} sentences | beam | sentences together"
        yield table(f"{head} | tokens/s | {SPREAD} | {systems[0]['system']} is | BLEU", *rows)
    for what, one in translated.items():
        lines = [
            (
                f"{row['batch_tokens']:,}",
                f"{row['lines']:,}",
                f"{row['seconds']:.1f}",
                f"{row['lines'] / row['seconds']:,.0f}",
                "" if row["bleu"] is None else f"{row['bleu']:.2f}",
            )
            for row in one["rows"]
        ]
        yield table(f"`mt translate` of {what}, decode.batch_tokens | lines | seconds | lines/s | BLEU", *lines)


def run_lines(runs: dict[str, Found], resumed: dict[str, Found]) -> Iterator[str]:
    for name, one in runs.items():
        if "scores" in one:
            shown = ", ".join(f"{score['name']} {score['value']:.2f}" for score in one["scores"])
            yield f"Run {name}, {one['testset']}: {shown}"
        else:
            rate = "" if one["tokens_per_second"] is None else f", {one['tokens_per_second']:,.0f} tokens/s"
            bleu = "" if one["valid_bleu"] is None else f", validation BLEU {one['valid_bleu']:.2f}"
            yield f"Run {name}: {one['updates']:,} updates in {one['minutes']:.1f} minutes{rate}{bleu}"
    for name, one in resumed.items():
        same = "the same bytes as" if one["same_bytes"] else "OTHER BYTES than"
        yield f"Resume {name}: killed after update {one['killed_after']}, at the end {same} the run left alone"


if __name__ == "__main__":
    main()
