"""Laws of many processes: the same run as one, and none is left waiting when one is lost."""

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    PATIENCE,
    children_of,
    first_batches,
    fork,
    fork_world,
    losses_of_updates,
    started,
    statuses,
    wait_until,
    with_settings,
)
from torch.autograd.profiler import profile

from mt.checkpoint import load_checkpoint, resumable_checkpoints
from mt.config import Config
from mt.console import Console
from mt.data.feed import cut_batch
from mt.data.prepare import prepare
from mt.distributed import World, joined
from mt.run_files import read_metrics
from mt.train.exchange import ALIGNMENT
from mt.train.learner import Learner
from mt.train.loop import train
from mt.train.stop import Interrupted
from mt.train.update import take_update
from mt.train.validation import Validation, validate

# Sums of gradients in another order differ in the last bits of float32, which twelve updates may add up.
TOLERANCE = 2e-5


def updates(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run / "metrics.jsonl") if "loss" in record]


def assert_same_run(one: Path, other: Path) -> None:
    left, right = updates(one), updates(other)
    assert [(r["update"], r["epoch"], r["tokens"]) for r in left] == [
        (r["update"], r["epoch"], r["tokens"]) for r in right
    ]
    for name in ("loss", "gradient_norm"):
        assert [r[name] for r in left] == pytest.approx([r[name] for r in right], rel=TOLERANCE), name
    weights, others = (load_checkpoint(resumable_checkpoints(run)[0]).weights for run in (one, other))
    # A bias on all keys alike changes no attention: its gradient is rounding noise, which Adam scales up.
    for name in (name for name in weights if not name.endswith("kv.bias")):
        torch.testing.assert_close(weights[name], others[name], rtol=1e-2, atol=1e-3)


def wait_for_updates(run: Path, count: int) -> None:
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(updates(run)) >= count)


@pytest.fixture
def config(toy_config: Config, quiet: Console) -> Config:
    """With dropout of both kinds; micro-batches a multiple of 4, so that 1, 2 and 4 processes draw the same masks."""
    config = with_settings(toy_config, batch={"multiple": 4}, train={"bpe_dropout": 0.1})
    prepare(config, quiet)
    return config


@pytest.fixture
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy's gradients in more than one part."""
    monkeypatch.setattr("mt.train.exchange.PART_BYTES", 2_000)


def in_folder(config: Config, folder: Path, **settings: Any) -> Config:
    return with_settings(config, train={"dir": folder, **settings})


def test_a_world_of_one_needs_nobody() -> None:
    world, tensor = World(), torch.ones(3)
    world.sum(tensor)
    world.barrier()
    assert world.is_main
    assert torch.equal(tensor, torch.ones(3))
    assert world.broadcast({"a": 1}) == {"a": 1}
    assert (world.max(7), world.any(False), world.owns(1)) == (7, False, True)


@pytest.mark.parametrize(("size", "shard"), [(2, "none"), (4, "none"), (4, "optimizer")])
def test_several_processes_train_the_run_that_one_trains(
    config: Config, tmp_path: Path, quiet: Console, many_parts: None, size: int, shard: str
) -> None:
    one, several = in_folder(config, tmp_path / "one"), in_folder(config, tmp_path / "several", shard=shard)
    train(one, quiet)
    assert statuses(fork_world(size, lambda: train(several, quiet))) == [0] * size
    assert_same_run(one.train.dir, several.train.dir)


def test_without_dropout_any_number_of_processes_is_the_same_run(
    toy_config: Config, tmp_path: Path, quiet: Console
) -> None:
    """Three processes cut every update in another way than one does."""
    still = with_settings(toy_config, model={"dropout": 0.0})
    one, three = in_folder(still, tmp_path / "one"), in_folder(still, tmp_path / "three")
    train(one, quiet)
    assert statuses(fork_world(3, lambda: train(three, quiet))) == [0] * 3
    assert_same_run(one.train.dir, three.train.dir)


@pytest.mark.parametrize("shard", ["none", "optimizer"])
def test_a_run_stops_on_two_processes_and_goes_on_with_one(
    config: Config, tmp_path: Path, quiet: Console, shard: str
) -> None:
    config = with_settings(config, train={"ema": 0.9, "shard": shard})
    one, changing = in_folder(config, tmp_path / "one"), in_folder(config, tmp_path / "changing")
    train(one, quiet)
    first = in_folder(config, tmp_path / "changing", updates=5, checkpoint_every=5)
    assert statuses(fork_world(2, lambda: train(first, quiet))) == [0, 0]
    train(changing, quiet)
    assert_same_run(one.train.dir, changing.train.dir)


