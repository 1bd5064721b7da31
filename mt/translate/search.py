"""Greedy and beam search (section 6.1) over any autoregressive model: given as functions, never named."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Given the last piece of each hypothesis, the log-probability of each next one: ids_BW -> logp_BWV.
Step = Callable[[Tensor], Tensor]
# Keep these sentences [B'] and these hypotheses [B' * W] (numbers b * W + w), in this order.
Select = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Hypothesis:
    """A finished output: its pieces without EOS, its log-probability (EOS counted) and its length-penalised score."""

    ids: list[int]
    log_probability: float
    score: float


def length_penalty(length: Tensor | int, alpha: float) -> Tensor:
    """((5 + |Y|) / 6) ** alpha, |Y| counting EOS (Wu et al., 2016, equation 14, which section 6.1 cites)."""
    return ((5 + torch.as_tensor(length, dtype=torch.float32)) / 6) ** alpha


@dataclass(frozen=True)
class _Beam:
    """The search state: W places a sentence, each held by a live or by an ended hypothesis."""

    live_ids_BWT: Tensor  # starts with BOS
    live_logp_BW: Tensor  # -inf where the place is empty
    ended_ids_BWT: Tensor  # best first; padded with EOS to the length of the live ones
    ended_logp_BW: Tensor
    ended_score_BW: Tensor  # -inf where the place is empty

    def select(self, sentences_B: Tensor) -> "_Beam":
        return _Beam(*(value.index_select(0, sentences_B) for value in vars(self).values()))


@torch.inference_mode()
def beam_search(
    step: Step, select: Select, max_lengths_B: Tensor, bos: int, eos: int, beam: int, alpha: float, keep: int = 1
) -> list[list[Hypothesis]]:
    """The `keep` best outputs of each sentence, best first (section 6.1).

    A hypothesis that ends keeps its place, so the beam of live ones narrows. The search of a sentence stops when all
    places have ended, or when no live hypothesis, however it goes on, can overtake the worst of the `keep` best ended.
    max_lengths_B: the most pieces an output may have, EOS counted; the last one can only be EOS.
    """
    B, W, device = len(max_lengths_B), beam, max_lengths_B.device
    results: list[list[Hypothesis]] = [[] for _ in range(B)]
    sentences_B = torch.arange(B, device=device)
    state = _start(B, W, bos, device)
    longest_lp_B = length_penalty(max_lengths_B, alpha).to(device)
    for length in range(1, int(max_lengths_B.max()) + 1):
        logp_BWV = step(state.live_ids_BWT[:, :, -1])
        at_limit_B = max_lengths_B == length
        logp_BWV = torch.where(at_limit_B[:, None, None], _only(logp_BWV, eos), logp_BWV)
        state, origin_BW = _extend(state, logp_BWV, eos, float(length_penalty(length, alpha)))
        kept_score_B = state.ended_score_BW[:, keep - 1]
        hope_B = state.live_logp_BW.max(dim=1).values / longest_lp_B
        going_B = hope_B > kept_score_B
        rows_BW = origin_BW + torch.arange(len(sentences_B), device=device)[:, None] * W
        if not going_B.all():
            _collect(results, sentences_B[~going_B], state.select((~going_B).nonzero()[:, 0]), keep, eos)
            going = going_B.nonzero()[:, 0]
            if len(going) == 0:
                return results
            state, rows_BW = state.select(going), rows_BW[going]
            sentences_B, max_lengths_B, longest_lp_B = sentences_B[going], max_lengths_B[going], longest_lp_B[going]
            select(going, rows_BW.flatten())
        elif W > 1:
            select(torch.arange(len(sentences_B), device=device), rows_BW.flatten())
    raise AssertionError("every hypothesis ends at its limit")


def _start(B: int, W: int, bos: int, device: torch.device) -> _Beam:
    """One live hypothesis a sentence, BOS; the other places are empty."""
    empty_BW = torch.full((B, W), float("-inf"), device=device)
    live_logp_BW = empty_BW.clone()
    live_logp_BW[:, 0] = 0
    ids_BWT = torch.full((B, W, 1), bos, device=device)
    return _Beam(ids_BWT, live_logp_BW, ids_BWT, empty_BW, empty_BW)


def _only(logp_BWV: Tensor, piece: int) -> Tensor:
    """The same log-probabilities with all but one piece made impossible."""
    only_BWV = torch.full_like(logp_BWV, float("-inf"))
    only_BWV[..., piece] = logp_BWV[..., piece]
    return only_BWV


def _extend(state: _Beam, logp_BWV: Tensor, eos: int, penalty: float) -> tuple[_Beam, Tensor]:
    """Extend the live hypotheses by one piece and keep the best; also returns which place each came from."""
    B, W, V = logp_BWV.shape
    total_BWV = state.live_logp_BW[:, :, None] + logp_BWV
    logp_BW, choice_BW = total_BWV.view(B, W * V).topk(W, dim=1)
    origin_BW, piece_BW = choice_BW // V, choice_BW % V
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
    return _Beam(ids_BWT, logp_BW.masked_fill(ends_BW, float("-inf")), *ended), origin_BW


def _rows(ids_BWT: Tensor, choice_BW: Tensor) -> Tensor:
    return ids_BWT.gather(1, choice_BW[:, :, None].expand(-1, -1, ids_BWT.size(2)))


def _collect(results: list[list[Hypothesis]], sentences: Tensor, done: _Beam, keep: int, eos: int) -> None:
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
def greedy_search(step: Step, select: Select, max_lengths_B: Tensor, bos: int, eos: int) -> list[list[int]]:
    """The output that takes the likeliest piece at each step: what beam search of width 1 finds, with less work."""
    results: list[list[int]] = [[] for _ in range(len(max_lengths_B))]
    device = max_lengths_B.device
    sentences_B = torch.arange(len(max_lengths_B), device=device)
    ids_BT = torch.full((len(max_lengths_B), 1), bos, device=device)
    for length in range(1, int(max_lengths_B.max()) + 1):
        piece_B = step(ids_BT[:, -1:])[:, 0].argmax(dim=-1)
        piece_B = piece_B.masked_fill(max_lengths_B == length, eos)
        ids_BT = torch.cat([ids_BT, piece_B[:, None]], dim=1)
        ends_B = piece_B == eos
        if ends_B.any():
            for sentence, ids in zip(sentences_B[ends_B].tolist(), ids_BT[ends_B].tolist(), strict=True):
                results[sentence] = ids[1:-1]
            going = (~ends_B).nonzero()[:, 0]
            if len(going) == 0:
                break
            ids_BT, sentences_B, max_lengths_B = ids_BT[going], sentences_B[going], max_lengths_B[going]
            select(going, going)
    return results
