"""A run directory: each file of it is read as it may be found, and a path means the checkpoint that people expect."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import with_settings

from mt.checkpoint import AVERAGED, save_checkpoint, step_name, stop_name
from mt.config import Config
from mt.console import Console
from mt.errors import CheckpointError, MtError, UsageError
from mt.run_files import METRICS, SESSIONS, MetricsLog, read_metrics, read_records
from mt.run_folder import check_settings, choose_checkpoint, find_checkpoint, training_lock
from mt.train.session import note_session


def save(run: Path, name: str, config: Config | None = None, **state: Any) -> Path:
    path = run / "checkpoints" / name
    save_checkpoint(
        path, config or Config(), {"tokenizer.model": b""}, {"weight": torch.ones(2)}, {"data": "", **state}
    )
    return path


def run_of_three(run: Path, config: Config | None = None) -> Path:
    """Three checkpoints, the second of which validated best."""
    for update in (1, 2, 3):
        best = {"best_update": min(update, 2), "best_bleu": 10.0, "best_loss": 3.0}
        save(run, step_name(update), config, update=update, **best)
    return run


def averaged(run: Path, bleu: float, loss: float, config: Config | None = None) -> Path:
    return save(run, AVERAGED, config, update=3, averaged=2, validation={"valid_bleu": bleu, "valid_loss": loss})


# --- Which checkpoint a path means --------------------------------------------------------------------------------


def test_a_run_stands_for_what_validates_best_and_says_why(tmp_path: Path) -> None:
    run = run_of_three(tmp_path)
    assert choose_checkpoint(run).reason == "the best on validation: BLEU 10.00"
    averaged(run, bleu=12.0, loss=2.0)
    choice = choose_checkpoint(run)
    assert (choice.path.name, choice.reason) == (AVERAGED, "BLEU 12.00 on validation; step-00000002: 10.00")
    averaged(run, bleu=9.0, loss=2.0)
    choice = choose_checkpoint(run)
    assert (choice.path.name, choice.reason) == (step_name(2), "BLEU 10.00 on validation; averaged: 9.00")


def test_the_figure_that_decides_is_that_of_train_best(tmp_path: Path) -> None:
    config = with_settings(Config(), train={"best": "loss"})
    averaged(run_of_three(tmp_path, config), bleu=9.0, loss=2.0, config=config)
    choice = choose_checkpoint(tmp_path)
    assert (choice.path.name, choice.reason) == (
        AVERAGED,
        "loss 2.0000 on validation; step-00000002: 3.0000",
    )


def test_a_run_of_an_earlier_version_has_its_averages_validation_in_the_metrics(tmp_path: Path) -> None:
    run = run_of_three(tmp_path)
    save(run, AVERAGED, update=3, averaged=2)
    assert choose_checkpoint(run).reason == "the average of the last checkpoints"
    record = {"update": 3, "averaged": 2, "valid_bleu": 9.0, "valid_loss": 2.0}
    (run / METRICS).write_text(json.dumps(record) + "\n")
    assert find_checkpoint(run).name == step_name(2)


def test_an_average_older_than_the_newest_checkpoint_is_out_of_date(tmp_path: Path) -> None:
    averaged(run_of_three(tmp_path), bleu=12.0, loss=2.0)
    save(tmp_path, step_name(4), update=4, best_update=2, best_bleu=10.0)
    assert find_checkpoint(tmp_path).name == step_name(2)
    assert find_checkpoint(tmp_path / "averaged").name == AVERAGED, "who names it gets it"


def test_a_run_that_was_never_validated_stands_for_its_newest(tmp_path: Path) -> None:
    save(tmp_path, stop_name(5), update=5, best_update=None, best_bleu=-1.0)
    choice = choose_checkpoint(tmp_path)
    assert (choice.path.name, choice.reason) == (stop_name(5), "the newest")


def test_checkpoints_have_names_that_people_can_say(tmp_path: Path) -> None:
    run = run_of_three(tmp_path)
    averaged(run, bleu=12.0, loss=2.0)
    names = {"best": step_name(2), "last": step_name(3), "averaged": AVERAGED, step_name(1): step_name(1)}
    assert {name: find_checkpoint(run / name).name for name in names} == names
    with pytest.raises(CheckpointError, match="has no checkpoint bset; there are best, last, averaged, step-00000001"):
        find_checkpoint(run / "bset")


def test_a_checkpoint_is_itself_wherever_it_lies(tmp_path: Path) -> None:
    path = save(tmp_path, step_name(1), update=1)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(path, elsewhere)
    assert (find_checkpoint(path), find_checkpoint(elsewhere)) == (path, elsewhere)


def test_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run or checkpoint"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "emptied", "replaced by an older one"])
def test_a_damaged_state_is_noticed_and_another_checkpoint_taken(tmp_path: Path, damage: str) -> None:
    run = run_of_three(tmp_path)
    state, older = (run / "checkpoints" / step_name(update) / "state.json" for update in (3, 1))
    state.write_bytes({"cut short": state.read_bytes()[:-9], "emptied": b""}.get(damage, older.read_bytes()))
    choice = choose_checkpoint(run)
    assert choice.path.name == step_name(2)
    assert f"{state}: damaged" in choice.reason


def test_a_damaged_average_is_passed_over(tmp_path: Path) -> None:
    (averaged(run_of_three(tmp_path), bleu=12.0, loss=2.0) / "state.json").write_text("{}")
    choice = choose_checkpoint(tmp_path)
    assert choice.path.name == step_name(2)
    assert "averaged/state.json: damaged" in choice.reason


def test_a_run_all_of_whose_checkpoints_are_damaged_is_one_sentence(tmp_path: Path) -> None:
    for path in (run_of_three(tmp_path) / "checkpoints").iterdir():
        (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"none of its 3 checkpoints is whole; the newest: .*step-00000003"):
        find_checkpoint(tmp_path)


# --- Going on -----------------------------------------------------------------------------------------------------


def test_another_recipe_is_refused_without_the_data_and_other_notes_are_told(tmp_path: Path) -> None:
    config = with_settings(Config(), train={"dir": tmp_path, "precision": "float32"})
    assert check_settings(tmp_path, config) == [], "a new run has nothing to compare"
    run_of_three(tmp_path, config)
    assert check_settings(tmp_path, with_settings(config, train={"log_every": 7})) == []
    noted = with_settings(config, batch={"micro_tokens": 100}, train={"average": 3})
    assert check_settings(tmp_path, noted) == ["batch.micro_tokens: 0 -> 100", "train.average: 5 -> 3"]
    for section, changed in (("train", {"precision": "bfloat16"}), ("model", {"heads": 4}), ("data", {"tgt": "fr"})):
        (key,) = changed
        with pytest.raises(CheckpointError, match=rf"cannot go on with other settings \({section}\.{key}: .* -> .*\)"):
            check_settings(tmp_path, with_settings(config, **{section: changed}))


def test_an_automatic_precision_of_an_earlier_version_fits_whatever_it_stood_for(tmp_path: Path) -> None:
    run_of_three(tmp_path, Config())
    assert check_settings(tmp_path, with_settings(Config(), train={"precision": "float32"})) == []


# --- metrics.jsonl ------------------------------------------------------------------------------------------------


def metrics(run: Path, *updates: int) -> Path:
    run.mkdir(exist_ok=True)
    path = run / METRICS
    path.write_text("".join(json.dumps({"update": update, "loss": 1.5}) + "\n" for update in updates))
    return path


def test_a_log_goes_on_where_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = metrics(tmp_path, 1, 2, 3, 4)
    log = MetricsLog(path, 3, Console())
    log.write({"update": 4, "loss": 2.0})
    log.close()
    assert [(record["update"], record["loss"]) for record in read_metrics(path)] == [
        (1, 1.5),
        (2, 1.5),
        (3, 1.5),
        (4, 2.0),
    ]
    assert capsys.readouterr().err == ""


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    path = metrics(tmp_path, 1, 2)
    whole = read_metrics(path)
    with path.open("ab") as file:
        file.write(
            b"[]\n{}\n7\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"update": "3"}\n{"update": null}\n{"update": 3, "lo'
        )
    assert read_metrics(path) == whole
    assert read_metrics(tmp_path / "none") == read_metrics(tmp_path) == []
    MetricsLog(path, 2, Console()).close()
    assert read_metrics(path) == whole


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_metrics_that_are_missing_are_said(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = metrics(tmp_path, 1, 2, 3, 4)
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-40])
    MetricsLog(path, 4, Console()).close()
    missing = 4 - len(read_metrics(path))
    assert f"the figures of {missing} of 4 updates are missing" in capsys.readouterr().err


def test_metrics_removed_while_the_run_goes_on_begin_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = metrics(tmp_path, 1)
    log = MetricsLog(path, 1, Console())
    path.unlink()
    for update in (2, 3):
        log.write({"update": update, "loss": 1.0})
        log.flush()
    assert [record["update"] for record in read_metrics(path)] == [3]
    assert capsys.readouterr().err.count("removed or replaced while the run went on") == 1


def test_a_run_directory_removed_while_the_run_goes_on_is_an_error(tmp_path: Path) -> None:
    log = MetricsLog(metrics(tmp_path / "run", 1), 1, Console())
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(MtError, match="run: the run directory was removed") as error:
        log.flush()
    assert error.value.exit_status == 1
    assert not (tmp_path / "run").exists()


# --- Sessions and the lock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"{}", b"[1, {}]", b"7", b"[{", b"\xff", b"[" * 100_000, None])
def test_a_session_is_noted_whatever_was_there(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / SESSIONS).write_bytes(content)
    before = len(read_records(tmp_path / SESSIONS))
    for update in (0, 7):
        note_session(tmp_path, {"update": update, "device": "cpu"})
    sessions = read_records(tmp_path / SESSIONS)[before:]
    assert [session["update"] for session in sessions] == [0, 7]
    assert all({"command", "commit", "machine", "versions", "started"} <= session.keys() for session in sessions)


def test_one_process_at_a_time_trains_in_a_directory(tmp_path: Path) -> None:
    run, refused = tmp_path / "run", pytest.raises(UsageError, match="another run is training here")
    with training_lock(run), refused, training_lock(run):
        pass


def test_a_start_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with training_lock(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints").mkdir()
    assert not (tmp_path / "run").exists()
    with training_lock(tmp_path / "run"):
        metrics(tmp_path / "run", 1)
    assert (tmp_path / "run").exists()
