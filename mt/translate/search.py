"""Greedy and beam search (section 6.1) over any autoregressive model: three verbs stand for it, none names it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mt.device import rounded_up

# What a log-probability is divided by to give its score: a function of the length in pieces, EOS counted.
Penalty = Callable[[Tensor], Tensor]


class Stepper(Protocol):
    """A model in the middle of decoding W hypotheses for each of B sentences."""

    def step(self, ids_BW: Tensor) -> Tensor:
        """Take the last piece of each hypothesis, give the log-probabilities of each next one: logp_BWV."""

    def reorder(self, origin_BW: Tensor) -> None:
        """Each hypothesis goes on from what place `origin_BW` of its sentence had seen."""

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences alone, in this order."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished output: its pieces without EOS, its log-probability (EOS counted) and its length-penalised score."""

    ids: list[int]
    log_probability: float
    score: float


def gnmt_penalty(alpha: float) -> Penalty:
    """((5 + |Y|) / 6) ** alpha (Wu et al., 2016, equation 14, which section 6.1 cites)."""
    return lambda length: ((5 + length) / 6) ** alpha


def length_penalty(alpha: float) -> Penalty:
    """|Y| ** alpha: at 1, the score is the mean log-probability of a piece."""
    return lambda length: length**alpha


@dataclass(frozen=True)
class Bounds:
    """Which outputs are possible at all. They take no part in the probabilities, which stay the model's."""

    longest_B: Tensor  # pieces at most, EOS counted: the last one can only be EOS
    shortest: int = 0  # pieces at least, EOS not counted
    prefix_BP: Tensor | None = None  # the pieces an output starts with; -1 where a shorter prefix is over

    def select(self, sentences: Tensor) -> "Bounds":
        prefix_BP = None if self.prefix_BP is None else self.prefix_BP[sentences]
        return Bounds(self.longest_B[sentences], self.shortest, prefix_BP)

    def apply(self, logp_BWV: Tensor, length: int, eos: int) -> Tensor:
        """Minus infinity for each piece that cannot be the one that makes an output `length` pieces long."""
        if length <= self.shortest:
            logp_BWV = logp_BWV.index_fill(-1, torch.tensor([eos], device=logp_BWV.device), float("-inf"))
        if self.prefix_BP is not None and length <= self.prefix_BP.size(1):
            logp_BWV = _only(logp_BWV, self.prefix_BP[:, length - 1])
        return _only(logp_BWV, torch.where(self.longest_B <= length, eos, -1))


def _only(logp_BWV: Tensor, piece_B: Tensor) -> Tensor:
    """Leave each sentence one possible piece; -1 leaves it all."""
    if piece_B.device.type == "cpu" and bool((piece_B < 0).all()):
        return logp_BWV
    other_BV = piece_B[:, None] != torch.arange(logp_BWV.size(-1), device=piece_B.device)
    return logp_BWV.masked_fill((other_BV & (piece_B[:, None] >= 0))[:, None], float("-inf"))


@dataclass(frozen=True)
class Beam:
    """The search state: W places a sentence, each held by a live or by an ended hypothesis."""

    live_ids_BWT: Tensor  # starts with BOS
    live_logp_BW: Tensor  # -inf where the place is empty
    ended_ids_BWT: Tensor  # best first; padded with EOS to the length of the live ones
    ended_logp_BW: Tensor
    ended_score_BW: Tensor  # -inf where the place is empty

    def select(self, sentences: Tensor) -> "Beam":
        return Beam(*(value.index_select(0, sentences) for value in vars(self).values()))


