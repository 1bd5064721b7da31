"""What a run does now and then: validate and save, save alone, and at its end average the last checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mt.checkpoint import (
    AVERAGED,
    average_weights,
    list_checkpoints,
    load_checkpoint,
    newest_whole,
    prune_checkpoints,
    prune_stops,
    save_checkpoint,
    step_name,
    stop_name,
)
from mt.config import Config
from mt.console import Console, counted
from mt.data.prepared import Prepared
from mt.distributed import World
from mt.errors import CheckpointError
from mt.evaluate.report import write_report
from mt.run_files import METRICS, MetricsLog, read_metrics
from mt.train.journal import Journal
from mt.train.learner import Learner
from mt.train.progress import Progress
from mt.train.saving import CheckpointWriter
from mt.train.validation import Validation, validate_sets


def validation_of(
    learner: Learner, prepared: Prepared, world: World, check: Callable[[int], None] = lambda count: None
) -> Validation:
    """Of the averages of the weights, where there are any; `check` as in `validate`."""
    with learner.averaged() as model:
        return validate_sets(model, prepared, learner.fitting_config(), world, check)


def begin_checkpoint(
    learner: Learner,
    progress: Progress,
    result: Validation,
    writer: CheckpointWriter,
    journal: Journal,
    world: World,
) -> Progress:
    """Take note of a validation, remember the best, and begin to save."""
    if not world.is_main:
        learner.state()  # of which this process may have a share
        return progress
    config, folder, console = learner.config, learner.config.train.dir, journal.console
    progress = progress.after_validation(result.loss, result.bleu, config.best[1])
    progress = replace(progress, alignment_layer=result.alignment_layer)
    journal.add_validation(result.record(progress.update))
    write = writer.snapshot(learner, progress, step_name(progress.update))

    def work() -> None:
        write()
        prune_checkpoints(folder, config.train.keep, progress.best_update, config.train.keep_every)
        _refresh_page(folder, console)

    writer.start(work)
    best = f"best on {result.name}" if result.name else "best"
    console.say(f"update {progress.update:,}: {result}, {best} {progress.best_bleu:.2f} at {progress.best_update:,}")
    return progress


def begin_save(learner: Learner, progress: Progress, writer: CheckpointWriter, world: World) -> None:
    """Begin to write what going on needs, in place of what was written so before."""
    if not world.is_main:
        learner.state()  # of which this process may have a share
        return
    folder, name = learner.config.train.dir, stop_name(progress.update)
    write = writer.snapshot(learner, progress, name)

    def work() -> None:
        write()
        prune_stops(folder, keep=name)

    writer.start(work)


def average_last(learner: Learner, progress: Progress, prepared: Prepared, log: MetricsLog, console: Console) -> None:
    """Write the average of the last checkpoints (section 6.1) as one more, without the optimiser."""
    config, folder = learner.config, learner.config.train.dir
    most = min(config.train.average, len(list_checkpoints(folder)))
    if most < 2 or _has_average(config, progress.update):
        return
    last, problems = newest_whole(folder, most)
    for problem in problems:
        console.warn(f"left out of the average: {problem}")
    if len(last) < 2:
        return
    learner.ema = []  # what is averaged here has these averages in it already
    learner.model.load_state_dict(average_weights(last))
    result = validation_of(learner, prepared, World())
    record = {**result.record(progress.update), "averaged": len(last)}
    state = {
        "update": progress.update,
        "averaged": len(last),
        "data": progress.data,
        "validation": {name: value for name, value in record.items() if name.startswith("valid_")},
        "alignment_layer": result.alignment_layer,
    }
    path = folder / "checkpoints" / AVERAGED
    save_checkpoint(path, config, prepared.tokenizers.files, learner.model.state_dict(), state)
    log.write(record)
    log.flush()
    _refresh_page(folder, console)
    console.say(f"average of {counted(len(last), 'checkpoint')}: {result}")


def _has_average(config: Config, update: int) -> bool:
    """Whether the average that the config asks for, up to this update, is there, whole and on record."""
    folder = config.train.dir
    try:
        average = load_checkpoint(folder / "checkpoints" / AVERAGED)
    except CheckpointError:
        return False
    made = (average.state["update"], average.config.train.average)
    records = [r["update"] for r in read_metrics(folder / METRICS) if r.get("averaged") == average.state["averaged"]]
    return made == (update, config.train.average) and update in records


def _refresh_page(folder: Path, console: Console) -> None:
    try:
        write_report(folder)
    except Exception as error:  # whatever is wrong with it, a page is nothing to end a run for
        console.warn(f"report.html is not up to date: {error}")
