"""The Transformer (section 3): embeddings, encoder and decoder stacks, tied output layer."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config import ModelConfig
from mt.model.attention import CrossAttention, Memory, SelfAttention
from mt.model.cache import Cache
from mt.model.dropout import Dropout
from mt.model.layout import Layout, layout_of, whole_layout
from mt.model.positions import positional_encoding


class FeedForward(nn.Module):
    """Position-wise feed-forward network: max(0, x W1 + b1) W2 + b2, equation 2 (section 3.3)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, d_ff)
        self.w2 = nn.Linear(d_ff, d_model)

    def forward(self, x_ND: Tensor) -> Tensor:
        out: Tensor = self.w2(F.relu(self.w1(x_ND), inplace=True))
        return out


class Residual(nn.Module):
    """A residual connection, then layer normalisation: LayerNorm(x + Dropout(Sublayer(x))) (sections 3.1 and 5.4)."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_ND: Tensor, sublayer_ND: Tensor) -> Tensor:
        out: Tensor = self.norm(x_ND + self.dropout(sublayer_ND))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network (section 3.1, Encoder)."""

    def __init__(self, d_model: int, heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(d_model, heads)
        self.after_self_attention = Residual(d_model, dropout)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.after_feed_forward = Residual(d_model, dropout)

    def forward(self, x_ND: Tensor, layout: Layout) -> Tensor:
        x_ND = self.after_self_attention(x_ND, self.self_attention(x_ND, layout))
        x_ND = self.after_feed_forward(x_ND, self.feed_forward(x_ND))
        return x_ND


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the memory, then the feed-forward network (section 3.1, Decoder)."""

    def __init__(self, d_model: int, heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(d_model, heads)
        self.after_self_attention = Residual(d_model, dropout)
        self.cross_attention = CrossAttention(d_model, heads)
        self.after_cross_attention = Residual(d_model, dropout)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.after_feed_forward = Residual(d_model, dropout)

    def forward(self, x_ND: Tensor, layout: Layout, memory: Memory, layer: int) -> Tensor:
        return self._attend_and_feed(x_ND, self.self_attention(x_ND, layout, causal=True), layout, memory, layer)

    def step(
        self, x_ND: Tensor, layout: Layout, memory: Memory, layer: int, cache: Cache, visible: Tensor | None
    ) -> Tensor:
        """The same for one new position of W hypotheses a sentence, whose earlier keys and values are in `cache`.

        The hypotheses stand where positions do, so what their sentence has is never copied for each.
        """
        q_BHWK, k_BHWK, v_BHWK = self.self_attention.project(x_ND, layout)
        k_BHSK, v_BHSK = cache.append(layer, k_BHWK, v_BHWK)
        attended_ND = self.self_attention.attend(q_BHWK, k_BHSK, v_BHSK, layout, visible)
        return self._attend_and_feed(x_ND, attended_ND, layout, memory, layer)

    def _attend_and_feed(self, x_ND: Tensor, attended_ND: Tensor, layout: Layout, memory: Memory, layer: int) -> Tensor:
        x_ND = self.after_self_attention(x_ND, attended_ND)
        x_ND = self.after_cross_attention(x_ND, self.cross_attention(x_ND, layout, memory, layer))
        x_ND = self.after_feed_forward(x_ND, self.feed_forward(x_ND))
        return x_ND


class Transformer(nn.Module):
    """The encoder-decoder of figure 1."""

    positions_TD: Tensor
    encoder: Sequence[EncoderLayer]
    decoder: Sequence[DecoderLayer]

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        c = config
        self.config = config
        self.embedding = nn.Embedding(vocab_size, c.d_model)  # 3.4: one matrix for source, target and output
        self.embedding_dropout = Dropout(c.dropout)  # 5.4: "the sums of the embeddings and the positional encodings"
        self.encoder = nn.ModuleList(  # type: ignore[assignment]
            EncoderLayer(c.d_model, c.heads, c.d_ff, c.dropout) for _ in range(c.encoder_layers)
        )
        self.decoder = nn.ModuleList(  # type: ignore[assignment]
            DecoderLayer(c.d_model, c.heads, c.d_ff, c.dropout) for _ in range(c.decoder_layers)
        )
        self.packed_output: nn.Module | None = None  # the output layer again, see mt.model.packed
        self.register_buffer("positions_TD", positional_encoding(256, c.d_model), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Glorot uniform for each projection; embeddings of variance 1 / d_model, as they also are the output layer."""
        d_model = self.config.d_model
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        for name, linear in self.named_modules():
            if isinstance(linear, nn.Linear):
                fused = name.endswith((".qkv", ".kv"))  # W^Q, W^K and W^V under each other are still three matrices
                for projection_DD in torch.split(linear.weight, d_model) if fused else [linear.weight]:
                    nn.init.xavier_uniform_(projection_DD)
                nn.init.zeros_(linear.bias)

    def embed(self, ids_N: Tensor, position_N: Tensor, end: int) -> Tensor:
        """Scaled embeddings plus positional encodings (3.4 and 3.5); all positions lie before `end`."""
        if end > self.positions_TD.size(0):
            self.positions_TD = positional_encoding(2 * end, self.config.d_model).to(self.positions_TD)
        x_ND = self.embedding(ids_N) * math.sqrt(self.config.d_model) + self.positions_TD[position_N]
        out: Tensor = self.embedding_dropout(x_ND)
        return out

    def embed_all(self, ids_BT: Tensor, layout: Layout) -> Tensor:
        """The rows of x_ND that the real pieces of padded sentences begin as."""
        ids_P = ids_BT.flatten()
        ids_N = ids_P if layout.places_N is None else ids_P[layout.places_N]
        return self.embed(ids_N, layout.positions(ids_N.device), layout.length)

    def encode(self, source_BS: Tensor, places_N: Tensor | None = None) -> Memory:
        """Run the encoder stack once and project its output for each decoder layer's attention.

        places_N: see `layout_of`.
        """
        layout = layout_of(source_BS, places_N)
        x_ND = self.embed_all(source_BS, layout)
        for layer in self.encoder:
            x_ND = layer(x_ND, layout)
        projected = [layer.cross_attention.project_memory(x_ND, layout) for layer in self.decoder]
        return Memory(tuple(k for k, _ in projected), tuple(v for _, v in projected), layout.mask)

    def decode(self, target_BT: Tensor, memory: Memory, places_N: Tensor | None = None) -> Tensor:
        """Run the decoder stack over whole targets, each starting with BOS; returns x_ND, a row for each real piece.

        places_N: see `layout_of`.
        """
        layout = layout_of(target_BT, places_N)
        x_ND = self.embed_all(target_BT, layout)
        for index, layer in enumerate(self.decoder):
            x_ND = layer(x_ND, layout, memory, index)
        return x_ND[: layout.pieces]

    def new_cache(self, sentences: int, width: int) -> Cache:
        """An empty cache for `width` hypotheses of each sentence."""
        c, weight = self.config, self.embedding.weight
        return Cache(sentences, width, c.decoder_layers, c.heads, c.d_model // c.heads, weight.device, weight.dtype)

    def step(self, ids_BW: Tensor, memory: Memory, cache: Cache) -> Tensor:
        """Run the decoder stack for the next position of W hypotheses a sentence; returns logits_BWV."""
        layout, visible = whole_layout(*ids_BW.shape), cache.visible()
        position_1 = torch.tensor([cache.length], device=ids_BW.device)
        x_ND = self.embed(ids_BW.flatten(), position_1, cache.length + 1)
        for index, layer in enumerate(self.decoder):
            x_ND = layer.step(x_ND, layout, memory, index, cache, visible)
        cache.advance()
        return self.logits(x_ND).view(*ids_BW.shape, -1)

    def logits(self, x: Tensor) -> Tensor:
        """The linear layer before the softmax, which shares the embedding's weights (section 3.4)."""
        if self.packed_output is not None:
            packed: Tensor = self.packed_output(x)
            return packed
        return F.linear(x, self.embedding.weight)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Logits for the piece that follows each target position; returns logits_BTV."""
        x_ND = self.decode(target_BT, self.encode(source_BS))
        return layout_of(target_BT).pad(self.logits(x_ND))
