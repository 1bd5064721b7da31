"""Adam and its rate (section 5.3)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mt.config import OptimConfig


def learning_rate(update: int, d_model: int, warmup: int) -> float:
    """d_model^-0.5 * min(update^-0.5, update * warmup^-1.5), equation 3 (section 5.3); updates count from 1."""
    return float(d_model**-0.5 * min(update**-0.5, update * warmup**-1.5))


def make_adam(model: nn.Module, config: OptimConfig) -> torch.optim.Adam:
    """Adam with the paper's betas and epsilon (section 5.3); the rate is set before each update."""
    return torch.optim.Adam(model.parameters(), betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def stored_adam(adam: torch.optim.Adam, model: nn.Module) -> dict[str, Tensor]:
    """Adam's state as tensors named `PARAMETER.step`, `.exp_avg` and `.exp_avg_sq`."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in adam.state.get(parameter, {}).items()  # looking it up would make an empty state
    }


def load_adam(adam: torch.optim.Adam, model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Put back what `stored_adam` gave."""
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = stored[f"{name}.{key}"]
            adam.state[parameter][key] = value.to(parameter.device, copy=True)


def blank_adam(model: nn.Module) -> dict[str, Tensor]:
    """A state for `load_adam` of which only the shapes are right."""
    moments = {
        f"{name}.{key}": torch.zeros_like(parameter)
        for name, parameter in model.named_parameters()
        for key in ("exp_avg", "exp_avg_sq")
    }
    return moments | {f"{name}.step": torch.zeros(()) for name, _ in model.named_parameters()}