def test_a_stop_asked_of_one_process_saves_and_stops_all(config: Config, tmp_path: Path, quiet: Console) -> None:
    endless = in_folder(config, tmp_path / "run", updates=100_000, checkpoint_every=100_000)
    children = fork_world(2, lambda: train(endless, quiet))
    wait_for_updates(endless.train.dir, 4)
    os.kill(children[1], signal.SIGTERM)
    assert statuses(children) == [130, 130]
    (checkpoint,) = resumable_checkpoints(endless.train.dir)
    assert checkpoint.name == f"stop-{updates(endless.train.dir)[-1]['update']:08d}"


def test_a_stop_asked_of_one_process_in_an_update_leaves_it_undone_in_all(config: Config, tmp_path: Path) -> None:
    learner, _, prepared = started(config)
    rows = first_batches(prepared.train, config)[0]
    expected = float(take_update(learner, cut_batch(prepared.train, rows, config.batch), update=1)["loss"])

    def work() -> None:
        with joined(torch.device("cpu")) as world:
            learner, _, _ = started(config, world=world)
            batches = cut_batch(prepared.train, rows, config.batch, world.rank, world.size)
            before = [parameter.detach().clone() for parameter in learner.model.parameters()]
            asked = count()
            with pytest.raises(Interrupted):
                take_update(learner, batches, 1, lambda: world.rank == 1 and next(asked) > 0)
            assert all(map(torch.equal, learner.model.parameters(), before))
            assert float(take_update(learner, batches, 1)["loss"]) == pytest.approx(expected, rel=TOLERANCE)

    children = fork_world(2, work, tmp_path / "errors")
    assert statuses(children) == [0, 0], (tmp_path / "errors").read_text()


def test_each_gradient_is_sent_once_and_most_while_the_last_backward_pass_runs(
    config: Config, tmp_path: Path, many_parts: None
) -> None:
    """By torch's own record of the collectives; in the first of two updates, one process has nothing to train on."""
    rows = first_batches(started(config)[2].train, config)[0]

    def work() -> None:
        with joined(torch.device("cpu")) as world:
            learner, _, prepared = started(config, world=world)
            weights = [parameter.numel() for parameter in learner.model.parameters()]
            for update, (part, passes) in enumerate([(rows[:1], 1 - world.rank), (rows, 2)], 1):
                batches = cut_batch(prepared.train, part, config.batch, world.rank, world.size)
                assert len(batches.passes) == passes
                with profile(record_shapes=True, use_kineto=False) as record:
                    take_update(learner, batches, update)
                events = record.function_events
                sent = [math.prod(e.input_shapes[0]) for e in events if e.name == "gloo:all_reduce"]
                *parts, figures, answer = sorted(sent, reverse=True)
                assert len(parts) > 4
                assert 0 <= sum(parts) - sum(weights) < ALIGNMENT * (len(weights) + 2 * len(parts))
                assert (figures, answer) == (1, 1)
                starts = sorted(e.time_range.start for e in events if e.name == "c10d::allreduce_")
                finished = sorted(e.time_range.end for e in events if e.name == "torch::autograd::AccumulateGrad")
                assert len(finished) == passes * len(weights)
                if passes:
                    assert sum(start > finished[-1] for start in starts) <= 3  # the last part, and what is no gradient
                    assert starts[0] > finished[(passes - 1) * len(weights)]

    children = fork_world(2, work, tmp_path / "errors")
    assert statuses(children) == [0, 0], (tmp_path / "errors").read_text()


def test_memory_that_runs_out_in_one_process_costs_no_update(
    toy_config: Config, tmp_path: Path, many_parts: None
) -> None:
    """At the end of a backward pass, when most of its gradients have been sent."""
    config = with_settings(toy_config, model={"dropout": 0.0})
    learner, _, prepared = started(config)
    rows = first_batches(prepared.train, config)[:2]
    expected = losses_of_updates(learner, prepared.train, rows)

    def work() -> None:
        with joined(torch.device("cpu")) as world:
            learner, _, prepared = started(config, world=world)
            short = iter([world.rank == 1])

            def allocate(gradient: torch.Tensor) -> None:
                if next(short, False):
                    raise torch.OutOfMemoryError

            learner.model.embedding.weight.register_hook(allocate)  # type: ignore[no-untyped-call]
            cut = [cut_batch(prepared.train, part, config.batch, world.rank, world.size) for part in rows]
            losses = [float(take_update(learner, batches, update)["loss"]) for update, batches in enumerate(cut, 1)]
            assert losses == pytest.approx(expected, rel=TOLERANCE)
            assert learner.halvings == world.rank
            weights = torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])
            assert len({hash(tuple(each)) for each in world.gather(weights.tolist())}) == 1

    children = fork_world(2, work, tmp_path / "errors")
    assert statuses(children) == [0, 0], (tmp_path / "errors").read_text()


