"""A machine for breaking things: after every fault the same command must end in the run that nothing disturbed.

A few faults of each kind here; `scripts/faults` injects hundreds.
"""

import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from helpers import fork, fork_world, statuses, wait_until, with_settings

from mt.checkpoint import list_checkpoints, load_checkpoint, resumable_checkpoints
from mt.config import Config
from mt.console import Console
from mt.data.prepare import prepare
from mt.run_files import read_metrics
from mt.train.loop import train

pytestmark = pytest.mark.slow

EVERY = 7  # updates from checkpoint to checkpoint
KILLS = int(os.environ.get("FAULT_KILLS", "6"))
MOST = 2 * EVERY  # updates that a kill may cost: training goes on while a checkpoint is written, until the next is due
QUIET = Console(quiet=True)


@dataclass
class Faults:
    """What was injected, by kind, and what it cost."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)  # updates, by one fault each
    mismatches: int = 0

    def summary(self) -> Iterator[str]:
        for kind, count in self.injected.items():
            yield f"{kind:<44} {count:>4} injected  {self.survived[kind]:>4} survived"
        yield f"{'together':<44} {self.injected.total():>4} injected  {self.survived.total():>4} survived"
        yield f"updates lost to one fault: at most {max(self.lost, default=0)} (checkpoints every {EVERY})"
        yield f"updates or weights that differ from the undisturbed run: {self.mismatches}"


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """What all tests of this file have injected; the sums are shown at the end."""
    faults = Faults()
    yield faults
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.section("faults")
        for line in faults.summary():
            terminal.line(line)


@pytest.fixture
def config(toy_config: Config) -> Config:
    """A tiny run with everything on that has a state: dropout, accumulation, a moving average, BPE-dropout."""
    settings = {"updates": 40, "checkpoint_every": EVERY, "log_every": 1, "keep": 3, "ema": 0.9, "bpe_dropout": 0.1}
    config = with_settings(toy_config, train=settings)
    prepare(config, QUIET)
    return config


@pytest.fixture
def undisturbed(config: Config, tmp_path: Path) -> Path:
    run = tmp_path / "undisturbed"
    train(in_folder(config, run), QUIET)
    return run


def in_folder(config: Config, folder: Path) -> Config:
    return with_settings(config, train={"dir": folder})


def losses(run: Path) -> list[tuple[int, float, float]]:
    path = run / "metrics.jsonl"
    return [(r["update"], r["loss"], r["gradient_norm"]) for r in read_metrics(path) if "loss" in r]


def last_update(run: Path) -> int:
    return max((update for update, _, _ in losses(run)), default=0)


def last_saved(run: Path) -> int:
    found = resumable_checkpoints(run)
    return int(found[0].name[-8:]) if found else 0


def is_same(run: Path, undisturbed: Path) -> bool:
    """Whether each update is there once, with the very same loss, and the final weights agree bit for bit."""
    left, right = (load_checkpoint(resumable_checkpoints(folder)[0]).weights for folder in (run, undisturbed))
    return losses(run) == losses(undisturbed) and all(torch.equal(left[name], right[name]) for name in right)


def is_close(run: Path, undisturbed: Path) -> bool:
    """The same up to float32's rounding, where several processes sum in another order."""
    left, right = losses(run), losses(undisturbed)
    return [one[0] for one in left] == [other[0] for other in right] and all(
        one[1] == pytest.approx(other[1], rel=1e-3) for one, other in zip(left, right, strict=True)
    )


def finish(config: Config) -> bool:
    """The same command again, undisturbed; whether it ends well."""
    return statuses([fork(lambda: train(config, QUIET))]) == [0]


def test_kills_at_random_moments(config: Config, undisturbed: Path, tmp_path: Path, faults: Faults) -> None:
    chance = random.Random(config.seed)
    start = time.monotonic()
    assert finish(in_folder(config, tmp_path / "timed"))
    life = time.monotonic() - start
    kills = number = 0
    while kills < KILLS:
        number += 1
        run = in_folder(config, tmp_path / f"killed-{number}")
        while True:
            child = fork(lambda config=run: train(config, QUIET))  # type: ignore[misc]
            time.sleep(chance.uniform(0, life))
            os.kill(child, signal.SIGKILL)
            status = statuses([child])[0]
            assert status in (0, -signal.SIGKILL)
            if status == 0:
                break
            kills += 1
            faults.injected["killed at a random moment"] += 1
            faults.lost.append(last_update(run.train.dir) - last_saved(run.train.dir))
            assert faults.lost[-1] <= MOST
            if kills == KILLS:
                assert finish(run)
                break
        same = is_same(run.train.dir, undisturbed)
        faults.mismatches += not same
        faults.survived["killed at a random moment"] = kills if same else 0
        assert same


