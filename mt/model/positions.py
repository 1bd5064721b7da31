"""Positional encoding (section 3.5), added to embeddings or turning queries and keys."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SinusoidalPositions(nn.Module):
    """A table of the sinusoids of section 3.5, which grows when a longer sentence comes."""

    table_TD: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.register_buffer("table_TD", positional_encoding(256, d_model), persistent=False)

    def forward(self, position_N: Tensor, end: int) -> Tensor:
        """The encoding of each position; all positions lie before `end`."""
        table_TD = self.table_TD  # read once: another thread may put a shorter table there after this one's check
        if end > table_TD.size(0):
            table_TD = self.table_TD = positional_encoding(2 * end, table_TD.size(1)).to(table_TD)
        return table_TD[position_N]


def positional_encoding(length: int, d_model: int) -> Tensor:
    """Sinusoids of wavelengths from 2 pi to 10000 * 2 pi: sine on even, cosine on odd dimensions (section 3.5).

    Returns float32 [length, d_model] on the CPU, computed in float64 so that far positions are exact.
    """
    position_T1 = torch.arange(length, dtype=torch.float64, device="cpu").unsqueeze(1)
    even_E = torch.arange(0, d_model, 2, dtype=torch.float64, device="cpu")
    angle_TE = position_T1 / 10_000 ** (even_E / d_model)
    return torch.stack([angle_TE.sin(), angle_TE.cos()], dim=-1).reshape(length, d_model).float()


class LearnedPositions(nn.Module):
    """A learned vector for each position, the same for source and target (section 3.5; table 3, row E)."""

    def __init__(self, count: int, d_model: int) -> None:
        super().__init__()
        self.table_TD = nn.Parameter(torch.empty(count, d_model))

    def forward(self, position_N: Tensor, end: int) -> Tensor:
        """The vector of each position; those past the last share its vector.

        `mt prepare` refuses such sentences, but BPE-dropout may make a training sentence longer.
        """
        return F.embedding(position_N.clamp(max=len(self.table_TD) - 1), self.table_TD)


def rotated(x_BHTK: Tensor, angles_TK: Tensor) -> Tensor:
    """Turn each pair of dimensions of queries or keys by the angle of its position (Su et al., 2021, section 3.2.2).

    The product of a query and a key then depends on how far apart they are, not on where they stand.
    angles_TK: sines on even, cosines on odd dimensions, as `SinusoidalPositions` of d_k dimensions has them.
    """
    even, odd = x_BHTK[..., 0::2], x_BHTK[..., 1::2]
    sin, cos = angles_TK[..., 0::2], angles_TK[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x_BHTK.dtype)
