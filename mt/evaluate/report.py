"""`mt report`: a page of what a run directory holds, as far as it has come."""

from collections.abc import Sequence
from pathlib import Path

from mt.config import Config
from mt.config_changes import differing
from mt.config_file import dump_config, parse_config
from mt.data.manifest import read_manifest
from mt.data.prepared import open_training
from mt.errors import CheckpointError, ConfigError, DataError
from mt.files import number, read_json, write_whole
from mt.pages.report_page import report_page
from mt.pages.run_record import Record, RunRecord
from mt.run_files import CONFIG, METRICS, SESSIONS, read_metrics, read_records
from mt.run_folder import find_checkpoint


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run directory, at once, so that a browser never loads half of it.

    Raises DataError when the folder is no run, WriteError when the page cannot be written.
    """
    path = folder / "report.html"
    write_whole(path, report_page(read_run(folder)))
    return path


def read_run(folder: Path) -> RunRecord:
    """Read the files of a run directory; raises DataError when it holds neither metrics.jsonl nor config.yaml."""
    if not (folder / METRICS).exists() and not (folder / CONFIG).exists():
        raise DataError(f"{folder}: not a run directory: it holds neither {METRICS} nor {CONFIG}")
    config, problem = settings_of(folder)
    records = read_metrics(folder / METRICS)
    updates = [record for record in records if "loss" in record]
    validations = [record for record in records if "valid_loss" in record or "valid_bleu" in record]
    scheduled = [record for record in validations if not record.get("averaged")]
    averages = [record for record in validations if record.get("averaged")][-1:]
    problems = [problem, _without_loss(updates), _divergence(_read_object(folder / "diverged.json"), updates)]
    scores = read_records(folder / "scores.json")
    return RunRecord(
        name=folder.resolve().name,
        problems=[problem for problem in problems if problem],
        languages=(config.data.src, config.data.tgt) if config else ("", ""),
        planned=config.train.updates if config else 0,
        judged_by=config.best[1] if config else "bleu",
        judged_on=config.best[0].removeprefix("valid").removeprefix("/") if config else "",
        taken=_taken(folder),
        updates=updates,
        validations=scheduled,
        averages=averages,
        scores=[score for score in scores if number(score, "value") is not None],
        curves=read_records(folder / "curves.json"),
        settings=[(key, base, own) for key, (base, own) in differing([Config(), config]).items()] if config else [],
        config=dump_config(config) if config else "",
        manifest=_read_object(config.data.dir / "manifest.json") if config else {},
        lengths=_read_lengths(config) if config else [],
        sessions=[session for session in read_records(folder / SESSIONS) if "started" in session],
    )


# --- Files -------------------------------------------------------------------------------------------------------


def settings_of(folder: Path) -> tuple[Config | None, str]:
    """The settings of a run, and what is wrong where they cannot be read."""
    try:
        return parse_config((folder / CONFIG).read_text(encoding="utf-8"), CONFIG), ""
    except FileNotFoundError:
        return None, "config.yaml is missing"
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        return None, f"config.yaml cannot be read: {error}"


def _read_object(path: Path) -> Record:
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def _read_lengths(config: Config) -> list[tuple[str, list[int]]]:
    try:
        manifest = read_manifest(config.data.dir)
        if manifest is None:
            return []
        corpus, _ = open_training(config.data.dir, manifest)
        sides = ((config.data.src, corpus.source), (config.data.tgt, corpus.target))
        return [(language, sentences.histogram().tolist()) for language, sentences in sides]
    except DataError:
        return []


# --- What follows from them --------------------------------------------------------------------------------------


def _without_loss(updates: Sequence[Record]) -> str:
    missing = sum(number(record, "loss") is None for record in updates)
    return f"The loss is not a finite number at {missing:,} of {len(updates):,} updates." if missing else ""


def _divergence(record: Record, updates: Sequence[Record]) -> str:
    """The divergence that ended the run, unless the run has trained past it since."""
    update = number(record, "update")
    if update is None or update <= max((record["update"] for record in updates), default=0):
        return ""
    loss, norm = record.get("loss"), record.get("gradient_norm")
    return f"Diverged at update {update:,.0f}: loss {loss}, gradient norm {norm}; its pairs are in diverged.json."


def _taken(folder: Path) -> str:
    """The name of the checkpoint that `--ckpt RUN` takes; empty when there is none."""
    try:
        return find_checkpoint(folder).name
    except CheckpointError:
        return ""
