"""Laws of the training run (section 5): exact resume, accumulation, and learning what it is shown."""

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import first_batches, fork, started, statuses, wait_until, with_settings
from torch.nn import functional as F

from mt.checkpoint import AVERAGED, load_checkpoint, resumable_checkpoints, step_name
from mt.config import Config
from mt.config_file import load_config
from mt.console import Console
from mt.data.batches import plan_batches
from mt.data.feed import cut_batch
from mt.data.prepare import prepare
from mt.distributed import World
from mt.errors import CheckpointError
from mt.run_files import read_metrics
from mt.train.journal import DivergedError
from mt.train.loop import train
from mt.train.loss import load_batch
from mt.train.update import accumulate, dropout_seed, take_update
from mt.train.validation import mean_loss, validate


def losses(run: Path) -> list[tuple[int, float, float]]:
    records = read_metrics(run / "metrics.jsonl")
    return [(r["update"], r["loss"], r["gradient_norm"]) for r in records if "loss" in r]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(resumable_checkpoints(run)[0]).weights


@pytest.mark.parametrize("stop", [4, 8])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    toy_config: Config, tmp_path: Path, quiet: Console, stop: int
) -> None:
    """With dropout, accumulation, and the stop in the middle of an epoch."""
    straight = with_settings(toy_config, train={"dir": tmp_path / "straight"})
    train(straight, quiet)
    resumed = with_settings(toy_config, train={"dir": tmp_path / "resumed"})
    train(with_settings(resumed, train={"updates": stop}), quiet)
    train(resumed, quiet)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")
    expected = final_weights(tmp_path / "straight")
    for name, weight in final_weights(tmp_path / "resumed").items():
        assert torch.equal(weight, expected[name]), name


def test_a_terminated_run_saves_where_it_is_and_goes_on_exactly(
    toy_config: Config, tmp_path: Path, quiet: Console
) -> None:
    straight, stopped = (
        with_settings(toy_config, train={"updates": 300, "checkpoint_every": 300, "dir": tmp_path / name})
        for name in ("straight", "stopped")
    )
    train(straight, quiet)
    process = fork(lambda: train(stopped, quiet))
    wait_for(stopped.train.dir / "metrics.jsonl", lines=20)
    os.kill(process, signal.SIGTERM)
    assert statuses([process]) == [130]
    (checkpoint,) = (stopped.train.dir / "checkpoints").iterdir()
    assert checkpoint.name.startswith("stop-")
    train(stopped, quiet)
    assert losses(stopped.train.dir) == losses(straight.train.dir)
    assert [update for update, _, _ in losses(stopped.train.dir)] == list(range(1, 301))


def wait_for(path: Path, lines: int) -> None:
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= lines)


