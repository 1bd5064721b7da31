#!/usr/bin/env python
"""Quality and speed of a teacher and its students on one core: 32 and 8 bits, with and without a shortlist.

    scripts/benchmarks/frontier.py --ckpt runs/teacher runs/student-6-2 --src test.en --ref test.de --work frontier

For each model: BLEU and chrF; source words a second from text to text, in batches of 64 sentences of like length; the
time of one sentence of about 25 words alone, median and 95th percentile; megabytes on disk. CTranslate2 runs the same
models in 8 bits, where it is installed and can hold them. (Marian reads a format that mt does not write.) Systems have
a process of one thread each and take turns. What is measured is added to DIR/frontier.jsonl; DIR/frontier.md and
DIR/frontier.svg show the newest of each system that stands there. A run has a shortlist once `mt shortlist` made it.
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Picture, System, add_record, machine, read_records, start
from gpu_table import table

from mt import Translator
from mt.console import Console
from mt.data.vocabulary import TOKENIZER_FILES, Tokenizers
from mt.errors import UsageError
from mt.evaluate.bleu import scores
from mt.files import read_lines, write_whole
from mt.interop.export import export
from mt.pages.charts import ticks
from mt.run_folder import find_checkpoint, folder_of
from mt.translate.shortlist import FILE as SHORTLIST

WORDS = 25  # of the sentences that are timed alone
Record = dict[str, Any]
Translate = Callable[[Sequence[str]], list[str]]  # lines of one batch


@dataclass(frozen=True)
class Kind:
    """A way to run a model: how it is named, the folder of its files, and what makes it translate."""

    name: str
    folder: Path
    files: Sequence[Path]  # that it needs on the disk
    shortlist: bool = False
    is_peer: bool = False


def main() -> None:
    options = parse_options()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the systems, which start with it
    options.work.mkdir(exist_ok=True)
    lines, references = read_lines(options.src)[: options.lines], read_lines(options.ref)[: options.lines]
    for ckpt in options.ckpt:
        kinds = list(kinds_of(ckpt, options.work))
        systems = [start(kind.name, make_system, kind, options.beam, lines) for kind in kinds]
        found = [measured(system, lines, references) for system in systems]  # warms up too
        for _ in range(options.windows):
            for system in systems:
                system.take_turn("words")
        latencies = [system.ask(("alone", options.alone))[1] for system in systems]
        for kind, system, record, seconds in zip(kinds, systems, found, latencies, strict=True):
            times = {"p50_ms": 1e3 * statistics.median(seconds), "p95_ms": 1e3 * percentile(seconds, 0.95)}
            speed = {"words_per_second": statistics.median(system.rates), "peak_gib": system.end()}
            size = sum(path.stat().st_size for path in kind.files) / 1e6
            what = {"model": str(ckpt), "system": kind.name, "beam": options.beam, "machine": machine()}
            add_record(options.work / "frontier.jsonl", {**what, **record, **speed, **times, "megabytes": size})
    show(options.work)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, nargs="+", required=True, help="runs or checkpoints, the teacher first")
    parser.add_argument("--src", type=Path, required=True)
    parser.add_argument("--ref", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for exported models and the results")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--lines", type=int, help="use so many lines; by default all")
    parser.add_argument("--alone", type=int, default=100, help="sentences that are timed alone")
    parser.add_argument("--windows", type=int, default=3, help="turns that each system has")
    return parser.parse_args()


# --- The systems --------------------------------------------------------------------------------------------------


def kinds_of(ckpt: Path, work: Path) -> Iterator[Kind]:
    """The ways to run a model; what is exported for them is kept in the folder."""
    name = ckpt.resolve().name
    whole, int8, peer = find_checkpoint(ckpt), work / f"{name}.int8", work / f"{name}.ctranslate2"
    if not int8.exists():
        export([ckpt], "mt", int8, None, None, Console(quiet=True))
    has_list = (folder_of(ckpt) / SHORTLIST).is_file()
    if not has_list:
        print(f"{ckpt}: no shortlist; mt shortlist {folder_of(ckpt)} makes it")
    for precision, folder, run in (("float32", whole, folder_of(ckpt)), ("int8", int8, int8)):
        files = [folder / file for file in ("model.safetensors", "config.yaml", *TOKENIZER_FILES)]
        files = [path for path in files if path.exists()]
        yield Kind(f"mt {precision}", folder, files)
        if has_list:
            yield Kind(f"mt {precision}, shortlist", folder, [*files, run / SHORTLIST], shortlist=True)
    if importlib.util.find_spec("ctranslate2"):
        try:
            if not peer.exists():
                export([ckpt], "ctranslate2", peer, "int8", None, Console(quiet=True))
            yield Kind("CTranslate2 int8", peer, [path for path in peer.iterdir() if path.is_file()], is_peer=True)
        except UsageError as error:
            print(f"{ckpt}: without CTranslate2: {error}")


def make_system(kind: Kind, beam: int, lines: Sequence[str]) -> Callable[[Any], Any]:
    """Answers "lines", the translations; "words", how many words of the source it has translated; ("alone", count)."""
    translate = ctranslate2(kind, beam) if kind.is_peer else ours(kind, beam)
    order = sorted(range(len(lines)), key=lambda row: len(lines[row]))
    batches = [order[first : first + 64] for first in range(0, len(order), 64)]

    def all_lines() -> list[str]:
        found = [""] * len(lines)
        for rows in batches:
            for row, text in zip(rows, translate([lines[row] for row in rows]), strict=True):
                found[row] = text
        return found

    def alone(count: int) -> list[float]:
        chosen = sorted(lines, key=lambda line: abs(len(line.split()) - WORDS))[:count]
        seconds = []
        for line in [*chosen[:3], *chosen]:  # the first three warm up
            begun = time.perf_counter()
            translate([line])
            seconds.append(time.perf_counter() - begun)
        return seconds[3:]

    def answer(question: Any) -> Any:
        if isinstance(question, tuple):
            return alone(question[1])
        found = all_lines()
        return found if question == "lines" else sum(len(line.split()) for line in lines)

    return answer


def ours(kind: Kind, beam: int) -> Translate:
    precision = kind.name.split()[1].strip(",")
    by_length = {"penalty": "length", "alpha": 1.0}  # as CTranslate2 compares hypotheses by default
    decode = {"beam": beam, "precision": precision, "batch_tokens": 2**20, **by_length}
    return Translator(kind.folder, device="cpu", decode={**decode, "shortlist": "yes" if kind.shortlist else "no"})


def ctranslate2(kind: Kind, beam: int) -> Translate:
    import ctranslate2 as library

    model = library.Translator(str(kind.folder), device="cpu", intra_threads=1)
    source, target = (kind.folder / name for name in ("source.spm", "target.spm"))
    if not source.exists():
        source = target = kind.folder / "sentencepiece.model"
    tokenizers = Tokenizers.read(dict(zip(TOKENIZER_FILES, (source.read_bytes(), target.read_bytes()), strict=True)))
    ids = {piece: index for index, piece in enumerate(tokenizers.target.vocabulary)}

    def translate(lines: Sequence[str]) -> list[str]:
        pieces = [tokenizers.source.pieces(line) for line in tokenizers.source.encode(list(lines))]
        found = model.translate_batch(pieces, beam_size=beam, disable_unk=True, min_decoding_length=0)
        return tokenizers.target.decode([[ids[piece] for piece in one.hypotheses[0]] for one in found])

    return translate


# --- What is found ------------------------------------------------------------------------------------------------


def measured(system: System, lines: Sequence[str], references: Sequence[str]) -> Record:
    found = {score.name: score.value for score in scores(system.ask("lines")[1], references)}
    return {"sentences": len(lines), "bleu": found["BLEU"], "chrf": found["chrF2"]}


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def show(work: Path) -> None:
    """The table and the plot of all that was measured so far."""
    newest = {(one["model"], one["system"], one["beam"]): one for one in read_records(work / "frontier.jsonl")}
    rows = [
        (
            *(Path(one["model"]).name, one["system"], one["beam"], f"{one['bleu']:.2f}", f"{one['chrf']:.2f}"),
            *(f"{one['words_per_second']:,.0f}", f"{one['p50_ms']:.1f}", f"{one['p95_ms']:.1f}"),
            f"{one['megabytes']:.1f}",
        )
        for one in newest.values()
    ]
    head = "model | system | beam | BLEU | chrF | source words/s | p50, ms | p95, ms | MB"
    shown = f"{table(head, *rows)}\n"
    write_whole(work / "frontier.md", shown)
    write_whole(work / "frontier.svg", plot(list(newest.values())))
    print(f"{next(iter(newest.values()))['machine']}\n{shown}")


def plot(records: list[Record]) -> str:
    """BLEU by source words a second: a colour for each model, a ring for other programs."""
    x_ticks = ticks(0, max(one["words_per_second"] for one in records))
    y_ticks = ticks(min(one["bleu"] for one in records), max(one["bleu"] for one in records))
    picture = Picture(x_ticks, y_ticks, "source words a second, one core", "BLEU")
    models = list(dict.fromkeys(one["model"] for one in records))
    for number, model in enumerate(models):
        picture.key(number, Path(model).name)
    for one in records:
        name = one["system"] if one["beam"] == 1 else f"{one['system']}, beam {one['beam']}"
        place = (one["words_per_second"], one["bleu"])
        picture.point(models.index(one["model"]), place, name, is_ring=not name.startswith("mt"))
    return str(picture)


if __name__ == "__main__":
    main()
