#!/usr/bin/env python
"""Minutes of training until a BLEU is reached: mt, Hugging Face's MarianMTModel and JoeyNMT on the same text and cores.

    scripts/benchmarks/time_to_quality.py prepare --work DIR data.train=TEXT/train data.valid=TEXT/valid 'data.test=[]'
    scripts/benchmarks/time_to_quality.py run mt --work DIR
    scripts/benchmarks/time_to_quality.py run huggingface --work DIR --python PYTHON
    scripts/benchmarks/time_to_quality.py run joeynmt --work DIR --python PYTHON
    scripts/benchmarks/time_to_quality.py table --work DIR

PYTHON is the interpreter of an environment with mt, transformers and accelerate, or with joeynmt alone. All train a
model of the same shape on the same pieces of the same pairs, about as many real target tokens an update, as often and
as long as `prepare` was told (train.updates, train.hours, train.checkpoint_every). What each sets for itself stands in
quality_peers.py with its reason; `run SYSTEM ... KEY=VALUE --name TRIAL` tries another setting in a run of its own.
The same command goes on with a run that was stopped, and leaves alone what is done.

What counts as time, for every system alike: all between the request for a session's first batch and the end of an
update, so batches, updates, their logging. What does not: imports, reading text, building the model, mt's rehearsal,
validation (mt validates, the peers are kept from it), decoding, and how long training stands still to write a
checkpoint. mt writes most of one beside its updates; how much that slows them counts. After a stop the time goes on
from that of the checkpoint; updates lost with a killed process are taken again, and count once.

What counts as quality: cased sacreBLEU of the validation set, detokenised, as each system itself decodes a checkpoint
greedily and in float32 after training. A target is reached at the first checkpoint at or above it. Peak memory is the
largest resident set of the training process, whole; mt's validation is part of it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import MAXRSS_GIB, Picture, add_record, read_records
from gpu_table import table

from mt.config import Config, ModelConfig
from mt.config_file import dump_config, load_config
from mt.data.batches import plan_batches
from mt.data.prepared import Prepared, open_prepared, read_text
from mt.data.tokenizer import Tokenizer
from mt.evaluate.bleu import bleu
from mt.files import write_whole
from mt.pages.charts import ticks
from mt.run_files import METRICS, read_metrics

HERE = Path(__file__).parent
MT = [sys.executable, "-m", "mt"]
SYSTEMS = ("mt", "huggingface", "joeynmt")
SHAPE = {"encoder_layers", "decoder_layers", "d_model", "heads", "d_ff", "dropout"}  # what the peers can share
TARGETS = (30.0, 34.0, 36.0)
STOPPED = 130

Record = dict[str, Any]


def main() -> None:
    options = parse_options()
    if options.step == "prepare":
        prepare(options.work, options.config, options.settings)
    elif options.step == "run":
        run(options.work, options.system, options.name or options.system, options.python, options.settings)
    else:
        show(options.work, options.targets)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    usage = "%(prog)s --work DIR [--config FILE] [SECTION.KEY=VALUE ...]"
    first = steps.add_parser("prepare", help="pieces and settings that all systems share", usage=usage)
    first.add_argument("--config", type=Path, default=HERE.parents[1] / "configs" / "multi30k.yaml")
    usage = f"%(prog)s {{{','.join(SYSTEMS)}}} --work DIR [--python PYTHON] [--name NAME] [KEY=VALUE ...]"
    second = steps.add_parser("run", help="train a system and decode its checkpoints", usage=usage)
    second.add_argument("system", choices=SYSTEMS)
    second.add_argument("--python", default=sys.executable, help="of an environment that has the peer")
    second.add_argument("--name", help="of the run; by default the system's")
    third = steps.add_parser("table", help="the table; points.jsonl and time_to_quality.svg in DIR")
    third.add_argument("--targets", nargs="+", type=float, default=TARGETS)
    for step in (first, second, third):
        step.add_argument("--work", type=Path, required=True, metavar="DIR")
    options, settings = parser.parse_known_args()  # settings may stand anywhere
    if wrong := [given for given in settings if "=" not in given or given[0] == "-" or options.step == "table"]:
        parser.error(f"not understood: {' '.join(wrong)}")
    options.settings = settings
    return options


# --- What all share ----------------------------------------------------------------------------------------------


def prepare(work: Path, path: Path, settings: list[str]) -> None:
    """Prepare the data with mt; write the settings and the pieces as text."""
    work.mkdir(parents=True, exist_ok=True)
    config = load_config(path, [*settings, f"data.dir={work / 'data'}"])
    if config.model.model_copy(update={key: getattr(ModelConfig(), key) for key in SHAPE}) != ModelConfig():
        sys.exit(f"the peers have the published model alone: under model, set nothing but {', '.join(sorted(SHAPE))}")
    told = work / "config.yaml"
    if told.exists() and told.read_text(encoding="utf-8") != dump_config(config):
        sys.exit(f"{told} has other settings: choose another --work, as runs with both would not compare")
    write_whole(told, dump_config(config))
    subprocess.run([*MT, "prepare", str(told)], check=True)
    prepared = open_prepared(config.data.dir)
    if not prepared.tokenizers.is_joint:
        sys.exit("the peers share one vocabulary between source and target: use data.vocab=joint")
    write_text(work / "text", config, prepared)
    write_whole(work / "task.json", json.dumps(task(config, prepared), indent=1))


def write_text(folder: Path, config: Config, prepared: Prepared) -> None:
    """Pieces of the training pairs that mt keeps and of all validation sentences, parted by spaces; the vocabulary."""
    folder.mkdir(exist_ok=True)
    tokenizer = prepared.tokenizers.target
    sources, references, _ = prepared.text(config.best[0])
    train, (src, tgt) = prepared.train, (config.data.src, config.data.tgt)
    texts = {
        f"train.{src}": [ids[:-1].tolist() for ids in train.source],
        f"train.{tgt}": [ids[:-1].tolist() for ids in train.target],
        f"valid.{src}": tokenizer.encode(sources),
        f"valid.{tgt}": tokenizer.encode(references),
    }
    for name, text in texts.items():
        write_lines(folder / name, [" ".join(tokenizer.pieces(ids)) for ids in text])
    write_lines(folder / "vocabulary", tokenizer.vocabulary)
    write_lines(folder / "source.txt", sources)
    write_lines(folder / "reference.txt", references)


def write_lines(path: Path, lines: list[str]) -> None:
    write_whole(path, "".join(f"{line}\n" for line in lines))


def task(config: Config, prepared: Prepared) -> Record:
    """The settings that the peers take over."""
    lengths_N2 = prepared.train.lengths()
    pairs = len(lengths_N2)
    updates_per_epoch = len(plan_batches(lengths_N2, config.batch.tokens, config.seed, epoch=0))
    sentences = max(1, round(pairs / updates_per_epoch))
    shuffled = np.random.default_rng(config.seed).permutation(pairs)[: pairs // sentences * sentences]
    longest = lengths_N2.max(axis=1)[shuffled].reshape(-1, sentences).max(axis=1)
    width, warmup = config.model.d_model, config.optim.warmup
    paper = config.optim.scale * (width * warmup) ** -0.5  # the peak of equation 3
    return {
        "src": config.data.src,
        "tgt": config.data.tgt,
        "model": config.model.model_dump(mode="json", include=SHAPE),
        "label_smoothing": config.train.label_smoothing,
        "sentences": sentences,  # an update has, on the average
        "padded": int(sentences * longest.mean()),  # tokens of so many shuffled sentences with their padding
        "rate": paper if config.optim.schedule == "paper" else config.optim.rate,
        "warmup": warmup,
        "updates": config.train.updates,
        "hours": config.train.hours,
        "every": config.train.checkpoint_every,
        "seed": config.seed,
    }


# --- A run -------------------------------------------------------------------------------------------------------


def run(work: Path, system: str, name: str, python: str, settings: list[str]) -> None:
    """Train, if that is not done, and decode what is not decoded."""
    if not (work / "task.json").exists():
        sys.exit(f"{work} holds nothing prepared: begin with the step prepare")
    folder, begun = work / "runs" / name, {"system": system, "settings": settings}
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    told = folder / "run.json"
    if told.exists() and json.loads(told.read_text(encoding="utf-8")) != begun:
        sys.exit(f"{told} says that {name} was begun otherwise: give the same settings, or another --name")
    write_whole(told, json.dumps(begun))
    if system == "mt":
        every = json.loads((work / "task.json").read_text(encoding="utf-8"))["every"]
        kept = [f"train.dir={folder / 'mt'}", f"train.keep_every={every}"]
        train(folder, [*MT, "train", str(work / "config.yaml"), *kept, *settings])
        translate(work, folder)
    else:
        peer = [python, str(HERE / "quality_peers.py"), system]
        train(folder, [*peer, "train", str(work), str(folder), *settings])
        end_well(execute([*peer, "decode", str(work), str(folder), *settings])[0])
    print(f"{name}: trained and decoded")


def train(folder: Path, command: list[str]) -> None:
    """Train, unless that is done; note the peak memory."""
    if any(session["status"] == 0 for session in sessions(folder)):
        return
    described = [sys.executable, "-c", "import common; print(common.machine())"]  # apart, as torch would make us large
    machine = subprocess.run(described, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    status, peak = execute(command)
    add_record(folder / "sessions.jsonl", {"status": status, "peak_gib": peak, "machine": machine})
    end_well(status)


def translate(work: Path, folder: Path) -> None:
    """Decode mt's checkpoints: outputs/UPDATE.txt."""
    for checkpoint in sorted((folder / "mt" / "checkpoints").glob("step-*")):
        output = folder / "outputs" / f"{int(checkpoint.name.removeprefix('step-'))}.txt"
        if not output.exists():
            files = ["--ckpt", str(checkpoint), "--input", str(work / "text" / "source.txt"), "--output", str(output)]
            end_well(execute([*MT, "translate", *files, "--beam", "1", "--quiet"])[0])


