"""Several processes as one run: who they are, what they exchange, and how they are started.

A run that was started without torchrun, or `--gpus`, is a world of one, in which all of this costs nothing.
"""

import json
import logging
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mt.errors import Interrupted, MtError, UsageError

# A process that does not answer for this long ends the run; one that died ends it at once.
SILENCE = timedelta(minutes=10)
# The others wait longer for the main process, which may be validating or preparing data.
PATIENCE = timedelta(hours=12)
CLOSING_SECONDS = 60  # in which the others save and end after one has died

# Torch 2.13 has other names for these.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

T = TypeVar("T")


class LostContactError(MtError):
    """Another process of the run died or fell silent."""


class WorkerError(MtError):
    """A process of the run ended without reporting why."""


@dataclass(frozen=True)
class World:
    """The processes that train together, seen from one of them.

    Collective are `sum`, `max`, `any`, `gather`, `broadcast`, `broadcast_tensors`, `barrier`, `main_first` and all that
    starts something: every process calls them, in the same order. Each raises LostContactError when another process is
    gone or silent.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine
    control: Any = None  # the process group for small values: on the CPU, and with a long timeout

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def owns(self, number: int) -> bool:
        """Whether this process does the item of this number, where processes take items in turn."""
        return number % self.size == self.rank

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others, so that an error is reported once."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            self.start_sum(tensor)()

    def start_sum(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace a tensor by its sum over all processes; what is returned waits until it is there."""
        with _contact():
            return partial(_wait, dist.all_reduce(tensor, async_op=True))

    def share_of(self, tensor: Tensor) -> Tensor:
        """This process's part of a flat tensor, of as many equal ones as there are processes."""
        return tensor.chunk(self.size)[self.rank]

    def start_sum_of_shares(self, tensor: Tensor) -> Callable[[], None]:
        """As `start_sum`, but the sum is only in this process's share; in the rest is nothing of use.

        Gloo, between CPUs, sums all of a copy, so this saves nothing there.
        """
        with _contact():
            return partial(_wait, _reduce_scatter(self.share_of(tensor), tensor, async_op=True))

    def start_join(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to fill a flat tensor with the processes' shares of it; what is returned waits until they are there."""
        with _contact():
            return partial(_wait, _all_gather(tensor, self.share_of(tensor), async_op=True))

    def max(self, number: int) -> int:
        """The largest of the processes' numbers; all must call within SILENCE."""
        return self._max(number, SILENCE)

    def any(self, condition: bool) -> bool:
        """Whether it holds in any process; as `max`."""
        return bool(self.max(int(condition)))

    def _max(self, number: int, timeout: timedelta) -> int:
        if self.size == 1:
            return number
        message = torch.tensor([number])
        with _contact():
            dist.all_reduce(message, dist.ReduceOp.MAX, group=self.control, async_op=True).wait(timeout)
        return int(message)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in every one of them; they must be valid JSON."""
        if self.size == 1:
            return [value]
        data = json.dumps(value).encode()
        data = data.ljust(self._max(len(data), PATIENCE))
        message = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        found = [torch.empty_like(message) for _ in range(self.size)]
        with _contact():
            dist.all_gather(found, message, group=self.control)
        return [json.loads(each.numpy().tobytes()) for each in found]

    def broadcast(self, value: T) -> T:
        """The main process's value, which must be valid JSON."""
        if self.size == 1:
            return value
        data = json.dumps(value).encode() if self.is_main else b""
        message = torch.zeros(self._max(len(data), PATIENCE), dtype=torch.uint8)
        if self.is_main:
            message.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        with _contact():
            dist.broadcast(message, src=0, group=self.control)
        answer: T = json.loads(message.numpy().tobytes())
        return answer

    def broadcast_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Fill each tensor with the main process's values."""
        if self.size > 1:
            with _contact():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Return when all processes have called it."""
        self._max(0, PATIENCE)


ALONE = World()


def is_elastic() -> bool:
    """Whether torchrun started this process, which starts it again when a machine is lost or added."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "MT_LAUNCHER" not in os.environ


def _wait(work: Any) -> None:
    with _contact():
        work.wait()


@contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^(\[.*?\] *)+", "", str(error)).split("\n")[0].split(". ")[0]
        raise LostContactError(f"another process of the run is gone or silent ({reason[:120]})") from None


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment variables describe: NCCL between GPUs, gloo between CPUs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.device("cuda", local_rank) if device.type == "cuda" else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    with _contact():
        dist.init_process_group("gloo" if gpu is None else "nccl", timeout=SILENCE, device_id=gpu)
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield World(rank, size, local_rank, control)
    except BaseException:
        if gpu is not None and dist.group.WORLD is not None:
            dist.group.WORLD.abort()  # the GPU would wait for what a lost process never sends
        raise
    dist.destroy_process_group()  # only after a good end: with a lost process it would wait


def launch(processes: int, arguments: Sequence[str], device: str) -> None:
    """Run `mt ARGUMENTS` as that many processes of one world on this machine; returns when all have ended well.

    processes: 0 means one for each GPU; without any, one for each core.
    Raises WorkerError naming a process that died, SystemExit with the status of a process that has reported its error,
    Interrupted after Ctrl-C or SIGTERM.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if "RANK" in os.environ:
        raise UsageError("--gpus starts processes itself: leave it out under torchrun")
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    processes = processes or gpus or cores()
    if gpus and processes > gpus:
        raise UsageError(f"--gpus {processes}, but this machine has {gpus}")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(CLOSING_SECONDS))
    os.environ["MT_LAUNCHER"] = str(os.getpid())  # whose death ends the processes
    logging.disable(logging.ERROR)  # the launcher's own messages, which are replaced by those below
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "mt", *arguments)
    except ChildFailedError as failed:
        # The first process reported may only have lost contact, or been ended because of another.
        rank, failure = min(failed.failures.items(), key=lambda item: (_blame(item[1].exitcode), item[1].timestamp))
        if failure.exitcode > 0:
            raise SystemExit(failure.exitcode) from None
        raise WorkerError(
            f"process {rank} of {processes} was ended by {signal.Signals(-failure.exitcode).name}; "
            "the same command goes on from what is saved"
        ) from None
    except SignalException as stop:
        heard = "Ctrl-C" if stop.sigval == signal.SIGINT else signal.Signals(stop.sigval).name
        raise Interrupted(f"stopped by {heard}") from None


def _blame(exitcode: int) -> int:
    """0: the process was killed; 1: it failed, or lost contact; 2: the launcher ended it because of another."""
    return 1 if exitcode > 0 else 2 if exitcode == -signal.SIGTERM else 0


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
