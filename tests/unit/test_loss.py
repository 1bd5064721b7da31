"""Label smoothing (section 5.4): torch's own loss is the oracle; the share of each piece is stated."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F

import mt.model.teacher_forcing
from mt.train.loss import smoothed_loss

N, D, V = 37, 12, 53


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor, Tensor]:
    """Output rows, embedding and targets, cut into several chunks with a smaller one at the end."""
    monkeypatch.setitem(mt.model.teacher_forcing.CHUNK_ELEMENTS, "cpu", 5 * V)
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(N, D, dtype=torch.float64, generator=generator, requires_grad=True)
    embedding_VD = torch.randn(V, D, dtype=torch.float64, generator=generator, requires_grad=True)
    return x_ND, embedding_VD, torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("biased", [False, True])
def test_loss_and_gradients_are_those_of_torchs_cross_entropy(
    given: tuple[Tensor, ...], smoothing: float, biased: bool
) -> None:
    x_ND, embedding_VD, targets_N = given
    bias_V = torch.linspace(-1, 1, V, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = (x_ND, embedding_VD) if bias_V is None else (x_ND, embedding_VD, bias_V)
    ours = smoothed_loss(x_ND, embedding_VD, targets_N, smoothing, bias_V)
    our_gradients = torch.autograd.grad(3 * ours, inputs)
    logits_NV = F.linear(x_ND, embedding_VD, bias_V)
    theirs = F.cross_entropy(logits_NV, targets_N, label_smoothing=smoothing, reduction="sum")
    their_gradients = torch.autograd.grad(3 * theirs, inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-10, atol=1e-12)


def test_smoothing_spreads_its_share_over_every_piece_gold_included() -> None:
    """The gradient of a logit is softmax minus target: with equal logits it shows the target distribution."""
    embedding_VD = torch.eye(4, dtype=torch.float64)
    x_ND = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    (gradient_ND,) = torch.autograd.grad(smoothed_loss(x_ND, embedding_VD, torch.tensor([2]), 0.1), x_ND)
    target = 0.25 - gradient_ND[0]
    torch.testing.assert_close(target, torch.tensor([0.025, 0.025, 0.925, 0.025], dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_compiled_loss_is_the_plain_one_and_needs_one_graph(given: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    """Over chunks of 5 rows and of 3, 2 and 1 at the end; in bfloat16 within what rounding a softmax makes."""
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    x_ND, embedding_VD, targets_N = (tensor.detach() for tensor in given)
    weight_VD = embedding_VD.to(torch.promote_types(dtype, torch.float32))
    bias_V = torch.linspace(-1, 1, V, dtype=weight_VD.dtype)
    for rows in (20, 3, 7, 11, 1):
        inputs = [tensor.clone().requires_grad_() for tensor in (x_ND[:rows].to(dtype), weight_VD, bias_V)]
        found = []
        for compiled in (False, True):
            loss = smoothed_loss(inputs[0], inputs[1], targets_N[:rows], 0.1, inputs[2], compiled)
            found.append([loss, *torch.autograd.grad(loss, inputs)])
        rtol, atol = (1e-2, 2e-2) if dtype == torch.bfloat16 else (1e-10, 1e-12)
        torch.testing.assert_close(*found, rtol=rtol, atol=atol)
    assert counters["stats"]["unique_graphs"] - before == 1


def test_bfloat16_loss_is_near_that_of_float32(given: tuple[Tensor, ...]) -> None:
    x_ND, embedding_VD, targets_N = (tensor.detach() for tensor in given)
    exact = smoothed_loss(x_ND.float(), embedding_VD.float(), targets_N, 0.1)
    rough = smoothed_loss(x_ND.bfloat16(), embedding_VD.float(), targets_N, 0.1)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=5e-3, atol=0)