@torch.inference_mode()
def beam_search(
    model: Stepper, bounds: Bounds, bos: int, eos: int, beam: int, penalty: Penalty, keep: int = 1
) -> list[list[Hypothesis]]:
    """The `keep` best outputs of each sentence, best first (section 6.1).

    A hypothesis that ends keeps its place, so the beam of live ones narrows. The search of a sentence stops when all
    places have ended, or when no live hypothesis, however it goes on, can overtake the worst of the `keep` best ended:
    a log-probability only falls, and is divided by at most the penalty of the longest output.
    """
    device = bounds.longest_B.device
    results: list[list[Hypothesis]] = [[] for _ in bounds.longest_B]
    sentences = torch.arange(len(results), device=device)
    state = start(len(results), beam, bos, device)
    length = 0
    while len(sentences):
        length += 1
        logp_BWV = bounds.apply(model.step(state.live_ids_BWT[:, :, -1]), length, eos)
        state, origin_BW = extend(state, *likeliest(logp_BWV, beam), eos, penalty(torch.tensor(float(length))))
        model.reorder(origin_BW)
        hope_B = state.live_logp_BW.amax(dim=1) / penalty(bounds.longest_B)
        over_B = hope_B <= state.ended_score_BW[:, keep - 1]
        if parted := parting(over_B, length):
            leaving, staying = parted
            collect(results, sentences[leaving], state.select(leaving), keep, eos)
            state, bounds, sentences = state.select(staying), bounds.select(staying), sentences[staying]
            model.keep(staying)
    return results


def start(B: int, W: int, bos: int, device: torch.device) -> Beam:
    """One live hypothesis a sentence, BOS; the other places are empty."""
    empty_BW = torch.full((B, W), float("-inf"), device=device)
    live_logp_BW = empty_BW.clone()
    live_logp_BW[:, 0] = 0
    ids_BWT = torch.full((B, W, 1), bos, device=device)
    return Beam(ids_BWT, live_logp_BW, ids_BWT, empty_BW, empty_BW)


