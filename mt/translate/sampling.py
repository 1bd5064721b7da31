"""Sampling: outputs drawn from the model's own distribution, or from its likelier part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.translate.search import Bounds, Hypothesis, Stepper, parting


@dataclass(frozen=True)
class Sampling:
    """Which distribution a piece is drawn from."""

    temperature: float = 1.0  # logits are divided by it: below 1 the likely pieces gain, above 1 they lose
    top_k: int = 0  # only the k likeliest pieces; 0 means all
    top_p: float = 1.0  # only the fewest pieces whose probabilities reach p (Holtzman et al., 2020)


@torch.inference_mode()
def sample_search(
    model: Stepper, bounds: Bounds, bos: int, eos: int, sampling: Sampling, seeds: Sequence[Sequence[int]], samples: int
) -> list[list[Hypothesis]]:
    """`samples` outputs of each sentence, drawn piece by piece; the likeliest first, equal ones possible.

    Each sentence has a seed of its own, so what is drawn for it does not depend on its neighbours.
    The score is the log-probability under the model, whatever part of it was drawn from.
    """
    device = bounds.longest_B.device
    draws_BTW = _uniform_draws(seeds, int(bounds.longest_B.max()), samples).to(device)
    results: list[list[Hypothesis]] = [[] for _ in seeds]
    sentences = torch.arange(len(seeds), device=device)
    ids_BWT = torch.full((len(seeds), samples, 1), bos, device=device)
    total_BW = torch.zeros(len(seeds), samples, device=device)
    over_BW = torch.zeros(len(seeds), samples, dtype=torch.bool, device=device)
    while len(sentences):
        length = ids_BWT.size(2)
        logp_BWV = model.step(ids_BWT[:, :, -1])
        possible_BWV = bounds.apply(logp_BWV, length, eos)
        piece_BW = draw(possible_BWV, draws_BTW[:, length - 1], sampling).masked_fill(over_BW, eos)
        piece_logp_BW = logp_BWV.gather(2, piece_BW[:, :, None])[:, :, 0]
        total_BW = total_BW + piece_logp_BW.masked_fill(over_BW, 0)
        ids_BWT = torch.cat([ids_BWT, piece_BW[:, :, None]], dim=2)
        over_BW = over_BW | (piece_BW == eos)
        over_B = over_BW.all(dim=1)
        if parted := parting(over_B, length):
            leaving, staying = parted
            for sentence, ids_WT, logp_W in zip(
                sentences[leaving].tolist(), ids_BWT[leaving].tolist(), total_BW[leaving].tolist(), strict=True
            ):
                results[sentence] = _best_first(ids_WT, logp_W, eos)
            sentences, ids_BWT, draws_BTW = sentences[staying], ids_BWT[staying], draws_BTW[staying]
            total_BW, over_BW, bounds = total_BW[staying], over_BW[staying], bounds.select(staying)
            model.keep(staying)
    return results


def _uniform_draws(seeds: Sequence[Sequence[int]], length: int, samples: int) -> Tensor:
    """One number in [0, 1) for each piece to draw, [B, T, W]; a longer or shorter T changes none of the others."""
    draws = [np.random.default_rng(list(seed)).random((length, samples)) for seed in seeds]
    return torch.from_numpy(np.stack(draws))


def draw(logp_BWV: Tensor, uniform_BW: Tensor, sampling: Sampling) -> Tensor:
    """The piece at which the cumulative probability passes each uniform number."""
    logp_BWV = logp_BWV.double() / sampling.temperature
    if sampling.top_k:
        logp_BWC, piece_BWC = logp_BWV.topk(min(sampling.top_k, logp_BWV.size(-1)), dim=-1)
    elif sampling.top_p < 1:
        logp_BWC, piece_BWC = logp_BWV.sort(dim=-1, descending=True, stable=True)
    else:
        logp_BWC, piece_BWC = logp_BWV, torch.arange(logp_BWV.size(-1), device=logp_BWV.device).expand_as(logp_BWV)
    p_BWC = logp_BWC.softmax(dim=-1)
    if sampling.top_p < 1:
        p_BWC = p_BWC.masked_fill(p_BWC.cumsum(dim=-1) - p_BWC >= sampling.top_p, 0)
    passed_BWC = p_BWC.cumsum(dim=-1)
    place_BW = (passed_BWC <= uniform_BW[:, :, None] * passed_BWC[..., -1:]).sum(dim=-1)
    return piece_BWC.gather(2, place_BW[:, :, None])[:, :, 0]


def _best_first(ids_WT: list[list[int]], logp_W: list[float], eos: int) -> list[Hypothesis]:
    found = [Hypothesis(ids[1 : ids.index(eos, 1)], logp, score=logp) for ids, logp in zip(ids_WT, logp_W, strict=True)]
    return sorted(found, key=lambda hypothesis: -hypothesis.score)
