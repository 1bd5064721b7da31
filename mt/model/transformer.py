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
from mt.model.positions import positional_encoding

PAD = 0  # the tokenizer's padding id


class FeedForward(nn.Module):
    """Position-wise feed-forward network: max(0, x W1 + b1) W2 + b2, equation 2 (section 3.3)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, d_ff)
        self.w2 = nn.Linear(d_ff, d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.w2(F.relu(self.w1(x_BTD), inplace=True))
        return out


class Residual(nn.Module):
    """A residual connection, then layer normalisation: LayerNorm(x + Dropout(Sublayer(x))) (sections 3.1 and 5.4)."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_BTD: Tensor, sublayer_BTD: Tensor) -> Tensor:
        out: Tensor = self.norm(x_BTD + self.dropout(sublayer_BTD))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network (section 3.1, Encoder)."""

    def __init__(self, d_model: int, heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(d_model, heads)
        self.after_self_attention = Residual(d_model, dropout)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.after_feed_forward = Residual(d_model, dropout)

    def forward(self, x_BSD: Tensor, mask: Tensor | None) -> Tensor:
        x_BSD = self.after_self_attention(x_BSD, self.self_attention(x_BSD, mask))
        x_BSD = self.after_feed_forward(x_BSD, self.feed_forward(x_BSD))
        return x_BSD


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

    def forward(self, x_BTD: Tensor, memory: Memory, layer: int) -> Tensor:
        return self._attend_and_feed(x_BTD, self.self_attention(x_BTD, causal=True), memory, layer)

    def step(self, x_BWD: Tensor, memory: Memory, layer: int, cache: Cache, visible: Tensor | None) -> Tensor:
        """The same for one new position of W hypotheses a sentence, whose earlier keys and values are in `cache`.

        The hypotheses stand where positions do, so what their sentence has is never copied for each.
        """
        q_BHWK, k_BHWK, v_BHWK = self.self_attention.project(x_BWD)
        k_BHSK, v_BHSK = cache.append(layer, k_BHWK, v_BHWK)
        attended_BWD = self.self_attention.attend(q_BHWK, k_BHSK, v_BHSK, visible)
        return self._attend_and_feed(x_BWD, attended_BWD, memory, layer)

    def _attend_and_feed(self, x_BTD: Tensor, attended_BTD: Tensor, memory: Memory, layer: int) -> Tensor:
        x_BTD = self.after_self_attention(x_BTD, attended_BTD)
        x_BTD = self.after_cross_attention(x_BTD, self.cross_attention(x_BTD, memory, layer))
        x_BTD = self.after_feed_forward(x_BTD, self.feed_forward(x_BTD))
        return x_BTD


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

    def embed(self, ids_BT: Tensor, start: int = 0) -> Tensor:
        """Scaled embeddings plus positional encodings, the first id standing at position `start` (3.4 and 3.5)."""
        end, positions_TD = start + ids_BT.size(1), self.positions_TD
        if end > positions_TD.size(0):
            positions_TD = self.positions_TD = positional_encoding(2 * end, self.config.d_model).to(positions_TD)
        x_BTD = self.embedding(ids_BT) * math.sqrt(self.config.d_model) + positions_TD[start:end]
        out: Tensor = self.embedding_dropout(x_BTD)
        return out

    def encode(self, source_BS: Tensor) -> Memory:
        """Run the encoder stack once and project its output for each decoder layer's attention."""
        padding_mask = (source_BS != PAD)[:, None, None, :]
        # On the CPU looking is free, and no mask is the quicker one; on a GPU looking would wait for the queue.
        mask = None if source_BS.device.type == "cpu" and bool(padding_mask.all()) else padding_mask
        x_BSD = self.embed(source_BS)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask)
        projected = [layer.cross_attention.project_memory(x_BSD) for layer in self.decoder]
        return Memory(tuple(k for k, _ in projected), tuple(v for _, v in projected), mask)

    def decode(self, target_BT: Tensor, memory: Memory) -> Tensor:
        """Run the decoder stack over whole targets, each starting with BOS; returns x_BTD."""
        # Padding stands at the end, where the look-ahead mask hides it from every real position.
        x_BTD = self.embed(target_BT)
        for index, layer in enumerate(self.decoder):
            x_BTD = layer(x_BTD, memory, index)
        return x_BTD

    def new_cache(self, sentences: int, width: int) -> Cache:
        """An empty cache for `width` hypotheses of each sentence."""
        c, weight = self.config, self.embedding.weight
        return Cache(sentences, width, c.decoder_layers, c.heads, c.d_model // c.heads, weight.device, weight.dtype)

    def step(self, ids_BW: Tensor, memory: Memory, cache: Cache) -> Tensor:
        """Run the decoder stack for the next position of W hypotheses a sentence; returns logits_BWV."""
        x_BWD = self.embed(ids_BW.reshape(-1, 1), start=cache.length).view(*ids_BW.shape, -1)
        visible = cache.visible()
        for index, layer in enumerate(self.decoder):
            x_BWD = layer.step(x_BWD, memory, index, cache, visible)
        cache.advance()
        return self.logits(x_BWD)

    def logits(self, x: Tensor) -> Tensor:
        """The linear layer before the softmax, which shares the embedding's weights (section 3.4)."""
        return F.linear(x, self.embedding.weight)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Logits for the piece that follows each target position; returns logits_BTV."""
        return self.logits(self.decode(target_BT, self.encode(source_BS)))
