"""Adam and the rate of section 5.3."""

import pytest
import torch
from torch import nn

from mt.config import Config, OptimConfig, TrainConfig
from mt.train.optim import learning_rate, load_optimizer, make_optimizer, optimizer_state, rate_of


def test_the_rate_peaks_at_the_end_of_warmup() -> None:
    """d_model 512, warm-up 4,000: 6.99e-4 at update 4,000, as table 3's base model had it."""
    assert learning_rate(4_000, 512, 4_000) == pytest.approx(6.99e-4, rel=1e-3)
    rates = [learning_rate(update, 512, 4_000) for update in range(1, 20_000)]
    assert max(rates) == rates[4_000 - 1]


def test_the_rate_rises_linearly_and_falls_with_the_square_root() -> None:
    assert learning_rate(2_000, 512, 4_000) == pytest.approx(learning_rate(4_000, 512, 4_000) / 2)
    assert learning_rate(16_000, 512, 4_000) == pytest.approx(learning_rate(4_000, 512, 4_000) / 2)


def test_the_linear_rate_rises_to_its_peak_and_ends_one_step_above_nothing() -> None:
    config = Config(
        optim=OptimConfig(schedule="linear", rate=2e-3, warmup=100), train=TrainConfig(updates=1_100, average=1)
    )
    rates = [rate_of(update, config) for update in range(1, 1_101)]
    assert max(rates) == rates[99] == 2e-3
    assert rates[49] == pytest.approx(1e-3)
    assert rates[600] == pytest.approx(1e-3, rel=2e-3)
    assert rates[-1] == pytest.approx(2e-3 / 1_001)


def test_the_constant_rate_stays_at_its_peak() -> None:
    config = Config(optim=OptimConfig(schedule="constant", rate=1e-4, warmup=10))
    assert [rate_of(update, config) for update in (5, 10, 11, 90_000)] == pytest.approx([5e-5, 1e-4, 1e-4, 1e-4])


def test_adam_is_equation_by_equation_that_of_kingma_and_ba() -> None:
    weight = nn.Linear(1, 1, bias=False).double()
    adam = make_optimizer(weight, OptimConfig())
    value, m, v = weight.weight.item(), 0.0, 0.0
    for update, gradient in enumerate([0.3, -2.0, 0.01, 5.0], 1):
        weight.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        adam.param_groups[0]["lr"] = rate = learning_rate(update, 512, 4_000)
        adam.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
        value -= rate * (m / (1 - 0.9**update)) / ((v / (1 - 0.98**update)) ** 0.5 + 1e-9)
        assert weight.weight.item() == pytest.approx(value, abs=1e-12)


def test_the_state_is_there_from_the_beginning_and_changes_no_update() -> None:
    """Beside an Adam that makes its state at its first update."""
    torch.manual_seed(0)
    model, plain_model = nn.Linear(3, 2), nn.Linear(3, 2)
    plain_model.load_state_dict(model.state_dict())
    adam = make_optimizer(model, OptimConfig())
    assert torch.equal(model.weight, plain_model.weight)
    names = {f"{side}.{key}" for side in ("weight", "bias") for key in ("step", "exp_avg", "exp_avg_sq")}
    assert optimizer_state(adam, model).keys() == names
    plain = torch.optim.Adam(plain_model.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-9, fused=True)
    adam.param_groups[0]["lr"] = 0.01
    for _ in range(2):
        step(model, adam)
        step(plain_model, plain)
        assert torch.equal(model.weight, plain_model.weight)


def test_adams_state_survives_storing() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(3, 2), nn.Linear(3, 2)]
    models[1].load_state_dict(models[0].state_dict())
    adams = [make_optimizer(model, OptimConfig()) for model in models]
    step(models[0], adams[0])
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer(adams[1], models[1], optimizer_state(adams[0], models[0]))
    for model, adam in zip(models, adams, strict=True):
        step(model, adam)
    assert torch.equal(models[0].weight, models[1].weight)


def step(model: nn.Linear, adam: torch.optim.Optimizer) -> None:
    adam.zero_grad()
    model(torch.tensor([[1.0, -2.0, 0.5]])).pow(2).sum().backward()
    adam.step()
