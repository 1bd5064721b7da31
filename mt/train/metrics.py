"""metrics.jsonl: one JSON object a line, each update once, however often the run was stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt.train.folder import write_whole, writing


class MetricsLog:
    """The record of a run, cut back on opening to the update the run goes on from."""

    def __init__(self, path: Path, update: int) -> None:
        kept = [line for line in _lines(path) if _update_of(line) <= update]
        write_whole(path, "".join(line + "\n" for line in kept))
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        with writing(self._path):
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        with writing(self._path):
            self._file.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()


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
