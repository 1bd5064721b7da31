"""A run directory: its one trainer, which checkpoint of it a path means, and whether it can go on."""

import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mt.checkpoint import AVERAGED, list_checkpoints, read_config, read_state, resumable_checkpoints
from mt.config import Config
from mt.config_changes import changes
from mt.console import counted
from mt.errors import CheckpointError, UsageError, WriteError
from mt.files import number, writing
from mt.run_files import LOCK, METRICS, SESSIONS, Record, read_metrics, read_records
from mt.setting_types import OnResume


@contextmanager
def training_lock(folder: Path, keep: bool = True, patience: float = 0) -> Iterator[None]:
    """Be the only trainer of a run directory, and remove what a killed one left half-written.

    A directory that was not there before is removed again if nothing was written, or if `keep` is False. The system
    frees the lock should this process be killed.
    patience: seconds to wait for another process that has it.
    Raises UsageError when another process has it, WriteError when the directory cannot be written.
    """
    is_new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "a+b", buffering=0)  # noqa: SIM115 (closed below)
    with lock:
        with writing(folder / LOCK):
            if not _locked(lock, patience):
                lock.seek(0)
                other = lock.read().decode(errors="replace").strip()
                raise UsageError(f"{folder}: another run is training here ({other}); wait, or name another train.dir")
        try:
            with writing(folder / LOCK):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {platform.node()}\n".encode())
            _remove_leftovers(folder)
            yield
        except WriteError as error:
            if not (saved := resumable_checkpoints(folder)):
                raise
            raise type(error)(f"{error}; the same command goes on from {saved[0].name}") from None
        finally:
            if is_new and not (keep and _holds_files(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _locked(lock: IO[bytes], patience: float) -> bool:
    """Whether the lock could be had within so many seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.2)
        else:
            return True


def _remove_leftovers(folder: Path) -> None:
    for leftover in (folder / "checkpoints").glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in folder.glob(".*.partial"):
        leftover.unlink(missing_ok=True)


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*") if path.name != LOCK)


# --- Which checkpoint a path means --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A checkpoint, and why a run stands for it; no reason where the path names it."""

    path: Path
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})" if self.reason else str(self.path)


