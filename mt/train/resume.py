"""How a run begins: from where it stopped, from another model's weights, or from nothing."""

from pathlib import Path

from mt.checkpoint import Checkpoint, find_checkpoint, load_checkpoint, resumable_checkpoints
from mt.config import Config, differences
from mt.console import Console
from mt.data.prepared import Prepared
from mt.data.tokenizer import Tokenizer
from mt.distributed import World
from mt.errors import CheckpointError
from mt.train.learner import Learner
from mt.train.optim import optimizer_state
from mt.train.progress import Progress

# Settings that decide how the work is cut, and no more of the result than which random masks dropout draws.
CUTTING = ("batch.micro_tokens", "batch.multiple")


def start_or_resume(
    learner: Learner, prepared: Prepared, console: Console, world: World | None = None, init_from: Path | None = None
) -> Progress:
    """Load the newest good checkpoint of the run directory into a new learner; in all processes the main one's.

    init_from: a run or checkpoint whose weights a new run begins with.
    Returns where the run goes on. Raises CheckpointError when none of its checkpoints is whole, or settings changed.
    """
    world = world or World()
    progress = Progress(data=prepared.fingerprint)
    if world.is_main:
        checkpoint = _newest_good(learner.config.train.dir, console)
        if checkpoint is not None:
            progress = _resume(learner, checkpoint, progress)
            console.say(f"resuming from {checkpoint.path} at update {progress.update:,}")
        elif init_from is not None:
            _warm_start(learner, prepared, find_checkpoint(init_from), console)
    if world.size > 1:  # so that only the main process's machine needs to hold the run
        parameters = [parameter.detach() for parameter in learner.model.parameters()]
        moments = optimizer_state(learner.optimizer, learner.model).values()
        world.copy_from_main([*parameters, *moments, *learner.ema])
    return Progress.from_state(world.told(progress.state()))


def _newest_good(folder: Path, console: Console) -> Checkpoint | None:
    for path in (found := resumable_checkpoints(folder)):
        try:
            return load_checkpoint(path, resume=True)
        except CheckpointError as error:
            console.warn(f"{error}")
    if found:
        raise CheckpointError(
            f"{folder}: none of its {len(found)} checkpoints is whole; name a new train.dir to start again"
        )
    return None


def _resume(learner: Learner, checkpoint: Checkpoint, new: Progress) -> Progress:
    """Put everything back as it was. Raises CheckpointError naming each setting that no longer fits."""
    progress = Progress.from_state(checkpoint.state)
    changed = _changed(checkpoint.config, learner.config)
    if progress.data != new.data:
        changed.append(f"data: what {learner.config.data.dir} holds is not what the run began with")
    if changed:
        raise CheckpointError(
            f"{checkpoint.path} cannot go on with other settings ({'; '.join(changed)}): "
            "put them back, or name a new train.dir"
        )
    learner.load(checkpoint.weights, checkpoint.optimizer)
    return progress


def _changed(old: Config, new: Config) -> list[str]:
    """Of the settings that decide the result, those that differ."""
    sections = ("model", "batch", "optim")
    changed = [f"{name}.{line}" for name in sections for line in differences(getattr(old, name), getattr(new, name))]
    changed = [line for line in changed if not line.startswith(CUTTING)]
    for name in ("label_smoothing", "precision", "ema", "bpe_dropout"):
        if (before := getattr(old.train, name)) != (after := getattr(new.train, name)):
            changed.append(f"train.{name}: {before} -> {after}")
    if old.seed != new.seed:
        changed.append(f"seed: {old.seed} -> {new.seed}")
    return changed


def _warm_start(learner: Learner, prepared: Prepared, path: Path, console: Console) -> None:
    """Begin with a checkpoint's weights. Raises CheckpointError when its vocabulary or sizes do not fit."""
    checkpoint = load_checkpoint(path)
    if Tokenizer(checkpoint.tokenizer).fingerprint != prepared.tokenizer.fingerprint:
        raise CheckpointError(
            f"{path} has another vocabulary than {prepared.dir}: its weights would stand for other pieces; "
            "prepare the data with the checkpoint's tokenizer.model"
        )
    shapes = {name: value.shape for name, value in learner.model.state_dict().items()}
    if shapes != {name: value.shape for name, value in checkpoint.weights.items()}:
        sizes = "; ".join(f"model.{line}" for line in differences(checkpoint.config.model, learner.config.model))
        raise CheckpointError(f"{path} is a model of other sizes ({sizes}): take over its model settings")
    learner.load(checkpoint.weights)
    console.say(f"weights from {path}")
