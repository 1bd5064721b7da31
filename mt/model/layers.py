"""What a layer is made of: residual connections, the two kinds of layers, feed-forward network, output."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.model.attention import AttentionMaps, CrossAttention, LayerMemory, SelfAttention
from mt.model.cache import LayerCache
from mt.model.dropout import Dropout
from mt.model.layout import Layout

# --- 3.1 Encoder and decoder stacks ------------------------------------------------------------------------------


class Residual(nn.Module):
    """A residual connection, then layer normalisation: LayerNorm(x + Dropout(Sublayer(x))) (sections 3.1 and 5.4).

    With `pre` it is x + Dropout(Sublayer(LayerNorm(x))) (Xiong et al., 2020).
    rounded: what comes out has the type of the sublayer's products, as autocast chooses it.
    """

    def __init__(self, d_model: int, dropout: float, pre: bool, rounded: bool = False) -> None:
        super().__init__()
        self.rounded = rounded
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)
        self.pre = pre

    def forward(self, x_ND: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        added_ND = self.dropout(sublayer(self.norm(x_ND) if self.pre else x_ND))
        out: Tensor = x_ND + added_ND if self.pre else self.norm(x_ND + added_ND)
        return out.to(added_ND.dtype) if self.rounded else out


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network (section 3.1, Encoder).

    residual: makes the connection around a sublayer.
    """

    def __init__(
        self, self_attention: SelfAttention, feed_forward: "FeedForward", residual: Callable[[], Residual]
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.after_self_attention = residual()
        self.feed_forward = feed_forward
        self.after_feed_forward = residual()

    def forward(self, x_ND: Tensor, layout: Layout, maps: AttentionMaps | None = None) -> Tensor:
        weights = None if maps is None else maps.encoder
        x_ND = self.after_self_attention(x_ND, lambda x_ND: self.self_attention(x_ND, layout, None, weights))
        x_ND = self.after_feed_forward(x_ND, self.feed_forward)
        return x_ND


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the memory, then the feed-forward network (section 3.1, Decoder).

    residual: as in `EncoderLayer`.
    """

    def __init__(
        self,
        self_attention: SelfAttention,
        cross_attention: CrossAttention,
        feed_forward: "FeedForward",
        residual: Callable[[], Residual],
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.after_self_attention = residual()
        self.cross_attention = cross_attention
        self.after_cross_attention = residual()
        self.feed_forward = feed_forward
        self.after_feed_forward = residual()

    def forward(
        self,
        x_ND: Tensor,
        layout: Layout,
        memory: LayerMemory,
        cache: LayerCache | None = None,
        maps: AttentionMaps | None = None,
    ) -> Tensor:
        """Whole targets at once; with a cache, one new position of each hypothesis, see `Transformer.step`."""
        own, cross = (None, None) if maps is None else (maps.decoder, maps.cross)
        x_ND = self.after_self_attention(x_ND, lambda x_ND: self.self_attention(x_ND, layout, cache, own))
        x_ND = self.after_cross_attention(x_ND, lambda x_ND: self.cross_attention(x_ND, layout, memory, cross))
        x_ND = self.after_feed_forward(x_ND, self.feed_forward)
        return x_ND


# --- 3.3 Position-wise feed-forward networks ---------------------------------------------------------------------


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2, equation 2 (section 3.3), or another activation in place of max(0, .).

    With swiglu: (silu(x W1 + b1) * (x V + c)) W2 + b2 (Shazeer, 2020, equation 6, here with biases).
    """

    def __init__(self, d_model: int, d_ff: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.w1 = nn.Linear(d_model, d_ff)
        self.w2 = nn.Linear(d_ff, d_model)
        self.v = nn.Linear(d_model, d_ff) if activation == "swiglu" else None
        self.dropout = Dropout(dropout) if dropout else None

    def forward(self, x_ND: Tensor) -> Tensor:
        inner_NF = self.activation(self.w1(x_ND))
        if self.v is not None:
            inner_NF = inner_NF * self.v(x_ND)
        if self.dropout is not None:
            inner_NF = self.dropout(inner_NF)
        out: Tensor = self.w2(inner_NF)
        return out


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": partial(F.relu, inplace=True),
    "gelu": F.gelu,  # x times the normal distribution's Phi(x), by erf (Hendrycks and Gimpel, 2016)
    "silu": F.silu,
    "swiglu": F.silu,
}


# --- 3.4 Embeddings and softmax ----------------------------------------------------------------------------------


class TiedOutput(nn.Module):
    """The linear layer before the softmax: the embedding's own matrix (section 3.4; Press and Wolf, 2017).

    As published it has no bias.
    """

    def __init__(self, embedding: nn.Embedding, bias: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None
        self._embedding = (embedding,)  # in a tuple, where torch does not look: checkpoints hold the matrix once

    @property
    def weight(self) -> Tensor:
        return self._embedding[0].weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)
