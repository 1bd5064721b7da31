"""The Transformer (section 3): embeddings, encoder and decoder stacks, output layer."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt.config import ModelConfig
from mt.model.attention import AttentionMaps, CrossAttention, Memory, SelfAttention
from mt.model.cache import Cache
from mt.model.dropout import Dropout
from mt.model.layers import DecoderLayer, EncoderLayer, FeedForward, Residual, TiedOutput
from mt.model.layout import Layout, kernel_mask, layout_of, product_type, whole_layout
from mt.model.positions import LearnedPositions, SinusoidalPositions
from mt.model.recurrence import Application, Ponder, Recurrence


class Transformer(nn.Module):
    """The encoder-decoder of figure 1.

    source_vocab_size: where the source has a vocabulary of its own; its embedding then is one apart as well.
    compiled: in training, run layers through torch.compile, which fuses what is not a matrix product.
    recompute: in training, keep only each layer's input and compute the rest again in the backward pass, with the same
    dropout masks (Chen et al., 2016).
    unpadded: in training, see `unpadded_attention`.
    rounded: layers hand on what autocast computes products in, and not float32.
    """

    encoder: Sequence[EncoderLayer]
    decoder: Sequence[DecoderLayer]
    output: TiedOutput | nn.Linear

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        source_vocab_size: int | None = None,
        compiled: bool = False,
        recompute: bool = False,
        unpadded: bool = False,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        c = config
        self.config = config
        self.compiled = compiled
        self.recompute = recompute
        self.unpadded = unpadded
        self.rounded = rounded
        self.embedding = nn.Embedding(vocab_size, c.d_model)  # 3.4: one matrix for source, target and output, or ...
        self.source_embedding = None  # ... for the source one apart
        if c.embeddings != "tied":
            self.source_embedding = nn.Embedding(source_vocab_size or vocab_size, c.d_model)
        self.positions = _added_positions(c)  # 3.5
        self.rotary = SinusoidalPositions(c.d_model // c.heads) if c.positions == "rotary" else None
        self.embedding_dropout = Dropout(c.dropout)  # 5.4: "the sums of the embeddings and the positional encodings"
        self.encoder = nn.ModuleList(_encoder_layer(c, rounded) for _ in range(c.distinct(c.encoder_layers)))  # type: ignore[assignment]
        self.decoder = nn.ModuleList(_decoder_layer(c, rounded) for _ in range(c.distinct(c.decoder_layers)))  # type: ignore[assignment]
        self.encoder_recurrence = _recurrence(c, c.encoder_layers)  # None in the published model
        self.decoder_recurrence = _recurrence(c, c.decoder_layers)
        self.encoder_norm = nn.LayerNorm(c.d_model) if c.norm == "pre" else None  # the end of a stack
        self.decoder_norm = nn.LayerNorm(c.d_model) if c.norm == "pre" else None
        if c.embeddings == "separate":  # 3.4; the output gives logits
            self.output = nn.Linear(c.d_model, vocab_size, bias=c.output_bias)
        else:
            self.output = TiedOutput(self.embedding, c.output_bias)
        self._initialise()

    def _initialise(self) -> None:
        """Glorot uniform for each projection; embeddings and output, often one matrix, of variance 1 / d_model."""
        d_model = self.config.d_model
        for name, parameter in self.named_parameters():
            if name in ("embedding.weight", "source_embedding.weight", "output.weight", "positions.table_TD"):
                nn.init.normal_(parameter, std=d_model**-0.5)
            elif name.endswith("halting.bias"):  # so that positions are not pondered long at first (Graves, 2016)
                nn.init.ones_(parameter)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                fused = name.endswith(("qkv.weight", "kv.weight"))  # W^Q, W^K, W^V under each other are three matrices
                for projection_DD in torch.split(parameter, d_model) if fused else [parameter]:
                    nn.init.xavier_uniform_(projection_DD)

    @property
    def device(self) -> torch.device:
        return self.encoder[0].after_self_attention.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What layers hand on: the type of the weights, of which those of norms are never in fewer bits than it."""
        return self.encoder[0].after_self_attention.norm.weight.dtype

    @property
    def vocab_size(self) -> int:
        """The number of pieces of the target, which may be more or fewer than the source has."""
        return self.embedding.num_embeddings

    # --- 3.1 Encoder and decoder stacks --------------------------------------------------------------------------

    def encode(
        self,
        source_BS: Tensor,
        places_N: Tensor | None = None,
        maps: AttentionMaps | None = None,
        hidden_BS: Tensor | None = None,
        ponders: list[Ponder] | None = None,
    ) -> Memory:
        """Run the encoder stack once and project its output for each decoder layer's attention.

        places_N: see `layout_of`.
        maps: where given, the weights of each application's attention are appended to it.
        hidden_BS: True at pieces of which only the position is seen; None: nowhere.
        ponders: where given, how long each real piece was pondered is appended to it, in a model with halting.
        """
        layout = self._layout(source_BS, places_N)
        x_ND = self._embed_all(source_BS, layout, self.source_embedding, hidden_BS)
        layout = replace(layout, kernel_mask=kernel_mask(layout.mask, x_ND))
        layers = _schedule(self.encoder, self.config.encoder_layers)
        applications = [self._application(layer, layout, maps) for layer in layers]
        x_ND = self._run_stack(self.encoder_recurrence, x_ND, layout, applications, ponders)
        if self.encoder_norm is not None:
            x_ND = self.encoder_norm(x_ND)
        projected = [layer.cross_attention.project_memory(x_ND, layout) for layer in self.decoder]
        keys, values = zip(*projected, strict=True)
        return Memory(keys, values, layout.mask, layout.spans)

    def decode(
        self,
        target_BT: Tensor,
        memory: Memory,
        places_N: Tensor | None = None,
        maps: AttentionMaps | None = None,
        hidden_BT: Tensor | None = None,
        ponders: list[Ponder] | None = None,
    ) -> Tensor:
        """Run the decoder stack over whole targets, each starting with BOS; returns x_ND, a row for each real piece.

        places_N, maps, hidden_BT and ponders: as in `encode`.
        """
        layout = self._layout(target_BT, places_N)
        x_ND = self._embed_all(target_BT, layout, hidden_BT=hidden_BT)
        applications = self._decoder_applications(layout, memory, maps=maps)
        x_ND = self._run_stack(self.decoder_recurrence, x_ND, layout, applications, ponders)
        if self.decoder_norm is not None:
            x_ND = self.decoder_norm(x_ND)
        return x_ND[: layout.pieces]

    def step(
        self, ids_BW: Tensor, memory: Memory, cache: Cache, output: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Run the decoder stack for the next position of W hypotheses a sentence; returns logits_BWV.

        The hypotheses stand where positions do, so what their sentence has is never copied for each.
        output: another output layer than the model's, such as some of its rows.
        """
        position_1 = torch.full((1,), cache.length, device=ids_BW.device)  # from a list, it would wait for a GPU
        layout = whole_layout(*ids_BW.shape)
        if self.rotary is not None:
            layout = replace(layout, angles_TK=self.rotary(position_1, cache.length + 1))
        x_ND = self.embed(ids_BW.flatten(), position_1, cache.length + 1)
        applications = self._decoder_applications(layout, memory, cache)
        position = (position_1, cache.length + 1)
        x_ND = self._run_stack(self.decoder_recurrence, x_ND, layout, applications, position=position)
        if self.decoder_norm is not None:
            x_ND = self.decoder_norm(x_ND)
        logits_NV: Tensor = (output or self.output)(x_ND)
        cache.advance()
        return logits_NV.view(*ids_BW.shape, -1)

    def new_cache(self, sentences: int, width: int) -> Cache:
        """An empty cache for `width` hypotheses of each sentence."""
        c = self.config
        return Cache(sentences, width, c.decoder_layers, c.heads, c.d_model // c.heads, self.device, self.dtype)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Logits for the piece that follows each target position; returns logits_BTV."""
        x_ND = self.decode(target_BT, self.encode(source_BS))
        return layout_of(target_BT).pad(self.output(x_ND))

    @torch.inference_mode()
    def attention_maps(self, source_BS: Tensor, target_BT: Tensor) -> AttentionMaps:
        """The attention weights with which padded targets, each starting with BOS, are made of their sources."""
        maps, ponders = AttentionMaps(), list[Ponder]()
        self.decode(target_BT, self.encode(source_BS, maps=maps, ponders=ponders), maps=maps, ponders=ponders)
        for ids_BT, ponder in zip((source_BS, target_BT), ponders, strict=bool(ponders)):
            maps.steps.append(layout_of(ids_BT).pad(ponder.steps_N[:, None])[..., 0])
        return maps

    def _decoder_applications(
        self, layout: Layout, memory: Memory, cache: Cache | None = None, maps: AttentionMaps | None = None
    ) -> list[Application]:
        times = self.config.decoder_layers
        layers, memories = _schedule(self.decoder, times), _schedule(memory.layers, times)
        caches = [None] * times if cache is None else cache.layers()
        parts = zip(layers, memories, caches, strict=True)
        return [self._application(layer, layout, of_layer, own_cache, maps) for layer, of_layer, own_cache in parts]

    def _application(self, layer: EncoderLayer | DecoderLayer, *inputs: object) -> Application:
        """A layer of either stack, to be called with its x_ND: the one place where this is done."""
        call: Callable[..., Tensor] = type(layer).__call__
        if torch.is_grad_enabled():
            if self._runs_compiled:
                call = _compiled_forward(type(layer))  # type: ignore[arg-type]
            if self.recompute:
                call = functools.partial(checkpoint, call, use_reentrant=False)
        return lambda x_ND: call(layer, x_ND, *inputs)

    @property
    def _runs_compiled(self) -> bool:
        return self.compiled and torch.is_grad_enabled()  # validation and decoding would need graphs of their own

    def _run_stack(
        self,
        recurrence: Recurrence | None,
        x_ND: Tensor,
        layout: Layout,
        applications: Sequence[Application],
        ponders: list[Ponder] | None = None,
        position: tuple[Tensor, int] | None = None,
    ) -> Tensor:
        """One application after the other; with recurrence, position and step are added before each.

        position: that of all rows, and a number above it; by default each row's is that of the layout.
        """
        if recurrence is None:
            for apply in applications:
                x_ND = apply(x_ND)
            return x_ND
        position_N, end = position or (layout.positions(x_ND.device), layout.length)
        position_ND = x_ND.new_zeros(()) if self.positions is None else self.positions(position_N, end)
        found: tuple[Tensor, Ponder | None] = recurrence(x_ND, position_ND, applications)
        x_ND, ponder = found
        if ponder is not None and ponders is not None:
            ponders.append(Ponder(*(of_row_N[: layout.pieces] for of_row_N in ponder)))
        return x_ND

    # --- 3.4 Embeddings and softmax, 3.5 Positional encoding ------------------------------------------------------

    def embed(
        self,
        ids_N: Tensor,
        position_N: Tensor,
        end: int,
        embedding: nn.Embedding | None = None,
        hidden_N: Tensor | None = None,
    ) -> Tensor:
        """Scaled embeddings plus positional encodings (3.4 and 3.5); all positions lie before `end`.

        With recurrence without these, which then are added before each application.
        embedding: another one than the target's, which is the source's too unless that has its own.
        hidden_N: True at pieces that are left out of the sum.
        """
        x_ND = (embedding or self.embedding)(ids_N) * math.sqrt(self.config.d_model)
        if hidden_N is not None:
            x_ND = x_ND.masked_fill(hidden_N[:, None], 0)
        if self.positions is not None and self.config.recurrence == "none":
            x_ND = x_ND + self.positions(position_N, end)
        out: Tensor = self.embedding_dropout(x_ND)
        return out.to(product_type(out)) if self.rounded else out

    def _embed_all(
        self,
        ids_BT: Tensor,
        layout: Layout,
        embedding: nn.Embedding | None = None,
        hidden_BT: Tensor | None = None,
    ) -> Tensor:
        """The embedded real pieces of padded sentences, x_ND."""

        def rows(values_BT: Tensor) -> Tensor:
            values_P = values_BT.flatten()
            return values_P if layout.places_N is None else values_P[layout.places_N]

        hidden_N = None if hidden_BT is None else rows(hidden_BT)
        return self.embed(rows(ids_BT), layout.positions(ids_BT.device), layout.length, embedding, hidden_N)

    def _layout(self, ids_BT: Tensor, places_N: Tensor | None) -> Layout:
        """The layout of padded sentences, with the angles of rotary positions where the model has them."""
        unpadded = self.unpadded and torch.is_grad_enabled()
        layout = layout_of(ids_BT, places_N, self._runs_compiled, unpadded)
        if self.rotary is None:
            return layout
        if unpadded:  # one for each row and all its heads
            angles_N1K = self.rotary(layout.positions(self.device), layout.length)[:, None]
            return replace(layout, angles_TK=angles_N1K)
        return replace(layout, angles_TK=self.rotary(torch.arange(layout.length, device=self.device), layout.length))


def _encoder_layer(c: ModelConfig, rounded: bool) -> EncoderLayer:
    return EncoderLayer(
        SelfAttention(c.d_model, c.heads, causal=False, dropout=c.attention_dropout),
        _feed_forward(c),
        _residual(c, rounded),
    )


def _decoder_layer(c: ModelConfig, rounded: bool) -> DecoderLayer:
    return DecoderLayer(
        SelfAttention(c.d_model, c.heads, causal=True, dropout=c.attention_dropout),
        CrossAttention(c.d_model, c.heads, c.attention_dropout),
        _feed_forward(c),
        _residual(c, rounded),
    )


def _feed_forward(c: ModelConfig) -> FeedForward:
    return FeedForward(c.d_model, c.d_ff, c.activation, c.activation_dropout)


def _residual(c: ModelConfig, rounded: bool) -> Callable[[], Residual]:
    return functools.partial(Residual, c.d_model, c.dropout, c.norm == "pre", rounded)


def _added_positions(c: ModelConfig) -> SinusoidalPositions | LearnedPositions | None:
    """What is added to embeddings; nothing where positions turn queries and keys."""
    if c.positions == "learned":
        return LearnedPositions(c.max_positions, c.d_model)
    return SinusoidalPositions(c.d_model) if c.positions == "sinusoidal" else None


def _recurrence(c: ModelConfig, times: int) -> Recurrence | None:
    if c.recurrence == "none":
        return None
    return Recurrence(c.d_model, times, c.halt_threshold if c.recurrence == "adaptive" else None)


T = TypeVar("T")


def _schedule(layers: Sequence[T], times: int) -> list[T]:
    """What each of a stack's applications uses: a layer of its own, or all the only one there is."""
    return [*layers] * (times // len(layers))


@functools.cache
def _compiled_forward(kind: type[nn.Module]) -> Callable[..., Tensor]:
    """One compiled version for all layers of a stack and batches of any shape.

    Whole layers, as dropout, residual, norm and casts fuse there, and not the whole model, which would take minutes.
    Shapes that need more graphs than torch allows raise an error: they would run plainly, with other dropout masks.
    """
    return torch.compile(kind.forward, dynamic=True, fullgraph=True)


def training_flops(config: ModelConfig, vocab_size: int, lengths_N2: npt.NDArray[np.int64]) -> int:
    """Floating-point operations to train once on pairs of these lengths, in tokens: source and target.

    Those of the matrix products alone, a multiplication and its addition as two, forward once and backward twice.
    Padding is not counted; what the look-ahead mask hides is.
    """
    c, (source, target) = config, lengths_N2.sum(axis=0)
    square, feed_forward = c.d_model**2, (3 if c.activation == "swiglu" else 2) * c.d_model * c.d_ff
    weights = c.encoder_layers * source * (4 * square + feed_forward)
    weights += c.decoder_layers * target * (6 * square + feed_forward)
    weights += c.distinct(c.decoder_layers) * source * 2 * square  # the memory, projected once for each layer
    if c.recurrence == "adaptive":
        weights += (c.encoder_layers * source + c.decoder_layers * target) * c.d_model
    weights += target * c.d_model * vocab_size
    source_N, target_N = lengths_N2.T
    attended = c.encoder_layers * (source_N**2).sum() + c.decoder_layers * (target_N * (target_N + source_N)).sum()
    return int(6 * (weights + 2 * c.d_model * attended))
