"""The state of a training run: how it begins, what a checkpoint keeps of it, and how it is put back."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mt.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    resumable_checkpoints,
    save_checkpoint,
)
from mt.config import Config, differences
from mt.console import Console
from mt.data.batches import Cursor, Lengths
from mt.data.bpe_dropout import BpeDropout
from mt.data.prepared import Prepared
from mt.data.tokenizer import Tokenizer
from mt.device import choose_device, choose_precision, repeat_exactly, settle
from mt.distributed import World
from mt.errors import CheckpointError
from mt.model.transformer import Transformer
from mt.train.background import Background
from mt.train.batch import lengths_of
from mt.train.optim import blank_adam, load_adam, make_adam, stored_adam

# Settings that decide how the work is cut, and no more of the result than which random masks dropout draws.
CUTTING = ("batch.micro_tokens", "batch.multiple")


@dataclass
class Run:
    """A training run between two updates: all that a checkpoint keeps, and where it takes place."""

    config: Config
    prepared: Prepared
    world: World
    device: torch.device
    model: Transformer
    adam: torch.optim.Adam
    lengths_N2: Lengths  # of the training pairs
    update: int = 0  # updates done
    cursor: Cursor = field(default_factory=Cursor)  # the next batch
    seconds: float = 0.0  # spent on updates
    validated: int = 0  # the update last validated
    best_bleu: float = -1.0
    best_loss: float = math.inf
    best_update: int | None = None  # by whichever of the two train.best names
    stale: int = 0  # validations since then
    ema: list[Tensor] = field(default_factory=list)  # moving averages of the parameters; empty when off
    background: Background = field(default_factory=Background)  # where checkpoints are written
    kept: dict[str, Tensor] = field(default_factory=dict)  # the copies they are written from
    halvings: int = 0  # how often this process had to halve its micro-batches for want of memory

    @property
    def folder(self) -> Path:
        return self.config.train.dir

    @property
    def precision(self) -> torch.dtype:
        return choose_precision(self.config.train.precision, self.device)

    @cached_property
    def bpe_dropout(self) -> BpeDropout:
        return BpeDropout(self.prepared.tokenizer, self.config.train.bpe_dropout, self.config.seed)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average in place of the weights, where it is on."""
        parameters = list(self.model.parameters()) if self.ema else []
        raw = [parameter.data for parameter in parameters]
        for parameter, average in zip(parameters, self.ema, strict=bool(self.ema)):
            parameter.data = average
        try:
            yield
        finally:
            for parameter, data in zip(parameters, raw, strict=True):
                parameter.data = data

    def progress(self) -> dict[str, Any]:
        """What state.json says of the run."""
        names = ("update", "seconds", "validated", "best_bleu", "best_update", "stale")
        return {
            **{name: getattr(self, name) for name in names},
            "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
            "cursor": asdict(self.cursor),
        }

    def set_progress(self, state: dict[str, Any]) -> None:
        """Put back what `progress` gave, now or in an earlier version, which wrote less."""
        self.update, self.cursor = state["update"], Cursor(**state["cursor"])
        self.best_bleu, self.best_update = state["best_bleu"], state["best_update"]
        self.seconds, self.stale = state.get("seconds", 0.0), state.get("stale", 0)
        self.validated = state.get("validated", self.update)
        best_loss = state.get("best_loss")
        self.best_loss = math.inf if best_loss is None else best_loss


def start_or_resume(
    config: Config,
    prepared: Prepared,
    console: Console,
    world: World | None = None,
    init_from: Path | None = None,
) -> Run:
    """A new run, or the state of the newest good checkpoint in its directory; in all processes the main one's.

    init_from: a run or checkpoint whose weights a new run begins with.
    """
    world = world or World()
    device = choose_device(config.train.device)
    if device.type == "cuda":
        device = torch.device("cuda", world.local_rank)
    settle()
    if config.train.deterministic:
        repeat_exactly(device)
    torch.manual_seed(config.seed)
    model = Transformer(config.model, len(prepared.tokenizer), config.train.compile, config.train.recompute)
    model = model.to(device).train()
    run = Run(config, prepared, world, device, model, make_adam(model, config.optim), lengths_of(prepared.train))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.say(
        f"model: {parameters:,} parameters; {len(prepared.train):,} pairs; "
        f"{world.size} x {device.type}, {run.precision}".replace("torch.", "").replace("1 x ", "")
    )
    if world.is_main:
        _restore(run, init_from, console)
    _copy_from_main(run)
    return run


def _restore(run: Run, init_from: Path | None, console: Console) -> None:
    checkpoint = _newest_good(run.folder, console)
    if checkpoint is not None:
        _resume(run, checkpoint)
        console.say(f"resuming from {checkpoint.path} at update {run.update:,}")
        return
    if init_from is not None:
        _warm_start(run, find_checkpoint(init_from), console)
    if run.config.train.ema:
        run.ema = [parameter.detach().clone() for parameter in run.model.parameters()]


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


