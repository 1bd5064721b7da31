"""The optimiser and its rate (section 5.3). Its state is stored by name and shape, whatever it is."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mt.config import Config, OptimConfig


def learning_rate(update: int, d_model: int, warmup: int) -> float:
    """d_model^-0.5 * min(update^-0.5, update * warmup^-1.5), equation 3 (section 5.3); updates count from 1."""
    return float(d_model**-0.5 * min(update**-0.5, update * warmup**-1.5))


def rate_of(update: int, config: Config) -> float:
    """The rate of an update, counted from 1, by `optim.schedule`.

    paper: equation 3 times `optim.scale`. constant and linear rise to `optim.rate` during the warm-up; constant stays
    there, linear falls from there and would reach 0 one update after the last.
    """
    optim = config.optim
    if optim.schedule == "paper":
        return optim.scale * learning_rate(update, config.model.d_model, optim.warmup)
    if update <= optim.warmup or optim.schedule == "constant":
        return optim.rate * min(1.0, update / optim.warmup)
    left, falling = config.train.updates + 1 - update, config.train.updates + 1 - optim.warmup
    return optim.rate * left / falling


def set_rate(optimizer: torch.optim.Optimizer, update: int, config: Config) -> float:
    """Set the rate of an update, counted from 1; returns it."""
    rate = rate_of(update, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam with the paper's betas and epsilon (section 5.3), its state there from the beginning."""
    adam = torch.optim.Adam(model.parameters(), betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    _fill_state(adam, model)
    return adam


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
