"""The training run (section 5), from its first update or from wherever it stopped."""

import json
import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import Any

from mt.checkpoint import (
    AVERAGED,
    average_weights,
    last_checkpoints,
    list_checkpoints,
    prune_checkpoints,
    save_checkpoint,
    step_name,
    stop_name,
)
from mt.config import Config, dump_config
from mt.console import Console, duration
from mt.data.batches import Rows, batches_from
from mt.data.prepare import prepare
from mt.data.prepared import Prepared
from mt.device import choose_device
from mt.distributed import LostContactError, World, joined
from mt.errors import MtError
from mt.evaluate.report import write_report
from mt.streams import write_out
from mt.train.folder import locked, note_session, write_whole
from mt.train.metrics import MetricsLog
from mt.train.rehearsal import rehearse
from mt.train.run import Run, save_run, snapshot, start_or_resume
from mt.train.stop import Interrupted, StopRequest
from mt.train.update import OutOfMemoryError, take_update
from mt.train.validation import Validation, validate

# A mean loss this much above the lowest so far is worth a warning.
RISE = 1.2


class DivergedError(MtError):
    """The loss or a gradient is no longer a number."""


class Verdict(IntEnum):
    """What is to happen after an update; of the processes' verdicts the highest counts."""

    GO = 0
    FINISHED = 1
    STOP = 2


def train(config: Config, console: Console, init_from: Path | None = None, dry_run: bool = False) -> None:
    """Train until one of the limits of `train`, going on from the newest good checkpoint of the run directory.

    init_from: a run or checkpoint whose weights a new run begins with.
    dry_run: only rehearse, print the plan, and leave the run directory as it was.
    Raises Interrupted after a stop that was asked for, DivergedError when the loss is no longer a number,
    LostContactError when another process of the run died.
    """
    with joined(choose_device(config.train.device)) as world:
        try:
            _train(config, world, console if world.is_main else Console(quiet=True), init_from, dry_run)
        except MtError as error:
            if world.is_main:
                raise
            if isinstance(error, OutOfMemoryError):
                raise OutOfMemoryError(f"process {world.rank}: {error}") from None
            raise SystemExit(error.exit_status) from None  # the main process says it


def _train(config: Config, world: World, console: Console, init_from: Path | None, dry_run: bool) -> None:
    prepared = _prepare(config, world, console)
    with locked(config.train.dir, leave=not dry_run) if world.is_main else nullcontext():
        run = start_or_resume(config, prepared, console, world, init_from)
        if dry_run or not _is_finished(run):
            plan = rehearse(run, console)
            if run.halvings:
                _warn_of_memory(run, console)
            if dry_run:
                if world.is_main:
                    write_out(f"{plan}\n")
                return
        if not world.is_main:
            _run_updates(run, None, console)
            return
        write_whole(run.folder / "config.yaml", dump_config(config))
        note_session(run, init_from)
        with closing(_open_log(run)) as log:
            _run_updates(run, log, console)
            _average_last(run, log, console)
    console.say(f"done: {run.update:,} updates; translate with  mt translate --ckpt {run.folder}")


def _open_log(run: Run) -> MetricsLog:
    return MetricsLog(run.folder / "metrics.jsonl", run.update, run.config.train.tensorboard)


def _prepare(config: Config, world: World, console: Console) -> Prepared:
    """Prepare in the main process; the others find it done."""
    if world.is_main:
        prepare(config, console)
    world.wait()
    return prepare(config, Console(quiet=True))


def _run_updates(run: Run, log: MetricsLog | None, console: Console) -> None:
    """Take updates until a limit is reached or a stop asked for; in the main process, `log` what comes of them."""
    report = Report(run, log, console)
    updates = run.config.train.updates
    with StopRequest() as stop, run.background, console.bar("training", updates, run.update) as report.show:
        try:
            take_updates(run, report, stop)
        except LostContactError as error:
            report.write()
            raise _saved_alone(run, error) from None


def take_updates(run: Run, report: "Report", stop: StopRequest) -> None:
    """The loop itself: update, report, validate and save, until a limit is reached or a stop asked for."""
    settings = run.config.train
    batches = batches_from(run.lengths_N2, run.config.batch.tokens, run.config.seed, run.cursor)
    clock = time.perf_counter()
    while True:
        run.background.check()
        verdict = Verdict(run.world.highest(_verdict(run, stop)))
        due = run.update % settings.checkpoint_every == 0 or verdict == Verdict.FINISHED
        if due or verdict == Verdict.STOP or run.update % settings.log_every == 0:
            report.write()
        if due and run.validated < run.update and verdict != Verdict.STOP:
            _checkpoint(run, report, stop)
            clock = time.perf_counter()
            continue  # patience may be at its end now, or a stop asked for
        if verdict == Verdict.STOP:
            _save_stopped(run)
            raise Interrupted(f"stopped at update {run.update:,}; the same command goes on from there")
        if verdict == Verdict.FINISHED:
            return
        rows, next_cursor = next(batches)
        halvings = run.halvings
        try:
            record = take_update(run, rows, lambda: stop.requested)
        except Interrupted:
            continue  # the update is left undone, and taken again on resuming
        if run.halvings > halvings:
            _warn_of_memory(run, report.console)
        run.update, run.cursor = run.update + 1, next_cursor
        seconds, clock = time.perf_counter() - clock, time.perf_counter()
        run.seconds += seconds
        report.add({**record, "seconds": seconds}, rows)


