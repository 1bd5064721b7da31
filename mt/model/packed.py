"""Weights laid out once as a CPU's matrix kernels want them: for a few rows, to do so takes longer than the product."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.device import rounded_up
from mt.model.transformer import Transformer

ROWS = 64  # of a usual product, which oneDNN chooses a layout for; it serves any number


class PackedLinear(nn.Module):
    """An nn.Linear that no longer learns."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._bias = None if bias is None else bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.size(-1)
        if (size := rounded_up(rows)) == rows:
            return self._product(x)
        x_ND = F.pad(x.reshape(rows, -1), (0, 0, 0, size - rows))
        return self._product(x_ND)[:rows].view(*x.shape[:-1], -1)

    def _product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return out


def pack_weights(model: Transformer) -> None:
    """Make a model quicker on a CPU, which then no longer learns; elsewhere, leave it as it is."""
    if model.embedding.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child.weight, child.bias))
    model.packed_output = PackedLinear(model.embedding.weight, None)
    # With gradients to come, oneDNN would take kernels for bfloat16 that are a thousand times slower.
    model.eval().requires_grad_(False)
