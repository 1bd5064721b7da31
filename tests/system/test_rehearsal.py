"""Laws of the rehearsal: it finds what would fail later, and nothing of it stays."""

from pathlib import Path

import pytest
import torch
from helpers import with_settings

from mt.config import Config
from mt.console import Console
from mt.data.prepare import prepare
from mt.train.loop import train
from mt.train.rehearsal import RehearsalError, rehearse, size
from mt.train.run import Run, start_or_resume


def new_run(config: Config, quiet: Console) -> Run:
    return start_or_resume(config, prepare(config, quiet), quiet)


def test_it_changes_neither_weights_nor_optimiser_nor_random_state_nor_disk(toy_config: Config, quiet: Console) -> None:
    run = new_run(toy_config, quiet)
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    random = torch.get_rng_state()
    rehearse(run, quiet)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert not run.adam.state
    assert run.model.training
    assert list((run.folder / "checkpoints").iterdir()) == []


def test_on_resuming_it_leaves_the_moments_alone(toy_config: Config, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    run = new_run(toy_config, quiet)
    moments = {p: {k: v.clone() for k, v in state.items()} for p, state in run.adam.state.items()}
    rehearse(run, quiet)
    assert all(torch.equal(run.adam.state[p][k], v) for p, state in moments.items() for k, v in state.items())


def test_a_disk_too_small_is_found_before_the_first_update(toy_config: Config, quiet: Console) -> None:
    greedy = with_settings(toy_config, train={"keep": 10**12, "updates": 10**12, "checkpoint_every": 1})
    with pytest.raises(RehearsalError, match=r"will need .* GB, but .* are free: make room, lower train.keep"):
        train(greedy, quiet)
    assert not (greedy.train.dir / "metrics.jsonl").exists()


def test_a_dry_run_prints_the_plan_and_leaves_nothing(
    toy_config: Config, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy_config, quiet, dry_run=True)
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert not toy_config.train.dir.exists()
    run = new_run(toy_config, quiet)
    assert printed["parameters"] == f"{sum(p.numel() for p in run.model.parameters()):,}"
    assert printed["updates"].startswith("12 of about")
    assert set(printed) >= {"epochs", "memory", "checkpoint", "disk", "time"}


def test_the_disk_it_asks_for_is_what_the_run_uses(toy_config: Config, quiet: Console) -> None:
    plan = rehearse(new_run(toy_config, quiet), quiet)
    train(toy_config, quiet)
    for path in (toy_config.train.dir / "checkpoints").glob("step-*"):
        assert used(path) == pytest.approx(plan.checkpoint, rel=0.15)
    assert used(toy_config.train.dir) <= plan.disk


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("count", "said"), [(512, "512 bytes"), (35_100_000, "35 MB"), (1_230_000_000, "1.2 GB")])
def test_sizes_are_said_as_people_say_them(count: int, said: str) -> None:
    assert size(count) == said