def _verdict(run: Run, stop: StopRequest) -> Verdict:
    if stop.requested:
        return Verdict.STOP
    return Verdict.FINISHED if _is_finished(run) else Verdict.GO


def _is_finished(run: Run) -> bool:
    limits = run.config.train
    return (
        run.update >= limits.updates
        or 0 < limits.epochs <= run.cursor.epoch
        or 0 < limits.hours * 3600 <= run.seconds
        or 0 < limits.patience <= run.stale
    )


def _save_stopped(run: Run) -> None:
    if run.world.is_main and run.update:
        save_run(run, stop_name(run.update))
    run.world.wait()  # whoever leaves first takes the others with it


def _saved_alone(run: Run, error: LostContactError) -> LostContactError:
    """Save what there is without the others, which an update that was not finished has left as it was."""
    if not run.world.is_main:
        return error
    if run.device.type == "cuda":  # there Adam's step may be queued behind the exchange that never ended
        return LostContactError(f"{error}; the same command goes on from the newest checkpoint")
    save_run(run, stop_name(run.update))
    return LostContactError(f"{error}; saved at update {run.update:,}, the same command goes on from there")


def _warn_of_memory(run: Run, console: Console) -> None:
    smaller = run.config.batch.micro_tokens // 2**run.halvings
    where = f"process {run.world.rank}: " if run.world.size > 1 else ""
    console.warn(
        f"{where}out of memory; going on with micro-batches of {smaller:,} tokens, which changes no update; "
        f"batch.micro_tokens={smaller} starts so"
    )


# --- Report -----------------------------------------------------------------------------------------------------


class Report:
    """The updates since the last time, written out when their losses must be known anyway."""

    def __init__(self, run: Run, log: MetricsLog | None, console: Console) -> None:
        self.run = run
        self.log = log
        self.console = console
        self.show: Callable[[int, str], None] = lambda update, status: None  # of a progress bar
        self.lowest = math.inf  # mean loss between two times of writing
        self._pending: list[tuple[dict[str, Any], Rows]] = []

    def add(self, record: dict[str, Any], rows: Rows) -> None:
        self._pending.append((record, rows))

    def write(self) -> None:
        """Raises DivergedError at the first update whose loss or gradient is not a number."""
        if not self._pending:
            return
        records = [record for record, _ in self._pending]
        for record, rows in self._pending:
            record["loss"], record["gradient_norm"] = float(record["loss"]), float(record["gradient_norm"])
            if not math.isfinite(record["loss"] + record["gradient_norm"]):
                raise _diverged(self.run, record, rows)
            if self.log is not None:
                self.log.write(record)
        if self.log is not None:
            self.log.flush()
        self._pending = []
        self._say(records)

    def _say(self, records: list[dict[str, Any]]) -> None:
        tokens, seconds = sum(record["tokens"] for record in records), sum(record["seconds"] for record in records)
        loss = sum(record["loss"] * record["tokens"] for record in records) / tokens
        padding = sum(record["padding"] for record in records) / len(records)
        last, updates = records[-1], self.run.config.train.updates
        left = (updates - last["update"]) * seconds / len(records)
        status = f"loss {loss:.3f}  rate {last['rate']:.2e}  {tokens / seconds:,.0f} tokens/s  padding {padding:.1%}"
        speed = f"{tokens / seconds:,.0f} tok/s"
        self.show(last["update"], f"loss {loss:.3f} rate {last['rate']:.1e} {speed} pad {padding:.1%}")
        if not self.console.is_terminal:
            self.console.say(f"update {last['update']:,}/{updates:,}  {status}  {duration(left)} left")
        if loss > RISE * self.lowest and self.run.world.is_main:
            self.console.warn(
                f"update {last['update']:,}: the loss has risen from {self.lowest:.3f} to {loss:.3f}; if it stays, "
                "try a lower optim.scale, a longer optim.warmup, or optim.clip_norm"
            )
        self.lowest = min(self.lowest, loss)


