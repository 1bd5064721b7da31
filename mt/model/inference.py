"""Models that only decode: their weights in another type, and laid out as a CPU's matrix kernels want them."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.device import onednn_takes_bfloat16, up_to_kernel_size, warning_of
from mt.model.layers import TiedOutput
from mt.model.transformer import Transformer

ROWS = 64  # of a usual product, for which oneDNN chooses a layout; it serves any number

Layer = Callable[[Tensor], Tensor]
Whole = tuple[Tensor, Tensor]  # weights in 8 bits, and what 1 stands for in each of their rows


def inference_model(model: Transformer, precision: torch.dtype) -> Transformer:
    """Make a model decode as quickly as its device can, in `precision`; it no longer learns.

    precision: with int8, embeddings and linear layers are in 8 bits, and all else in float32, see `Int8Linear`.
    The model itself is changed and returned, so that no weight but those of embedding and output is in memory twice.
    """
    if precision == torch.int8 and largest_exact_weight():
        return int8_model(model.float(), {})
    precision = torch.float32 if precision == torch.int8 else precision
    model = model.to(precision)
    # With gradients to come, oneDNN would take kernels for bfloat16 that are a thousand times slower.
    model.requires_grad_(False)
    packs = _can_pack(precision, model.device)
    for name, child in list(model.named_modules()):
        if isinstance(child, nn.Linear | TiedOutput) and (packs or name == "output"):
            _put(model, name, PackedLinear if packs else _plain_linear, child.weight, child.bias)
    return model.eval()


def int8_model(model: Transformer, stored: Mapping[str, Whole]) -> Transformer:
    """The same with embeddings and linear layers in 8 bits: those stored, by name of the weight, else the model's own.

    Where all are stored, the model's own need no memory (they may be on "meta").
    """
    model.requires_grad_(False)
    wholes = dict(stored)
    for name, child in list(model.named_modules()):
        if isinstance(child, nn.Embedding | nn.Linear | TiedOutput):
            key = "embedding.weight" if isinstance(child, TiedOutput) else f"{name}.weight"
            if key not in wholes:
                wholes[key] = quantised(child.weight)
            if isinstance(child, nn.Embedding):
                _put(model, name, Int8Embedding, *wholes[key])
            else:
                _put(model, name, Int8Linear, *wholes[key], child.bias)
    return model.eval()


def _put(model: Transformer, name: str, kind: Callable[..., Layer], *parts: Tensor | None) -> None:
    """Put a quicker layer in the place of one."""
    above, _, own = name.rpartition(".")
    parent = model.get_submodule(above)
    delattr(parent, own)  # torch keeps its modules apart, where a plain function cannot be put
    setattr(parent, own, Output(kind, *parts) if name == "output" else kind(*parts))


def decoding_warning(precision: str, device: torch.device) -> str:
    """A warning for who translates in a precision that this device is no quicker with; empty for any other."""
    if precision == "int8" and device.type == "cpu" and not largest_exact_weight():
        return "torch has no exact products of 8-bit numbers on this CPU: precision int8 is computed in float32"
    return warning_of(precision, device)


class Output:
    """The output layer, also for some of the pieces: what it is made of is kept for that."""

    def __init__(self, kind: Callable[..., Layer], *parts: Tensor | None) -> None:
        self._kind, self._parts = kind, parts
        self._whole = kind(*parts)

    def __call__(self, x: Tensor) -> Tensor:
        return self._whole(x)

    def part(self, pieces_U: Tensor) -> Layer:
        return self._kind(*(None if part is None else part[pieces_U] for part in self._parts))


def part_of_output(model: Transformer, pieces_U: Tensor) -> Layer:
    """The output layer of an `inference_model` for the logits of these pieces alone, in this order."""
    assert isinstance(model.output, Output)
    return model.output.part(pieces_U)


def _plain_linear(weight: Tensor, bias: Tensor | None) -> Layer:
    return lambda x: F.linear(x, weight, bias)


def _can_pack(precision: torch.dtype, device: torch.device) -> bool:
    """Whether torch has what PackedLinear needs; where it has not, each product lays its weight out again."""
    needed = ("_reorder_linear_weight", "_linear_pointwise")
    is_there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in needed)  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not is_there:
        return False
    return precision == torch.float32 or (precision == torch.bfloat16 and onednn_takes_bfloat16())


class PackedLinear:
    """A linear layer whose weight is laid out once: for a few rows, to do so takes longer than the product."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._bias = None if bias is None else bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        return _of_kernel_size(self._product, x)

    def _product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return out


