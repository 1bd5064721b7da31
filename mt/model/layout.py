"""Sentences of unequal length without padding: attention works in a padded rectangle, all else on real pieces alone."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

PAD = 0  # the tokenizer's padding id
# Pad with copies of row 0 to a multiple of this, so that row counts repeat from batch to batch: a CPU builds bfloat16
# kernels for each new count, which took 15% of an update.
MULTIPLE = 64


@dataclass(frozen=True)
class Layout:
    """Where the real pieces, the rows of x_ND, lie in a rectangle of B sentences by T positions: P places.

    What stands at padding means nothing, and no gradient comes from there.
    """

    sentences: int
    length: int
    pieces: int  # rows that hold a piece; those after them are the copies of row 0
    places_N: Tensor | None = None  # the place of each row; None, like the next two, when nothing is padding
    rows_P: Tensor | None = None  # the row of each place; at padding, any row
    mask: Tensor | None = None  # [B, 1, 1, T], True at real pieces
    kernel_mask: Tensor | None = None  # what the function of this name makes of it, where attention needs it
    angles_TK: Tensor | None = None  # with rotary positions: sines and cosines of the angle that each position turns by
    spans: "Spans | None" = None  # where attention works on the rows themselves, without a rectangle

    def pad(self, x_ND: Tensor) -> Tensor:
        """Lay the rows out as x_BTD."""
        x_PD: Tensor = x_ND if self.mask is None else _Pad.apply(x_ND, self.places_N, self.rows_P, self.pieces)  # type: ignore[no-untyped-call]
        return x_PD.view(self.sentences, self.length, -1)

    def pack(self, x_BTD: Tensor) -> Tensor:
        """Take the rows out of the rectangle again."""
        x_PD = x_BTD.flatten(0, 1)
        if self.mask is None:
            return x_PD
        x_ND: Tensor = _Pack.apply(x_PD, self.places_N, self.rows_P, self.mask.view(-1, 1))  # type: ignore[no-untyped-call]
        return x_ND

    def positions(self, device: torch.device) -> Tensor:
        """The position of each row in its sentence."""
        places_N = torch.arange(self.sentences * self.length, device=device) if self.places_N is None else self.places_N
        return places_N % self.length


class Spans(NamedTuple):
    """Which rows are one sentence; the copies of row 0 at the end are one more."""

    starts_B: Tensor  # int32; the first row of each, and at last the number of rows
    longest: int  # no sentence has more rows


def layout_of(ids_BT: Tensor, places_N: Tensor | None = None, compiled: bool = False, unpadded: bool = False) -> Layout:
    """The layout of padded sentences.

    places_N: of the real pieces in the flattened rectangle, where they are known: to look makes a GPU wait.
    compiled: with a mask and copies of row 0 always, as compiled layers would need other graphs without them.
    unpadded: for attention on the rows themselves; with copies of row 0 always, so that both sides have as many spans.
    """
    B, T = ids_BT.shape
    if places_N is None:
        places_N = (ids_BT != PAD).flatten().nonzero()[:, 0]
    if len(places_N) == B * T and not compiled and not unpadded:
        return whole_layout(B, T)
    pieces = len(places_N)
    real_P = torch.zeros(B * T, dtype=torch.bool, device=ids_BT.device).index_fill_(0, places_N, True)
    # One copy would have a graph of its own.
    copies = 2 + (-pieces - 2) % MULTIPLE if compiled or unpadded else -pieces % MULTIPLE
    places_N = torch.cat([places_N, places_N[:1].expand(copies)])
    if unpadded:
        ends_B = real_P.view(B, T).sum(dim=1).cumsum(0, dtype=torch.int32)
        starts_B = F.pad(F.pad(ends_B, (1, 0)), (0, 1), value=len(places_N))
        return Layout(B, T, pieces, places_N, spans=Spans(starts_B, max(T, MULTIPLE + 1)))
    return Layout(B, T, pieces, places_N, real_P.cumsum(0) - 1, real_P.view(B, 1, 1, T))


def compilable(ids_BT: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same sentences in a rectangle that compiled layers need no graph of its own for.

    It has more than one sentence and more than one position, and not a multiple of 16 positions, as attention on a GPU
    takes masks of such a width as they are and pads all others.
    """
    B, T = ids_BT.shape
    return np.pad(ids_BT, ((0, int(B == 1)), (0, int(T == 1 or T % 16 == 0))), constant_values=PAD)


def whole_layout(sentences: int, length: int) -> Layout:
    """The layout of sentences that are all of one length."""
    return Layout(sentences, length, sentences * length)


# Both are gathers, and the backward pass of each is the other's forward pass. torch's own backward pass of a gather
# adds row by row, which is several times slower.


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x_ND: Tensor, places_N: Tensor, rows_P: Tensor, pieces: int
    ) -> Tensor:
        ctx.save_for_backward(places_N)
        ctx.pieces = pieces  # type: ignore[attr-defined]
        return x_ND.index_select(0, rows_P)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient_PD: Tensor) -> tuple[Tensor, None, None, None]:
        (places_N,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient_ND = gradient_PD.index_select(0, places_N)
        gradient_ND[ctx.pieces :] = 0  # type: ignore[attr-defined]
        return gradient_ND, None, None, None


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x_PD: Tensor, places_N: Tensor, rows_P: Tensor, real_P1: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows_P, real_P1)
        return x_PD.index_select(0, places_N)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient_ND: Tensor) -> tuple[Tensor, None, None, None]:
        rows_P, real_P1 = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient_ND.index_select(0, rows_P).mul_(real_P1), None, None, None


# --- Masks -------------------------------------------------------------------------------------------------------


def kernel_mask(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask as attention takes it without more work, to be made once for all calls.

    On a CPU that is the mask itself. Other devices would turn it at each call into what is added to the scores, 0 or
    minus infinity, and copy that to rows which begin at multiples of 16 elements.
    like: weights, or what they gave; the products have its type, or autocast's.
    """
    if mask is None or mask.device.type == "cpu":
        return mask
    return additive_mask(mask, product_type(like))


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where the mask is True, else minus infinity, in rows that begin at multiples of 16 elements."""
    *rest, S = mask.shape
    bias = mask.new_zeros((*rest, S + -S % 16), dtype=dtype)[..., :S]
    return bias.masked_fill_(~mask, float("-inf"))


def product_type(like: Tensor) -> torch.dtype:
    """The type of products with such weights: autocast's, where that is on."""
    device = like.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else like.dtype
