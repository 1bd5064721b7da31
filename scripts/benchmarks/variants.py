#!/usr/bin/env python
"""What each variant of the model brings: validation BLEU after the same updates, parameters, training speed, memory.

    scripts/benchmarks/variants.py runs/variants data.train=DIR/train data.valid=DIR/valid data.test=[]
    scripts/benchmarks/variants.py runs/variants data.train=... data.valid=... --only published rotary --seeds 2 3
    scripts/benchmarks/variants.py runs/variants --measure

The first two train on Multi30k, one run after another, each a folder of its own: a run that was stopped goes on, one
that is done is left as it is. --measure trains nothing: it prints the table, for which it measures speed and memory in
a fresh process for each variant, on sentences as long as Multi30k's. All runs share the prepared data.
BLEU is of the validation set, greedy, of the average of the last five checkpoints.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import machine, random_corpus, start

from mt.config import Config
from mt.config_file import load_config
from mt.data.batches import plan_batches
from mt.data.feed import cut_batch
from mt.device import keep_freed_memory
from mt.train.learner import make_learner
from mt.train.update import take_update

CONFIG = Path(__file__).parents[2] / "configs" / "multi30k.yaml"
UPDATES = ["train.updates=4000", "train.average=5"]
PUBLISHED = ["model.positions=sinusoidal", "model.norm=post", "model.dropout=0.25"]  # what each variant changes
VARIANTS: dict[str, list[str]] = {
    "published": [],
    "pre-norm": ["model.norm=pre"],
    "learned": ["model.positions=learned"],
    "learned, pre-norm": ["model.positions=learned", "model.norm=pre"],
    "rotary": ["model.positions=rotary"],
    "rotary, pre-norm": ["model.positions=rotary", "model.norm=pre"],
    "swiglu": ["model.activation=swiglu"],
    "separate embeddings": ["model.embeddings=separate"],
    "universal": ["model.recurrence=fixed"],
    "universal, halting": ["model.recurrence=adaptive"],
    "6 + 2 layers, pre-norm": ["model.norm=pre", "model.encoder_layers=6", "model.decoder_layers=2"],
    "12 + 1 layers, pre-norm": ["model.norm=pre", "model.encoder_layers=12", "model.decoder_layers=1"],
}
MEAN_LENGTH = 15  # target tokens of a caption, EOS counted


def main() -> None:
    options, overrides = parse_options()
    names = [name for name in VARIANTS if name in options.only]
    if not options.measure:
        for seed in options.seeds:
            for name in names:
                train(options, name, seed, overrides)
    table(options, names, overrides)


def parse_options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder of the runs")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings for every variant")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="which; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--measure", action="store_true", help="train nothing; measure speed and memory")
    parser.add_argument("--seconds", type=float, default=20, help="for which each variant is measured")
    parser.add_argument("--threads", type=int, default=2, help="with which speed is measured")
    options = parser.parse_intermixed_args()
    return options, options.overrides


def settings(runs: Path, name: str, seed: int, overrides: list[str]) -> list[str]:
    return [f"data.dir={runs / 'data'}", *UPDATES, *PUBLISHED, *VARIANTS[name], f"seed={seed}", *overrides]


def run_of(runs: Path, name: str, seed: int) -> Path:
    """The run directory, such as rotary-pre-norm-1."""
    return runs / f"{name.replace(' + ', '-').replace(',', '').replace(' ', '-')}-{seed}"


def train(options: argparse.Namespace, name: str, seed: int, overrides: list[str]) -> None:
    run = run_of(options.runs, name, seed)
    print(f"{name}, seed {seed}: {run}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "mt", "train", str(CONFIG), *settings(options.runs, name, seed, overrides)]
    subprocess.run([*command, f"train.dir={run}", "--quiet"], check=True)


def table(options: argparse.Namespace, names: list[str], overrides: list[str]) -> None:
    print(machine())
    print(f"{'':<22}{'parameters':>12}{'tokens/s':>10}{'peak GiB':>10}  BLEU of each seed, mean")
    measured = measure(options, names, overrides) if options.measure else {}
    for name in names:
        config = load_config(CONFIG, settings(options.runs, name, 1, overrides))
        parameters = config.model.parameters(config.data.vocab_size)
        rate, peak = measured.get(name, ("-", "-"))
        print(f"{name:<22}{parameters:>12,}{rate:>10}{peak:>10}  {shown(validation_bleu(options.runs, name))}")


def validation_bleu(runs: Path, name: str) -> list[float]:
    """Of each run of this variant that is done, by seed."""
    pattern = f"{run_of(runs, name, 0).name.removesuffix('0')}[0-9]*/checkpoints/averaged/state.json"
    return [json.loads(state.read_text())["validation"]["valid_bleu"] for state in sorted(runs.glob(pattern))]


def shown(scores: list[float]) -> str:
    if not scores:
        return "-"
    return " ".join(f"{score:.2f}" for score in scores) + (
        f", {statistics.mean(scores):.2f}" if len(scores) > 1 else ""
    )


def measure(options: argparse.Namespace, names: list[str], overrides: list[str]) -> dict[str, tuple[str, str]]:
    """Training tokens/s and peak memory in GiB of each variant."""
    found = {}
    for name in names:
        config = load_config(CONFIG, settings(options.runs, name, 1, overrides))
        trainer = start(name, make_trainer, config, options.threads)
        trainer.ask(0.0)  # warms up
        seconds, tokens = trainer.ask(options.seconds)
        found[name] = (f"{tokens / seconds:,.0f}", f"{trainer.end():.2f}")
    return found


def make_trainer(config: Config, threads: int) -> Callable[[float], int]:
    """A process that trains for some seconds, at least two updates, and answers how many target tokens that was."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    corpus = random_corpus(20_000, config.data.vocab_size, MEAN_LENGTH)
    learner = make_learner(config, config.data.vocab_size, torch.device("cpu"))
    batches = iter(enumerate(plan_batches(corpus.lengths(), config.batch.tokens, seed=1, epoch=0), 1))

    def some(seconds: float) -> int:
        tokens, end = 0, time.perf_counter() + seconds
        for taken, (update, rows) in enumerate(batches, 1):
            batch = cut_batch(corpus, rows, config.batch)
            take_update(learner, batch, update)
            tokens += batch.tokens
            if taken >= 2 and time.perf_counter() > end:
                break
        return tokens

    return some


if __name__ == "__main__":
    main()
