"""metrics.jsonl: one JSON object a line, each update once, however often the run was stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt.errors import UsageError
from mt.train.folder import write_whole, writing

# What TensorBoard draws, by update.
TRAINING = {"loss", "rate", "gradient_norm", "padding", "tokens", "seconds"}
FIGURES = TRAINING | {"valid_loss", "valid_perplexity", "valid_bleu"}


class MetricsLog:
    """The record of a run, cut back on opening to the update the run goes on from.

    tensorboard: also write events into the folder `tensorboard` beside it.
    """

    def __init__(self, path: Path, update: int, tensorboard: bool = False) -> None:
        self._events = _event_writer(path.parent / "tensorboard", update) if tensorboard else None
        kept = [line for line in _lines(path) if _update_of(line) <= update]
        write_whole(path, "".join(line + "\n" for line in kept))
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        with writing(self._path):
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self._events is not None and "averaged" not in record:
            for name in record.keys() & FIGURES:
                self._events.add_scalar(name, record[name], record["update"])

    def flush(self) -> None:
        with writing(self._path):
            self._file.flush()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path, update: int) -> Any:
    """TensorBoard's writer, told to forget what is later than `update`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("train.tensorboard needs its extra: pip install 'mt[tensorboard]'") from None
    return SummaryWriter(folder, purge_step=update + 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole records of a run, in order."""
    return [json.loads(line) for line in _lines(path) if _update_of(line) < float("inf")]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n") if path.exists() else []


def _update_of(line: str) -> float:
    """The update a record belongs to; infinite for a line cut short, which belongs to none."""
    try:
        return int(json.loads(line)["update"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
