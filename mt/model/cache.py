"""The decoder's earlier keys and values, kept so that each step computes one position only."""

from typing import NamedTuple

import torch
from torch import Tensor

from mt.model.layout import kernel_mask


class Cache:
    """Self-attention keys and values of W hypotheses for each of B sentences, at all positions decoded so far.

    Nothing moves when a beam is reordered. The entries of a sentence's hypotheses lie side by side, T positions of W
    places each, and a mask shows every hypothesis those it descends from.
    """

    def __init__(
        self, sentences: int, width: int, layers: int, heads: int, d_k: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.length = 0
        self.width = width
        self._store = torch.empty(layers, 2, sentences, heads, 16 * width, d_k, device=device, dtype=dtype)
        self._own_BW = torch.arange(width, device=device).expand(sentences, width)
        self._origins_BWT = self._own_BW[:, :, None]  # the place at each position that a hypothesis descends from

    def layers(self) -> list["LayerCache"]:
        """What each layer needs to compute the next position."""
        visible = None
        if self.width > 1:
            visible = kernel_mask((self._origins_BWT[..., None] == self._own_BW[0]).flatten(2)[:, None], self._store)
        return [LayerCache(self, layer, visible) for layer in range(self._store.size(0))]

    def append(self, layer: int, k_BHWK: Tensor, v_BHWK: Tensor) -> tuple[Tensor, Tensor]:
        """Add this position's keys and values; returns those of all positions so far, each [B, H, T * W, K]."""
        first, end = self.length * self.width, (self.length + 1) * self.width
        if end > (places := self._store.size(4)):
            grown = self._store.new_empty(*self._store.shape[:4], 2 * places, self._store.size(5))
            grown[..., :places, :] = self._store  # the rest takes no memory before it is used
            self._store = grown
        self._store[layer, 0, :, :, first:end] = k_BHWK
        self._store[layer, 1, :, :, first:end] = v_BHWK
        k_BHSK, v_BHSK = self._store[layer, :, :, :, :end]
        return k_BHSK, v_BHSK

    def advance(self) -> None:
        """The position that all layers have appended is done; the next one begins."""
        self.length += 1
        if self.width > 1:
            self._origins_BWT = torch.cat([self._origins_BWT, self._own_BW[:, :, None]], dim=2)

    def reorder(self, origin_BW: Tensor) -> None:
        """Each hypothesis goes on from place `origin_BW` of its sentence."""
        if self.width > 1:
            done_BWT = self._origins_BWT[:, :, :-1]
            done_BWT = done_BWT.gather(1, origin_BW[:, :, None].expand(-1, -1, done_BWT.size(2)))
            self._origins_BWT = torch.cat([done_BWT, self._own_BW[:, :, None]], dim=2)

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences alone, in this order."""
        self._store = self._store.index_select(2, sentences)
        self._own_BW = self._own_BW.index_select(0, sentences)
        self._origins_BWT = self._origins_BWT.index_select(0, sentences)


class LayerCache(NamedTuple):
    """One layer's part of a cache while the next position is computed."""

    cache: Cache
    layer: int
    visible: Tensor | None  # the `kernel_mask` for that position, [B, 1, W, T * W]; None when all is visible

    def append(self, k_BHWK: Tensor, v_BHWK: Tensor) -> tuple[Tensor, Tensor]:
        """See `Cache.append`."""
        return self.cache.append(self.layer, k_BHWK, v_BHWK)
