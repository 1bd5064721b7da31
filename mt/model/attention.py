"""Attention (section 3.2)."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mt.device import bfloat16_is_quick
from mt.model.cache import LayerCache
from mt.model.dropout import Dropout
from mt.model.layout import Layout, Spans, kernel_mask
from mt.model.positions import rotated

# Above this many scores a head, torch's fused kernel is quicker on the CPU; below, plain products are.
SHORT = 128 * 128
# With dropout of the weights, which that kernel lacks, only so many scores a head are in memory at a time.
BLOCK = 512 * 512

# --- 3.2.1 Scaled dot-product attention --------------------------------------------------------------------------


def scaled_dot_product_attention(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    weights: list[Tensor] | None = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(d_k)) v, equation 1 (section 3.2.1).

    mask: True where a key may be attended to, broadcastable to [B, H, T, S]; or what `kernel_mask` makes of it.
    causal: position t attends to keys <= t only, the look-ahead mask (section 3.2.3).
    weights: where given, the softmax [B, H, T, S] is appended to it.
    dropout: of the weights, if any.
    """
    T, S = q_BHTK.size(-2), k_BHSK.size(-2)
    p = dropout.p if dropout is not None and dropout.training else 0.0
    if weights is None and (q_BHTK.device.type != "cpu" or (T * S > SHORT and not p)):
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, mask, p, causal)
    if weights is None and dropout is not None and p and T * S > BLOCK and not torch.compiler.is_compiling():
        return _in_blocks(q_BHTK, k_BHSK, v_BHSK, mask, causal, dropout)
    if causal:
        mask = look_ahead_mask(T, q_BHTK.device)
    weights_BHTS = attention_weights(q_BHTK, k_BHSK, mask)
    if weights is not None:
        weights.append(weights_BHTS)
    if dropout is not None:
        weights_BHTS = dropout(weights_BHTS)
    return weights_BHTS @ v_BHSK


def _in_blocks(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Tensor | None, causal: bool, dropout: Dropout
) -> Tensor:
    """Attention with dropout for one block of queries after the other.

    The backward pass computes the weights of each again, so memory grows with T + S and not with their product.
    """
    T, S = q_BHTK.size(-2), k_BHSK.size(-2)
    rows, key_S = BLOCK // S + 1, torch.arange(S, device=q_BHTK.device)

    def attended(first: int) -> Tensor:
        q_BHRK = q_BHTK[:, :, first : first + rows]
        seen = key_S <= key_S[first : first + rows, None] if causal else mask
        weights_BHRS: Tensor = dropout(attention_weights(q_BHRK, k_BHSK, seen))
        return weights_BHRS @ v_BHSK

    blocks = [checkpoint(attended, first, use_reentrant=False) for first in range(0, T, rows)]
    return torch.cat(blocks, dim=-2)


def unpadded_attention(
    q_NHK: Tensor, k_MHK: Tensor, v_MHK: Tensor, queries: Spans, keys: Spans, causal: bool = False
) -> Tensor:
    """The same for rows without padding: each sentence of the queries attends to its own of the keys, [N, H, K].

    FlashAttention (Dao, 2023), for 16-bit types on CUDA GPUs alone. Its backward pass adds up in a fixed order where
    torch's deterministic algorithms are on. It knows no dropout and gives no weights.
    """
    from torch.nn.attention.varlen import varlen_attn  # takes two seconds, for which translating need not wait

    starts, longest = (queries.starts_B, keys.starts_B), (queries.longest, keys.longest)
    window = (-1, 0) if causal else (-1, -1)
    return varlen_attn(q_NHK, k_MHK, v_MHK, *starts, *longest, window_size=window)  # type: ignore[return-value]


def can_be_unpadded(device: torch.device, precision: torch.dtype, d_k: int) -> bool:
    """Whether `unpadded_attention` works for heads of this width, products being in `precision`."""
    is_there = device.type == "cuda" and torch.backends.cuda.is_flash_attention_available()
    return is_there and bfloat16_is_quick(device) and precision == torch.bfloat16 and d_k % 8 == 0 and d_k <= 256


