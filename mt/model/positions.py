"""Positional encoding (section 3.5)."""

import torch
from torch import Tensor


def positional_encoding(length: int, d_model: int) -> Tensor:
    """Sinusoids of wavelengths from 2 pi to 10000 * 2 pi: sine on even, cosine on odd dimensions (section 3.5).

    Returns float32 [length, d_model], computed in float64 so that far positions are exact.
    """
    position_T1 = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    even_E = torch.arange(0, d_model, 2, dtype=torch.float64)
    angle_TE = position_T1 / 10_000 ** (even_E / d_model)
    return torch.stack([angle_TE.sin(), angle_TE.cos()], dim=-1).reshape(length, d_model).float()
