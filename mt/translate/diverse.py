"""Diverse beam search (Vijayakumar et al., 2016): groups of beams, each kept from repeating those before it."""

import torch
from torch import Tensor

from mt.translate.search import (
    Beam,
    Bounds,
    Hypothesis,
    Penalty,
    Stepper,
    collect,
    extend,
    likeliest,
    parting,
    start,
)


@torch.inference_mode()
def diverse_search(
    model: Stepper,
    bounds: Bounds,
    bos: int,
    eos: int,
    beam: int,
    penalty: Penalty,
    keep: int,
    groups: int,
    diversity: float,
) -> list[list[Hypothesis]]:
    """The `keep` best distinct outputs of each sentence, best first, over `groups` beams of beam / groups places each.

    A piece costs a group `diversity` for each hypothesis of an earlier group that has just gone on with it.
    Scores do not count that cost. A group's search stops as that of beam_search.
    """
    device, W = bounds.longest_B.device, beam // groups
    results: list[list[Hypothesis]] = [[] for _ in bounds.longest_B]
    sentences = torch.arange(len(results), device=device)
    states = [start(len(results), W, bos, device) for _ in range(groups)]
    length = 0
    while len(sentences):
        length += 1
        last_BW = torch.cat([state.live_ids_BWT[:, :, -1] for state in states], dim=1)
        logp_BWV = bounds.apply(model.step(last_BW), length, eos)
        divisor = penalty(torch.tensor(float(length)))
        cost_BV = torch.zeros_like(logp_BWV[:, 0])
        origins: list[Tensor] = []
        for group, state in enumerate(states):
            group_logp_BWV = logp_BWV[:, group * W : (group + 1) * W]
            _, piece_BWC = likeliest(group_logp_BWV - cost_BV[:, None], W)
            bias_BWC = -cost_BV[:, None].expand_as(group_logp_BWV).gather(2, piece_BWC)
            states[group], origin_BW = extend(
                state, group_logp_BWV.gather(2, piece_BWC), piece_BWC, eos, divisor, bias_BWC
            )
            origins.append(origin_BW + group * W)
            chosen_BW, is_live_BW = states[group].live_ids_BWT[:, :, -1], states[group].live_logp_BW.isfinite()
            cost_BV = cost_BV.scatter_add(1, chosen_BW, diversity * is_live_BW.to(cost_BV))
        model.reorder(torch.cat(origins, dim=1))
        over_B = torch.stack([_is_over(state, bounds, penalty) for state in states]).all(dim=0)
        if parted := parting(over_B, length):
            leaving, staying = parted
            for state in states:
                collect(results, sentences[leaving], state.select(leaving), W, eos)
            states, bounds = [state.select(staying) for state in states], bounds.select(staying)
            sentences = sentences[staying]
            model.keep(staying)
    return [_distinct(found)[:keep] for found in results]


def _is_over(state: Beam, bounds: Bounds, penalty: Penalty) -> Tensor:
    hope_B = state.live_logp_BW.amax(dim=1) / penalty(bounds.longest_B)
    return hope_B <= state.ended_score_BW[:, -1]


def _distinct(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """Best first, each output once: two groups may end with the same."""
    best = sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
    return list({tuple(hypothesis.ids): hypothesis for hypothesis in reversed(best)}.values())[::-1]
