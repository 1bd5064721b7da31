"""What a trainer may switch on: each does what it says, and a resumed run stays the uninterrupted one."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import first_batches, losses_of_updates, mt, started, with_settings

from mt.checkpoint import AVERAGED, load_checkpoint, prune_checkpoints, resumable_checkpoints, step_name
from mt.config import Config, Stage
from mt.config_file import load_config
from mt.console import Console
from mt.data.batches import Cursor
from mt.data.feed import cut_batch
from mt.data.prepare import prepare
from mt.data_config import Input
from mt.errors import CheckpointError, UsageError
from mt.run_files import read_metrics
from mt.train.loop import train
from mt.train.optim import learning_rate, optimizer_state
from mt.train.progress import Progress
from mt.train.update import take_update


def records(run: Path) -> list[dict[str, Any]]:
    return read_metrics(run / "metrics.jsonl")


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in records(run) if "loss" in record]


def newest(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(resumable_checkpoints(run)[0]).weights


OPTIONS: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.9},
    "bpe_dropout": {"bpe_dropout": 0.2, "noise": 0.3},
    "recompute": {"recompute": True},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_with_it_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    toy_config: Config, tmp_path: Path, quiet: Console, option: str
) -> None:
    straight = with_settings(toy_config, train={"dir": tmp_path / "straight", "updates": 8, **OPTIONS[option]})
    train(straight, quiet)
    resumed = with_settings(straight, train={"dir": tmp_path / "resumed"})
    train(with_settings(resumed, train={"updates": 5}), quiet)
    train(resumed, quiet)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")
    expected = newest(tmp_path / "straight")
    assert all(torch.equal(weight, expected[name]) for name, weight in newest(tmp_path / "resumed").items())


def test_a_run_with_stages_goes_on_exactly_from_within_a_stage_and_from_where_one_begins(
    toy_config: Config, toy_text: Path, tmp_path: Path, quiet: Console
) -> None:
    inputs = [Input(prefix=str(toy_text / "train"), name=name, tag=f"<{name}>") for name in ("old", "new")]
    stages = (
        Stage(update=2, weights={"old": 0.5, "new": 2}, scale=0.5),
        Stage(update=6, weights={"old": 0}, scale=2),
    )
    settings = {"updates": 8, "checkpoint_every": 3, "keep": 9, "stages": stages}
    toy_config = with_settings(toy_config, data={"train": tuple(inputs)}, train=settings)
    train(with_settings(toy_config, train={"dir": tmp_path / "straight"}), quiet)
    assert "stage 1 begins at update 3" in (tmp_path / "straight" / "report.html").read_text(encoding="utf-8")
    for stop in (3, 6):
        resumed = tmp_path / f"resumed-{stop}"
        shutil.copytree(tmp_path / "straight", resumed)
        for path in (resumed / "checkpoints").iterdir():
            if path.name == AVERAGED or path.name > step_name(stop):
                shutil.rmtree(path)
        train(with_settings(toy_config, train={"dir": resumed}), quiet)
        assert losses(resumed) == losses(tmp_path / "straight")
        assert [record["stage"] for record in records(resumed) if "loss" in record] == [0, 0, 1, 1, 1, 1, 2, 2]
        assert all(torch.equal(weight, newest(tmp_path / "straight")[name]) for name, weight in newest(resumed).items())


def test_bpe_dropout_repeats_in_every_process(
    toy_config: Config, toy_yaml: Path, tmp_path: Path, quiet: Console
) -> None:
    """Here the whole run and the beginning of another, whose end is a command of its own."""
    for folder, updates in (("straight", 8), ("resumed", 5)):
        settings = {"bpe_dropout": 0.2, "updates": updates, "dir": tmp_path / folder}
        train(with_settings(toy_config, train=settings), quiet)
    done = mt("train", toy_yaml, "train.bpe_dropout=0.2", "train.updates=8", f"train.dir={tmp_path / 'resumed'}")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")


def test_recomputing_activations_changes_no_bit_of_the_run(toy_config: Config) -> None:
    """The same dropout masks are drawn again."""
    plain, _, prepared = started(toy_config)
    frugal, _, _ = started(with_settings(toy_config, train={"recompute": True}))
    batches = first_batches(prepared.train, toy_config)[:3]
    assert losses_of_updates(plain, prepared.train, batches) == losses_of_updates(frugal, prepared.train, batches)
    assert frugal.model.state_dict().keys() == plain.model.state_dict().keys()


def test_clipping_bounds_the_norm_of_the_gradient_and_reports_it_unclipped(toy_config: Config) -> None:
    (free, _, prepared), (clipped, _, _) = (
        started(with_settings(toy_config, optim={"clip_norm": norm})) for norm in (0.0, 0.01)
    )
    batches = cut_batch(prepared.train, first_batches(prepared.train, toy_config)[0], toy_config.batch)
    norm = take_update(free, batches, update=1)["gradient_norm"]
    assert take_update(clipped, batches, update=1)["gradient_norm"] == norm
    assert norm > 0.01
    gradients = [p.grad for p in clipped.model.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(0.01, rel=1e-3)


def test_the_moving_average_is_what_a_checkpoint_translates_with(toy_config: Config) -> None:
    learner, _, prepared = started(with_settings(toy_config, train={"ema": 0.9}))
    model, batches = learner.model, first_batches(prepared.train, toy_config)
    average = [parameter.detach().clone() for parameter in model.parameters()]
    for update in range(1, 5):
        losses_of_updates(learner, prepared.train, batches[:1], done=update - 1)
        decay = min(0.9, (1 + update) / (10 + update))
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, model.parameters(), strict=True)]
    torch.testing.assert_close(learner.ema, average)
    raw = [parameter.detach().clone() for parameter in model.parameters()]
    with learner.averaged():
        torch.testing.assert_close(list(model.parameters()), average)
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), raw, strict=True))
    weights, beside = learner.state()
    torch.testing.assert_close([weights[name] for name, _ in model.named_parameters()], average)
    assert all(torch.equal(beside[f"{name}.raw"], p) for name, p in model.named_parameters())


def test_training_ends_with_the_epochs(toy_config: Config, quiet: Console) -> None:
    config = with_settings(toy_config, train={"epochs": 1, "updates": 1_000_000, "checkpoint_every": 1_000})
    train(config, quiet)
    plan = first_batches(prepare(config, quiet).train, config)
    assert len(losses(config.train.dir)) == len(plan)
    assert (config.train.dir / "checkpoints" / step_name(len(plan))).is_dir()


def test_training_ends_with_the_hours_of_all_sessions_together(toy_config: Config, quiet: Console) -> None:
    config = with_settings(toy_config, train={"hours": 1e-6, "updates": 1_000_000})
    train(config, quiet)
    before = losses(config.train.dir)
    assert before
    train(config, quiet)
    assert losses(config.train.dir) == before


@pytest.mark.parametrize("best", ["bleu", "loss"])
def test_training_ends_when_patience_does(toy_config: Config, quiet: Console, best: str) -> None:
    """With a rate of nothing no validation betters the first."""
    settings = {"patience": 2, "updates": 1_000, "checkpoint_every": 2, "best": best, "keep": 5}
    config = with_settings(toy_config, optim={"scale": 1e-12}, train=settings)
    train(config, quiet)
    state = load_checkpoint(config.train.dir / "checkpoints" / step_name(6)).state
    assert (state["best_update"], state["stale"], state["update"]) == (2, 2, 6)
    train(config, quiet)
    assert len(losses(config.train.dir)) == 6


def test_patience_that_ended_a_run_says_so(toy_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"patience": 1, "updates": 1_000, "checkpoint_every": 2}
    train(with_settings(toy_config, optim={"scale": 1e-12}, train=settings), Console())
    assert "done: 4 updates (train.patience=1: " in capsys.readouterr().err


def test_a_language_whose_tokenizer_is_missing_costs_a_warning_and_bleu_by_characters(
    toy_config: Config,
    toy_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sides of the toy text stand for English and Japanese."""
    monkeypatch.setitem(sys.modules, "MeCab", None)
    for split in ("train", "valid"):
        for language, name in (("en", "en"), ("de", "ja")):
            shutil.copy(toy_text / f"{split}.{language}", tmp_path / f"{split}.{name}")
    train_, valid = ((Input(prefix=str(tmp_path / split)),) for split in ("train", "valid"))
    data = {"dir": tmp_path / "japanese", "tgt": "ja", "train": train_, "valid": {"": valid}, "test": {"": ()}}
    train(with_settings(toy_config, data=data, train={"updates": 4}), Console(quiet=True))
    assert "BLEU by characters" in capsys.readouterr().err
    (validation,) = (record for record in records(toy_config.train.dir) if "valid_loss" in record)
    assert validation["valid_bleu"] >= 0


