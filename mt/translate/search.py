"""The loop that every kind of search shares, and greedy search (section 6.1).

It knows no model, only the three methods of DecodingModel.

Shapes: B sentences still searched, W hypotheses of each, T pieces so far with BOS, V vocabulary, P prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

CPU = torch.device("cpu")


class DecodingModel(Protocol):
    """A model in the middle of decoding W hypotheses for each of B sentences."""

    def step(self, ids_BW: Tensor) -> Tensor:
        """The log-probabilities of the pieces that may follow, logp_BWV, once the last piece of each is `ids_BW`.

        The search may change them in place.
        """

    def reorder(self, origin_BW: Tensor) -> None:
        """Each hypothesis goes on from what hypothesis `origin_BW` of its sentence had seen."""

    def compact(self, finished_B: Tensor) -> Tensor | None:
        """Forget finished sentences when that pays; returns the rows that stay, in order, or None for all of them.

        Finished sentences may stay: nothing changes what was found for them.
        """


@dataclass(frozen=True)
class Hypothesis:
    """A finished output: its pieces without EOS, its log-probability (EOS counted) and its length-penalised score."""

    ids: list[int]
    log_probability: float
    score: float


@dataclass(frozen=True)
class Bounds:
    """Which outputs are possible at all. They take no part in the probabilities, which stay the model's."""

    bos: int
    eos: int
    longest: Sequence[int]  # pieces at most for each sentence, EOS counted: the last one can only be EOS
    shortest: int = 0  # pieces at least, EOS not counted
    prefix_BP: Tensor | None = None  # the pieces an output starts with; -1 after a shorter prefix
    device: torch.device = CPU  # that of the search
    never_BV: Tensor | None = None  # the pieces that an output cannot contain
    longest_B: Tensor = field(init=False)  # the same as `longest`, made now, as in a step a GPU would be waited for

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest_B", torch.tensor(self.longest, dtype=torch.int64, device=self.device))

    @cached_property
    def _first_end(self) -> int:
        """The first length at which an output has to end: few searches come that far, so no step before it looks."""
        return min(self.longest)

    def apply(self, logp_BWV: Tensor, length: int, sentences: Tensor) -> Tensor:
        """Set each piece to minus infinity that cannot be piece number `length` of these sentences' outputs."""
        if length <= self.shortest:
            logp_BWV[..., self.eos].fill_(float("-inf"))
        if self.never_BV is not None:
            logp_BWV = logp_BWV.masked_fill(self.never_BV[sentences][:, None], float("-inf"))
        if self.prefix_BP is not None and length <= self.prefix_BP.size(1):
            logp_BWV = _only(logp_BWV, self.prefix_BP[sentences, length - 1])
        if length >= self._first_end:
            logp_BWV = _only(logp_BWV, torch.where(self.longest_B[sentences] <= length, self.eos, -1))
        return logp_BWV


def _only(logp_BWV: Tensor, piece_B: Tensor) -> Tensor:
    """Allow each sentence this piece only; -1 allows all."""
    if piece_B.device.type == "cpu" and bool((piece_B < 0).all()):
        return logp_BWV
    other_BV = piece_B[:, None] != torch.arange(logp_BWV.size(-1), device=piece_B.device)
    return logp_BWV.masked_fill((other_BV & (piece_B[:, None] >= 0))[:, None], float("-inf"))


class State(Protocol):
    """What a search has found so far: a value, whose tensors have a row for each sentence still searched."""

    def last_pieces(self) -> Tensor:
        """The last piece of each hypothesis, [B, W]."""

    def origins(self) -> Tensor | None:
        """Which hypothesis of the step before each one continues, [B, W]; None: each its own."""

    def finished(self) -> Tensor:
        """Whether further steps would change nothing for a sentence, [B]."""

    def select(self, rows: Tensor) -> Self:
        """The state of these rows."""

    def hypotheses(self, eos: int) -> list[list[Hypothesis]]:
        """What was found for each sentence, best first."""


S = TypeVar("S", bound=State)


def search(
    model: DecodingModel, bounds: Bounds, state: S, extend: Callable[[S, Tensor, Tensor], S]
) -> list[list[Hypothesis]]:
    """Extend every sentence's hypotheses by a piece a step until all are finished.

    extend: makes the next state from the state, the log-probabilities logp_BWV of the next pieces, and the numbers of
    the sentences still searched.
    """
    results: list[list[Hypothesis]] = [[] for _ in bounds.longest]
    sentences = torch.arange(len(results), device=bounds.device)
    length = 0
    while len(sentences):
        length += 1
        logp_BWV = bounds.apply(model.step(state.last_pieces()), length, sentences)
        state = extend(state, logp_BWV, sentences)
        if (origin_BW := state.origins()) is not None:
            model.reorder(origin_BW)
        staying = model.compact(state.finished())
        if staying is not None:
            leaving = torch.ones_like(sentences).index_fill(0, staying, 0).nonzero()[:, 0]
            found = state.select(leaving).hypotheses(bounds.eos)
            for sentence, hypotheses in zip(sentences[leaving].tolist(), found, strict=True):
                results[sentence] = hypotheses
            state, sentences = state.select(staying), sentences[staying]
    return results


@dataclass(frozen=True)
class Paths:
    """The state of greedy search and of sampling: hypotheses that do not compete, each extended until its EOS."""

    ids_BWT: Tensor  # starts with BOS; padded with EOS
    logp_BW: Tensor  # float64
    over_BW: Tensor

    def last_pieces(self) -> Tensor:
        return self.ids_BWT[:, :, -1]

    def origins(self) -> None:
        return None

    def finished(self) -> Tensor:
        return self.over_BW.all(dim=1)

    def append(self, piece_BW: Tensor, eos: int) -> Self:
        """The same with one more piece each."""
        ids_BWT = torch.cat([self.ids_BWT, piece_BW[:, :, None]], dim=2)
        return type(self)(ids_BWT, self.logp_BW, self.over_BW | (piece_BW == eos))

    def select(self, rows: Tensor) -> Self:
        return type(self)(*(value.index_select(0, rows) for value in vars(self).values()))

    def hypotheses(self, eos: int) -> list[list[Hypothesis]]:
        found = [
            [Hypothesis(ids[1 : ids.index(eos, 1)], logp, logp) for ids, logp in zip(ids_WT, logp_W, strict=True)]
            for ids_WT, logp_W in zip(self.ids_BWT.tolist(), self.logp_BW.tolist(), strict=True)
        ]
        return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in found]


def start_paths(bounds: Bounds, width: int) -> Paths:
    """BOS alone, `width` times for each sentence."""
    device, size = bounds.device, (len(bounds.longest), width)
    ids_BWT = torch.full((*size, 1), bounds.bos, device=device)
    logp_BW = torch.zeros(size, dtype=exact_type(device), device=device)
    return Paths(ids_BWT, logp_BW, torch.zeros(size, dtype=torch.bool, device=device))


def exact_type(device: torch.device) -> torch.dtype:
    """The type in which log-probabilities are summed: float64, except on Apple's GPUs, which lack it."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.inference_mode()
def greedy_search(model: DecodingModel, bounds: Bounds) -> list[list[int]]:
    """The output that takes the likeliest piece at each step: what beam search of width 1 finds, with less work.

    The model may give logits in place of log-probabilities, as only their order matters.
    """

    def extend(state: Paths, logits_BWV: Tensor, sentences: Tensor) -> Paths:
        return state.append(logits_BWV.argmax(dim=-1), bounds.eos)

    return [found[0].ids for found in search(model, bounds, start_paths(bounds, 1), extend)]
