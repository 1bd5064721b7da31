"""The optimiser and its rate (section 5.3). Its state is stored by name and shape, whatever it is."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mt.config import Config, OptimConfig


def learning_rate(update: int, d_model: int, warmup: int) -> float:
    """d_model^-0.5 * min(update^-0.5, update * warmup^-1.5), equation 3 (section 5.3); updates count from 1."""
    return float(d_model**-0.5 * min(update**-0.5, update * warmup**-1.5))


def rate_of(update: int, config: Config, stage: int = 0) -> float:
    """The rate of an update, counted from 1, by `optim.schedule`, times what the stage of the run says.

    paper: equation 3 times `optim.scale`. The others rise to `optim.rate` during the warm-up; constant stays there,
    linear falls from there and would reach 0 one update after the last. stable stays there and falls likewise during
    the last `optim.decay` of the updates (warm-up, stable, decay; Hu et al., 2024).
    """
    optim, updates, scale = config.optim, config.train.updates, config.train.scale_of(stage)
    if optim.schedule == "paper":
        return scale * optim.scale * learning_rate(update, config.model.d_model, optim.warmup)
    falling = {"constant": 0, "linear": updates - optim.warmup, "stable": round(updates * optim.decay)}[optim.schedule]
    left = updates + 1 - update
    return scale * optim.rate * min(1.0, update / optim.warmup, left / (falling + 1) if falling else 1.0)


def set_rate(optimizer: torch.optim.Optimizer, update: int, config: Config, stage: int = 0) -> float:
    """Set the rate of an update, counted from 1; returns it."""
    rate = rate_of(update, config, stage)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam with the paper's betas and epsilon (section 5.3), or another, its state there from the beginning."""
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    optimizer: torch.optim.Optimizer
    matrices = _layer_matrices(model) if config.name == "muon" else []
    rest = [parameter for parameter in model.parameters() if all(parameter is not matrix for matrix in matrices)]
    optimizer = kind(
        rest, betas=(config.beta1, config.beta2), eps=config.eps, weight_decay=config.weight_decay, fused=True
    )
    if matrices:
        optimizer = MuonBesideAdam(matrices, optimizer, config.weight_decay)
    _fill_state(optimizer, model)
    return optimizer


def _layer_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of both stacks: not embeddings, output layer, biases and norms."""
    named = model.named_parameters()
    return [value for name, value in named if value.ndim == 2 and name.startswith(("encoder.", "decoder."))]


class MuonBesideAdam(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for matrices, and another optimiser for the rest, at the same rate.

    Muon's steps are scaled to be as large as Adam's (Liu et al., 2025), so that one rate fits both.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], rest: torch.optim.Optimizer, weight_decay: float) -> None:
        muon = torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.parts = (muon, rest)
        self.param_groups = [*muon.param_groups, *rest.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]
        return {**self.parts[0].state, **self.parts[1].state}

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)


def _fill_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Let the optimiser make its state now, by an update that changes nothing, so that a checkpoint has its full size.

    Optimisers make it at their first update, as zeros, which is what is left here.
    """
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The state as tensors named `PARAMETER.KEY`; Adam's keys are step, exp_avg and exp_avg_sq. Nothing is copied."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave."""
    for name, value in optimizer_state(optimizer, model).items():
        value.copy_(stored[name])