def test_a_warm_start_begins_with_the_weights_given(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    train(toy_config, quiet)
    given = load_checkpoint(toy_config.train.dir / "checkpoints" / AVERAGED).weights
    tuned = with_settings(toy_config, train={"dir": tmp_path / "tuned"})
    learner, progress, _ = started(tuned, init_from=toy_config.train.dir / AVERAGED)
    assert all(torch.equal(weight, given[name]) for name, weight in learner.model.state_dict().items())
    assert progress.update == 0
    assert not any(value.any() for value in optimizer_state(learner.optimizer, learner.model).values())


def test_a_warm_start_that_does_not_fit_says_why(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    wider = with_settings(toy_config, model={"d_ff": 48}, train={"dir": tmp_path / "wider"})
    with pytest.raises(CheckpointError, match=r"other sizes \(model.d_ff: 32 -> 48\)"):
        train(wider, quiet, init_from=toy_config.train.dir)
    other = with_settings(toy_config, data={"vocab_size": 300, "dir": tmp_path / "other"})
    tokenizer = str(prepare(other, quiet).dir / "tokenizer.model")
    other = with_settings(
        toy_config, data={"tokenizer": tokenizer, "dir": tmp_path / "third"}, train={"dir": tmp_path / "run2"}
    )
    with pytest.raises(CheckpointError, match="another vocabulary"):
        train(other, quiet, init_from=toy_config.train.dir)


FINE_TUNED = """
data: {{dir: {folder}/data, train: {text}/train, valid: {text}/valid, vocab_size: 290}}
batch: {{tokens: 400, micro_tokens: 400}}
train: {{dir: {folder}/run, updates: 40, checkpoint_every: 20, average: 1, device: cpu, precision: float32}}
"""


def test_the_obvious_fine_tuning_takes_tokenizer_and_sizes_and_lowers_the_loss_at_once(
    toy_run: Path, toy_text: Path, tmp_path: Path, quiet: Console
) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_text(FINE_TUNED.format(folder=tmp_path, text=toy_text), encoding="utf-8")
    before = [record["valid_loss"] for record in records(toy_run) if "valid_loss" in record][-1]
    config = load_config(path)
    train(config, quiet, init_from=toy_run)
    after = [record["valid_loss"] for record in records(tmp_path / "run") if "valid_loss" in record]
    assert before > after[0] > after[1]
    assert [record["rate"] for record in records(tmp_path / "run") if "rate" in record][:2] == pytest.approx(
        [1e-6, 2e-6]
    )
    taken = load_config(tmp_path / "run" / "config.yaml")
    assert taken.model == load_config(toy_run / "config.yaml").model
    assert (taken.optim.schedule, taken.optim.warmup) == ("constant", 100)
    for more in (41, 42):
        train(with_settings(config, train={"updates": more}), quiet, init_from=toy_run if more == 41 else None)
        assert len(losses(tmp_path / "run")) == more, "the same command goes on, and so does plain mt train"


def test_a_fine_tuning_killed_before_its_first_checkpoint_begins_again_with_the_same_weights(
    toy_config: Config, tmp_path: Path, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    tuned = with_settings(toy_config, train={"updates": 1, "dir": tmp_path / "tuned"})
    train(tuned, quiet, init_from=toy_config.train.dir)
    first = losses(tmp_path / "tuned")
    shutil.rmtree(tmp_path / "tuned" / "checkpoints")
    capsys.readouterr()
    train(tuned, Console())
    assert f"weights from {toy_config.train.dir}" in capsys.readouterr().err
    assert losses(tmp_path / "tuned") == first


def test_fine_tuning_on_the_same_data_prepares_nothing_again(
    toy_config: Config, tmp_path: Path, quiet: Console
) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    before = (toy_config.data.dir / "manifest.json").read_bytes()
    tuned = with_settings(toy_config, train={"updates": 2, "dir": tmp_path / "tuned"})
    train(tuned, quiet, init_from=toy_config.train.dir)
    assert (toy_config.data.dir / "manifest.json").read_bytes() == before


def test_the_rate_of_a_config_is_kept_when_fine_tuning(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    settings = {"optim": {"schedule": "paper", "scale": 0.3}, "train": {"updates": 1, "dir": tmp_path / "tuned"}}
    train(with_settings(toy_config, **settings), quiet, init_from=toy_config.train.dir)
    (rate,) = [record["rate"] for record in records(tmp_path / "tuned") if "rate" in record]
    assert rate == pytest.approx(0.3 * learning_rate(1, 16, 10))


def test_checkpoints_at_multiples_are_kept_for_good(toy_config: Config, quiet: Console) -> None:
    settings = {"checkpoint_every": 1, "keep_every": 4, "keep": 1, "average": 1}
    train(with_settings(toy_config, train=settings), quiet)
    prune_checkpoints(toy_config.train.dir, keep=1, best=None, keep_every=4)
    names = sorted(path.name for path in (toy_config.train.dir / "checkpoints").glob("step-*"))
    assert names == [step_name(4), step_name(8), step_name(12)]


def test_the_run_says_where_and_with_what_it_ran(toy_config: Config, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    train(toy_config, quiet)
    first, second = json.loads((toy_config.train.dir / "env.json").read_text())
    assert (first["update"], second["update"]) == (0, 4)
    assert second["data"] == prepare(toy_config, quiet).fingerprint
    assert second["versions"]["torch"] == torch.__version__
    assert {"command", "commit", "machine", "device", "started"} <= set(second)


def test_tensorboard_draws_the_figures(toy_config: Config, quiet: Console) -> None:
    pytest.importorskip("tensorboard")
    train(with_settings(toy_config, train={"tensorboard": True}), quiet)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(toy_config.train.dir / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(toy_config.train.dir))
    assert [event.step for event in events.Scalars("valid_bleu")] == [4, 8, 12]


def test_without_its_extra_tensorboard_is_one_sentence(
    toy_config: Config, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UsageError, match=r"mt\[tensorboard\]"):
        train(with_settings(toy_config, train={"tensorboard": True}), quiet)


def test_what_an_earlier_version_saved_can_be_gone_on_from() -> None:
    """Its state.json knew only these keys."""
    state = {"update": 7, "cursor": {"epoch": 1, "batch": 2}, "best_bleu": 30.5, "best_update": 4, "data": "abc"}
    found = Progress.from_state(state)
    assert found == Progress("abc", 7, Cursor(1, 2), validated=7, best_bleu=30.5, best_update=4)
    assert Progress.from_state(found.state()) == found


def test_how_the_work_is_cut_may_change_on_resuming(toy_config: Config, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    train(with_settings(toy_config, batch={"micro_tokens": 60, "multiple": 2}), quiet)
    assert len(losses(toy_config.train.dir)) == 12
    assert load_config(toy_config.train.dir / "config.yaml").batch.micro_tokens == 60
