"""`mt runs`: the runs of a folder at a glance: how far, how good, in what state, and what sets them apart."""

import fcntl
import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mt.config import Config
from mt.config_changes import differing
from mt.config_file import parse_config
from mt.errors import ConfigError, UsageError
from mt.files import number, read_json
from mt.run_files import CONFIG, LOCK, METRICS, Record, last_update
from mt.train.progress import Progress

_SHOWN_APART = ("train.dir", "data.dir", "train.updates")
_NARROW = 24  # columns that are too few for settings: they then have lines of their own


@dataclass(frozen=True)
class Run:
    """A run as its files tell of it."""

    name: str
    state: str  # running, done, stopped, failed, diverged, never began, imported or damaged
    problem: str = ""  # what cannot be read
    updates: int = 0
    planned: int | None = None
    bleu: float | None = None  # on validation, of what `--ckpt RUN` takes
    on: str = ""  # the validation set that this is of; empty where it has no name
    changed: float = 0.0  # when it was last written to, in seconds since 1970
    settings: Mapping[str, str] = field(default_factory=dict)  # those in which the runs differ


@dataclass(frozen=True)
class Runs:
    """The runs of a folder, and how each setting in which they differ stands in most of them."""

    runs: list[Run]
    usual: Mapping[str, str]

    def shown(self, as_json: bool, width: int | None) -> str:
        """A table of at most `width` columns for people, or one JSON object for programs."""
        if as_json:
            return json.dumps(asdict(self), ensure_ascii=False, indent=1)
        rows = [(*_cells(run), self._apart(run)) for run in self.runs]
        head = ("run", "updates", "BLEU", "state", "settings")
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)][:-1]
        left = None if width is None else width - sum(widths) - 2 * len(widths)
        if left is not None and left < _NARROW:
            parts = [_block(row, width or 0) for row in rows]
        else:
            parts = [_line(row, widths, left) for row in (head, *rows)]
        if self.usual:
            usual = " ".join(f"{key}={value}" for key, value in self.usual.items())
            parts += ["", *_wrapped(f"where nothing else is said: {usual}", width)]
        return "\n".join(parts)

    def _apart(self, run: Run) -> str:
        found = [f"{key}={value}" for key, value in run.settings.items() if self.usual.get(key) != value]
        return run.problem or " ".join(found)


def list_runs(folder: Path, best_first: bool = False) -> Runs:
    """The runs in a folder, or the one that it is itself; the one written to last comes first.

    best_first: the one of the highest BLEU comes first.
    Raises UsageError when there is no such folder or no run in it. Of long files only the end is read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name the one that holds the runs")
    folders = [folder] if _is_run(folder) else [path for path in sorted(folder.iterdir()) if _is_run(path)]
    if not folders:
        raise UsageError(f"{folder}: holds no run; train one with mt train, or name another folder")
    read = [_read(path) for path in folders]
    apart = differing([config for _, config in read if config is not None]) if any(c for _, c in read) else {}
    columns = {key: iter(values) for key, values in apart.items() if key not in _SHOWN_APART}
    runs = [
        replace(run, settings={key: next(values) for key, values in columns.items()}) if config else run
        for run, config in read
    ]
    runs.sort(key=lambda run: run.changed, reverse=True)
    if best_first:
        runs.sort(key=lambda run: -1.0 if run.bleu is None else run.bleu, reverse=True)
    return Runs(runs, _usual([run.settings for run in runs if run.settings]))


def _usual(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The values that more than half of the runs have."""
    most = {key: Counter(each[key] for each in settings).most_common(1)[0] for key in (settings or [{}])[0]}
    return {key: value for key, (value, count) in most.items() if 2 * count > len(settings)}


# --- One run -----------------------------------------------------------------------------------------------------


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (CONFIG, METRICS, "checkpoints"))


