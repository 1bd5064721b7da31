"""Adam and the rate of section 5.3."""

from typing import Literal

import pytest
import torch
from torch import nn

from mt.config import Config, ModelConfig, OptimConfig, Stage, TrainConfig
from mt.model.transformer import Transformer
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


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_the_state_survives_storing(name: Literal["adam", "adamw", "muon"]) -> None:
    models = [tiny_transformer(), tiny_transformer()]
    optimizers = [make_optimizer(model, OptimConfig(name=name)) for model in models]
    learn(models[0], optimizers[0])
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer(optimizers[1], models[1], optimizer_state(optimizers[0], models[0]))
    for model, optimizer in zip(models, optimizers, strict=True):
        learn(model, optimizer)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def step(model: nn.Linear, adam: torch.optim.Optimizer) -> None:
    adam.zero_grad()
    model(torch.tensor([[1.0, -2.0, 0.5]])).pow(2).sum().backward()
    adam.step()


def test_the_stable_rate_stays_at_its_peak_and_falls_at_the_end() -> None:
    config = Config(
        optim=OptimConfig(schedule="stable", rate=1e-3, warmup=10, decay=0.2), train=TrainConfig(updates=100, average=1)
    )
    rates = [rate_of(update, config) for update in range(1, 101)]
    assert rates[4] == pytest.approx(5e-4)
    assert set(rates[9:80]) == {1e-3}
    assert rates[80:] == pytest.approx([1e-3 * left / 21 for left in range(20, 0, -1)])


@pytest.mark.parametrize("schedule", ["paper", "constant", "linear", "stable"])
def test_a_stage_multiplies_the_rate_of_every_schedule(schedule: Literal["paper", "linear"]) -> None:
    stages = (Stage(update=20, scale=0.3), Stage(update=50, weights={"a": 2}), Stage(update=70, scale=2))
    plain = Config(optim=OptimConfig(schedule=schedule, warmup=10), train=TrainConfig(updates=100))
    staged = plain.model_copy(update={"train": TrainConfig(updates=100, stages=stages)})
    for stage, scale in enumerate((1, 0.3, 0.3, 2)):
        assert rate_of(60, staged, stage) == pytest.approx(scale * rate_of(60, plain))


def test_weight_decay_is_apart_from_the_gradient() -> None:
    """AdamW (Loshchilov and Hutter, 2019): without a gradient a weight shrinks by rate times decay."""
    weight = nn.Linear(1, 1, bias=False)
    weight.weight.data.fill_(2.0)
    adamw = make_optimizer(weight, OptimConfig(name="adamw", weight_decay=0.1))
    adamw.param_groups[0]["lr"] = 0.5
    weight.weight.grad = torch.zeros(1, 1)
    adamw.step()
    assert weight.weight.item() == pytest.approx(2.0 * (1 - 0.5 * 0.1))


def tiny_transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig(d_model=16, heads=2, d_ff=48, encoder_layers=1, decoder_layers=1, dropout=0), 30)


def learn(model: Transformer, optimizer: torch.optim.Optimizer) -> None:
    """One update at a rate of 0.1."""
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.zero_grad()
    model(torch.tensor([[5, 6, 2]]), torch.tensor([[1, 7, 8]])).pow(2).sum().backward()
    optimizer.step()


def test_muon_makes_the_steps_of_layer_matrices_nearly_orthogonal() -> None:
    """Singular values are about the rate times 0.2 sqrt(longest side) (Liu et al., 2025), where there are any."""
    model, name = tiny_transformer(), "encoder.0.feed_forward.w1.weight"
    before_FD = model.state_dict()[name].clone()
    learn(model, make_optimizer(model, OptimConfig(name="muon")))
    values = torch.linalg.svdvals(model.state_dict()[name] - before_FD) / (0.1 * 0.2 * 48**0.5)
    assert ((values[:3] > 0.5) & (values[:3] < 1.5)).all()  # the gradient of three positions has rank 3


def test_muon_leaves_embeddings_norms_and_biases_to_adam() -> None:
    model = tiny_transformer()
    kept = optimizer_state(make_optimizer(model, OptimConfig(name="muon")), model)
    by_muon = {name.removesuffix(".momentum_buffer") for name in kept if name.endswith(".momentum_buffer")}
    by_adam = {name.removesuffix(".exp_avg") for name in kept if name.endswith(".exp_avg")}
    matrices = {name for name, value in model.named_parameters() if value.ndim == 2} - {"embedding.weight"}
    assert by_muon == matrices
    assert by_adam == dict(model.named_parameters()).keys() - matrices