def folder_of(path: Path) -> Path:
    """The run that a path means or a checkpoint of which it means; a checkpoint outside of any run is its own."""
    if path.parent.name == "checkpoints":
        return path.parent.parent
    return path.parent if (path.parent / "checkpoints").is_dir() and not path.exists() else path


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path stands for; as `choose_checkpoint`, without the reason."""
    return choose_checkpoint(path).path


def choose_checkpoint(path: Path) -> Choice:
    """The checkpoint that a path stands for: a checkpoint itself, RUN/best, RUN/last, RUN/averaged, or a run.

    A run stands for its average or its best checkpoint, whichever validates better by the figure that train.best names;
    before the first validation, for its newest checkpoint. Damaged checkpoints are skipped.
    Raises CheckpointError when there is none.
    """
    if (path / "MANIFEST.json").is_file():
        return Choice(path)
    if (path.parent / "checkpoints").is_dir() and not path.exists():
        return Choice(_named(path.parent, path.name))
    if not path.exists():
        raise CheckpointError(f"{path}: no such run or checkpoint")
    return _preferred(path)


def _preferred(run: Path) -> Choice:
    newest, state, config, problems = _newest_readable(run)
    by_loss = config.best[1] == "loss"
    best_update = state.get("best_update") or 0
    best = _whole(dict(list_checkpoints(run)).get(best_update), best_update, problems)
    # An average made before the run went on is out of date.
    averaged = _whole(run / "checkpoints" / AVERAGED, state["update"], problems)
    best_figure = number(state, "best_loss" if by_loss else "best_bleu")
    average_figure = number(_validation(run, averaged), "valid_loss" if by_loss else "valid_bleu") if averaged else None
    name, digits = ("loss", 4) if by_loss else ("BLEU", 2)
    if averaged and best and average_figure is not None and best_figure is not None:
        both = [(average_figure, averaged), (best_figure, best)]
        averaged_wins = average_figure <= best_figure if by_loss else average_figure >= best_figure
        (first, chosen), (second, other) = both if averaged_wins else both[::-1]
        reason = f"{name} {first:.{digits}f} on validation; {other.name}: {second:.{digits}f}"
    elif averaged:
        chosen, reason = averaged, "the average of the last checkpoints"
    elif best and best_figure is not None:
        chosen, reason = best, f"the best on validation: {name} {best_figure:.{digits}f}"
    else:
        chosen, reason = newest, "the newest"
    return Choice(chosen, "; ".join([reason, *problems]))


def _newest_readable(run: Path) -> tuple[Path, Record, Config, list[str]]:
    """The newest checkpoint whose state and settings are intact, these two, and what is wrong with newer ones."""
    problems: list[str] = []
    for path in resumable_checkpoints(run):
        try:
            return path, read_state(path), read_config(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        found = counted(len(problems), "checkpoint")
        raise CheckpointError(f"{run}: none of its {found} is whole; the newest: {problems[0]}")
    raise CheckpointError(f"{run}: holds no checkpoint; train one with mt train")


def _whole(path: Path | None, update: int, problems: list[str]) -> Path | None:
    """The path, if a checkpoint of this update lies there; else None, and `problems` gains what is wrong with it."""
    try:
        return path if path is not None and path.is_dir() and read_state(path)["update"] == update else None
    except CheckpointError as error:
        problems.append(str(error))
        return None


def _validation(run: Path, averaged: Path) -> Record:
    """The validation of an averaged checkpoint: in its state, or, as earlier versions wrote it, in metrics.jsonl."""
    state = read_state(averaged)
    if "validation" in state:
        return dict(state["validation"])
    found = [record for record in read_metrics(run / METRICS) if record.get("averaged")]
    return next((record for record in reversed(found) if record["update"] == state["update"]), {})


def _named(run: Path, name: str) -> Path:
    if name == "last":
        return _newest_readable(run)[0]
    if name == "best":
        newest, state, *_ = _newest_readable(run)
        if best := dict(list_checkpoints(run)).get(state.get("best_update") or 0):
            return best
        raise CheckpointError(f"{run}: no checkpoint was validated yet; its newest is {run / 'last'} ({newest.name})")
    path = run / "checkpoints" / name
    if (path / "MANIFEST.json").is_file():
        return path
    names = ["best", "last", *(path.name for path in sorted((run / "checkpoints").glob("[!.]*")))]
    raise CheckpointError(f"{run}: has no checkpoint {name}; there are {', '.join(names)}")


# --- Going on -----------------------------------------------------------------------------------------------------


def check_settings(folder: Path, config: Config) -> list[str]:
    """Compare the settings that a run is to go on with to those of its newest whole checkpoint.

    Reads no prepared data, so that a run is refused before anything is written. Returns the differences to report.
    Raises CheckpointError naming each difference that would make it another run.
    """
    if not resumable_checkpoints(folder):
        return []
    newest, _, before, _ = _newest_readable(folder)
    if before.train.precision == "auto":  # earlier versions did not record what auto meant
        before = before.model_copy(
            update={"train": before.train.model_copy(update={"precision": config.train.precision})}
        )
    if refused := changes(before, config, OnResume.REFUSED):
        back = "put them back"
        if before.train.precision != config.train.precision:  # on another machine, auto means another precision
            back += f" (train.precision={before.train.precision})"
        raise CheckpointError(
            f"{newest} cannot go on with other settings ({'; '.join(refused)}): {back}, or name a new train.dir"
        )
    return changes(before, config, OnResume.NOTED)


def begun_with(folder: Path) -> str | None:
    """The fingerprint of the prepared data that a run was begun with; None for a run without checkpoints."""
    if not resumable_checkpoints(folder):
        return None
    return str(_newest_readable(folder)[1]["data"])


def begun_from(folder: Path) -> Path | None:
    """The run or checkpoint whose weights a run began with, as its env.json says; None where it began with none."""
    named = [session["init_from"] for session in read_records(folder / SESSIONS) if session.get("init_from")]
    return Path(named[-1]) if named else None