def _of_kernel_size(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The product of x's rows, computed on so many that its kernel will be needed again."""
    rows = x.numel() // x.size(-1)
    if (size := up_to_kernel_size(rows)) == rows:
        return product(x)
    x_ND = F.pad(x.reshape(rows, -1), (0, 0, 0, size - rows))
    return product(x_ND)[:rows].view(*x.shape[:-1], -1)


# --- 8 bits ------------------------------------------------------------------------------------------------------

LARGEST = 127
# Up to so many weights the product that takes them as they are is quicker, as it begins at once; above it, the one
# whose weights are laid out.
PLAIN = 2**19


def quantised(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in 8 bits, from -127 to 127, and what 1 stands for in each, scale_N1: they are the x_ND / scale_N1, rounded.

    A row of zeros has scale 0, so what its 0 / 0 became does not matter.
    """
    scale_N1 = x_ND.detach().abs().amax(-1, keepdim=True).mul_(1 / LARGEST)
    return torch.div(x_ND.detach(), scale_N1).round_().to(torch.int8), scale_N1


class Int8Linear:
    """A linear layer in 8 bits: each output's weights have a scale, and each row of x gets its own.

    The products are summed in whole numbers, exactly, so no row depends on those beside it.
    """

    def __init__(self, weight_OD: Tensor, scale_O1: Tensor, bias: Tensor | None) -> None:
        if (largest := largest_exact_weight()) < LARGEST:
            # Rounded in 16 bits, so that no matrix is in float32; none of these numbers lies between two whole ones.
            twice_OD = weight_OD.short() * (2 * largest) + LARGEST
            weight_OD = twice_OD.div_(2 * LARGEST, rounding_mode="floor").to(torch.int8)
            scale_O1 = scale_O1 * (LARGEST / largest)
        self._bias = None if bias is None else bias.detach()
        kind = _PlainInt8 if weight_OD.numel() <= PLAIN else _PackedInt8
        self._scaled_sums = kind(weight_OD, scale_O1[:, 0])

    def __call__(self, x: Tensor) -> Tensor:
        return _of_kernel_size(self._product, x)

    def _product(self, x: Tensor) -> Tensor:
        x_ND, scale_N1 = quantised(x.reshape(-1, x.size(-1)))
        sums_NO = self._scaled_sums(x_ND)
        out_NO = sums_NO.mul_(scale_N1) if self._bias is None else torch.addcmul(self._bias, sums_NO, scale_N1)
        return out_NO.view(*x.shape[:-1], -1)


class _PlainInt8:
    """Sums of products, times the scales of their weights; torch multiplies as oneDNN does, and keeps the kernel."""

    def __init__(self, weight_OD: Tensor, scale_O: Tensor) -> None:
        self._weight_DO, self._scale_O = weight_OD.t(), scale_O

    def __call__(self, x_ND: Tensor) -> Tensor:
        return torch._int_mm(x_ND, self._weight_DO).float().mul_(self._scale_O)


class _PackedInt8:
    """The same for large weights, which are laid out once."""

    def __init__(self, weight_OD: Tensor, scale_O: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(weight_OD, None)
        self._scale_O, self._zero_O = scale_O, torch.zeros(len(scale_O), dtype=torch.int64)

    def __call__(self, x_ND: Tensor) -> Tensor:
        # Numbers without a sign, 128 for 0: for those with one, oneDNN has no quick kernel here.
        unsigned_ND = x_ND.view(torch.uint8).bitwise_xor(128)
        of_x, weights, of_output = (1.0, 128), (self._packed, self._scale_O, self._zero_O), (1.0, 0, torch.float32)
        sums_NO: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned_ND, *of_x, *weights, None, *of_output, "none", [], ""
        )
        return sums_NO


@cache
def largest_exact_weight() -> int:
    """The largest weight of a row whose sums torch's kernels give exactly on this CPU: 127, 64, or 0 where none is.

    A CPU without instructions for it (VNNI) adds pairs of products in 16 bits, which hold 2 * 255 * 64, but not
    2 * 255 * 127: then weights get one bit less.
    """
    for largest in (LARGEST, 64):
        if all(_is_exact(kind, rows, largest) for kind in (_PlainInt8, _PackedInt8) for rows in (1, 3, ROWS)):
            return largest
    return 0


def _is_exact(kind: type[_PlainInt8 | _PackedInt8], rows: int, largest: int) -> bool:
    """Whether sums of the largest products of both signs are right."""
    weight_OD = torch.full((96, 256), largest, dtype=torch.int8)
    weight_OD[::2] *= -1
    weight_OD[:, ::3] = largest
    x_ND = torch.full((rows, 256), LARGEST, dtype=torch.int8)
    x_ND[:, ::5] *= -1
    try:
        sums_NO = kind(weight_OD, torch.ones(len(weight_OD)))(x_ND)
    except (AttributeError, RuntimeError):  # a later torch may lack such a product, or another processor
        return False
    return torch.equal(sums_NO.double(), x_ND.double() @ weight_OD.double().t())


class Int8Embedding(nn.Module):
    """An embedding in 8 bits, each piece with its own scale."""

    def __init__(self, table_VD: Tensor, scale_V1: Tensor) -> None:
        super().__init__()
        self._table_VD, self._scale_V1 = table_VD, scale_V1

    @property
    def num_embeddings(self) -> int:
        return len(self._table_VD)

    def forward(self, ids_N: Tensor) -> Tensor:
        return F.embedding(ids_N, self._table_VD) * F.embedding(ids_N, self._scale_V1)