def _resume(run: Run, checkpoint: Checkpoint) -> None:
    """Put everything back as it was. Raises CheckpointError naming each setting that no longer fits."""
    if changed := _changed(run, checkpoint):
        raise CheckpointError(
            f"{checkpoint.path} cannot go on with other settings ({'; '.join(changed)}): "
            "put them back, or name a new train.dir"
        )
    run.model.load_state_dict(checkpoint.weights)
    load_adam(run.adam, run.model, checkpoint.optimizer)
    if run.config.train.ema:
        run.ema = [parameter.detach().clone() for parameter in run.model.parameters()]
        for name, parameter in run.model.named_parameters():
            parameter.data.copy_(checkpoint.optimizer[f"{name}.raw"])
    run.set_progress(checkpoint.state)


def _changed(run: Run, checkpoint: Checkpoint) -> list[str]:
    """Of the settings that decide the result, those that differ from the checkpoint's."""
    old, new = checkpoint.config, run.config
    sections = ("model", "batch", "optim")
    changed = [f"{name}.{line}" for name in sections for line in differences(getattr(old, name), getattr(new, name))]
    changed = [line for line in changed if not line.startswith(CUTTING)]
    for name in ("label_smoothing", "precision", "ema", "bpe_dropout"):
        if (before := getattr(old.train, name)) != (after := getattr(new.train, name)):
            changed.append(f"train.{name}: {before} -> {after}")
    if old.seed != new.seed:
        changed.append(f"seed: {old.seed} -> {new.seed}")
    if checkpoint.state["data"] != run.prepared.fingerprint:
        changed.append(f"data: what {new.data.dir} holds is not what the run began with")
    return changed


def _warm_start(run: Run, path: Path, console: Console) -> None:
    """Begin with a checkpoint's weights. Raises CheckpointError when its vocabulary or sizes do not fit."""
    checkpoint = load_checkpoint(path)
    if Tokenizer(checkpoint.tokenizer).fingerprint != run.prepared.tokenizer.fingerprint:
        raise CheckpointError(
            f"{path} has another vocabulary than {run.config.data.dir}: its weights would stand for other pieces; "
            "prepare the data with the checkpoint's tokenizer.model"
        )
    shapes = {name: value.shape for name, value in run.model.state_dict().items()}
    if shapes != {name: value.shape for name, value in checkpoint.weights.items()}:
        sizes = "; ".join(f"model.{line}" for line in differences(checkpoint.config.model, run.config.model))
        raise CheckpointError(f"{path} is a model of other sizes ({sizes}): take over its model settings")
    run.model.load_state_dict(checkpoint.weights)
    console.say(f"weights from {path}")


def _copy_from_main(run: Run) -> None:
    """Give every process the main one's state, so that only its machine needs to hold the run."""
    if run.world.size == 1:
        return
    run.set_progress(run.world.told(run.progress()))
    parameters = dict(run.model.named_parameters())
    if run.world.told(bool(run.adam.state)) and not run.world.is_main:
        load_adam(run.adam, run.model, blank_adam(run.model))
    if run.config.train.ema and not run.world.is_main:
        run.ema = [parameter.detach().clone() for parameter in parameters.values()]
    moments = stored_adam(run.adam, run.model).values() if run.adam.state else ()
    run.world.copy_from_main([*(p.detach() for p in parameters.values()), *moments, *run.ema])


def save_run(run: Run, name: str) -> None:
    """Write all that going on needs as checkpoint `name`."""
    snapshot(run, name)()


def snapshot(run: Run, name: str) -> Callable[[], None]:
    """Copy all that going on needs; what it returns writes the copy as checkpoint `name`, while training goes on.

    With a moving average of the weights on, that is the model one translates with; the weights in training then stand
    beside the optimiser's moments, as `PARAMETER.raw`.
    """
    run.background.wait()  # the last copy may still be read
    state = {**run.progress(), "data": run.prepared.fingerprint}
    # Before the first update, in the rehearsal, the optimiser is empty; what is written has its size later on.
    weights, optimizer = run.model.state_dict(), stored_adam(run.adam, run.model) or blank_adam(run.model)
    for (parameter, raw), average in zip(run.model.named_parameters(), run.ema, strict=False):
        optimizer[f"{parameter}.raw"], weights[parameter] = raw.detach(), average
    weights, optimizer = _copied(run, weights), _copied(run, optimizer)
    path, tokenizer = run.folder / "checkpoints" / name, run.prepared.tokenizer.model_bytes
    return partial(save_checkpoint, path, run.config, tokenizer, weights, state, optimizer)


def _copied(run: Run, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in host memory, the same each time: to be given new memory takes much longer than the copying."""
    for name, tensor in tensors.items():
        if name not in run.kept:
            run.kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        run.kept[name].copy_(tensor)
    return {name: run.kept[name] for name in tensors}