def _diverged(run: Run, record: dict[str, Any], rows: Rows) -> DivergedError:
    """Name the batch, and keep its pairs beside the run for reading."""
    path = run.folder / "diverged.json"
    figures = {name: str(record[name]) for name in ("loss", "gradient_norm")}  # JSON has no NaN
    if run.world.is_main:
        listing = json.dumps({**record, **figures, "pairs": _pairs(run, rows)}, indent=1, ensure_ascii=False)
        write_whole(path, f"{listing}\n")
    shown = ", ".join(run.prepared.origin(sorted(rows)[:5]))
    return DivergedError(
        f"update {record['update']:,}: loss {record['loss']}, gradient norm {record['gradient_norm']} on the "
        f"{len(rows):,} training pairs {shown}{', ...' if len(rows) > 5 else ''} (all in {path});\n"
        "the last checkpoint is intact; try a lower optim.scale, a longer optim.warmup, or optim.clip_norm"
    )


def _pairs(run: Run, rows: Rows) -> list[dict[str, Any]]:
    """Training pairs as text, with the line each was read from."""
    pairs, tokenizer = run.prepared.train.take(rows), run.prepared.tokenizer
    sources, targets = (
        tokenizer.decode([side[row].tolist() for row in range(len(rows))]) for side in (pairs.source, pairs.target)
    )
    return [
        {"origin": origin, "source": source, "target": target}
        for origin, source, target in zip(run.prepared.origin(rows), sources, targets, strict=True)
    ]


# --- Checkpoints ------------------------------------------------------------------------------------------------


def _checkpoint(run: Run, report: Report, stop: StopRequest) -> None:
    """Validate, remember the best, and begin to save: the main process; the others wait for it.

    Left undone, to be done on resuming, when a stop is asked for meanwhile.
    """
    if (log := report.log) is not None:
        try:
            result = _validate(run, stop.check)
        except Interrupted:
            pass
        else:
            _keep_best(run, result)
            log.write(result.record(run.update))
            log.flush()
            run.background.start(_saving(run, report.console))
            report.console.say(
                f"update {run.update:,}: {result}  (best {run.best_bleu:.2f} BLEU at {run.best_update:,})"
            )
    run.set_progress(run.world.told(run.progress()))


def _saving(run: Run, console: Console) -> Callable[[], None]:
    """What writes a checkpoint of the run as it is now, removes those no longer needed, and refreshes the page."""
    write, best, settings = snapshot(run, step_name(run.update)), run.best_update, run.config.train

    def work() -> None:
        write()
        prune_checkpoints(run.folder, settings.keep, best, settings.keep_every)
        _refresh_page(run, console)

    return work


def _refresh_page(run: Run, console: Console) -> None:
    try:
        write_report(run.folder)
    except Exception as error:  # whatever is wrong with it, a page is nothing to end a run for
        console.warn(f"report.html is not up to date: {error}")


def _keep_best(run: Run, result: Validation) -> None:
    by_loss = run.config.train.best == "loss"
    better = result.loss < run.best_loss if by_loss else result.bleu > run.best_bleu
    run.stale = 0 if better else run.stale + 1
    if better:
        run.best_loss, run.best_bleu, run.best_update = result.loss, result.bleu, run.update
    run.validated = run.update


def _validate(run: Run, check: Callable[[int], None]) -> Validation:
    prepared, config = run.prepared, run.config
    text = prepared.text("valid")
    with run.averaged():
        return validate(run.model, prepared.valid, text, prepared.tokenizer, config, check)


def _average_last(run: Run, log: MetricsLog, console: Console) -> None:
    """Write the average of the last checkpoints (section 6.1) as one more, without the optimiser."""
    count = min(run.config.train.average, len(list_checkpoints(run.folder)))
    path = run.folder / "checkpoints" / AVERAGED
    if count < 2 or _update_of(path) == run.update:
        return
    run.ema = []  # what is averaged here has these averages in it already
    run.model.load_state_dict(average_weights(last_checkpoints(run.folder, count)))
    result = _validate(run, lambda count: None)
    state = {"update": run.update, "averaged": count, "data": run.prepared.fingerprint}
    save_checkpoint(path, run.config, run.prepared.tokenizer.model_bytes, run.model.state_dict(), state)
    log.write({**result.record(run.update), "averaged": count})
    log.flush()
    _refresh_page(run, console)
    console.say(f"average of the last {count} checkpoints: {result}")


def _update_of(path: Path) -> int | None:
    """The update a checkpoint belongs to; None when it is not there or damaged."""
    try:
        update: int = json.loads((path / "state.json").read_bytes())["update"]
    except (OSError, ValueError, KeyError):
        return None
    return update
