"""Attention (section 3.2)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.model.layout import Layout

# Above this many scores a head, torch's fused kernel is quicker on the CPU; below, plain products are.
SHORT = 128 * 128


def scaled_dot_product_attention(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """softmax(q k^T / sqrt(d_k)) v, equation 1 (section 3.2.1).

    mask: True where a key may be attended to, broadcastable to [B, H, T, S].
    causal: position t attends to keys <= t only, the look-ahead mask (section 3.2.3).
    """
    T, S = q_BHTK.size(-2), k_BHSK.size(-2)
    if q_BHTK.device.type != "cpu" or T * S > SHORT:
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, is_causal=causal)
    if causal:
        mask = look_ahead_mask(T, q_BHTK.device)
    return attention_weights(q_BHTK, k_BHSK, mask) @ v_BHSK


def attention_weights(q_BHTK: Tensor, k_BHSK: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights softmax(q k^T / sqrt(d_k)) that equation 1 gives each value (section 3.2.1)."""
    # The scale goes on the queries: they are fewer than the scores.
    scores_BHTS = (q_BHTK * (1 / math.sqrt(q_BHTK.size(-1)))) @ k_BHSK.transpose(-2, -1)
    if mask is not None:
        scores_BHTS = scores_BHTS.masked_fill(~mask, float("-inf"))
    return scores_BHTS.softmax(dim=-1)


def look_ahead_mask(length: int, device: torch.device) -> Tensor:
    """True on and below the diagonal: position t may attend to positions <= t (section 3.2.3)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class SelfAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from one place (sections 3.2.2 and 3.2.3).

    The projections W^Q, W^K and W^V of all heads are one matrix product.
    """

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def project(self, x_ND: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, H, T, K]."""
        q_BTD, k_BTD, v_BTD = layout.pad(self.qkv(x_ND)).chunk(3, dim=-1)
        return split_heads(q_BTD, self.heads), split_heads(k_BTD, self.heads), split_heads(v_BTD, self.heads)

    def forward(self, x_ND: Tensor, layout: Layout, causal: bool = False) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = self.project(x_ND, layout)
        # Padding stands at the end, where the look-ahead mask hides it from every real position.
        return self.attend(q_BHTK, k_BHTK, v_BHTK, layout, None if causal else layout.mask, causal)

    def attend(
        self,
        q_BHTK: Tensor,
        k_BHSK: Tensor,
        v_BHSK: Tensor,
        layout: Layout,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend with each head, concatenate, and project by W^O."""
        attended_BTD = join_heads(scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, mask, causal))
        out: Tensor = self.out(layout.pack(attended_BTD))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention from the decoder to the encoder's output, the memory (sections 3.2.2 and 3.2.3)."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d_model, d_model)
        self.kv = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def project_memory(self, memory_ND: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, each [B, H, S, K]."""
        k_BSD, v_BSD = layout.pad(self.kv(memory_ND)).chunk(2, dim=-1)
        return split_heads(k_BSD, self.heads), split_heads(v_BSD, self.heads)

    def project(self, x_ND: Tensor, layout: Layout) -> Tensor:
        """Queries, [B, H, T, K]."""
        return split_heads(layout.pad(self.q(x_ND)), self.heads)

    def forward(self, x_ND: Tensor, layout: Layout, memory: "Memory", layer: int) -> Tensor:
        q_BHTK, k_BHSK, v_BHSK = self.project(x_ND, layout), memory.keys[layer], memory.values[layer]
        attended_BTD = join_heads(scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, memory.mask))
        out: Tensor = self.out(layout.pack(attended_BTD))
        return out


@dataclass(frozen=True)
class Memory:
    """What the decoder sees of the source: each decoder layer's keys and values, and the padding mask."""

    keys: tuple[Tensor, ...]  # a layer each: [B, H, S, K]
    values: tuple[Tensor, ...]
    mask: Tensor | None  # [B, 1, 1, S], True at real pieces; None when nothing is padding

    def select(self, rows: Tensor) -> "Memory":
        """The memory of some sentences, in the order of `rows`."""
        return Memory(
            tuple(k.index_select(0, rows) for k in self.keys),
            tuple(v.index_select(0, rows) for v in self.values),
            None if self.mask is None else self.mask.index_select(0, rows),
        )


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """[B, T, D] to [B, H, T, K] (section 3.2.2)."""
    B, T, D = x_BTD.shape
    return x_BTD.view(B, T, heads, D // heads).transpose(1, 2)


def join_heads(x_BHTK: Tensor) -> Tensor:
    """[B, H, T, K] to [B, T, D], the Concat of section 3.2.2."""
    return x_BHTK.transpose(1, 2).flatten(-2)
