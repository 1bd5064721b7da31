"""The decoder's earlier keys and values, kept so that each step computes one position only."""

import torch
from torch import Tensor


class Cache:
    """Self-attention keys and values of N hypotheses at the positions decoded so far.

    One tensor [T, layers, 2, N, H, K]: the positions in use are a contiguous prefix, so rows are selected in one copy.
    """

    def __init__(self, rows: int, layers: int, heads: int, d_k: int, device: torch.device, dtype: torch.dtype) -> None:
        self.length = 0
        self._store = torch.empty(16, layers, 2, rows, heads, d_k, device=device, dtype=dtype)

    def append(self, layer: int, k_NH1K: Tensor, v_NH1K: Tensor) -> tuple[Tensor, Tensor]:
        """Add this position's keys and values; returns those of all positions so far, each [N, H, T, K]."""
        if self.length == self._store.size(0):
            self._store = torch.cat([self._store, torch.empty_like(self._store)])
        self._store[self.length, layer, 0] = k_NH1K.squeeze(2)
        self._store[self.length, layer, 1] = v_NH1K.squeeze(2)
        k_NHTK, v_NHTK = self._store[: self.length + 1, layer].permute(1, 2, 3, 0, 4)
        return k_NHTK, v_NHTK

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses, in this order; a row may be taken more than once."""
        capacity, layers, two, _, heads, d_k = self._store.shape
        store = self._store.new_empty(capacity, layers, two, len(rows), heads, d_k)
        torch.index_select(self._store[: self.length], 3, rows, out=store[: self.length])
        self._store = store
