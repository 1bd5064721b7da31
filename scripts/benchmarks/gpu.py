#!/usr/bin/env python
"""Measure what mt makes of a GPU, piece by piece, into a file of JSON lines.

    scripts/benchmarks/gpu.py gpu.jsonl --minutes 9      # the next pieces; call it again until none is left
    scripts/benchmarks/gpu_table.py gpu.jsonl            # what was found, as tables in Markdown
    scripts/benchmarks/gpu.py toy.jsonl --toy            # on any machine: shows that the script works, no more

A piece has a process of its own and at most eight minutes. It is written down once it is done, so what is lost with a
machine is one piece. What is in the file for the same code and GPU is not measured again; a piece that failed is there
with its message, and tried again with --again. Hugging Face takes part where transformers is installed.
--config trains a real run and scores it; --source, with --ckpt or that run, decodes real text. Whether a GPU computes
what a CPU does, `pytest -m gpu` says, which is the second piece.
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to ask for a GPU must not begin to use it, see `measure`

import gpu_pieces as pieces
from common import SIZES, Size, add_record, commit, read_records
from gpu_pieces import NOT_REPEATABLE, TOY, Scale

from mt.config_file import load_config

LIMIT = 8 * 60  # seconds that a piece may take
PART = 5  # minutes of updates in one piece of a real run
TRAINED = ("mt", "mt, compiled", "nn.Transformer, compiled", "MarianMTModel")
ONE_CHANGE = (
    "mt, compiled, attention with padding",
    "mt, compiled, plain loss",
    "mt, compiled, residual in bfloat16",
)
DECODED = ("mt", "Hugging Face generate")


@dataclass(frozen=True)
class Piece:
    """What is measured in one go."""

    name: str
    seconds: int  # that it takes, about: where less time is left, it is not begun
    measure: Callable[..., pieces.Found]
    arguments: tuple[Any, ...] = ()


def main() -> None:
    options = parse_options()
    end = time.monotonic() + 60 * options.minutes
    identity = {"commit": code_version(options.commit), "device": device_name(options.toy)}
    known = {record["piece"] for record in read_records(options.results) if identity.items() <= record.items()}
    failed = {
        record["piece"]
        for record in read_records(options.results)
        if identity.items() <= record.items() and record["status"] == "failed"
    }
    for piece in all_pieces(options):
        if options.only and not any(fnmatch(piece.name, pattern) for pattern in options.only):
            continue
        if piece.name in known and not (options.again and piece.name in failed):
            continue
        left = end - time.monotonic()
        if left < piece.seconds:
            print(f"{piece.name}: takes about {piece.seconds} s; left for another call", flush=True)
            continue
        record = measure(piece, min(LIMIT, left))
        if record["status"] == "cut short":
            print(f"{piece.name}: not finished in the {left:.0f} s that were left; begun anew by the next call")
            continue
        add_record(options.results, {"piece": piece.name, **identity, **record})
        print(f"{piece.name}: {record['status']} in {record['seconds']:.0f} s {record.get('error', '')}", flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl", help="what is found is added here")
    parser.add_argument("--minutes", type=float, default=9, help="for this call")
    parser.add_argument("--only", nargs="+", metavar="PIECE", help="names or patterns, such as 'training base*'")
    parser.add_argument("--again", action="store_true", help="try again what failed")
    parser.add_argument("--list", action="store_true", help="only name the pieces")
    parser.add_argument("--config", help="a config whose data are prepared: a real run, in its train.dir")
    parser.add_argument("--train-minutes", type=int, default=15, help="of updates of that run, in all")
    parser.add_argument("--ckpt", type=Path, help="the trained run to decode with; by default that of --config")
    parser.add_argument("--source", type=Path, help="text to decode, such as newstest2014.en")
    parser.add_argument("--reference", type=Path, help="its translations, for BLEU")
    parser.add_argument("--commit", help="of the code, where the copy measured has no .git")
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    if options.list:
        parser.exit(message="".join(f"{piece.name} ({piece.seconds} s)\n" for piece in all_pieces(options)))
    return options


def all_pieces(options: argparse.Namespace) -> Iterator[Piece]:
    """In the order of their worth: right before quick, training before decoding."""
    scale = TOY if options.toy else Scale()
    sizes = {name: Size(SIZES[name].model, scale.vocabulary) for name in (["toy"] if options.toy else ["base", "big"])}
    first, size = next(iter(sizes.items()))
    yield Piece("environment", 10, pieces.environment)
    yield Piece("tests", 300, pieces.gpu_tests)
    yield Piece("ceilings", 20, pieces.ceilings, (scale,))
    for name, of_name in sizes.items():
        for trainer in TRAINED:
            if scale.compiled or "compiled" not in trainer:
                expected = (60 if name == "base" else 120) + 90 * ("compiled" in trainer)
                yield Piece(f"training {name}, {trainer}", expected, pieces.training, (scale, trainer, of_name))
    for trainer in ONE_CHANGE if scale.compiled else ():
        yield Piece(f"training {first}, {trainer}", 150, pieces.training, (scale, trainer, size))
    for name, of_name in sizes.items():
        yield Piece(f"updates {name}", 180, pieces.updates, (scale, of_name))
    for name, of_name in sizes.items():
        yield Piece(f"profile {name}", 120, pieces.profile, (scale, of_name))
    yield from run_pieces(scale, options)
    for decoder in DECODED:
        yield Piece(f"decoding {first}, {decoder}", 240, pieces.decoding, (scale, decoder, size))
    yield from text_pieces(scale, options)
    config = options.config or "demo"
    yield Piece(f"resume {Path(config).stem}", 240, pieces.resuming, (scale, config))
    if scale.compiled:
        unrepeatable = f"mt, compiled, {NOT_REPEATABLE}"
        yield Piece(f"training base, {unrepeatable}", 150, pieces.training, (scale, unrepeatable, size))


def run_pieces(scale: Scale, options: argparse.Namespace) -> Iterator[Piece]:
    """A real run, in parts, and its score."""
    if not options.config:
        return
    name, run = Path(options.config).stem, load_config(options.config).train.dir
    minutes = 0.05 if options.toy else PART
    for part in range(1, 2 if options.toy else -(-options.train_minutes // PART) + 1):
        yield Piece(f"run {name}, part {part}", PART * 60 + 150, pieces.training_for, (scale, options.config, minutes))
    yield Piece(f"run {name}, score", 90, pieces.scoring, (scale, run, options.source, options.reference))


def text_pieces(scale: Scale, options: argparse.Namespace) -> Iterator[Piece]:
    """Real text, with real weights."""
    ckpt = options.ckpt or (load_config(options.config).train.dir if options.config else None)
    if ckpt is None or options.source is None:
        return
    text = (ckpt, options.source, options.reference)
    for decoder in DECODED:
        yield Piece(f"decoding {options.source.name}, {decoder}", 240, pieces.decoding_text, (scale, decoder, *text))
    yield Piece(f"mt translate {options.source.name}", 120, pieces.translating, (scale, *text))


# --- One piece ---------------------------------------------------------------------------------------------------


def measure(piece: Piece, limit: float) -> dict[str, Any]:
    """Run a piece in a process of its own, and end that and all it has started when it takes too long.

    The process is forked, so that torch is imported once; nothing in this one may therefore begin to use the GPU.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    begun = time.monotonic()
    process = fork.Process(target=_answer, args=(theirs, piece))
    process.start()
    theirs.close()  # here, so that a process that dies is noticed
    record: dict[str, Any] = {"status": "cut short" if limit < LIMIT else "failed", "error": f"over {limit:.0f} s"}
    try:
        if ours.poll(limit):
            record = ours.recv()
    except EOFError:
        process.join()
        record = {"status": "failed", "error": f"the process died, exit status {process.exitcode}"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return {**record, "seconds": time.monotonic() - begun, "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def _answer(connection: Connection, piece: Piece) -> None:
    os.setsid()  # with all that it starts a group, which can be ended as one
    try:
        connection.send({"status": "done", "found": piece.measure(*piece.arguments)})
    except BaseException as error:
        trace = traceback.format_exc()[-3_000:]
        connection.send({"status": "failed", "error": f"{type(error).__name__}: {error}"[:1_000], "trace": trace})


# --- What was measured, and where ---------------------------------------------------------------------------------


def code_version(given: str | None) -> str:
    """The commit; where files differ from it or it is not known, also a hash of the code."""
    name: str = given or commit()
    if not given and name.isalnum() and name != "unknown":
        return name
    folders = (pieces.ROOT / "mt", Path(__file__).parent)
    code = b"".join(path.read_bytes() for folder in folders for path in sorted(folder.rglob("*.py")))
    return f"{name}, code {hashlib.sha256(code).hexdigest()[:8]}"


def device_name(toy: bool) -> str:
    found = "" if toy else pieces.printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return found.partition("\n")[0] or ("toy" if toy else "cuda")


if __name__ == "__main__":
    main()
