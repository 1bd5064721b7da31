"""How a run begins: from where it stopped, from another model's weights, or from nothing."""

from pathlib import Path

from mt.checkpoint import Checkpoint, load_checkpoint, resumable_checkpoints
from mt.config import differences
from mt.console import Console, counted
from mt.data.prepared import Prepared
from mt.data.tokenizer import Tokenizer
from mt.distributed import World
from mt.errors import CheckpointError
from mt.run_folder import Choice, choose_checkpoint
from mt.train.learner import Learner
from mt.train.optim import optimizer_state
from mt.train.progress import Progress


def start_or_resume(
    learner: Learner, prepared: Prepared, console: Console, world: World | None = None, init_from: Path | None = None
) -> Progress:
    """Load the newest good checkpoint of the run directory into a new learner; in all processes the main one's.

    init_from: a run or checkpoint whose weights a new run begins with.
    Returns where the run goes on. Raises CheckpointError when none of its checkpoints is whole, or the data changed.
    """
    world = world or World()
    progress = Progress(data=prepared.fingerprint)
    if world.is_main:
        checkpoint = _newest_good(learner.config.train.dir, console)
        if checkpoint is not None:
            progress = _resume(learner, checkpoint, prepared)
            console.say(f"resuming from {checkpoint.path} at update {progress.update:,}")
        elif init_from is not None:
            _warm_start(learner, prepared, choose_checkpoint(init_from), console)
    if world.size > 1:  # so that only the main process's machine needs to hold the run
        parameters = [parameter.detach() for parameter in learner.model.parameters()]
        moments = optimizer_state(learner.optimizer, learner.model).values()
        world.broadcast_tensors([*parameters, *moments, *learner.ema])
    return Progress.from_state(world.broadcast(progress.state()))


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
    return progress


def _warm_start(learner: Learner, prepared: Prepared, choice: Choice, console: Console) -> None:
    """Begin with a checkpoint's weights. Raises CheckpointError when its vocabulary or sizes do not fit."""
    path = choice.path
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
    console.say(f"weights from {choice}")
