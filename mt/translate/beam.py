"""Beam search (section 6.1), and diverse beam search (Vijayakumar et al., 2016): several beams kept apart.

Shapes as in search.py; W places of a beam, C candidates of each hypothesis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Self

import torch
from torch import Tensor

from mt.translate.search import Bounds, DecodingModel, Hypothesis, exact_type, search

# What a log-probability is divided by to give its score: a function of the length in pieces, EOS counted.
Penalty = Callable[[float], float]


def gnmt_penalty(alpha: float) -> Penalty:
    """((5 + |Y|) / 6) ** alpha (Wu et al., 2016, equation 14, which section 6.1 cites)."""
    return lambda length: ((5 + length) / 6) ** alpha


def length_penalty(alpha: float) -> Penalty:
    """|Y| ** alpha: at 1, the score is the mean log-probability of a piece."""
    return lambda length: length**alpha


def penalty_of(kind: str, alpha: float) -> Penalty:
    """The penalty of that name: gnmt, length or none."""
    if kind == "none":
        return gnmt_penalty(0)
    return gnmt_penalty(alpha) if kind == "gnmt" else length_penalty(alpha)


@dataclass(frozen=True)
class BeamSearch:
    """How to search."""

    width: int
    penalty: Penalty
    count: int = 1  # outputs wanted for each sentence
    groups: int = 1  # the beam is cut into so many groups of equal width
    diversity: float = 0.0  # the cost of a piece for each hypothesis of an earlier group that has just taken it


@dataclass(frozen=True)
class Beam:
    """W places for each sentence, each taken by a live or by an ended hypothesis."""

    live_ids_BWT: Tensor  # starts with BOS
    live_logp_BW: Tensor  # float64; -inf where the place is empty
    ended_ids_BWT: Tensor  # best first; padded with EOS to the length of the live ones
    ended_logp_BW: Tensor
    ended_score_BW: Tensor  # -inf where the place is empty

    def select(self, rows: Tensor) -> "Beam":
        return Beam(*(value.index_select(0, rows) for value in vars(self).values()))


@dataclass(frozen=True)
class Beams:
    """The search state: one beam a group, whose places stand side by side."""

    groups: tuple[Beam, ...]
    origin_BW: Tensor
    finished_B: Tensor

    def last_pieces(self) -> Tensor:
        return torch.cat([beam.live_ids_BWT[:, :, -1] for beam in self.groups], dim=1)

    def origins(self) -> Tensor:
        return self.origin_BW

    def finished(self) -> Tensor:
        return self.finished_B

    def select(self, rows: Tensor) -> Self:
        groups = tuple(beam.select(rows) for beam in self.groups)
        return type(self)(groups, self.origin_BW[rows], self.finished_B[rows])

    def hypotheses(self, eos: int) -> list[list[Hypothesis]]:
        by_group = [_ended(beam, eos) for beam in self.groups]
        return [_best_first(chain.from_iterable(of_sentence)) for of_sentence in zip(*by_group, strict=True)]


def _ended(beam: Beam, eos: int) -> list[list[Hypothesis]]:
    values = (beam.ended_ids_BWT.tolist(), beam.ended_logp_BW.tolist(), beam.ended_score_BW.tolist())
    return [
        [
            Hypothesis(ids[1 : ids.index(eos, 1)], logp, score)
            for ids, logp, score in zip(ids_WT, logp_W, score_W, strict=True)
            if score > float("-inf")
        ]
        for ids_WT, logp_W, score_W in zip(*values, strict=True)
    ]


def _best_first(hypotheses: chain[Hypothesis]) -> list[Hypothesis]:
    """Each output once, as two groups may find the same."""
    distinct: dict[tuple[int, ...], Hypothesis] = {}
    for hypothesis in sorted(hypotheses, key=lambda hypothesis: -hypothesis.score):
        distinct.setdefault(tuple(hypothesis.ids), hypothesis)
    return list(distinct.values())


@torch.inference_mode()
def beam_search(model: DecodingModel, bounds: Bounds, how: BeamSearch) -> list[list[Hypothesis]]:
    """The best outputs of each sentence, best first, each once (section 6.1).

    A hypothesis that ends keeps its place, so the beam of live ones narrows. The search for a sentence stops when all
    places have ended, or when no live hypothesis can still overtake the worst of the wanted ones: a log-probability
    only falls, and is divided by at most the penalty of the longest output.
    Diversity decides which hypotheses go on, but is no part of their scores.
    """
    device, width = bounds.device, how.width // how.groups
    penalties = [how.penalty(length) for length in bounds.longest]
    longest_penalty_B = torch.tensor(penalties, dtype=exact_type(device), device=device)
    wanted = min(how.count, width)

    def extend(state: Beams, logp_BWV: Tensor, sentences: Tensor) -> Beams:
        penalty = how.penalty(state.groups[0].live_ids_BWT.size(2))
        cost_BV = None
        groups, origins = [], []
        for group, beam in enumerate(state.groups):
            group_logp_BWV = logp_BWV[:, group * width : (group + 1) * width]
            found = candidates(group_logp_BWV, width, cost_BV)
            beam, origin_BW = extend_beam(beam, found, bounds.eos, penalty)
            groups.append(beam)
            origins.append(origin_BW + group * width)
            if how.groups > 1:
                cost_BV = torch.zeros_like(logp_BWV[:, 0]) if cost_BV is None else cost_BV
                chosen_BW, is_live_BW = beam.live_ids_BWT[:, :, -1], beam.live_logp_BW.isfinite()
                cost_BV = cost_BV.scatter_add(1, chosen_BW, how.diversity * is_live_BW.to(cost_BV))
        best_live_GB = torch.stack([beam.live_logp_BW.amax(dim=1) for beam in groups])
        worst_GB = torch.stack([beam.ended_score_BW[:, wanted - 1] for beam in groups])
        finished_B = (best_live_GB / longest_penalty_B[sentences] <= worst_GB).all(dim=0)
        return Beams(tuple(groups), torch.cat(origins, dim=1), finished_B)

    outputs = search(model, bounds, start_beams(bounds, width, how.groups), extend)
    return [hypotheses[: how.count] for hypotheses in outputs]


def start_beams(bounds: Bounds, width: int, groups: int) -> Beams:
    """One live hypothesis in each beam, BOS; the other places are empty."""
    device, B = bounds.device, len(bounds.longest)
    empty_BW = torch.full((B, width), float("-inf"), dtype=exact_type(device), device=device)
    live_logp_BW = empty_BW.clone()
    live_logp_BW[:, 0] = 0
    ids_BWT = torch.full((B, width, 1), bounds.bos, device=device)
    beam = Beam(ids_BWT, live_logp_BW, ids_BWT, empty_BW, empty_BW)
    origin_BW = torch.arange(width * groups, device=device).expand(B, -1)
    return Beams((beam,) * groups, origin_BW, torch.zeros(B, dtype=torch.bool, device=device))


@dataclass(frozen=True)
class Candidates:
    """Pieces that may extend each hypothesis."""

    logp_BWC: Tensor
    piece_BWC: Tensor
    cost_BWC: Tensor | None  # matters for the choice only


def candidates(logp_BWV: Tensor, count: int, cost_BV: Tensor | None) -> Candidates:
    """The `count` pieces of each hypothesis that are likeliest after their cost."""
    if cost_BV is None:
        return Candidates(*likeliest(logp_BWV, count), None)
    _, piece_BWC = likeliest(logp_BWV - cost_BV[:, None], count)
    cost_BWC = cost_BV[:, None].expand_as(logp_BWV).gather(2, piece_BWC)
    return Candidates(logp_BWV.gather(2, piece_BWC), piece_BWC, cost_BWC)


def likeliest(logp_BWV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest next pieces of each hypothesis: their log-probabilities and ids, both [B, W, C].

    The vocabulary is folded into columns of 16, and the likeliest pieces are looked for in the columns of the highest
    maxima. torch's topk over the whole vocabulary takes several times as long.
    """
    B, W, V = logp_BWV.shape
    columns = V // 16
    if columns < count:
        top_BWC, piece_BWC = logp_BWV.topk(min(count, V), dim=-1)
        return top_BWC, piece_BWC
    folded_BWRC = logp_BWV[..., : 16 * columns].view(B, W, 16, columns)
    best_BWC = folded_BWRC.amax(dim=2).topk(count, dim=-1).indices
    folds_16 = torch.arange(0, 16 * columns, columns, device=logp_BWV.device)
    candidates_BWC = (best_BWC[..., None] + folds_16).flatten(2)
    if V % 16:
        rest_BWC = torch.arange(16 * columns, V, device=logp_BWV.device).expand(B, W, -1)
        candidates_BWC = torch.cat([candidates_BWC, rest_BWC], dim=2)
    top_BWC, place_BWC = logp_BWV.gather(2, candidates_BWC).topk(count, dim=-1)
    return top_BWC, candidates_BWC.gather(2, place_BWC)


