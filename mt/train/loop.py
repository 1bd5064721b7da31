"""The training run (section 5), from its first update or from wherever it stopped."""

import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mt.checkpoint import stop_name
from mt.config import Config, TrainConfig
from mt.config_file import dump_config
from mt.console import Console, counted
from mt.data.feed import prefetched, updates_from
from mt.data.prepared import Prepared
from mt.data.store import FetchError
from mt.device import choose_device, keep_few_kernels, keep_freed_memory, repeat_exactly, warning_of
from mt.distributed import CLOSING_SECONDS, LostContactError, World, is_elastic, joined
from mt.errors import MtError
from mt.evaluate.bleu import missing_tokenizer
from mt.files import write_whole
from mt.run_files import CONFIG, METRICS, MetricsLog
from mt.run_folder import begun_from, training_lock
from mt.streams import write_out
from mt.train.journal import Journal
from mt.train.learner import Learner, make_learner
from mt.train.milestones import average_last, begin_checkpoint, begin_save, validation_of
from mt.train.progress import Progress
from mt.train.rehearsal import check_size, rehearse
from mt.train.resume import (
    check_before_writing,
    fetch_on_each_machine,
    prepare_once,
    prepared_in_passing,
    settings_to_begin_with,
    settled,
    start_or_resume,
)
from mt.train.saving import CheckpointWriter
from mt.train.session import note_session, session_of
from mt.train.stop import Interrupted, StopRequest
from mt.train.update import OutOfMemoryError, take_update


def train(config: Config, console: Console, init_from: Path | None = None, dry_run: bool = False) -> None:
    """Train until one of the limits of `train`, going on from the newest good checkpoint of the run directory.

    init_from: a run or checkpoint whose weights a new run begins with; a run that goes on remembers it.
    dry_run: only rehearse, print the plan, and leave the run directory as it was.
    Raises Interrupted after a stop that was asked for, DivergedError when the loss is no longer a number,
    LostContactError when another process of the run died.
    """
    device = choose_device(config.train.device)
    config = settled(config, device)
    with joined(device) as world:
        try:
            _train(config, world, console if world.is_main else Console(quiet=True), init_from, dry_run)
        except KeyboardInterrupt:  # before the loop, or after it: there, a request to stop is waited for
            if world.is_main:
                raise Interrupted("stopped; what was saved is whole, and the same command goes on from there") from None
            raise SystemExit(Interrupted.exit_status) from None
        except MtError as error:
            if world.is_main:
                raise
            if isinstance(error, OutOfMemoryError) or (isinstance(error, FetchError) and world.local_rank == 0):
                raise type(error)(f"process {world.rank}: {error}") from None
            raise SystemExit(error.exit_status) from None  # the main process says it


def _train(config: Config, world: World, console: Console, init_from: Path | None, dry_run: bool) -> None:
    fetch_on_each_machine(config, world, console)
    if init_from := init_from or begun_from(config.train.dir):
        config = settings_to_begin_with(config, init_from, console)
    if world.is_main:
        check_size(config)
        check_before_writing(config, console)
    with prepared_in_passing(config, world, console) if dry_run else nullcontext(config) as settings:
        _train_prepared(settings, world, console, init_from, dry_run)


def _train_prepared(config: Config, world: World, console: Console, init_from: Path | None, dry_run: bool) -> None:
    folder = config.train.dir
    prepared = prepare_once(config, world, console)
    writer = CheckpointWriter(folder, prepared.tokenizers.files)
    patience = CLOSING_SECONDS if is_elastic() else 0  # a process of a machine given up may still be saving
    with training_lock(folder, not dry_run, patience) if world.is_main else nullcontext(), writer:
        if world.is_main:
            writer.start(prepared.verify)  # beside what follows; the rehearsal's checkpoint waits for it
        learner = _new_learner(config, prepared, world, console)
        progress = start_or_resume(learner, prepared, console, world, init_from)
        if dry_run or not progress.end(config.train):
            plan = rehearse(learner, progress, prepared, writer, world, console)
            if learner.halvings:
                _warn_of_memory(learner, world, console)
            if dry_run:
                if world.is_main:
                    write_out(f"{plan}\n")
                return
        if not world.is_main:
            _run_updates(learner, progress, prepared, writer, world, None, console)
            return
        write_whole(folder / CONFIG, dump_config(config))
        note_session(folder, session_of(learner, progress, world, init_from))
        with closing(MetricsLog(folder / METRICS, progress.update, console, config.train.tensorboard)) as log:
            progress = _run_updates(learner, progress, prepared, writer, world, log, console)
            average_last(learner, progress, prepared, log, console)
    console.say(f"done: {counted(progress.update, 'update')} ({progress.end(config.train)})")
    console.say(f"translate with  mt translate --ckpt {folder}")


def _new_learner(config: Config, prepared: Prepared, world: World, console: Console) -> Learner:
    device = choose_device(config.train.device)
    if device.type == "cuda":
        device = torch.device("cuda", world.local_rank)
    keep_freed_memory()
    keep_few_kernels()
    if config.train.deterministic:
        repeat_exactly(device)
    tokenizers = prepared.tokenizers
    learner = make_learner(config, len(tokenizers.target), device, len(tokenizers.source), world)
    parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    where = device.type if world.size == 1 else f"{world.size} x {device.type}"
    precision = str(learner.precision).removeprefix("torch.")
    console.say(f"model: {parameters:,} parameters; {counted(len(prepared.train), 'pair')}; {where}, {precision}")
    if world.is_main and (warning := warning_of(precision, device)):
        console.warn(warning)
    if missing := missing_tokenizer(config.data.tgt):
        console.warn(f"{missing}; until then, validation counts BLEU by characters")
    return learner


