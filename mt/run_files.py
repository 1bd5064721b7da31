"""What a run directory holds beside its checkpoints, and how records are written and read; imports no torch.

config.yaml     the settings, every key
metrics.jsonl   one JSON object a line: each update once, each validation
env.json        a list of sessions: where and how the run was started and went on
checkpoints/    step-NNNNNNNN, stop-NNNNNNNN, averaged
.lock           held by the one process that trains here
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt.console import Console
from mt.errors import MtError, UsageError
from mt.files import read_json, write_whole, writing

CONFIG, METRICS, SESSIONS, LOCK = "config.yaml", "metrics.jsonl", "env.json", ".lock"

Record = dict[str, Any]

# What TensorBoard draws, by update.
_TRAINING = {"loss", "rate", "gradient_norm", "padding", "tokens", "seconds"}
_FIGURES = _TRAINING | {"valid_loss", "valid_perplexity", "valid_bleu"}


# --- metrics.jsonl ------------------------------------------------------------------------------------------------


class MetricsLog:
    """metrics.jsonl, cut back when opened to the update that the run goes on from, so that each update is there once.

    tensorboard: also write events into the folder `tensorboard` beside it.
    Warns when figures that should be there are missing.
    """

    def __init__(self, path: Path, update: int, console: Console, tensorboard: bool = False) -> None:
        self._events = _event_writer(path.parent / "tensorboard", update) if tensorboard else None
        self._path, self._console = path, console
        kept = [record for record in read_metrics(path) if record["update"] <= update]
        if missing := update - len({record["update"] for record in kept if "loss" in record}):
            console.warn(f"{path}: the figures of {missing:,} of {update:,} updates are missing: it was cut or removed")
        write_whole(path, "".join(_line(record) for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        with writing(self._path):
            self._file.write(_line(record))
        if self._events is not None and "averaged" not in record:
            sets = {f"/{name}": figures for name, figures in record.get("sets", {}).items()}
            for suffix, figures in {"": record, **sets}.items():
                for name in figures.keys() & _FIGURES:
                    self._events.add_scalar(f"{name}{suffix}", figures[name], record["update"])

    def flush(self) -> None:
        """Raises MtError when the run directory is gone, WriteError when the disk is full."""
        with writing(self._path):
            self._file.flush()
            self._find_again()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()
        if self._events is not None:
            self._events.close()

    def _find_again(self) -> None:
        """Begin a new file if this one was removed; raise MtError if the run directory was."""
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
                return
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                raise MtError(f"{self._path.parent}: the run directory was removed while the run went on") from None
        self._console.warn(f"{self._path}: removed or replaced while the run went on; its earlier figures are lost")
        self._file = self._path.open("a", encoding="utf-8")


def _event_writer(folder: Path, update: int) -> Any:
    """TensorBoard's writer, told to forget what is later than `update`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("train.tensorboard needs its extra: pip install 'mt[tensorboard]'") from None
    return SummaryWriter(folder, purge_step=update + 1)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_metrics(path: Path) -> list[Record]:
    """All whole records of a run, in order; damaged lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [record for line in text.split("\n") if (record := _record(line))]


def last_update(path: Path) -> int:
    """The newest update on record, read from the end of metrics.jsonl; 0 where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for length in (min(size, 1 << 14), size):  # all of it where the end is damaged, or one long validation
                file.seek(size - length)
                for line in reversed(file.read().decode(errors="replace").split("\n")):
                    if record := _record(line):
                        return int(record["update"])
    except OSError:
        pass
    return 0


def _record(line: str) -> Record:
    """The record on a line; empty where the line holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    is_whole = isinstance(record, dict) and isinstance(record.get("update"), int)
    return record if is_whole else {}


# --- Lists of records: sessions, scores, curves -------------------------------------------------------------------


def read_records(path: Path) -> list[Record]:
    """The records of a JSON file that holds a list of them; none where it is missing or damaged."""
    found = read_json(path)
    return [record for record in found if isinstance(record, dict)] if isinstance(found, list) else []
