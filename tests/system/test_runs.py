"""`mt runs`: each run of a folder is one row that says how far it came, how good it is, and what became of it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mt.config import Config
from mt.config_file import dump_config
from mt.errors import UsageError
from mt.run_files import last_update, read_metrics
from mt.train.progress import Progress
from mt.train.runs import Run, list_runs


def write_run(folder: Path, updates: int = 0, checkpoint: str = "", best_bleu: float = -1.0, **sections: Any) -> Path:
    """A run of ten updates at most that has come so far, and whose newest checkpoint has this name."""
    folder.mkdir(parents=True)
    train = {"updates": 10, "dir": str(folder), **sections.pop("train", {})}
    (folder / "config.yaml").write_text(dump_config(Config.model_validate({"train": train, **sections})))
    lines = [json.dumps({"update": update, "loss": 1.0}) + "\n" for update in range(1, updates + 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if checkpoint:
        update = int(checkpoint[5:])
        best = {"best_bleu": best_bleu, "best_update": update, "best_loss": 1.0} if best_bleu >= 0 else {}
        (folder / "checkpoints" / checkpoint).mkdir(parents=True)
        state = json.dumps({**Progress(update=update).state(), **best})
        (folder / "checkpoints" / checkpoint / "state.json").write_text(state)
    return folder


def row(folder: Path) -> Run:
    (run,) = list_runs(folder).runs
    return run


@pytest.mark.parametrize(
    ("updates", "checkpoint", "state"),
    [
        (0, "", "never began"),
        (0, "step-00000000", "imported"),
        (10, "step-00000010", "done"),
        (7, "stop-00000007", "stopped"),
        (7, "step-00000004", "failed"),  # killed on the way
        (7, "stop-00000004", "failed"),  # stopped, gone on, and killed
        (10, "step-00000008", "failed"),  # killed before its last checkpoint
        (3, "", "failed"),
    ],
)
def test_what_became_of_a_run_follows_from_what_it_left(
    tmp_path: Path, updates: int, checkpoint: str, state: str
) -> None:
    run = write_run(tmp_path / "run", updates, checkpoint)
    assert (row(run).state, row(run).updates) == (state, updates)
    (run / "diverged.json").write_text('{"update": 99}')
    assert row(run).state == "diverged"
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert row(run).state == "running"
    (run / "diverged.json").write_text('{"update": 0}')  # it has trained past it since
    assert row(run).state == state


def test_a_real_run_is_done_and_has_the_bleu_of_what_stands_for_it(toy_run: Path) -> None:
    run, records = row(toy_run), read_metrics(toy_run / "metrics.jsonl")
    assert (run.state, run.updates, run.planned) == ("done", 120, 120)
    assert run.bleu == max(record["valid_bleu"] for record in records if "valid_bleu" in record)
    assert last_update(toy_run / "metrics.jsonl") == 120


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/step-00000010/state.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[[", b'{"update": []}', None])
def test_a_damaged_run_is_a_row_that_says_so(tmp_path: Path, name: str, content: bytes | None) -> None:
    run = write_run(tmp_path / "runs" / "bad", 10, "step-00000010")
    write_run(tmp_path / "runs" / "good", 10, "step-00000010")
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    found = list_runs(tmp_path / "runs")
    assert {each.name: each.state for each in found.runs} == {"bad": "damaged", "good": "done"}
    assert Path(name).name in next(each.problem for each in found.runs if each.name == "bad")
    assert Path(name).name in found.shown(as_json=False, width=200)


def test_the_newest_update_is_read_from_the_end_even_behind_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = "".join(json.dumps({"update": update}) + "\n" for update in range(1, 3001))
    for end in ("", '{"update": 3001, "lo', "x" * 100_000):
        path.write_text(lines + end)
        assert last_update(path) == 3000
    assert last_update(tmp_path / "none") == 0


def test_only_what_a_run_has_to_itself_is_said_of_it(tmp_path: Path) -> None:
    for name, dropout in (("a", 0.1), ("b", 0.1), ("c", 0.3)):
        write_run(tmp_path / name, 1, model={"dropout": dropout})
    found = list_runs(tmp_path)
    assert found.usual == {"model.dropout": "0.1"}
    assert {run.name: run.settings["model.dropout"] for run in found.runs} == {"a": "0.1", "b": "0.1", "c": "0.3"}
    assert (
        found.shown(False, None).count("model.dropout=0.3") == found.shown(False, None).count("model.dropout=0.1") == 1
    )


def test_the_run_written_to_last_is_first_or_the_best(tmp_path: Path) -> None:
    for age, (name, bleu) in enumerate([("new", 20.0), ("middle", -1.0), ("old", 30.0)]):
        run = write_run(tmp_path / name, 10, "step-00000010", bleu)
        os.utime(run / "metrics.jsonl", (1e9 - age, 1e9 - age))
    assert [run.name for run in list_runs(tmp_path).runs] == ["new", "middle", "old"]
    assert [run.name for run in list_runs(tmp_path, best_first=True).runs] == ["old", "new", "middle"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    for name, keys in (("baseline", {}), ("a-longer-name", {"dropout": 0.3, "d_model": 256, "norm": "pre"})):
        write_run(tmp_path / name, 7, "stop-00000007", 12.34, model=keys)
    shown = list_runs(tmp_path).shown(False, width)
    assert max(map(len, shown.splitlines())) <= width
    assert shown.count("12.34") == shown.count("7/10") == shown.count("stopped") == 2
    assert "model.d_model=256" in shown


def test_what_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        list_runs(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        list_runs(tmp_path / "none")


def test_the_command_prints_json_and_imports_no_torch(tmp_path: Path, toy_run: Path) -> None:
    shutil.copytree(toy_run, tmp_path / "runs" / "toy", ignore=shutil.ignore_patterns("*.safetensors"))
    code = (
        "import sys; sys.argv = ['mt', 'runs', '--json']\n"
        "from mt.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["name"], run["state"], run["planned"]) == ("toy", "done", 120)
