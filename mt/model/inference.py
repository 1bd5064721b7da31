"""Models that only decode: their weights in another type, and laid out as a CPU's matrix kernels want them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.device import onednn_takes_bfloat16, up_to_kernel_size
from mt.model.layers import TiedOutput
from mt.model.transformer import Transformer

ROWS = 64  # of a usual product, for which oneDNN chooses a layout; it serves any number


def inference_model(model: Transformer, precision: torch.dtype) -> Transformer:
    """Make a model decode as quickly as its device can, in `precision`; it no longer learns.

    The model itself is changed and returned, so that no weight but the embedding is in memory twice.
    """
    model = model.to(precision)
    # With gradients to come, oneDNN would take kernels for bfloat16 that are a thousand times slower.
    model.requires_grad_(False)
    if _can_pack(precision, model.device):
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear | TiedOutput):
                    setattr(module, name, PackedLinear(child.weight, child.bias))
    return model.eval()


def _can_pack(precision: torch.dtype, device: torch.device) -> bool:
    """Whether torch has what PackedLinear needs; where it has not, each product lays its weight out again."""
    needed = ("_reorder_linear_weight", "_linear_pointwise")
    is_there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in needed)  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not is_there:
        return False
    return precision == torch.float32 or (precision == torch.bfloat16 and onednn_takes_bfloat16())


class PackedLinear(nn.Module):
    """A linear layer whose weight is laid out once: for a few rows, to do so takes longer than the product."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._bias = None if bias is None else bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.size(-1)
        if (size := up_to_kernel_size(rows)) == rows:
            return self._product(x)
        x_ND = F.pad(x.reshape(rows, -1), (0, 0, 0, size - rows))
        return self._product(x_ND)[:rows].view(*x.shape[:-1], -1)

    def _product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return out