def _read(folder: Path) -> tuple[Run, Config | None]:
    """A run, and its settings where they can be read."""
    name, metrics = folder.name or folder.resolve().name, folder / METRICS
    changed = (metrics if metrics.exists() else folder).stat().st_mtime
    newest = max((folder / "checkpoints").glob("st[eo]p-*"), key=lambda path: (path.name[5:], path.name), default=None)
    updates = last_update(metrics)
    try:
        config = parse_config((folder / CONFIG).read_text(encoding="utf-8", errors="replace"), CONFIG)
        progress = _progress(newest) if newest else Progress()
    except (ConfigError, OSError, ValueError) as error:
        state = "running" if _is_held(folder / LOCK) else "damaged"
        problem = f"{CONFIG}: cannot be read" if isinstance(error, OSError) else str(error).split("\n")[0]
        return Run(name, state, problem, updates, changed=changed), None
    updates = max(updates, progress.update)
    run = Run(
        name=name,
        state=_state(folder, config, progress, newest, updates),
        updates=updates,
        planned=config.train.updates,
        bleu=_bleu(config, progress, _record(folder / "checkpoints" / "averaged" / "state.json")),
        on=config.best[0].removeprefix("valid").removeprefix("/"),
        changed=changed,
    )
    return run, config


def _progress(checkpoint: Path) -> Progress:
    """What state.json says; not verified, as that takes reading the checkpoint. Raises ValueError."""
    try:
        return Progress.from_state(_record(checkpoint / "state.json"))
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"checkpoints/{checkpoint.name}/state.json: missing or damaged") from None


def _state(folder: Path, config: Config, progress: Progress, newest: Path | None, updates: int) -> str:
    if _is_held(folder / LOCK):
        return "running"
    if (number(_record(folder / "diverged.json"), "update") or 0) > updates:
        return "diverged"
    if not updates:
        return "imported" if newest else "never began"
    if progress.update < updates or newest is None:
        return "failed"  # killed, or out of memory or disk: it did not come to save what it had done
    return "done" if progress.end(config.train) else "stopped" if newest.name.startswith("stop") else "failed"


def _is_held(lock: Path) -> bool:
    """Whether a process trains here: its lock cannot be had, not even shared and for an instant."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _bleu(config: Config, progress: Progress, averaged: Record) -> float | None:
    """On validation, of the best checkpoint or of the average, whichever train.best prefers."""
    best = {"valid_loss": progress.best_loss, "valid_bleu": progress.best_bleu}
    found = [best] if progress.best_update is not None else []
    validation = averaged.get("validation")
    if averaged.get("update") == progress.update and isinstance(validation, dict):
        found.append(validation)
    key, sign = f"valid_{config.best[1]}", -1 if config.best[1] == "loss" else 1
    judged = [one for one in found if number(one, key) is not None]
    return number(max(judged, key=lambda one: sign * one[key]), "valid_bleu") if judged else None


def _record(path: Path) -> Record:
    found = read_json(path)
    return found if isinstance(found, dict) else {}


# --- Text --------------------------------------------------------------------------------------------------------


def _cells(run: Run) -> tuple[str, str, str, str]:
    bleu = "" if run.bleu is None else f"{run.bleu:.2f} {run.on}".strip()
    return run.name, f"{run.updates:,}" + ("" if run.planned is None else f"/{run.planned:,}"), bleu, run.state


def _line(row: Sequence[str], widths: Sequence[int], left: int | None) -> str:
    """A row of the table; its last cell goes on below itself."""
    cells = [f"{cell:{align}{width}}" for cell, align, width in zip(row, "<><<", widths, strict=False)]
    start = "  ".join(cells) + "  "
    first, *others = _wrapped(row[-1], left)
    return "\n".join([(start + first).rstrip(), *(" " * len(start) + other for other in others)])


def _block(row: Sequence[str], width: int) -> str:
    """A row as lines of its own, for a narrow terminal."""
    name, updates, bleu, state, settings = row
    facts = [f"BLEU {bleu}" if bleu else "", updates, state]
    inner = ["  ".join(filter(None, facts)), settings]
    return "\n".join([name, *(f"  {line}" for text in inner if text for line in _wrapped(text, width - 2))])


def _wrapped(text: str, width: int | None) -> list[str]:
    return [text] if width is None else textwrap.wrap(text, width, break_on_hyphens=False) or [""]
