"""What a checkpoint of the base model costs training: how long it stands still, and how much slower it goes meanwhile.

scripts/benchmarks/checkpoint.py
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from mt.config_file import load_config
from mt.console import Console
from mt.data.batches import plan_batches
from mt.data.feed import MicroBatches, cut_batch
from mt.data.prepare import prepare
from mt.train.learner import Learner, make_learner
from mt.train.progress import Progress
from mt.train.saving import CheckpointWriter
from mt.train.update import take_update

BASE = Path(__file__).parents[2] / "configs" / "base.yaml"
VOCABULARY = 37_000
# The updates are small, so that many go by while a checkpoint is written; their sentences are the embedded grammar's.
SETTINGS = [
    "data.train={demo: 6000}",
    "data.valid={demo: 20, split: valid}",
    "data.test={demo: 20, split: test}",
    "data.vocab_size=1600",
    "batch.tokens=512",
]
UPDATES = 5  # timed with nothing beside them


@dataclass
class Training:
    """A base model in its full size, on a little data."""

    learner: Learner
    writer: CheckpointWriter
    batches: Iterator[tuple[int, MicroBatches]]

    def seconds(self, updates: int) -> float:
        """Of an update, on average."""
        start = time.perf_counter()
        for _ in range(updates):
            update, batches = next(self.batches)
            float(take_update(self.learner, batches, update)["loss"])
        return (time.perf_counter() - start) / updates


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; by default the system's temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        training = start(Path(folder))
        training.seconds(3)
        training.writer.save(training.learner, Progress(), "first")  # as the rehearsal does
        size = sum(path.stat().st_size for path in (training.writer.folder / "checkpoints" / "first").iterdir())
        print(f"{size / 10**6:,.0f} MB; seconds, of {arguments.rounds} rounds")
        print(f"{'waiting for it':>16} {'standing still':>16} {'written after':>16} {'going slower':>16}")
        rounds = [measured(training) for _ in range(arguments.rounds)]
        for name, choose in (("median", statistics.median), ("worst", max)):
            print(" ".join(f"{choose(column):>16.2f}" for column in zip(*rounds, strict=True)), name)


def start(folder: Path) -> Training:
    config = load_config(BASE, [*SETTINGS, f"data.dir={folder / 'data'}", f"train.dir={folder / 'run'}"])
    prepared = prepare(config, Console(quiet=True))
    plan = plan_batches(prepared.train.lengths(), config.batch.tokens, seed=1, epoch=0)
    return Training(
        learner=make_learner(config, VOCABULARY, torch.device("cpu")),
        writer=CheckpointWriter(config.train.dir, prepared.tokenizer.model_bytes),
        batches=zip(count(1), (cut_batch(prepared.train, rows, config.batch) for rows in plan), strict=False),
    )


def measured(training: Training) -> tuple[float, float, float, float]:
    """Seconds to wait for a checkpoint; or else to stand still, until it is written, and that updates take longer."""
    learner, writer = training.learner, training.writer
    start = time.perf_counter()
    writer.save(learner, Progress(), "waited-for")
    waited = time.perf_counter() - start
    undisturbed = training.seconds(UPDATES)
    written: list[float] = []
    start = time.perf_counter()
    write = writer.snapshot(learner, Progress(), "beside")
    writer.start(lambda: (write(), written.append(time.perf_counter())))
    stood = time.perf_counter() - start
    slower = 0.0
    while not written:
        writer.check()
        slower += training.seconds(1) - undisturbed
    writer.wait()
    return waited, stood, written[0] - start, slower


if __name__ == "__main__":
    main()
