"""Before the first update: everything a run will do, once and at its largest, so that what fails, fails at once."""

import math
import resource
import shutil
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from mt.checkpoint import list_checkpoints, load_checkpoint
from mt.console import Console, duration
from mt.data.batches import Lengths, Rows, plan_batches
from mt.errors import MtError
from mt.train.batch import lengths_of
from mt.train.folder import writing
from mt.train.run import Run, save_run
from mt.train.update import Pieces, accumulate_own, cut, sum_over_world
from mt.train.validation import validate

SENTENCES = 2  # translated in the rehearsal: the longest of the validation set


class RehearsalError(MtError):
    """The run would fail later on."""


@dataclass(frozen=True)
class Plan:
    """What a run is going to do and to need."""

    parameters: int
    updates: int
    updates_an_epoch: int
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
                f"epochs        {self.updates / self.updates_an_epoch:.1f} of {self.updates_an_epoch:,} updates",
                f"processes     {self.processes}",
                f"memory        {size(self.memory)} ({self.memory_of})",
                f"checkpoint    {size(self.checkpoint)}; the rehearsal's took {self.checkpoint_seconds:.1f} s",
                f"disk          {size(self.disk)} to be written, {size(self.free)} free",
                f"time          about {duration(self.updates * self.seconds_an_update)}, validations not counted",
            )
        )


def rehearse(run: Run, console: Console) -> Plan:
    """The heaviest micro-batch, a validation, a checkpoint written and read, and the disk: each once.

    Leaves weights, optimiser and random states as they are. All processes rehearse together.
    Raises RehearsalError when the disk is too small, OutOfMemoryError, WriteError.
    """
    plan = plan_batches(run.lengths_N2, run.config.batch.tokens, run.config.seed, run.cursor.epoch)
    piece = _heaviest_piece(run, plan)
    seconds_a_token = _rehearse_update(run, piece)
    checkpoint_seconds, disk, free = 0.0, 0, 0
    if run.world.is_main:
        _rehearse_validation(run)
        disk, free = _disk(run)
        checkpoint_seconds = _rehearse_checkpoint(run)
    run.world.wait()
    tokens = int(run.lengths_N2[:, 1].sum()) / len(plan)
    memory, memory_of = _memory(run)
    result = Plan(
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        updates=_updates(run, len(plan)),
        updates_an_epoch=len(plan),
        tokens_an_update=tokens,
        processes=run.world.size,
        seconds_an_update=tokens * seconds_a_token / run.world.size,
        memory=memory,
        memory_of=memory_of,
        checkpoint=_checkpoint_bytes(run),
        checkpoint_seconds=checkpoint_seconds,
        disk=disk,
        free=free,
    )
    longest_2 = run.lengths_N2[piece[0][1]].max(axis=0)
    console.say(
        f"rehearsed: {len(piece[0][1]):,} pairs of {longest_2[0]} + {longest_2[1]} pieces, a validation, a checkpoint "
        f"({size(result.checkpoint)}; {size(free)} free); {size(memory)} of memory"
    )
    return result


def _updates(run: Run, updates_an_epoch: int) -> int:
    """The updates still to be taken."""
    limits = run.config.train
    last = min(limits.updates, limits.epochs * updates_an_epoch) if limits.epochs else limits.updates
    return max(0, last - run.update)


# --- An update ---------------------------------------------------------------------------------------------------


def _heaviest_piece(run: Run, plan: list[Rows]) -> Pieces:
    """The micro-batch with most positions, padding counted."""
    heaviest = max(plan, key=lambda rows: _positions(rows, run.lengths_N2))
    return [max(cut(run, heaviest), key=lambda piece: _positions(piece[1], run.lengths_N2))]


def _positions(rows: Rows, lengths_N2: Lengths) -> int:
    return len(rows) * int(lengths_N2[rows].max(axis=0).sum())


def _rehearse_update(run: Run, piece: Pieces) -> float:
    """Forward and backward, with room taken for Adam's moments; returns seconds per target token."""
    cuda = run.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(run.device)
    moments = [] if run.adam.state else [torch.empty_like(p) for p in run.model.parameters() for _ in range(2)]
    tokens = int(run.lengths_N2[piece[0][1], 1].sum())
    with torch.random.fork_rng([run.device] if cuda else []):
        if cuda or run.config.train.compile:
            accumulate_own(run, piece, tokens)  # the first pass is spent on loading kernels, or on compiling them
        start = time.perf_counter()
        loss = accumulate_own(run, piece, tokens)
        loss.item()
        seconds = time.perf_counter() - start
    sum_over_world(run, loss)
    run.adam.zero_grad()
    del moments
    return seconds / tokens


def _memory(run: Run) -> tuple[int, str]:
    if run.device.type == "cuda":
        return torch.cuda.max_memory_allocated(run.device), "on each GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of each process"


# --- A validation ------------------------------------------------------------------------------------------------


def _rehearse_validation(run: Run) -> None:
    prepared, config = run.prepared, run.config
    lengths_N2 = lengths_of(prepared.valid)
    max_tokens = config.batch.micro_tokens
    plan = plan_batches(lengths_N2, max(max_tokens, int(lengths_N2.max())), seed=0, epoch=0)
    heaviest = max(plan, key=lambda rows: _positions(rows, lengths_N2))
    longest = np.argsort(lengths_N2[:, 0], kind="stable")[-SENTENCES:]
    sources, references = prepared.text("valid")
    text = [sources[row] for row in longest], [references[row] for row in longest]
    # Untrained, it does not end by itself: a piece more than the source is enough to see that it works.
    short = config.model_copy(update={"decode": config.decode.model_copy(update={"max_extra": 1})})
    with run.averaged():
        validate(run.model, prepared.valid.take(heaviest), text, prepared.tokenizer, short)


# --- A checkpoint ------------------------------------------------------------------------------------------------


def _rehearse_checkpoint(run: Run) -> float:
    path = run.folder / "checkpoints" / ".rehearsal"  # a name that no run goes on from, and the next one clears away
    start = time.perf_counter()
    save_run(run, path.name)
    load_checkpoint(path, resume=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(path)
    return seconds


def _disk(run: Run) -> tuple[int, int]:
    """Bytes that the checkpoints to come need, and bytes free; raises RehearsalError when those are fewer."""
    train, one = run.config.train, _checkpoint_bytes(run)
    to_come = math.ceil((train.updates - run.update) / train.checkpoint_every)
    for_good = train.updates // train.keep_every if train.keep_every else 0
    # Beside those kept: the best, the one being written, and the average, which has no optimiser.
    most = min(to_come, train.keep + 2 + for_good) + 1
    there = len(list_checkpoints(run.folder))
    needed = max(1, most - min(there, train.keep + 1)) * one
    with writing(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run.folder).free
    if free < needed:
        raise RehearsalError(
            f"{run.folder}: its checkpoints will need {size(needed)}, but {size(free)} are free: "
            "make room, lower train.keep, or set train.dir to another disk"
        )
    return needed, free


def _checkpoint_bytes(run: Run) -> int:
    copies = 4 if run.config.train.ema else 3  # weights and two moments, and the average of the weights
    tensors = sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters())
    return copies * tensors + len(run.prepared.tokenizer.model_bytes) + 20_000  # and the small files


# --- For people --------------------------------------------------------------------------------------------------


def size(count: int) -> str:
    """Bytes as people say them: 512 bytes, 35 MB, 1.2 GB."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.0f} MB" if count >= 10**6 else f"{count:,} bytes"
