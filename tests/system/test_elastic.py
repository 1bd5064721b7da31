"""A run on a changing number of machines is the run of one process."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, children_of, fork, fork_world, free_port, statuses, wait_until, with_settings

from mt.checkpoint import resumable_checkpoints
from mt.config import Config
from mt.config_file import load_config
from mt.console import Console
from mt.run_files import SESSIONS, read_metrics, read_records
from mt.train.loop import train


def updates(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run / "metrics.jsonl") if "loss" in record]


def assert_same_sentences(one: Path, other: Path, tolerance: float) -> None:
    left, right = updates(one), updates(other)
    keys = ("update", "epoch", "tokens", "rate")
    assert [[record[key] for key in keys] for record in left] == [[record[key] for key in keys] for record in right]
    assert [record["loss"] for record in left] == pytest.approx([record["loss"] for record in right], rel=tolerance)


@pytest.mark.parametrize("shard", ["none", "optimizer"])
def test_the_number_of_processes_may_change_at_every_checkpoint(
    toy_config: Config, tmp_path: Path, quiet: Console, shard: str
) -> None:
    """With dropout, averages and moments; three processes have 2, 1 and 1 of the 4 passes."""
    config = with_settings(toy_config, batch={"multiple": 4}, train={"bpe_dropout": 0.1, "ema": 0.9, "shard": shard})
    one, changing = (with_settings(config, train={"dir": tmp_path / name}) for name in ("one", "changing"))
    train(one, quiet)
    for end, size in enumerate((3, 2, 4), 1):
        part = with_settings(changing, train={"updates": 4 * end})
        assert statuses(fork_world(size, partial(train, part, quiet))) == [0] * size
    assert_same_sentences(one.train.dir, changing.train.dir, 2e-5)


def test_a_killed_run_goes_on_from_what_was_saved_between_checkpoints(
    toy_config: Config, tmp_path: Path, quiet: Console
) -> None:
    """Of which the newest alone is kept, and none beside a checkpoint that is newer."""
    run = toy_config.train.dir
    endless = with_settings(toy_config, train={"updates": 100_000, "checkpoint_every": 100_000, "save_every": 5})
    child = fork(lambda: train(endless, quiet))
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(updates(run)) > 22)
    os.kill(child, signal.SIGKILL)
    assert statuses([child]) == [-signal.SIGKILL]
    saved = [int(path.name.removeprefix("stop-")) for path in resumable_checkpoints(run)]
    assert 1 <= len(saved) <= 2
    assert all(update % 5 == 0 and update >= 10 for update in saved)
    train(with_settings(endless, train={"updates": saved[0] + 2}), quiet)
    assert [record["update"] for record in updates(run)] == list(range(1, saved[0] + 3))
    assert [path.name for path in resumable_checkpoints(run)] == [f"step-{saved[0] + 2:08d}"]


def machine(command: list[str], port: int, is_first: bool = False) -> "subprocess.Popen[bytes]":
    """A torchrun; the first one holds what the others meet at."""
    meeting = f"is_host={int(is_first)},last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=5"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:3", "--nproc-per-node=1"]
    torchrun += ["--max-restarts=100", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    torchrun += [f"--rdzv-conf={meeting}", "--rdzv-id=elastic", "--local-addr=127.0.0.1"]
    # Without it, torch 2.13 tells a machine that is added no address.
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen([*torchrun, *command], stderr=subprocess.DEVNULL, env=environment)


def wait_for(run: Path, processes: int) -> None:
    """Until so many processes have trained together for some updates."""
    wait_until(lambda: [record["processes"] for record in read_records(run / SESSIONS)][-1:] == [processes])
    before = len(updates(run))
    wait_until(lambda: len(updates(run)) > before + 7)


@pytest.mark.slow
def test_a_run_goes_on_when_a_machine_is_added_or_lost(toy_yaml: Path, tmp_path: Path, quiet: Console) -> None:
    """Played by several torchruns; passes of single pairs make updates slow, so that few are taken meanwhile."""
    endless = ["train.updates=100000", "train.checkpoint_every=100000", "train.save_every=5", "train.log_every=1"]
    settings = ["batch.micro_tokens=16", "batch.multiple=12", "optim.scale=0.1", *endless]
    run, port = tmp_path / "run", free_port()
    command = ["-m", "mt", "train", str(toy_yaml), *settings]
    machines = [machine(command, port, is_first=True)]
    try:
        wait_for(run, processes=1)
        machines.append(machine(command, port))
        wait_for(run, processes=2)
        lost = machines[1]
        for pid in [lost.pid, *children_of(lost.pid)]:
            os.kill(pid, signal.SIGKILL)
        wait_for(run, processes=1)
    finally:
        for each in machines:
            each.send_signal(signal.SIGTERM)
        for each in machines:
            each.wait(PATIENCE)
    done = len(updates(run))
    one = load_config(toy_yaml, [*settings, f"train.dir={tmp_path / 'one'}", f"train.updates={done}"])
    train(one, quiet)
    assert_same_sentences(one.train.dir, run, 1e-3)