def test_a_process_keeps_a_share_of_the_optimiser_and_computes_the_same(
    config: Config, tmp_path: Path, many_parts: None
) -> None:
    """Bit for bit, as two numbers have one sum; a checkpoint does not show it, and goes on exactly."""
    rows = first_batches(started(config)[2].train, config)[:4]
    sharded = with_settings(config, train={"shard": "optimizer"})

    def work() -> None:
        with joined(torch.device("cpu")) as world:

            def norms(learner: Learner, first: int, last: int) -> list[float]:
                updates = range(first, last + 1)
                cut = [cut_batch(prepared.train, rows[n - 1], config.batch, world.rank, world.size) for n in updates]
                records = [take_update(learner, batches, n) for n, batches in zip(updates, cut, strict=True)]
                return [float(record["gradient_norm"]) for record in records]

            (plain, _, prepared), (straight, *_), (before, *_), (after, *_) = (
                started(each, world=world) for each in (config, sharded, sharded, sharded)
            )
            expected = norms(plain, 1, 3)
            with profile(record_shapes=True, use_kineto=False) as record:
                assert norms(straight, 1, 3) == pytest.approx(expected, rel=1e-6)
            norms(before, 1, 2)
            weights, beside = before.state()
            if world.is_main:
                after.load(weights, beside)
            after.follow_main(beside if world.is_main else None)
            norms(after, 3, 3)
            (weights, beside), *others = (learner.state() for learner in (plain, straight, after))
            for same, as_well in others:
                assert list(as_well) == list(beside)
                assert all(torch.equal(same[name], weights[name]) for name in weights)
                assert all(torch.equal(as_well[name], beside[name]) for name in beside)
            kept, of_all = (
                sum(value.numel() for state in learner.optimizer.state.values() for value in state.values())
                for learner in (straight, plain)
            )
            assert kept < 0.55 * of_all
            sent: Counter[str] = Counter()
            for event in record.function_events:
                if event.name.startswith("gloo:"):
                    sent[event.name] += math.prod(event.input_shapes[0])
            # Gloo sums the whole for a share of it; beside that a loss, a norm and an answer.
            size = sent["gloo:all_reduce"] - 3 * 3
            assert 0 <= size // 3 - sum(weight.numel() for weight in weights.values()) < ALIGNMENT * 2 * len(weights)
            assert sent["gloo:all_gather"] == size // 2

    children = fork_world(2, work, tmp_path / "errors")
    assert statuses(children) == [0, 0], (tmp_path / "errors").read_text()


@pytest.mark.parametrize(("lost", "shard"), [(0, "none"), (1, "none"), (1, "optimizer")])
def test_a_lost_process_ends_the_others_and_costs_nothing_that_was_saved(
    config: Config, tmp_path: Path, quiet: Console, lost: int, shard: str
) -> None:
    """The main process saves where it is, unless the other has a share of that."""
    endless = in_folder(config, tmp_path / "run", updates=100_000, checkpoint_every=10, shard=shard)
    children = fork_world(2, lambda: train(endless, quiet), tmp_path / "errors")
    wait_for_updates(endless.train.dir, 22)  # by then the checkpoint of update 10 is on disk
    os.kill(children[lost], signal.SIGKILL)
    start = time.monotonic()
    ended = statuses(children)
    assert time.monotonic() - start < 60
    assert ended[lost] == -signal.SIGKILL
    assert ended[1 - lost] == 1
    newest = load_checkpoint(resumable_checkpoints(endless.train.dir)[0], resume=True)
    assert newest.path.name.startswith("stop-" if (lost, shard) == (1, "none") else "step-")
    if lost == 1:
        assert shard == "optimizer" or newest.state["update"] == updates(endless.train.dir)[-1]["update"]
        assert "gone or silent" in (tmp_path / "errors").read_text()
    until = newest.state["update"] + 3
    resumed = in_folder(config, tmp_path / "run", updates=until, checkpoint_every=10)
    assert statuses([fork(lambda: train(resumed, quiet))]) == [0]
    assert [record["update"] for record in updates(endless.train.dir)] == list(range(1, until + 1))


