"""Adam and its rate (section 5.3)."""

import torch
from torch import nn

from mt.config import OptimConfig


def learning_rate(update: int, d_model: int, warmup: int) -> float:
    """d_model^-0.5 * min(update^-0.5, update * warmup^-1.5), equation 3 (section 5.3); updates count from 1."""
    return float(d_model**-0.5 * min(update**-0.5, update * warmup**-1.5))


def make_adam(model: nn.Module, config: OptimConfig) -> torch.optim.Adam:
    """Adam with the paper's betas and epsilon (section 5.3); the rate is set before each update."""
    return torch.optim.Adam(model.parameters(), betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
