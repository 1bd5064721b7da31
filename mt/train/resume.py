"""How a run begins: from where it stopped, from another model's weights, or from nothing."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mt.checkpoint import Checkpoint, load_checkpoint, read_config, read_tokenizers, resumable_checkpoints
from mt.config import Config
from mt.config_changes import differences
from mt.console import Console, counted
from mt.data.changed import what_changed, why_prepare
from mt.data.prepare import prepare
from mt.data.prepared import Prepared, open_prepared
from mt.data.store import fetch_prepared
from mt.data.vocabulary import Tokenizers, read_tokenizer_files
from mt.device import choose_precision
from mt.distributed import World
from mt.errors import CheckpointError
from mt.run_folder import Choice, begun_with, check_settings, choose_checkpoint
from mt.train.learner import Learner
from mt.train.progress import Progress

FINE_TUNING = {"schedule": "constant", "warmup": 100}  # of optim
CPU_MICRO_TOKENS = 8_192  # larger passes make nothing quicker there


def settled(config: Config, device: torch.device) -> Config:
    """The config with what is left to the device, so that the run goes on so elsewhere too."""
    precision = str(choose_precision(config.train.precision, device)).removeprefix("torch.")
    micro_tokens = config.batch.micro_tokens or (config.batch.tokens if device.type == "cuda" else CPU_MICRO_TOKENS)
    train = config.train.model_copy(update={"precision": precision})
    batch = config.batch.model_copy(update={"micro_tokens": micro_tokens})
    return config.model_copy(update={"train": train, "batch": batch})


def fetch_on_each_machine(config: Config, world: World, console: Console) -> None:
    """With `data.store`, one process of each machine fetches the data."""
    if config.data.store is not None:
        if world.local_rank == 0:
            fetch_prepared(config.data.store, config.data.dir, console)
        world.barrier()


def prepare_once(config: Config, world: World, console: Console) -> Prepared:
    """Prepare in the main process; the others find it done."""
    prepared = prepare(config, console) if world.is_main else None
    world.barrier()
    return prepared or open_prepared(config.data.dir)


def check_before_writing(config: Config, console: Console) -> None:
    """Refuse what would replace data that are still needed, or go on as another run."""
    for line in check_settings(config.train.dir, config):
        console.say(f"going on with another setting: {line}")
    if not begun_with(config.train.dir):
        return
    changes = [line for line in what_changed(config) if not line.startswith("data.test")]
    if changes:
        raise CheckpointError(
            f"{config.data.dir}: changed: {', '.join(changes)}; but {config.train.dir} goes on with the data as they "
            "were: put that back, or name a new data.dir and train.dir"
        )


@contextmanager
def prepared_in_passing(config: Config, world: World, console: Console) -> Iterator[Config]:
    """For a dry run: the config with its data in a temporary folder, where data.dir does not hold what it asks for."""
    with ExitStack() as stack:
        folder = None
        if world.is_main and (reason := why_prepare(config)):
            console.say(f"{config.data.dir}: {reason}, in a temporary folder for this dry run")
            parent = next(parent for parent in config.data.dir.absolute().parents if parent.is_dir())
            folder = stack.enter_context(TemporaryDirectory(prefix=".dry-run-", dir=parent))
        folder = world.broadcast(folder)
        temporary = {} if folder is None else {"dir": Path(folder) / "data"}
        yield config.model_copy(update={"data": config.data.model_copy(update=temporary)})
        world.barrier()


def settings_to_begin_with(config: Config, init_from: Path, console: Console) -> Config:
    """The settings of a run that begins with another's weights, or goes on after it did.

    What the config leaves open is taken over, the tokenizer and the sizes; and the rate is low and constant, as the
    paper's warm-up to its full rate would undo what was learnt.
    """
    goes_on = resumable_checkpoints(config.train.dir)
    path = goes_on[0] if goes_on else choose_checkpoint(init_from).path
    before = read_config(path)
    if "protect" not in config.data.model_fields_set:
        protected = config.data.model_copy(update={"protect": before.data.protect})
        config = config.model_copy(update={"data": protected})
    data, optim = config.data, config.optim
    if data.tokenizer is None and goes_on:
        data = data.model_copy(update={"tokenizer": before.data.tokenizer})
    elif data.tokenizer is None and not _is_prepared_with(path, config):
        paths = tuple(str(path / name) for name in read_tokenizers(path))
        data = data.model_copy(update={"tokenizer": paths if len(paths) > 1 else paths[0]})
    sizes = {name: getattr(config.model, name) for name in config.model.model_fields_set}
    if "schedule" not in optim.model_fields_set:
        rule = {name: getattr(before.optim, name) for name in FINE_TUNING} if goes_on else FINE_TUNING
        left_open = {name: value for name, value in rule.items() if name not in optim.model_fields_set}
        optim = optim.model_copy(update=left_open)
    if optim.schedule == "constant":
        console.say(
            f"fine-tuning: a constant rate of {optim.rate:g} after {optim.warmup:,} updates of warm-up "
            "(optim.schedule, optim.rate, optim.warmup)"
        )
    return config.model_copy(update={"data": data, "model": before.model.model_copy(update=sizes), "optim": optim})


def _is_prepared_with(checkpoint: Path, config: Config) -> bool:
    """Whether the data are prepared as the config says, and with the tokenizers of a checkpoint."""
    if why_prepare(config):
        return False
    both = (Tokenizers.read(files) for files in (read_tokenizers(checkpoint), read_tokenizer_files(config.data.dir)))
    return len({tokenizers.fingerprint for tokenizers in both}) == 1


def start_or_resume(
    learner: Learner, prepared: Prepared, console: Console, world: World | None = None, init_from: Path | None = None
) -> Progress:
    """Load the newest good checkpoint of the run directory into a new learner; in all processes the main one's.

    init_from: a run or checkpoint whose weights a new run begins with.
    Returns where the run goes on. Raises CheckpointError when none of its checkpoints is whole, or the data changed.
    """
    world = world or World()
    progress, beside = Progress(data=prepared.fingerprint), None
    if world.is_main:
        checkpoint = _newest_good(learner.config.train.dir, console)
        if checkpoint is not None:
            progress, beside = _resume(learner, checkpoint, prepared), checkpoint.optimizer
            console.say(f"resuming from {checkpoint.path} at update {progress.update:,}")
        elif init_from is not None:
            _warm_start(learner, prepared, choose_checkpoint(init_from), console)
    if world.size > 1:
        learner.follow_main(beside)
    progress = Progress.from_state(world.broadcast(progress.state()))
    learner.halvings = progress.halvings
    return progress


def _newest_good(folder: Path, console: Console) -> Checkpoint | None:
    for path in (found := resumable_checkpoints(folder)):
        try:
            return load_checkpoint(path, resume=True)
        except CheckpointError as error:
            console.warn(f"{error}")
    if found:
        raise CheckpointError(
            f"{folder}: none of its {counted(len(found), 'checkpoint')} is whole; name a new train.dir to start again"
        )
    return None


def _resume(learner: Learner, checkpoint: Checkpoint, prepared: Prepared) -> Progress:
    """Put everything back as it was. Raises CheckpointError when the data are others than those of the run."""
    progress = Progress.from_state(checkpoint.state)
    if progress.data != prepared.fingerprint:
        raise CheckpointError(
            f"{checkpoint.path} cannot go on: what {prepared.dir} holds is not what the run began with; "
            "put that back, or name a new train.dir"
        )
    learner.load(checkpoint.weights, checkpoint.optimizer)
    if checkpoint.config.batch.micro_tokens != learner.config.batch.micro_tokens:
        progress = replace(progress, halvings=0)  # of another size
    return progress


def _warm_start(learner: Learner, prepared: Prepared, choice: Choice, console: Console) -> None:
    """Begin with a checkpoint's weights. Raises CheckpointError when its vocabulary or sizes do not fit."""
    path = choice.path
    checkpoint = load_checkpoint(path)
    if Tokenizers.read(checkpoint.tokenizers).fingerprint != prepared.tokenizers.fingerprint:
        raise CheckpointError(
            f"{path} has another vocabulary than {prepared.dir}: its weights would stand for other pieces; "
            "leave out data.tokenizer, and the checkpoint's is taken"
        )
    shapes = {name: value.shape for name, value in learner.model.state_dict().items()}
    if shapes != {name: value.shape for name, value in checkpoint.weights.items()}:
        sizes = "; ".join(f"model.{line}" for line in differences(checkpoint.config.model, learner.config.model))
        raise CheckpointError(f"{path} is a model of other sizes ({sizes}): take over its model settings")
    learner.load(checkpoint.weights)
    console.say(f"weights from {choice}")
