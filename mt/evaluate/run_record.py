"""What a run directory tells of its run, whatever part of it is there already."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.config import Config, parse_config
from mt.data.corpus import open_corpus
from mt.errors import ConfigError, DataError
from mt.evaluate.charts import Point

Record = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run; each part is empty where its file is missing or cannot be read."""

    name: str
    config: Config | None
    problem: str  # why there is no config
    updates: list[Record]
    validations: list[Record]
    averages: list[Record]  # validations of averaged checkpoints
    scores: list[Record]
    curves: list[Record]  # BLEU of the checkpoints on a test set
    manifest: Record
    lengths: list[tuple[str, list[Point]]]  # of each language: share of sentences by length in pieces
    environment: Record

    @property
    def last(self) -> int:
        return max((record["update"] for record in [*self.updates, *self.validations]), default=0)

    @property
    def best(self) -> Point | None:
        """The update with the best validation BLEU, and that BLEU."""
        return max(points(self.validations, "valid_bleu"), key=lambda point: point[1], default=None)


def read_run(folder: Path) -> RunRecord:
    """Read the files of a run directory; raises DataError when it holds neither metrics.jsonl nor config.yaml."""
    if not (folder / "metrics.jsonl").exists() and not (folder / "config.yaml").exists():
        raise DataError(f"{folder}: not a run directory: it holds neither metrics.jsonl nor config.yaml")
    config, problem = _read_config(folder / "config.yaml")
    records = _read_metrics(folder / "metrics.jsonl")
    validations = [record for record in records if "valid_loss" in record or "valid_bleu" in record]
    manifest = _read_json(config.data.dir / "manifest.json") if config else None
    environment = _read_json(folder / "env.json")
    return RunRecord(
        name=folder.resolve().name,
        config=config,
        problem=problem,
        updates=[record for record in records if "loss" in record],
        validations=[record for record in validations if not record.get("averaged")],
        averages=[record for record in validations if record.get("averaged")][-1:],
        scores=[
            score for score in as_records(_read_json(folder / "scores.json")) if number(score, "value") is not None
        ],
        curves=as_records(_read_json(folder / "curves.json")),
        manifest=manifest if isinstance(manifest, dict) else {},
        lengths=_read_lengths(config) if config else [],
        environment=environment if isinstance(environment, dict) else {},
    )


def _read_config(path: Path) -> tuple[Config | None, str]:
    try:
        return parse_config(path.read_text(encoding="utf-8"), path.name), ""
    except FileNotFoundError:
        return None, "config.yaml is missing"
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        return None, f"config.yaml cannot be read: {error}"


def _read_metrics(path: Path) -> list[Record]:
    """The whole records; a line cut short by a crash is passed over."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    records = [_parse_json(line) for line in lines if line.strip()]
    return [record for record in records if isinstance(record, dict) and number(record, "update") is not None]


def _read_json(path: Path) -> Any:
    try:
        return _parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def as_records(found: Any) -> list[Record]:
    """The records of a list; what is none is passed over."""
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _read_lengths(config: Config) -> list[tuple[str, list[Point]]]:
    try:
        corpus = open_corpus(config.data.dir / "train")
    except DataError:
        return []
    sides = ((config.data.src, corpus.source), (config.data.tgt, corpus.target))
    return [(language, _distribution(sentences.lengths)) for language, sentences in sides]


def _distribution(lengths_N: npt.NDArray[np.int64]) -> list[Point]:
    """Share of sentences by length, up to the length that all but one in 200 stay within."""
    if not len(lengths_N):
        return []
    longest = int(np.quantile(lengths_N, 0.995))
    width = max(1, math.ceil(longest / 60))
    counts = np.bincount(lengths_N[lengths_N <= longest] // width)
    return [(float(row * width), float(count / len(lengths_N))) for row, count in enumerate(counts)]


def number(record: Record, key: str) -> float | None:
    """A finite number under `key`, if there is one."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def points(records: Sequence[Record], key: str) -> list[Point]:
    """The numbers under `key`, by update."""
    return [(record["update"], value) for record in records if (value := number(record, key)) is not None]