def test_kills_while_a_checkpoint_is_written(config: Config, undisturbed: Path, tmp_path: Path, faults: Faults) -> None:
    """The rehearsal's included, which nobody goes on from."""
    chance = random.Random(config.seed)
    for number in range(max(3, KILLS // 10)):
        run = in_folder(config, tmp_path / f"writing-{number}")
        child = fork(lambda config=run: train(config, QUIET))  # type: ignore[misc]
        for _ in range(chance.randrange(1, 4)):
            wait_for_writing(run.train.dir / "checkpoints")
        os.kill(child, signal.SIGKILL)
        assert statuses([child]) == [-signal.SIGKILL]
        kind = "killed while a checkpoint was written"
        faults.injected[kind] += 1
        faults.lost.append(last_update(run.train.dir) - last_saved(run.train.dir))
        assert faults.lost[-1] <= MOST
        assert finish(run)
        same = is_same(run.train.dir, undisturbed)
        faults.mismatches += not same
        faults.survived[kind] += same
        assert same


def wait_for_writing(folder: Path) -> None:
    """Return at a moment when a checkpoint is being written, another one at each call."""
    for wanted in (False, True):
        wait_until(lambda wanted=wanted: any(folder.glob(".*.partial")) == wanted)  # type: ignore[misc]


@pytest.mark.parametrize("damage", ["cut short", "one bit flipped", "removed"])
def test_damage_to_each_file_of_the_newest_checkpoint(
    config: Config, undisturbed: Path, tmp_path: Path, faults: Faults, damage: str
) -> None:
    chance = random.Random(f"{config.seed} {damage}")
    names = sorted(path.name for path in list_checkpoints(undisturbed)[-1][1].iterdir())
    for name in names:
        run = in_folder(config, tmp_path / f"{damage} {name}")
        shutil.copytree(undisturbed, run.train.dir)
        spoil(list_checkpoints(run.train.dir)[-1][1] / name, damage, chance)
        faults.injected[f"file of a checkpoint {damage}"] += 1
        assert finish(run)
        same = is_same(run.train.dir, undisturbed)
        faults.mismatches += not same
        faults.survived[f"file of a checkpoint {damage}"] += same
        assert same, name


def spoil(path: Path, damage: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if damage == "cut short":
        path.write_bytes(data[: chance.randrange(len(data))])
    elif damage == "one bit flipped":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    else:
        path.unlink()


def test_a_disk_that_fills(config: Config, undisturbed: Path, tmp_path: Path, faults: Faults) -> None:
    """A limit on the size of files stands for the disk; when and where it strikes is random."""
    chance = random.Random(config.seed)
    start = time.monotonic()
    assert finish(in_folder(config, tmp_path / "timed"))
    life = time.monotonic() - start
    largest = max(path.stat().st_size for path in undisturbed.rglob("*.safetensors"))
    for number in range(max(3, KILLS // 20)):
        run = in_folder(config, tmp_path / f"full-{number}")
        child = fork(lambda config=run: train(config, QUIET))  # type: ignore[misc]
        time.sleep(chance.uniform(0, life / 2))
        resource.prlimit(child, resource.RLIMIT_FSIZE, (chance.randrange(1_000, largest),) * 2)
        (ended,) = statuses([child])
        if ended == 0:  # it was quicker this time: nothing was left to write
            continue
        assert ended == 1
        faults.injected["disk full"] += 1
        assert finish(run)
        same = is_same(run.train.dir, undisturbed)
        faults.mismatches += not same
        faults.survived["disk full"] += same
        assert same


def test_a_process_of_several_killed(config: Config, tmp_path: Path, faults: Faults) -> None:
    """At a random moment, the exchange of gradients included; the run goes on with one process or with two."""
    chance = random.Random(config.seed)
    # At the full rate so small a model is chaotic: it makes the last bit of a sum into a percent within 30 updates.
    shared = with_settings(config, batch={"multiple": 2}, optim={"scale": 0.1})
    undisturbed = in_folder(shared, tmp_path / "together")
    train(undisturbed, QUIET)
    for number in range(max(2, KILLS // 20)):
        run = in_folder(shared, tmp_path / f"lost-{number}")
        children = fork_world(2, lambda config=run: train(config, QUIET))  # type: ignore[misc]
        wait_until = time.monotonic() + 120
        while last_update(run.train.dir) < chance.randrange(1, 30) and time.monotonic() < wait_until:
            time.sleep(0.005)
        os.kill(children[lost := chance.randrange(2)], signal.SIGKILL)
        ended = statuses(children)
        if ended == [0, 0]:
            continue
        assert ended[lost] == -signal.SIGKILL
        faults.injected["one of two processes killed"] += 1
        faults.lost.append(last_update(run.train.dir) - last_saved(run.train.dir))
        size = chance.choice((1, 2))
        assert statuses(fork_world(size, lambda config=run: train(config, QUIET))) == [0] * size  # type: ignore[misc]
        close = is_close(run.train.dir, undisturbed.train.dir)
        faults.mismatches += not close
        faults.survived["one of two processes killed"] += close
        assert close


def test_a_clock_that_jumps(config: Config, undisturbed: Path, tmp_path: Path, faults: Faults) -> None:
    """Back and forth by years while a run goes on, and in the times of the files that an earlier session left."""
    chance = random.Random(config.seed)
    run = in_folder(config, tmp_path / "jumping")

    def work() -> None:
        time.time = lambda: chance.uniform(0, 4e9)
        train(run, QUIET)

    for kill_after in (0.3, None):
        faults.injected["clock jumped"] += 1
        child = fork(work)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        statuses([child])
        for path in run.train.dir.rglob("*"):
            os.utime(path, (chance.uniform(0, 4e9),) * 2)
    same = finish(run) and is_same(run.train.dir, undisturbed)
    faults.mismatches += not same
    faults.survived["clock jumped"] += 2 * same
    assert same


def test_two_trainers_of_one_directory(config: Config, undisturbed: Path, tmp_path: Path, faults: Faults) -> None:
    """However they meet, one of them trains; the other is refused, or finds the work done."""
    for number in range(max(2, KILLS // 20)):
        run = in_folder(config, tmp_path / f"shared-{number}")
        faults.injected["two trainers on one directory"] += 1
        ended = sorted(statuses([fork(lambda config=run: train(config, QUIET)) for _ in range(2)]))  # type: ignore[misc]
        assert ended in ([0, 2], [0, 0])
        same = is_same(run.train.dir, undisturbed)
        faults.mismatches += not same
        faults.survived["two trainers on one directory"] += same
        assert same