def execute(command: list[str]) -> tuple[int, float]:
    """The exit status of a process, which hears of Ctrl-C once and is given time for it, and its peak memory in GiB."""
    process = subprocess.Popen(command, start_new_session=True)

    def pass_on(*_: object) -> None:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGINT)

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, pass_on)
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    return process.returncode, usage.ru_maxrss / MAXRSS_GIB


def end_well(status: int) -> None:
    """Go on after success alone."""
    if status:
        stopped = status == STOPPED
        print(f"{'stopped' if stopped else 'failed'}; the same command goes on from there", file=sys.stderr)
        sys.exit(STOPPED if stopped else 1)


# --- What came of it ---------------------------------------------------------------------------------------------


def show(work: Path, targets: list[float]) -> None:
    """Print the table; write all points, and the plot."""
    folders = sorted(told.parent for told in work.glob("runs/*/run.json"))
    runs = {folder.name: found for folder in folders if (found := list(points(work, folder)))}
    if not runs:
        sys.exit(f"{work} holds no decoded checkpoint yet")
    everything = [{"run": name, **point} for name, found in runs.items() for point in found]
    write_lines(work / "points.jsonl", [json.dumps(point) for point in everything])
    write_whole(work / "time_to_quality.svg", plot(runs, targets))
    begun = {name: sessions(work / "runs" / name) for name in runs}
    reached = " | ".join(f"minutes to {target:g} | tokens" for target in targets)
    rows = [(name, *row(found, begun[name], targets)) for name, found in runs.items()]
    print(table(f"run | {reached} | best BLEU | tokens/s | peak GiB", *rows))
    print(f"\nTokens are target tokens without padding. BLEU: `{bleu(['x'], ['x']).signature}`, greedy.")
    for name, (first, *others) in begun.items():
        print(f"{name}: {first['machine']}; sessions: {1 + len(others)}")