def test_accumulated_micro_batches_are_one_large_batch(toy_config: Config) -> None:
    """Every token weighs the same, however many micro-batches an update is cut into (float64, no dropout)."""
    still = with_settings(toy_config, model={"dropout": 0.0})
    gradients = []
    for micro_tokens in (200, 90, 40):
        config = with_settings(still, batch={"micro_tokens": micro_tokens})
        learner, _, prepared = started(config)
        learner.model.double()
        batches = cut_batch(prepared.train, first_batches(prepared.train, config)[0], config.batch)
        loss = accumulate(learner, batches, update=1)["loss"]
        gradients.append((loss, [parameter.grad for parameter in learner.model.parameters()]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def test_an_update_follows_the_gradient_of_the_whole_batch(toy_config: Config) -> None:
    """The loss reported is torch's own label-smoothed loss over the update's real target tokens."""
    config = with_settings(toy_config, model={"dropout": 0.0})
    learner, _, prepared = started(config)
    rows = first_batches(prepared.train, config)[0]
    batch = load_batch(prepared.train.take(rows), torch.device("cpu"))
    with torch.no_grad():
        logits_NV = learner.model(batch.source_BS, batch.input_BT).flatten(0, 1)[batch.target_places_N]
    expected = F.cross_entropy(logits_NV, batch.targets_N, label_smoothing=0.1)
    record = take_update(learner, cut_batch(prepared.train, rows, config.batch), update=1)
    torch.testing.assert_close(record["loss"], expected, rtol=1e-5, atol=0)
    assert record["tokens"] == len(batch.targets_N)


def test_targets_are_shifted_right_by_one(toy_config: Config, quiet: Console) -> None:
    corpus = prepare(toy_config, quiet).train
    batch = load_batch(corpus.take(plan_batches(corpus.lengths(), 200, 1, 0)[0]), torch.device("cpu"))
    target_BT = torch.zeros_like(batch.input_BT).flatten()
    target_BT[batch.target_places_N] = batch.targets_N
    target_BT = target_BT.view_as(batch.input_BT)
    assert (batch.input_BT[:, 0] == 1).all()
    assert torch.equal(batch.input_BT[:, 1:], target_BT[:, :-1])


def test_each_forward_pass_has_a_dropout_seed_of_its_own() -> None:
    seeds = {dropout_seed(seed, update, micro) for seed in (1, 2) for update in range(50) for micro in range(4)}
    assert len(seeds) == 400


def test_the_run_directory_holds_what_is_documented(toy_config: Config, quiet: Console) -> None:
    train(toy_config, quiet)
    run = toy_config.train.dir
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "env.json",
        "metrics.jsonl",
        "report.html",
    ]
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names[0] == AVERAGED
    assert {step_name(8), step_name(12)} <= set(names)
    assert load_config(run / "config.yaml") == toy_config
    validations = [record for record in read_metrics(run / "metrics.jsonl") if "valid_bleu" in record]
    assert [record["update"] for record in validations] == [4, 8, 12, 12]
    assert validations[-1]["averaged"] == 2


def test_a_finished_run_trains_no_further(toy_config: Config, quiet: Console) -> None:
    train(toy_config, quiet)
    before = losses(toy_config.train.dir)
    train(toy_config, quiet)
    assert losses(toy_config.train.dir) == before


def test_a_run_is_not_continued_under_other_settings(toy_config: Config, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    changed = with_settings(toy_config, optim={"warmup": 99}, model={"dropout": 0.5})
    with pytest.raises(CheckpointError, match=r"model.dropout: 0.2 -> 0.5.*optim.warmup: 10 -> 99"):
        train(changed, quiet)


def test_a_damaged_newest_checkpoint_costs_only_itself(toy_config: Config, quiet: Console) -> None:
    train(with_settings(toy_config, train={"updates": 8}), quiet)
    expected = losses(toy_config.train.dir)
    newest = toy_config.train.dir / "checkpoints" / step_name(8) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    _, progress, _ = started(toy_config)
    assert progress.update == 4
    train(toy_config, quiet)
    assert losses(toy_config.train.dir)[:8] == expected


def test_a_loss_that_is_no_number_stops_the_run_and_is_never_saved(toy_config: Config, quiet: Console) -> None:
    wild = with_settings(toy_config, optim={"scale": 1e30}, train={"checkpoint_every": 1})
    with pytest.raises(DivergedError, match="update 2: loss"):
        train(wild, quiet)
    (saved,) = resumable_checkpoints(toy_config.train.dir)
    assert saved.name == step_name(1)
    assert all(weight.isfinite().all() for weight in load_checkpoint(saved).weights.values())


@pytest.mark.slow
def test_the_toy_language_is_learnt(toy_config: Config, quiet: Console) -> None:
    config = with_settings(
        toy_config,
        model={"d_model": 64, "d_ff": 128, "dropout": 0.1},
        optim={"warmup": 200},
        train={"updates": 800, "checkpoint_every": 200},
    )
    train(config, quiet)
    last = [record for record in read_metrics(config.train.dir / "metrics.jsonl") if "valid_bleu" in record][-1]
    assert last["valid_bleu"] > 80
    assert last["valid_perplexity"] < 1.5


def test_validation_loss_is_the_mean_over_target_tokens(toy_config: Config) -> None:
    learner, _, prepared = started(toy_config)
    corpus, model = prepared.valid["valid"], learner.model.eval()
    total = tokens = 0.0
    with torch.no_grad():
        for row in range(len(corpus)):
            source_S, target_T = (
                torch.from_numpy(side[row].astype("int64")) for side in (corpus.source, corpus.target)
            )
            input_T = torch.cat([torch.tensor([1]), target_T[:-1]])
            total += float(F.cross_entropy(model(source_S[None], input_T[None])[0], target_T, reduction="sum"))
            tokens += len(target_T)
    assert mean_loss(model, corpus, 200) == pytest.approx(total / tokens, rel=1e-5)


def test_validation_is_greedy_where_the_config_samples(toy_config: Config) -> None:
    learner, _, prepared = started(toy_config)
    sampling = with_settings(toy_config, decode={"sample": True, "beam": 3})
    found = [
        validate(learner.model, prepared.valid["valid"], prepared.text("valid"), prepared.tokenizers, config, World())
        for config in (toy_config, sampling)
    ]
    assert found[0] == found[1]