def _run_updates(
    learner: Learner,
    progress: Progress,
    prepared: Prepared,
    writer: CheckpointWriter,
    world: World,
    log: MetricsLog | None,
    console: Console,
) -> Progress:
    """Take updates until a limit is reached or a stop asked for; in the main process, `log` what comes of them."""
    journal = Journal(learner.config, prepared, log, console)
    updates = learner.config.train.updates
    with StopRequest() as stop, writer, console.bar("training", updates, progress.update) as journal.show:
        progress = take_updates(learner, progress, prepared, writer, world, journal, stop)
    if stop.requested:  # while the last checkpoint was written
        raise _stopped(progress)
    return progress


def take_updates(
    learner: Learner,
    progress: Progress,
    prepared: Prepared,
    writer: CheckpointWriter,
    world: World,
    journal: Journal,
    stop: StopRequest,
) -> Progress:
    """The loop itself: what is due, then an update, until a limit is reached or a stop asked for."""
    config = learner.config
    batches = prefetched(updates_from(progress.update, progress.cursor, prepared, config, world.rank, world.size))
    clock, stopped = time.perf_counter(), False
    try:
        while True:
            writer.check()
            due = _due(progress, config.train, stopped, world)
            if due.lines:
                journal.write()
            if due.checkpoint or due.save:  # from here on all processes halve alike, as they will on resuming
                learner.halvings = world.max(learner.halvings)
                progress = replace(progress, halvings=learner.halvings)
            if due.save and progress.update:
                begin_save(learner, progress, writer, world)
            if stopped:
                writer.wait()
                world.barrier()  # whoever leaves first takes the others with it
                raise _stopped(progress)
            if due.checkpoint and progress.validated < progress.update:
                try:
                    result = validation_of(learner, prepared, world, stop.check)
                except Interrupted:  # left undone, to be done on resuming
                    stopped = True
                    continue
                progress = begin_checkpoint(learner, progress, result, writer, journal, world)
                progress = Progress.from_state(world.broadcast(progress.state()))
                clock = time.perf_counter()
                continue  # patience may be at its end now
            if due.end:
                return progress
            micro_batches, next_cursor = next(batches)
            update, epoch, halvings = progress.update + 1, progress.cursor.epoch, learner.halvings
            try:
                record = take_update(learner, micro_batches, update, lambda: stop.requested)
            except Interrupted:  # the update is left undone, and taken again on resuming
                stopped = True
                continue
            if learner.halvings > halvings:
                _warn_of_memory(learner, world, journal.console)
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            progress = progress.after_update(next_cursor, seconds)
            journal.add({"update": update, "epoch": epoch, **record, "seconds": seconds}, micro_batches.rows)
    except (LostContactError, FetchError) as error:
        raise _left_alone(learner, progress, writer, world, journal, error) from None
    finally:
        batches.close()


@dataclass(frozen=True)
class _Due:
    """What is to be done before the next update."""

    checkpoint: bool  # and before it a validation
    save: bool  # of what going on needs, without a validation
    lines: bool  # of metrics.jsonl, for the updates since the last ones
    end: bool


def _due(progress: Progress, settings: TrainConfig, stopped: bool, world: World) -> _Due:
    ended = bool(progress.end(settings))
    if settings.hours:  # of which each process has its own measure
        ended = world.any(ended)
    checkpoint = progress.update % settings.checkpoint_every == 0 or ended
    save = stopped or (settings.save_every > 0 and progress.update % settings.save_every == 0 and not checkpoint)
    lines = checkpoint or save or progress.update % settings.log_every == 0
    return _Due(checkpoint, save, lines, ended)


def _stopped(progress: Progress) -> Interrupted:
    return Interrupted(f"stopped at update {progress.update:,}; the same command goes on from there")


def _left_alone(
    learner: Learner,
    progress: Progress,
    writer: CheckpointWriter,
    world: World,
    journal: Journal,
    error: LostContactError | FetchError,
) -> MtError:
    """Save what there is without the others, where an update that was not finished has left it as it was."""
    # On a GPU losses and weights may wait for an exchange that never ends; shares are gone with their process.
    waits = isinstance(error, LostContactError) and learner.model.device.type == "cuda"
    if waits or learner.exchange.shares is not None:
        return type(error)(f"{error}; the same command goes on from the newest checkpoint")
    journal.write()
    if not world.is_main:
        return error
    writer.save(learner, replace(progress, halvings=learner.halvings), stop_name(progress.update))
    return type(error)(f"{error}; saved at update {progress.update:,}, the same command goes on from there")


def _warn_of_memory(learner: Learner, world: World, console: Console) -> None:
    smaller = learner.config.batch.micro_tokens // 2**learner.halvings
    where = f"process {world.rank}: " if world.size > 1 else ""
    console.warn(
        f"{where}out of memory; going on with micro-batches of {smaller:,} tokens, which changes no update; "
        f"batch.micro_tokens={smaller} starts so"
    )