def attention_weights(q_BHTK: Tensor, k_BHSK: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights softmax(q k^T / sqrt(d_k)) that equation 1 gives each value (section 3.2.1)."""
    # The scale goes on the queries: they are fewer than the scores.
    scores_BHTS = (q_BHTK * (1 / math.sqrt(q_BHTK.size(-1)))) @ k_BHSK.transpose(-2, -1)
    if mask is not None:
        is_bias = mask.dtype != torch.bool
        scores_BHTS = scores_BHTS + mask if is_bias else scores_BHTS.masked_fill(~mask, float("-inf"))
    return scores_BHTS.softmax(dim=-1)


# --- 3.2.2 Multi-head attention ----------------------------------------------------------------------------------


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """[B, T, D] to [B, H, T, K] (section 3.2.2)."""
    B, T, D = x_BTD.shape
    return x_BTD.view(B, T, heads, D // heads).transpose(1, 2)


def join_heads(x_BHTK: Tensor) -> Tensor:
    """[B, H, T, K] to [B, T, D], the Concat of section 3.2.2."""
    return x_BHTK.transpose(1, 2).flatten(-2)


# --- 3.2.3 Applications of attention -----------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from one place (sections 3.2.2 and 3.2.3).

    The projections W^Q, W^K and W^V of all heads are one matrix product.
    """

    def __init__(self, d_model: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout) if dropout else None

    def forward(
        self, x_ND: Tensor, layout: Layout, cache: LayerCache | None = None, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Attend with each head, concatenate, and project by W^O; a cache holds the keys and values of the past."""
        if layout.spans is not None:
            attended_ND = self._attend_in_rows(self.qkv(x_ND), layout, layout.spans)
            return self.out(attended_ND)  # type: ignore[no-any-return]
        qkv_BTD = layout.pad(self.qkv(x_ND))
        qkv_BT3HK = qkv_BTD.view(*qkv_BTD.shape[:2], 3, self.heads, -1)
        if layout.angles_TK is None:
            q_BHTK, k_BHSK, v_BHSK = (part_BTHK.transpose(1, 2) for part_BTHK in qkv_BT3HK.unbind(2))
        else:  # both at once, as one line alone waits longer for the calls than for the sums
            qk_BT2HK, v_BT1HK = torch.split(qkv_BT3HK, [2, 1], dim=2)
            q_BHTK, k_BHSK = rotated(qk_BT2HK.permute(2, 0, 3, 1, 4), layout.angles_TK)
            v_BHSK = v_BT1HK[:, :, 0].transpose(1, 2)
        if cache is not None:
            k_BHSK, v_BHSK = cache.append(k_BHSK, v_BHSK)
            mask, causal = cache.visible, False
        else:
            # Padding stands at the end, where the look-ahead mask hides it from every real position.
            mask, causal = None if self.causal else layout.kernel_mask, self.causal
        attended_BHTK = scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, mask, causal, weights, self.dropout)
        out: Tensor = self.out(layout.pack(join_heads(attended_BHTK)))
        return out

    def _attend_in_rows(self, qkv_ND: Tensor, layout: Layout, spans: Spans) -> Tensor:
        q_NHK, k_NHK, v_NHK = qkv_ND.view(len(qkv_ND), 3, self.heads, -1).unbind(1)
        if layout.angles_TK is not None:
            q_NHK, k_NHK = rotated(q_NHK, layout.angles_TK), rotated(k_NHK, layout.angles_TK)
        return unpadded_attention(q_NHK, k_NHK, v_NHK, spans, spans, self.causal).flatten(1)


def look_ahead_mask(length: int, device: torch.device) -> Tensor:
    """True on and below the diagonal: position t may attend to positions <= t (section 3.2.3)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class LayerMemory(NamedTuple):
    """What one decoder layer sees of the source: keys and values of the encoder's output, and the padding mask."""

    k_BHSK: Tensor
    v_BHSK: Tensor
    mask: Tensor | None  # as `kernel_mask` makes it
    spans: Spans | None = None  # where keys and values are rows without padding, [N, H, K]


class CrossAttention(nn.Module):
    """Multi-head attention from the decoder to the encoder's output, the memory (sections 3.2.2 and 3.2.3)."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d_model, d_model)
        self.kv = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout) if dropout else None

    def project_memory(self, memory_ND: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, each [B, H, S, K]; without padding, each [N, H, K]."""
        if layout.spans is not None:
            k_NHK, v_NHK = self.kv(memory_ND).view(len(memory_ND), 2, self.heads, -1).unbind(1)
            return k_NHK, v_NHK
        k_BSD, v_BSD = layout.pad(self.kv(memory_ND)).chunk(2, dim=-1)
        return split_heads(k_BSD, self.heads), split_heads(v_BSD, self.heads)

    def forward(self, x_ND: Tensor, layout: Layout, memory: LayerMemory, weights: list[Tensor] | None = None) -> Tensor:
        k_BHSK, v_BHSK, mask, spans = memory
        if layout.spans is not None and spans is not None:
            q_NHK = self.q(x_ND).view(len(x_ND), self.heads, -1)
            attended_NHK = unpadded_attention(q_NHK, k_BHSK, v_BHSK, layout.spans, spans)
            return self.out(attended_NHK.flatten(1))  # type: ignore[no-any-return]
        q_BHTK = split_heads(layout.pad(self.q(x_ND)), self.heads)
        attended_BHTK = scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, mask, False, weights, self.dropout)
        out: Tensor = self.out(layout.pack(join_heads(attended_BHTK)))
        return out


@dataclass(frozen=True)
class Memory:
    """What the decoder sees of the source: each decoder layer's keys and values, and the padding mask."""

    keys: tuple[Tensor, ...]  # one of each layer: [B, H, S, K]
    values: tuple[Tensor, ...]
    mask: Tensor | None  # [B, 1, 1, S], True at real pieces; None when nothing is padding
    spans: Spans | None = None  # of keys and values without padding, each [N, H, K]

    @cached_property
    def layers(self) -> list[LayerMemory]:
        mask = kernel_mask(self.mask, self.keys[0])
        return [LayerMemory(k, v, mask, self.spans) for k, v in zip(self.keys, self.values, strict=True)]

    def select(self, rows: Tensor) -> "Memory":
        """The memory of some sentences, in the order of `rows`."""
        return Memory(
            tuple(k.index_select(0, rows) for k in self.keys),
            tuple(v.index_select(0, rows) for v in self.values),
            None if self.mask is None else self.mask.index_select(0, rows),
        )


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights, one tensor [B, H, T, S] of each application: figures 3 to 5 of the paper show such.

    Each row, what one position gives to all it attends to, sums to 1. The rows of padding mean nothing.
    """

    encoder: list[Tensor] = field(default_factory=list)  # self-attention of the source
    decoder: list[Tensor] = field(default_factory=list)  # self-attention of the target
    cross: list[Tensor] = field(default_factory=list)  # from the target to the source
    # With halting, two more: applications of each source position [B, S] until it halted, and each target one [B, T].
    steps: list[Tensor] = field(default_factory=list)
