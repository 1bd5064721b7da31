"""The exchange between processes: of gradients, most of it while the last backward pass still runs, and of shares."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mt.distributed import World

PART_BYTES = 25_000_000  # enough to keep a link busy, and few enough that most parts leave before the pass ends
ALIGNMENT = 16  # numbers; where a parameter begins in a buffer, as kernels read many at once


@dataclass
class Part:
    """Neighbours in the buffer of gradients, which are sent together."""

    parameters: list[nn.Parameter]
    gradients: Tensor  # one after the other
    missing: int = 0  # gradients that the last pass has yet to finish

    def cut(self, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with its place in a buffer of this part."""
        start = 0
        for parameter in self.parameters:
            yield parameter, flat[start : start + parameter.numel()].view_as(parameter)
            start += _aligned(parameter.numel(), ALIGNMENT)


class GradientExchange:
    """The gradients of one process, and their sums over all: one buffer, of which each gradient is a view.

    Its parts are sent in a fixed order, each as soon as the last backward pass has finished all that is in it and the
    parts before have been sent. DistributedDataParallel does this too, but wants the same number of passes in each
    process, and cannot take a pass again that ran out of memory.
    In a world of one there is no buffer: autograd's own gradients cost neither zeroing nor adding.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world: World, shard: bool = False) -> None:
        """parameters: in about the order in which a backward pass finishes their gradients. shard: see Shares."""
        self.world = world
        self.parameters = list(parameters)
        self._parts = [] if world.size == 1 else parts_of(self.parameters, world.size)
        self.shares = Shares(self._parts, world) if shard and self._parts else None
        self._places = [place for part in self._parts for place in part.cut(part.gradients)]
        if self.shares is not None:
            self._places += self.shares.gradients()
        self._sending = False
        self._waits: list[Callable[[], None]] = []  # for each part that was sent
        for part in self._parts:
            for parameter in part.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._note, part))  # type: ignore[no-untyped-call]

    @property
    def stepped(self) -> Sequence[nn.Parameter]:
        """What the optimiser of this process steps on."""
        return self.parameters if self.shares is None else list(self.shares.parameters)

    def zero(self) -> None:
        """Forget all gradients, before the first pass of an update."""
        if not self._parts:
            for parameter in self.parameters:
                parameter.grad = None
        for parameter, gradient in self._places:
            parameter.grad = gradient
        for part in self._parts:
            part.gradients.zero_()
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

    def norm(self) -> Tensor:
        """The norm of all gradients together, once they are summed."""
        gradients = [each.grad for each in self.stepped if each.grad is not None]
        if self.shares is None:
            return torch.nn.utils.get_total_norm(gradients)
        # In pieces, as a CPU loses a thousandth of the norm of ten million numbers at once.
        pieces = [piece for each in gradients for piece in torch.split(each, 2**16)]
        square = torch.nn.utils.get_total_norm(pieces).square()
        self.world.sum(square)
        return square.sqrt()

    def _note(self, part: Part, _: Tensor) -> None:
        if self._sending:
            part.missing -= 1
            while len(self._waits) < len(self._parts) and not self._parts[len(self._waits)].missing:
                self._send_next()

    def _send_next(self) -> None:
        start = self.world.start_sum if self.shares is None else self.world.start_sum_of_shares
        self._waits.append(start(self._parts[len(self._waits)].gradients))


class Shares:
    """One process's share of each part of the weights: it steps on no other, and keeps no other's optimiser state.

    That is ZeRO's first stage (Rajbhandari et al., 2020). Adam treats each weight by itself, so a share may begin and
    end within a matrix.
    """

    def __init__(self, parts: list[Part], world: World) -> None:
        self.world = world
        self._parts = parts
        self._weights = [_moved_together(part) for part in parts]
        self.parameters = nn.ParameterList([nn.Parameter(world.share_of(weights)) for weights in self._weights])

    def gradients(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Each share with its place in the buffer of gradients."""
        return [
            (share, self.world.share_of(part.gradients))
            for share, part in zip(self.parameters, self._parts, strict=True)
        ]

    def join(self) -> None:
        """Give all processes the weights that each has stepped on."""
        for wait in [self.world.start_join(weights) for weights in self._weights]:
            wait()

    def state(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
        """What `optimizer_state` gives, put together from all shares; all processes call it together."""
        found: dict[nn.Parameter, dict[str, Tensor]] = {parameter: {} for parameter in model.parameters()}
        for part, key, value in self._values(optimizer):
            places: Iterable[tuple[nn.Parameter, Tensor]] = ((each, value) for each in part.parameters)
            if value.dim():
                whole = torch.zeros_like(part.gradients)
                self.world.share_of(whole).copy_(value)
                self.world.start_join(whole)()
                places = part.cut(whole)
            for parameter, place in places:
                found[parameter][key] = place
        named = model.named_parameters()
        return {f"{name}.{key}": value for name, each in named for key, value in found[each].items()}

    def load(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, stored: Mapping[str, Tensor] | None = None
    ) -> None:
        """Give each process its shares of what `state` gave, which the main one has; all call it together."""
        names = {parameter: name for name, parameter in model.named_parameters()}
        for part, key, value in self._values(optimizer):
            whole = torch.zeros_like(part.gradients) if value.dim() else value
            for parameter, place in part.cut(whole) if value.dim() else [(part.parameters[0], value)]:
                if stored is not None:
                    place.copy_(stored[f"{names[parameter]}.{key}"])
            self.world.broadcast_tensors([whole])
            if value.dim():
                value.copy_(self.world.share_of(whole))

    def _values(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[Part, str, Tensor]]:
        """The state of each share: for each of its weights a number, or one for all, as Adam's step is."""
        for part, share in zip(self._parts, self.parameters, strict=True):
            for key, value in optimizer.state[share].items():
                yield part, key, value


def parts_of(parameters: list[nn.Parameter], processes: int) -> list[Part]:
    """Parts of about PART_BYTES or more, all in one buffer; each can be cut into equal shares.

    A parameter that large has a part of its own, as the gradient of an embedding is finished last.
    """
    groups: list[list[nn.Parameter]] = [[]]
    for parameter in parameters:
        if groups[-1] and max(parameter.nbytes, sum(each.nbytes for each in groups[-1])) >= PART_BYTES:
            groups.append([])
        groups[-1].append(parameter)
    sizes = [sum(_aligned(parameter.numel(), ALIGNMENT) for parameter in group) for group in groups]
    sizes = [_aligned(size, ALIGNMENT * processes) for size in sizes]
    like = parameters[0]
    buffer = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
    return [Part(group, flat) for group, flat in zip(groups, torch.split(buffer, sizes), strict=True)]


def _moved_together(part: Part) -> Tensor:
    """The weights of a part as views of one buffer, which is returned."""
    weights = torch.zeros_like(part.gradients)
    for parameter, place in part.cut(weights):
        place.copy_(parameter.detach())
        parameter.data = place
    return weights


def _aligned(count: int, unit: int) -> int:
    return -(-count // unit) * unit
