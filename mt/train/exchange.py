"""The exchange of gradients between processes, most of it while the last backward pass still runs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mt.distributed import World

PART_BYTES = 25_000_000  # enough to keep a link busy, and few enough that most parts leave before the pass ends
ALIGNMENT = 16  # numbers; where a parameter begins in a buffer, as kernels read many at once


@dataclass
class _Part:
    """Neighbours in the buffer, which are sent together."""

    parameters: list[nn.Parameter]
    flat: Tensor  # their gradients, one after the other
    missing: int = 0  # gradients that the last pass has yet to finish

    def cut(self, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with its place in a buffer of this part."""
        start = 0
        for parameter in self.parameters:
            yield parameter, flat[start : start + parameter.numel()].view_as(parameter)
            start += _aligned(parameter.numel())


class GradientExchange:
    """The gradients of one process, and their sums over all: one buffer, of which each gradient is a view.

    Its parts are sent in a fixed order, each as soon as the last backward pass has finished all that is in it and the
    parts before have been sent. DistributedDataParallel does this too, but wants the same number of passes in each
    process, and cannot take a pass again that ran out of memory.
    In a world of one there is no buffer: autograd's own gradients cost neither zeroing nor adding.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world: World) -> None:
        """parameters: in about the order in which a backward pass finishes their gradients."""
        self.world = world
        self.parameters = list(parameters)
        self._parts = [] if world.size == 1 else _parts_of(self.parameters)
        self._places = [place for part in self._parts for place in part.cut(part.flat)]
        self._sending = False
        self._waits: list[Callable[[], None]] = []  # for each part that was sent
        for part in self._parts:
            for parameter in part.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._note, part))  # type: ignore[no-untyped-call]

    def zero(self) -> None:
        """Forget all gradients, before the first pass of an update."""
        if not self._parts:
            for parameter in self.parameters:
                parameter.grad = None
        for parameter, gradient in self._places:
            parameter.grad = gradient
        for part in self._parts:
            part.flat.zero_()
            part.missing = len(part.parameters)
        self._sending, self._waits = False, []

    def send_while_passing(self) -> None:
        """The pass to come is the last of the update: send each part as soon as that has finished it."""
        self._sending = True

    def send_rest(self) -> None:
        """Send all that was not sent, whatever is in it: every process sends every part, in the same order."""
        for _ in self._parts[len(self._waits) :]:
            self._send_next()

    def wait(self) -> None:
        """Return when the gradients are the sums over all processes; a GPU waits, and not its process."""
        for wait in self._waits:
            wait()

    def _note(self, part: _Part, _: Tensor) -> None:
        if self._sending:
            part.missing -= 1
            while len(self._waits) < len(self._parts) and not self._parts[len(self._waits)].missing:
                self._send_next()

    def _send_next(self) -> None:
        self._waits.append(self.world.start_sum(self._parts[len(self._waits)].flat))


def _parts_of(parameters: list[nn.Parameter]) -> list[_Part]:
    """Parts of at least PART_BYTES, the last one aside, all in one buffer."""
    groups: list[list[nn.Parameter]] = [[]]
    for parameter in parameters:
        if sum(each.nbytes for each in groups[-1]) >= PART_BYTES:
            groups.append([])
        groups[-1].append(parameter)
    sizes = [sum(_aligned(parameter.numel()) for parameter in group) for group in groups]
    like = parameters[0]
    buffer = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
    return [_Part(group, flat) for group, flat in zip(groups, torch.split(buffer, sizes), strict=True)]


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