def test_a_process_that_hangs_ends_the_others(
    config: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.distributed.SILENCE", timedelta(seconds=3))
    endless = in_folder(config, tmp_path / "run", updates=100_000, checkpoint_every=100_000)
    children = fork_world(2, lambda: train(endless, quiet), tmp_path / "errors")
    wait_for_updates(endless.train.dir, 4)
    os.kill(children[1], signal.SIGSTOP)
    assert statuses(children[:1]) == [1]
    os.kill(children[1], signal.SIGKILL)
    assert statuses(children[1:]) == [-signal.SIGKILL]
    assert "gone or silent" in (tmp_path / "errors").read_text()
    (checkpoint,) = resumable_checkpoints(endless.train.dir)
    assert checkpoint.name == f"stop-{updates(endless.train.dir)[-1]['update']:08d}"


def test_a_settings_mistake_is_said_once(config: Config, tmp_path: Path, quiet: Console) -> None:
    run = in_folder(config, tmp_path / "run", updates=4)
    train(run, quiet)
    changed = with_settings(run, optim={"warmup": 99})
    assert statuses(fork_world(2, lambda: train(changed, quiet), tmp_path / "errors"))[0] == 2
    assert (tmp_path / "errors").read_text().count("mt: ") == 1


@pytest.mark.slow
def test_the_command_starts_its_processes_and_names_the_one_that_died(toy_yaml: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "mt", "train", str(toy_yaml), "--processes", "2", "train.checkpoint_every=10"]
    assert subprocess.run(command, check=False).returncode == 0
    assert len(updates(run)) == 12
    process = subprocess.Popen([*command, "train.updates=1000000"], text=True, stderr=subprocess.PIPE)
    wait_for_updates(run, 20)
    workers = [pid for pid in children_of(process.pid) if b"train" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (second,) = [pid for pid in workers if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "process 1 of 2 was ended by SIGKILL" in errors
    assert "saved at update" in errors
    assert "Traceback" not in errors


def test_a_process_whose_launcher_has_died_leaves_before_it_begins() -> None:
    environment = {**os.environ, "RANK": "1", "MT_LAUNCHER": "1"}
    command = [sys.executable, "-m", "mt", "--help"]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (130, b"")


def test_a_launcher_that_is_killed_leaves_no_process_behind(toy_yaml: Path) -> None:
    """Killed as soon as it has started them: they are importing, and no other process is there to miss them."""
    command = [sys.executable, "-m", "mt", "train", str(toy_yaml), "--processes", "2", "train.updates=1000000"]
    launcher = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(children_of(launcher.pid)) == 2)
    workers = children_of(launcher.pid)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(is_running(pid) for pid in workers))


def is_running(pid: int) -> bool:
    try:
        return b"train" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("size", [2, 3])
def test_a_validation_shared_by_processes_is_that_of_one_bit_for_bit(
    toy_config: Config, tmp_path: Path, size: int
) -> None:
    """With more batches than processes, and memory that two halvings were needed for."""
    config = with_settings(toy_config, decode={"batch_tokens": 60}, batch={"micro_tokens": 160})
    learner, _, prepared = started(config)
    learner.halvings = 2

    def validated(world: World) -> Validation:
        text, fitting = prepared.text("valid"), learner.fitting_config()
        return validate(learner.model, prepared.valid["valid"], text, prepared.tokenizers, fitting, world)

    expected = validated(World())

    def work() -> None:
        with joined(torch.device("cpu")) as world:
            assert validated(world) == expected

    assert statuses(fork_world(size, work, tmp_path / "errors")) == [0] * size, (tmp_path / "errors").read_text()


def test_a_stop_asked_of_one_process_in_a_validation_leaves_it_undone_in_all(config: Config, tmp_path: Path) -> None:
    learner, _, prepared = started(config)

    def work() -> None:
        with joined(torch.device("cpu")) as world:

            def check(count: int) -> None:
                if world.rank == 1:
                    raise Interrupted("asked to stop")

            text = prepared.text("valid")
            with pytest.raises(Interrupted):
                validate(learner.model, prepared.valid["valid"], text, prepared.tokenizers, config, world, check)

    assert statuses(fork_world(2, work, tmp_path / "errors")) == [0, 0], (tmp_path / "errors").read_text()