def likeliest(logp_BWV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest next pieces of each hypothesis: their log-probabilities and ids, both [B, W, C].

    Found by folding the vocabulary into columns of 16, whose maxima are quick to take: the likeliest pieces lie in the
    columns of the highest maxima. torch's topk alone would take several times as long.
    """
    B, W, V = logp_BWV.shape
    columns = V // 16
    if columns < count:
        top_BWC, piece_BWC = logp_BWV.topk(min(count, V), dim=-1)
        return top_BWC, piece_BWC
    folded_BWRC = logp_BWV[..., : 16 * columns].view(B, W, 16, columns)
    best_BWC = folded_BWRC.amax(dim=2).topk(count, dim=-1).indices
    folds_16 = columns * torch.arange(16, device=logp_BWV.device)
    candidates_BWC = (best_BWC[..., None] + folds_16).flatten(2)
    rest_BWC = torch.arange(16 * columns, V, device=logp_BWV.device).expand(B, W, -1)
    candidates_BWC = torch.cat([candidates_BWC, rest_BWC], dim=2)
    top_BWC, place_BWC = logp_BWV.gather(2, candidates_BWC).topk(count, dim=-1)
    return top_BWC, candidates_BWC.gather(2, place_BWC)


def extend(
    state: Beam, logp_BWC: Tensor, piece_BWC: Tensor, eos: int, penalty: Tensor, bias_BWC: Tensor | None = None
) -> tuple[Beam, Tensor]:
    """Extend the live hypotheses by one of their likeliest pieces, keep the best, and say which place each came from.

    bias_BWC: added to the log-probabilities for the choice alone.
    """
    B, W, C = logp_BWC.shape
    total_BN = (state.live_logp_BW[:, :, None] + logp_BWC).view(B, W * C)
    choice_BW = (total_BN if bias_BWC is None else total_BN + bias_BWC.view(B, W * C)).topk(W, dim=1).indices
    logp_BW, origin_BW, piece_BW = (
        total_BN.gather(1, choice_BW),
        choice_BW // C,
        piece_BWC.flatten(1).gather(1, choice_BW),
    )
    ended_count_B = state.ended_score_BW.isfinite().sum(dim=1)
    taken_BW = torch.arange(W, device=logp_BW.device) >= (W - ended_count_B)[:, None]
    logp_BW = logp_BW.masked_fill(taken_BW, float("-inf"))

    ids_BWT = torch.cat([_rows(state.live_ids_BWT, origin_BW), piece_BW[:, :, None]], dim=2)
    ends_BW = piece_BW == eos
    ending_logp_BW = logp_BW.masked_fill(~ends_BW, float("-inf"))
    ended_logp_B2W = torch.cat([state.ended_logp_BW, ending_logp_BW], dim=1)
    ended_score_B2W = torch.cat([state.ended_score_BW, ending_logp_BW / penalty], dim=1)
    padding_BW1 = torch.full_like(piece_BW[:, :, None], eos)
    ended_ids_B2WT = torch.cat([torch.cat([state.ended_ids_BWT, padding_BW1], dim=2), ids_BWT], dim=1)
    score_BW, best_BW = ended_score_B2W.sort(dim=1, descending=True, stable=True)
    best_BW = best_BW[:, :W]
    ended = (_rows(ended_ids_B2WT, best_BW), ended_logp_B2W.gather(1, best_BW), score_BW[:, :W])
    return Beam(ids_BWT, logp_BW.masked_fill(ends_BW, float("-inf")), *ended), origin_BW


def _rows(ids_BWT: Tensor, choice_BW: Tensor) -> Tensor:
    return ids_BWT.gather(1, choice_BW[:, :, None].expand(-1, -1, ids_BWT.size(2)))


def parting(over_B: Tensor, length: int) -> tuple[Tensor, Tensor] | None:
    """The places of the sentences that leave the batch now, and of those that stay; None while too few could leave.

    To leave costs a copy of what stays, so an eighth goes together; and some that are over stay, for the batch to have
    one of a few sizes. They cannot change: nothing overtakes what they have found.
    """
    if over_B.device.type != "cpu" and length % 8:
        return None  # to look would wait for the device
    over = over_B.nonzero()[:, 0]
    going = len(over_B) - len(over)
    leaving = over[rounded_up(going) - going :]
    if len(leaving) * 8 < len(over_B):
        return None
    return leaving, torch.ones_like(over_B).index_fill(0, leaving, False).nonzero()[:, 0]


def collect(results: list[list[Hypothesis]], sentences: Tensor, done: Beam, keep: int, eos: int) -> None:
    """Write down the `keep` best ended hypotheses of these sentences."""
    for sentence, ids_WT, logp_W, score_W in zip(
        sentences.tolist(),
        done.ended_ids_BWT.tolist(),
        done.ended_logp_BW.tolist(),
        done.ended_score_BW.tolist(),
        strict=True,
    ):
        for ids, logp, score in list(zip(ids_WT, logp_W, score_W, strict=True))[:keep]:
            if score > float("-inf"):
                results[sentence].append(Hypothesis(ids[1 : ids.index(eos, 1)], logp, score))


@torch.inference_mode()
def greedy_search(model: Stepper, bounds: Bounds, bos: int, eos: int) -> list[list[int]]:
    """The output that takes the likeliest piece at each step: what beam search of width 1 finds, with less work.

    Only the order of what the model gives for a hypothesis matters, so logits will do.
    """
    device = bounds.longest_B.device
    results: list[list[int]] = [[] for _ in bounds.longest_B]
    sentences = torch.arange(len(results), device=device)
    ids_BT = torch.full((len(results), 1), bos, device=device)
    over_B = torch.zeros(len(results), dtype=torch.bool, device=device)
    while len(sentences):
        length = ids_BT.size(1)
        piece_B = bounds.apply(model.step(ids_BT[:, -1:]), length, eos)[:, 0].argmax(dim=-1)
        ids_BT = torch.cat([ids_BT, piece_B[:, None]], dim=1)
        over_B = over_B | (piece_B == eos)
        if parted := parting(over_B, length):
            leaving, staying = parted
            for sentence, ids in zip(sentences[leaving].tolist(), ids_BT[leaving].tolist(), strict=True):
                results[sentence] = ids[1 : ids.index(eos, 1)]
            ids_BT, sentences, over_B = ids_BT[staying], sentences[staying], over_B[staying]
            bounds = bounds.select(staying)
            model.keep(staying)
    return results
