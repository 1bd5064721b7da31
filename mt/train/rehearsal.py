"""Before the first update: everything a run will do, once and at its largest, so that what fails, fails at once."""

import math
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from mt.checkpoint import list_checkpoints, load_checkpoint
from mt.config import Config
from mt.console import Console, duration
from mt.data.batches import Lengths, Rows, plan_batches
from mt.data.corpus import Corpus
from mt.data.epochs import plan_epoch, window_count
from mt.data.feed import MicroBatches, cut_batch, pairs_by_epoch
from mt.data.prepared import Prepared
from mt.device import choose_device, total_memory
from mt.distributed import World
from mt.errors import ConfigError, MtError
from mt.files import writing
from mt.train.learner import Learner
from mt.train.progress import Progress
from mt.train.saving import CheckpointWriter
from mt.train.update import accumulate
from mt.train.validation import validate

SENTENCES = 2  # translated in the rehearsal: the longest of the validation set


Plans = dict[tuple[float, ...], tuple[list[Rows], int]]  # what plan_epoch gives, by the weights of data.train


class RehearsalError(MtError):
    """The run would fail later on."""


@dataclass(frozen=True)
class Plan:
    """What a run is going to do and to need."""

    parameters: int
    updates: int
    updates_an_epoch: Sequence[int]  # at this stage of the run, and at each that has other weights
    tokens_an_update: float  # target tokens, on average
    processes: int
    seconds_an_update: float  # estimated
    memory: int  # bytes, the highest so far
    memory_of: str
    checkpoint: int  # bytes of one
    checkpoint_seconds: float  # to write one, verify it and read it
    disk: int  # bytes still to be written
    free: int  # bytes

    def __str__(self) -> str:
        """The plan as `--dry-run` prints it."""
        return "\n".join(
            (
                f"parameters    {self.parameters:,}",
                f"updates       {self.updates:,} of about {self.tokens_an_update:,.0f} target tokens",
                f"epochs        {self._epochs}",
                f"processes     {self.processes}",
                f"memory        {size(self.memory)} ({self.memory_of})",
                f"checkpoint    {size(self.checkpoint)}; the rehearsal's took {self.checkpoint_seconds:.1f} s",
                f"disk          {size(self.disk)} to be written, {size(self.free)} free",
                f"time          about {duration(self.updates * self.seconds_an_update)}, validations not counted",
            )
        )

    @property
    def _epochs(self) -> str:
        if len(self.updates_an_epoch) == 1:
            return f"{self.updates / self.updates_an_epoch[0]:.1f} of {self.updates_an_epoch[0]:,} updates"
        return f"of {', then of '.join(f'{count:,}' for count in self.updates_an_epoch)} updates"


def check_size(config: Config) -> None:
    """Raise ConfigError when the weights and what training keeps for each need more memory than the device has.

    Allocates nothing. At least three numbers a weight: itself, its gradient, and one of the optimiser's.
    """
    parameters = config.model.parameters(0 if config.data.tokenizer else config.data.vocab_size)
    needed, there = 3 * 4 * parameters, total_memory(choose_device(config.train.device))
    if needed > there:
        raise ConfigError(
            f"a model of {parameters:,} parameters needs at least {size(needed)} of memory to train, but there are "
            f"{size(there)}: lower model.d_model, model.d_ff or the numbers of layers"
        )


def rehearse(
    learner: Learner,
    progress: Progress,
    prepared: Prepared,
    writer: CheckpointWriter,
    world: World,
    console: Console,
) -> Plan:
    """The heaviest micro-batch, a validation, a checkpoint written and read, and the disk: each once.

    Leaves weights, optimiser and random states as they are. All processes rehearse together.
    Raises RehearsalError when the disk is too small, OutOfMemoryError, WriteError.
    """
    config = learner.config
    plans = _plans(config, progress, prepared)
    heaviest = _heaviest(config, progress, prepared, [rows for plan, _ in plans.values() for rows in plan], world)
    seconds_a_token = _rehearse_update(learner, heaviest)
    one, checkpoint_seconds, disk, free = _checkpoint_bytes(learner, prepared), 0.0, 0, 0
    if world.is_main:
        _rehearse_validation(learner, prepared)
        disk, free = _disk(config, progress, one)
        writer.wait()
    world.barrier()
    if world.is_main:
        checkpoint_seconds = _rehearse_checkpoint(learner, progress, writer)
    else:
        learner.state()  # of which this process may have a share
    world.barrier()
    plan, _ = next(iter(plans.values()))
    tokens = int(sum(prepared.train.target.lengths[rows].sum() for rows in plan)) / len(plan)
    memory, memory_of = _memory(learner.model.device)
    result = Plan(
        parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        updates=_updates(config, progress, plans, window_count(prepared)),
        updates_an_epoch=[updates for _, updates in plans.values()],
        tokens_an_update=tokens,
        processes=world.size,
        seconds_an_update=tokens * seconds_a_token / world.size,
        memory=memory,
        memory_of=memory_of,
        checkpoint=one,
        checkpoint_seconds=checkpoint_seconds,
        disk=disk,
        free=free,
    )
    ((_, pairs),) = heaviest.passes
    longest_2 = pairs.lengths().max(axis=0)
    console.say(
        f"rehearsed: {len(pairs):,} pairs of {longest_2[0]} + {longest_2[1]} pieces, a validation, a checkpoint "
        f"({size(result.checkpoint)}; {size(free)} free); {size(memory)} of memory"
    )
    return result