def sessions(folder: Path) -> list[Record]:
    return read_records(folder / "sessions.jsonl")


def points(work: Path, folder: Path) -> Iterator[Record]:
    """Update, seconds, target tokens and BLEU of each decoded checkpoint, in order."""
    references = read_text(work / "text" / "reference.txt")
    for record in progress(folder):
        output = folder / "outputs" / str(record["update"])
        if output.with_suffix(".pieces").exists():
            lines = detokenized(work, read_text(output.with_suffix(".pieces")))
        elif output.with_suffix(".txt").exists():
            lines = read_text(output.with_suffix(".txt"))
        else:
            continue
        yield {**record, "bleu": bleu(lines, references).value}


def progress(folder: Path) -> Iterator[Record]:
    """Seconds and target tokens at an update: at each of mt's, at each checkpoint of a peer."""
    seconds, tokens = 0.0, 0
    for record in read_metrics(folder / "mt" / METRICS):
        if "seconds" in record:
            seconds, tokens = seconds + record["seconds"], tokens + record["tokens"]
            yield {"update": record["update"], "seconds": seconds, "tokens": tokens}
    times = folder / "times.json"
    yield from json.loads(times.read_text(encoding="utf-8")) if times.exists() else []


def detokenized(work: Path, lines: list[str]) -> list[str]:
    tokenizer = Tokenizer((work / "data" / "tokenizer.model").read_bytes())
    ids = {piece: index for index, piece in enumerate(tokenizer.vocabulary)}
    return tokenizer.decode([[ids[piece] for piece in line.split()] for line in lines])


def row(found: list[Record], sessions: list[Record], targets: list[float]) -> Iterator[str]:
    last = found[-1]
    for target in targets:
        there = next((point for point in found if point["bleu"] >= target), None)
        yield f"{there['seconds'] / 60:.1f}" if there else f"not in {last['seconds'] / 60:.1f}"
        yield f"{there['tokens'] / 1e6:.2f}M" if there else ""
    yield f"{max(point['bleu'] for point in found):.2f}"
    yield f"{last['tokens'] / last['seconds']:,.0f}"
    yield f"{max((session['peak_gib'] for session in sessions), default=0):.2f}"


def plot(runs: dict[str, list[Record]], targets: list[float]) -> str:
    """BLEU by minutes as a picture of its own, on light and dark pages; the targets are dashed."""
    x_ticks = ticks(0, max(found[-1]["seconds"] for found in runs.values()) / 60)
    y_ticks = ticks(0, max(*targets, *(point["bleu"] for found in runs.values() for point in found)))
    picture = Picture(x_ticks, y_ticks, "minutes of training", "BLEU, validation")
    for target in targets:
        picture.level(target)
    for number, (name, found) in enumerate(runs.items()):
        picture.line(number, [(0, 0), *((point["seconds"] / 60, point["bleu"]) for point in found)])
        picture.key(number, name)
    return str(picture)


if __name__ == "__main__":
    main()
