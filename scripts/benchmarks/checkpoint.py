"""What a checkpoint of the base model costs training: how long it stands still, and how much slower it goes meanwhile.

scripts/benchmarks/checkpoint.py
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mt.config import load_config
from mt.console import Console
from mt.data.batches import Rows, plan_batches
from mt.data.prepare import prepare
from mt.model.transformer import Transformer
from mt.train.optim import make_adam
from mt.train.run import Run, save_run, snapshot, start_or_resume
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; by default the system's temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run = base_run(Path(folder))
        batches = iter(plan_batches(run.lengths_N2, run.config.batch.tokens, seed=1, epoch=0))
        updates(run, batches, 3)
        save_run(run, "first")  # as the rehearsal does
        size = sum(path.stat().st_size for path in (run.folder / "checkpoints" / "first").iterdir())
        print(f"{size / 10**6:,.0f} MB; seconds, of {arguments.rounds} rounds")
        print(f"{'waiting for it':>16} {'standing still':>16} {'written after':>16} {'going slower':>16}")
        rounds = [measured(run, batches) for _ in range(arguments.rounds)]
        for name, choose in (("median", statistics.median), ("worst", max)):
            print(" ".join(f"{choose(column):>16.2f}" for column in zip(*rounds, strict=True)), name)


def base_run(folder: Path) -> Run:
    """A run of the base model in its full size, on a little data."""
    config = load_config(BASE, [*SETTINGS, f"data.dir={folder / 'data'}", f"train.dir={folder / 'run'}"])
    quiet = Console(quiet=True)
    run = start_or_resume(config, prepare(config, quiet), quiet)
    model = Transformer(config.model, VOCABULARY).to(run.device).train()
    return dataclasses.replace(run, model=model, adam=make_adam(model, config.optim))


def updates(run: Run, batches: Iterator[Rows], count: int) -> float:
    """Seconds an update, on average."""
    start = time.perf_counter()
    for _ in range(count):
        float(take_update(run, next(batches))["loss"])
        run.update += 1
    return (time.perf_counter() - start) / count


def measured(run: Run, batches: Iterator[Rows]) -> tuple[float, float, float, float]:
    """Seconds to wait for a checkpoint; or else to stand still, until it is written, and that updates take longer."""
    start = time.perf_counter()
    save_run(run, "waited-for")
    waited = time.perf_counter() - start
    undisturbed = updates(run, batches, UPDATES)
    written: list[float] = []
    start = time.perf_counter()
    write = snapshot(run, "beside")
    run.background.start(lambda: (write(), written.append(time.perf_counter())))
    stood = time.perf_counter() - start
    slower = 0.0
    while not written:
        run.background.check()
        slower += updates(run, batches, 1) - undisturbed
    run.background.wait()
    return waited, stood, written[0] - start, slower


if __name__ == "__main__":
    main()
