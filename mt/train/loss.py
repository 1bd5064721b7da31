"""Label-smoothed cross-entropy (section 5.4) from the decoder's output, without ever holding all logits."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of logits in memory at a time: large enough for full-speed products, small enough to stay near the cache.
CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**28, "mps": 2**26}


def smoothed_loss(
    x_ND: Tensor, embedding_VD: Tensor, targets_N: Tensor, smoothing: float, compiled: bool = False
) -> Tensor:
    """Sum over positions of the cross-entropy to smoothed targets (section 5.4), in nats.

    The target distribution is (1 - smoothing) on the gold piece plus smoothing / V on every piece, gold included.
    Products run in the type of `x_ND`; the softmax in float32 (float64 when given float64).
    compiled: by torch.compile, so that a GPU passes over the logits twice and not a dozen times.
    """
    chunk = _compiled() if compiled else _loss_and_gradient
    loss: Tensor = _SmoothedLoss.apply(x_ND, embedding_VD, targets_N, smoothing, chunk)  # type: ignore[no-untyped-call]
    return loss


Chunk = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def _loss_and_gradient(x_CD: Tensor, weight_VD: Tensor, targets_C1: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The loss of some rows, and its gradient with respect to their logits, in the type of `x_CD`."""
    exact, V = torch.promote_types(x_CD.dtype, torch.float32), weight_VD.size(0)
    logits_CV = F.linear(x_CD, weight_VD).to(exact)
    log_sum_C1 = logits_CV.logsumexp(dim=1, keepdim=True)
    gold_C1 = logits_CV.gather(1, targets_C1)
    mean_C1 = logits_CV.mean(dim=1, keepdim=True)
    loss = (log_sum_C1 - (1 - smoothing) * gold_C1 - smoothing * mean_C1).sum()
    # d loss / d logits = softmax - target distribution, written over the logits.
    gradient_CV = logits_CV.sub_(log_sum_C1).exp_().sub_(smoothing / V).to(x_CD.dtype)
    gold_gradient_C1 = (gold_C1 - log_sum_C1).exp() - smoothing / V - (1 - smoothing)
    return loss, gradient_CV.scatter_(1, targets_C1, gold_gradient_C1.to(x_CD.dtype))


@cache
def _compiled() -> Chunk:
    return torch.compile(_loss_and_gradient, dynamic=True)


class _SmoothedLoss(torch.autograd.Function):
    """Linear layer, softmax, loss and their gradients in one pass over chunks of rows.

    The gradient is found beside the loss, so logits are neither kept nor computed again.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x_ND: Tensor,
        embedding_VD: Tensor,
        targets_N: Tensor,
        smoothing: float,
        chunk: Chunk,
    ) -> Tensor:
        weight_VD = embedding_VD.to(x_ND.dtype)
        exact = torch.promote_types(x_ND.dtype, torch.float32)
        loss = torch.zeros((), dtype=exact, device=x_ND.device)
        gradient_ND, gradient_VD = torch.empty_like(x_ND), torch.zeros_like(embedding_VD)
        N, V = x_ND.size(0), embedding_VD.size(0)
        rows = max(1, CHUNK_ELEMENTS[x_ND.device.type] // V)
        for start in range(0, N, rows):
            x_CD, targets_C1 = x_ND[start : start + rows], targets_N[start : start + rows, None]
            chunk_loss, gradient_CV = chunk(x_CD, weight_VD, targets_C1, smoothing)
            loss += chunk_loss
            gradient_ND[start : start + rows] = gradient_CV @ weight_VD
            gradient_VD += gradient_CV.t() @ x_CD
        ctx.save_for_backward(gradient_ND, gradient_VD)
        return loss

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        gradient_ND, gradient_VD = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient_ND * gradient, gradient_VD * gradient, None, None, None
