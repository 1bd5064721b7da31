"""A run directory that was damaged, or is to go on otherwise: what is wrong is said, what can be is made good."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import fork, mt, started, statuses, wait_until, with_settings

from mt.checkpoint import AVERAGED, load_checkpoint, read_config, resumable_checkpoints, step_name
from mt.config import Config
from mt.config_file import load_config
from mt.console import Console
from mt.errors import CheckpointError, ConfigError
from mt.run_files import METRICS, SESSIONS, read_metrics, read_records
from mt.run_folder import choose_checkpoint, find_checkpoint
from mt.train.loop import train
from mt.train.progress import Progress
from mt.train.saving import CheckpointWriter


def files(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, but reports, which carry a date."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".html"}


def averages(config: Config) -> list[int]:
    return [record["update"] for record in read_metrics(config.train.dir / METRICS) if record.get("averaged")]


def average_of(config: Config) -> Path:
    return config.train.dir / "checkpoints" / AVERAGED


@pytest.mark.parametrize("setting", ["seed=2", "data.vocab_size=300", "data.clean.max_ratio=3", "model.dropout=0.3"])
def test_other_settings_are_refused_before_anything_is_written(
    toy_yaml: Path, toy_config: Config, quiet: Console, setting: str
) -> None:
    train(toy_config, quiet)
    before = files(toy_yaml.parent)
    with pytest.raises(CheckpointError, match=setting.split("=")[0]):
        train(load_config(toy_yaml, [setting]), quiet)
    assert files(toy_yaml.parent) == before


@pytest.mark.parametrize("size", ["d_model=1000000000", "d_ff=10000000000000", "encoder_layers=100000000000000"])
def test_a_model_larger_than_the_memory_is_refused_before_anything_is_written(
    toy_yaml: Path, quiet: Console, size: str
) -> None:
    config = load_config(toy_yaml, [f"model.{size}"])
    with pytest.raises(ConfigError, match=r"parameters needs at least .* GB of memory to train, but there are"):
        train(config, quiet)
    assert not config.data.dir.exists()
    assert not config.train.dir.exists()


def test_what_makes_figures_differ_is_said_when_a_run_goes_on(
    toy_config: Config, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    train(with_settings(toy_config, train={"updates": 5, "log_every": 1}, batch={"micro_tokens": 100}), Console())
    said = [line for line in capsys.readouterr().err.splitlines() if "another setting: " in line]
    assert [line.split("another setting: ")[1] for line in said] == [
        "batch.micro_tokens: 80 -> 100",
        "train.updates: 4 -> 5",
    ]


def test_a_run_keeps_the_precision_that_auto_stood_for(toy_config: Config, quiet: Console) -> None:
    train(with_settings(toy_config, train={"precision": "auto"}), quiet)
    stored = read_config(resumable_checkpoints(toy_config.train.dir)[0]).train.precision
    assert stored == read_records(toy_config.train.dir / SESSIONS)[0]["precision"]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[stored]
    refusal = f"train.precision: {stored} -> {other}.*put them back .train.precision={stored}."
    with pytest.raises(CheckpointError, match=refusal):
        train(with_settings(toy_config, train={"precision": other}), quiet)


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "MANIFEST.json"])
def test_a_damaged_average_is_made_again(toy_config: Config, quiet: Console, file: str) -> None:
    train(toy_config, quiet)
    whole = load_checkpoint(average_of(toy_config))
    (average_of(toy_config) / file).write_bytes(b"damaged")
    train(toy_config, quiet)
    again = load_checkpoint(average_of(toy_config))
    assert again.state == whole.state
    assert all(tensor.equal(again.weights[name]) for name, tensor in whole.weights.items())


def test_a_finished_run_is_left_as_it_is(toy_config: Config, quiet: Console) -> None:
    train(toy_config, quiet)
    before = files(toy_config.train.dir / "checkpoints"), averages(toy_config)
    train(toy_config, quiet)
    assert (files(toy_config.train.dir / "checkpoints"), averages(toy_config)) == before
    assert before[1] == [12]


def test_a_finished_run_makes_the_average_that_is_asked_for_now(toy_config: Config, quiet: Console) -> None:
    config = with_settings(toy_config, train={"average": 2, "keep": 3})
    for count in (2, 3):
        train(with_settings(config, train={"average": count}), quiet)
        assert load_checkpoint(average_of(config)).state["averaged"] == count
    assert averages(config) == [12, 12]


def test_the_average_leaves_out_a_damaged_checkpoint(
    toy_config: Config, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_settings(toy_config, train={"average": 3, "keep": 3})
    train(config, quiet)
    shutil.rmtree(average_of(config))
    (config.train.dir / "checkpoints" / step_name(8) / "model.safetensors").write_bytes(b"")
    train(config, quiet)
    assert load_checkpoint(average_of(config)).state["averaged"] == 2
    assert f"left out of the average: {config.train.dir / 'checkpoints' / step_name(8)}" in capsys.readouterr().err


def test_the_record_of_an_average_is_written_again_where_it_was_lost(toy_config: Config, quiet: Console) -> None:
    """As by a kill between writing the checkpoint and its record."""
    train(toy_config, quiet)
    path = toy_config.train.dir / METRICS
    records = read_metrics(path)
    path.write_text("".join(json.dumps(record) + "\n" for record in records if not record.get("averaged")))
    train(toy_config, quiet)
    assert read_metrics(path) == records


@pytest.mark.parametrize(
    ("name", "other"), [("state.json", "state.json"), ("config.yaml", "state.json"), ("MANIFEST.json", "config.yaml")]
)
def test_a_damaged_file_neither_stops_a_run_nor_misleads_translation(
    toy_config: Config, quiet: Console, name: str, other: str
) -> None:
    train(toy_config, quiet)
    newest, older = resumable_checkpoints(toy_config.train.dir)
    (newest / name).write_bytes((older / other).read_bytes())
    assert find_checkpoint(toy_config.train.dir) != newest
    train(toy_config, quiet)
    assert load_checkpoint(resumable_checkpoints(toy_config.train.dir)[0], resume=True).state["update"] == 12


def test_a_run_whose_directory_is_removed_ends_in_a_sentence(
    toy_config: Config, tmp_path: Path, quiet: Console
) -> None:
    endless = with_settings(toy_config, train={"updates": 10**9, "checkpoint_every": 10**6})
    child = fork(lambda: train(endless, quiet), tmp_path / "errors")
    wait_until(lambda: read_metrics(endless.train.dir / METRICS))
    shutil.rmtree(endless.train.dir)
    assert statuses([child]) == [1]
    assert (
        tmp_path / "errors"
    ).read_text() == f"mt: {endless.train.dir}: the run directory was removed while the run went on\n"
    assert not endless.train.dir.exists()


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe", b"7"])
def test_small_files_that_were_damaged_do_not_stop_a_run(toy_config: Config, quiet: Console, content: bytes) -> None:
    train(with_settings(toy_config, train={"updates": 4}), quiet)
    (toy_config.train.dir / SESSIONS).write_bytes(content)
    with (toy_config.train.dir / METRICS).open("ab") as file:
        file.write(content + b"\n")
    train(toy_config, quiet)
    updates = [record["update"] for record in read_metrics(toy_config.train.dir / METRICS) if "loss" in record]
    assert updates == list(range(1, 13))
    assert len(read_records(toy_config.train.dir / SESSIONS)) == 1


# --- RUN/best, RUN/last, RUN/averaged -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "checkpoint"), [("last", step_name(120)), ("averaged", AVERAGED)])
def test_a_checkpoint_is_named_alike_in_translate_evaluate_and_init_from(
    toy_run: Path, toy_config: Config, tmp_path: Path, name: str, checkpoint: str
) -> None:
    path, said = str(toy_run / name), str(toy_run / "checkpoints" / checkpoint)
    translated = mt("translate", "--ckpt", path, "--beam", "1", text="a dog runs here .\n")
    assert translated.stdout.count("\n") == 1
    assert f"model: {said}\n" in translated.stderr
    evaluated = mt("evaluate", "--ckpt", path, "--beam", "1")
    assert f"({checkpoint}, greedy" in evaluated.stdout
    config = toy_run / "config.yaml"
    tuned = ("train.updates=1", f"train.dir={tmp_path / 'tuned'}", f"data.dir={toy_config.data.dir}")
    trained = mt("train", str(config), *tuned, "--init-from", path)
    assert f"weights from {said}" in trained.stderr
    assert [done.returncode for done in (translated, evaluated, trained)] == [0, 0, 0]


def test_a_run_is_translated_with_what_validates_best_and_that_is_said(toy_run: Path) -> None:
    choice = choose_checkpoint(toy_run)
    translated = mt("translate", "--ckpt", str(toy_run), "--beam", "1", text="a dog runs here .\n")
    assert f"model: {choice.path} ({choice.reason})" in translated.stderr
    figures = {record.get("averaged", 0): record["valid_bleu"] for record in validations(toy_run)}
    best = max(record["valid_bleu"] for record in validations(toy_run) if not record.get("averaged"))
    assert (choice.path.name == AVERAGED) == (figures[2] >= best)
    assert f"BLEU {max(figures[2], best):.2f} on validation" in choice.reason


def validations(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run / METRICS) if "valid_bleu" in record]


def test_a_run_that_had_to_halve_its_micro_batches_goes_on_with_halves(toy_config: Config, quiet: Console) -> None:
    """Unless their size is another one now. An earlier version's state does not say how often."""
    learner, progress, prepared = started(toy_config)
    learner.halvings = 1
    (toy_config.train.dir / "checkpoints").mkdir(parents=True)
    writer = CheckpointWriter(toy_config.train.dir, prepared.tokenizers.files)
    writer.save(learner, replace(progress, update=1, halvings=1), "step-00000001")
    assert started(toy_config)[0].halvings == 1
    assert started(with_settings(toy_config, batch={"micro_tokens": 40}))[0].halvings == 0
    state = {name: value for name, value in progress.state().items() if name != "halvings"}
    assert Progress.from_state(state).halvings == 0