def extend_beam(beam: Beam, found: Candidates, eos: int, penalty: float) -> tuple[Beam, Tensor]:
    """The beam with its best candidates, and the place that each hypothesis came from, origin_BW.

    penalty: of an output that ends with this piece.
    """
    B, W, C = found.logp_BWC.shape
    total_BN = (beam.live_logp_BW[:, :, None] + found.logp_BWC).view(B, W * C)
    value_BN = total_BN if found.cost_BWC is None else total_BN - found.cost_BWC.view(B, W * C)
    choice_BW = value_BN.topk(W, dim=1).indices
    logp_BW, origin_BW = total_BN.gather(1, choice_BW), choice_BW // C
    piece_BW = found.piece_BWC.flatten(1).gather(1, choice_BW)
    ended_count_B = beam.ended_score_BW.isfinite().sum(dim=1)
    taken_BW = torch.arange(W, device=logp_BW.device) >= (W - ended_count_B)[:, None]
    logp_BW = logp_BW.masked_fill(taken_BW, float("-inf"))

    ids_BWT = torch.cat([_rows(beam.live_ids_BWT, origin_BW), piece_BW[:, :, None]], dim=2)
    ends_BW = piece_BW == eos
    ending_logp_BW = logp_BW.masked_fill(~ends_BW, float("-inf"))
    ended_logp_B2W = torch.cat([beam.ended_logp_BW, ending_logp_BW], dim=1)
    ended_score_B2W = torch.cat([beam.ended_score_BW, ending_logp_BW / penalty], dim=1)
    padding_BW1 = torch.full_like(piece_BW[:, :, None], eos)
    ended_ids_B2WT = torch.cat([torch.cat([beam.ended_ids_BWT, padding_BW1], dim=2), ids_BWT], dim=1)
    score_BW, best_BW = ended_score_B2W.sort(dim=1, descending=True, stable=True)
    best_BW = best_BW[:, :W]
    ended = (_rows(ended_ids_B2WT, best_BW), ended_logp_B2W.gather(1, best_BW), score_BW[:, :W])
    return Beam(ids_BWT, logp_BW.masked_fill(ends_BW, float("-inf")), *ended), origin_BW


def _rows(ids_BWT: Tensor, choice_BW: Tensor) -> Tensor:
    return ids_BWT.gather(1, choice_BW[:, :, None].expand(-1, -1, ids_BWT.size(2)))