def _plans(config: Config, progress: Progress, prepared: Prepared) -> Plans:
    """The batches of an epoch at this stage of the run, then with all other weights that are to come.

    Of a large corpus, those of the window in which the run goes on.
    """
    epoch, window = progress.cursor.epoch, progress.cursor.window
    stages = range(config.train.stage_at(progress.update, epoch), len(config.train.stages) + 1)
    all_weights = dict.fromkeys(map(config.weights, stages))
    return {weights: plan_epoch(prepared, config, epoch, weights, window) for weights in all_weights}


def _updates(config: Config, progress: Progress, plans: Plans, windows: int) -> int:
    """The updates still to be taken; of a corpus of several windows about so many."""
    limits, cursor = config.train, progress.cursor
    (_, of_epoch), *_ = plans.values()
    update = progress.update - cursor.batch - round(of_epoch * cursor.window / windows)
    for epoch in range(progress.cursor.epoch, limits.epochs):
        if update >= limits.updates:
            break
        update += plans[config.weights(limits.stage_at(update, epoch))][1]
    return max(0, (min(update, limits.updates) if limits.epochs else limits.updates) - progress.update)


# --- An update ---------------------------------------------------------------------------------------------------


def _heaviest(config: Config, progress: Progress, prepared: Prepared, plan: list[Rows], world: World) -> MicroBatches:
    """The pass with most positions of all processes, padding counted, as an update of its own."""
    rows = _heaviest_batch(plan, prepared.train)
    take = partial(pairs_by_epoch(prepared.train, prepared.tokenizers, config), progress.cursor.epoch)
    shares = [cut_batch(prepared.train, rows, config.batch, rank, world.size, take) for rank in range(world.size)]
    passes = [each for batches in shares for each in batches.passes]
    index, pairs = max(passes, key=lambda each: _positions(each[1].lengths()))
    return replace(shares[0], passes=[(index, pairs)], tokens=int(pairs.target.lengths.sum()))


def _heaviest_batch(plan: list[Rows], corpus: Corpus) -> Rows:
    return max(plan, key=lambda rows: _positions(corpus.lengths(rows)))


def _positions(lengths_N2: Lengths) -> int:
    return len(lengths_N2) * int(lengths_N2.max(axis=0).sum())


def _rehearse_update(learner: Learner, batches: MicroBatches) -> float:
    """Forward, backward and the exchange of gradients; returns seconds per target token."""
    cuda = learner.model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(learner.model.device)
    with torch.random.fork_rng([learner.model.device] if cuda else []):
        if cuda or learner.config.train.compile:
            accumulate(learner, batches, update=1)  # the first pass is spent on loading kernels, or compiling them
        start = time.perf_counter()
        figures = accumulate(learner, batches, update=1)
        figures["loss"].item()
        seconds = time.perf_counter() - start
    learner.exchange.zero()
    return seconds / batches.tokens


def _memory(device: torch.device) -> tuple[int, str]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "on each GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of each process"


# --- A validation ------------------------------------------------------------------------------------------------


def _rehearse_validation(learner: Learner, prepared: Prepared) -> None:
    config = learner.fitting_config()
    # Untrained, it does not end by itself: a piece more than the source is enough to see that it works.
    short = config.model_copy(update={"decode": config.decode.model_copy(update={"max_extra": 1})})
    for folder, corpus in prepared.valid.items():
        lengths_N2 = corpus.lengths()
        plan = plan_batches(lengths_N2, max(config.batch.micro_tokens, int(lengths_N2.max())), seed=0, epoch=0)
        heaviest = _heaviest_batch(plan, corpus)
        longest = np.argsort(lengths_N2[:, 0], kind="stable")[-SENTENCES:]
        sources, references, tags = prepared.text(folder)
        text = [sources[row] for row in longest], [references[row] for row in longest], [tags[row] for row in longest]
        with learner.averaged() as model:
            validate(model, corpus.take(heaviest), text, prepared.tokenizers, short, World())


# --- A checkpoint ------------------------------------------------------------------------------------------------


def _rehearse_checkpoint(learner: Learner, progress: Progress, writer: CheckpointWriter) -> float:
    # A name that no run goes on from, and the next one clears away.
    path = writer.folder / "checkpoints" / ".rehearsal"
    start = time.perf_counter()
    writer.save(learner, progress, path.name)
    load_checkpoint(path, resume=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(path)
    return seconds


def _disk(config: Config, progress: Progress, checkpoint: int) -> tuple[int, int]:
    """Bytes that the checkpoints to come need, and bytes free; raises RehearsalError when those are fewer."""
    train, folder = config.train, config.train.dir
    to_come = math.ceil((train.updates - progress.update) / train.checkpoint_every)
    for_good = train.updates // train.keep_every if train.keep_every else 0
    # Beside those kept: the best, the one being written, and the average, which has no optimiser.
    most = min(to_come, train.keep + 2 + for_good) + 1
    there = len(list_checkpoints(folder))
    needed = max(1, most - min(there, train.keep + 1)) * checkpoint
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise RehearsalError(
            f"{folder}: its checkpoints will need {size(needed)}, but {size(free)} are free: "
            "make room, lower train.keep, or set train.dir to another disk"
        )
    return needed, free


def _checkpoint_bytes(learner: Learner, prepared: Prepared) -> int:
    tensors = [tensor for part in learner.state() for tensor in part.values()]
    tokenizers = sum(map(len, prepared.tokenizers.files.values()))
    return sum(tensor.nbytes for tensor in tensors) + tokenizers + 20_000  # and small files


# --- For people --------------------------------------------------------------------------------------------------


def size(count: int) -> str:
    """Bytes as people say them: 512 bytes, 2.6 MB, 35 MB, 1.2 GB."""
    if count >= 10**9:
        return f"{count / 10**9:,.1f} GB"
    if count >= 10**6:
        return f"{count / 10**6:.{int(count < 10**7)}f} MB"
    return f"{count:,} bytes"
