"""Training passes through torch.compile: fewer and larger kernels for what is not a matrix product."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mt.model.attention import Memory
from mt.model.layout import Layout
from mt.model.transformer import Transformer


def compile_layers(model: Transformer) -> None:
    """Compile each layer's training pass for batches of any shape; layers of a stack share what is compiled.

    Whole layers, as dropout, residual, norm and casts fuse there, and not the whole model, which would take minutes.
    Validation and decoding stay as they are: they would need versions of their own.
    """
    for encoder_layer in model.encoder:
        compiled = torch.compile(encoder_layer.forward, dynamic=True)
        encoder_layer.forward = partial(_in_training, compiled, encoder_layer.forward)  # type: ignore[method-assign]
    for decoder_layer in model.decoder:
        compiled = partial(_with_own_memory, torch.compile(decoder_layer.forward, dynamic=True))
        decoder_layer.forward = partial(_in_training, compiled, decoder_layer.forward)  # type: ignore[method-assign]


def _in_training(compiled: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: object) -> Tensor:
    return compiled(*inputs) if torch.is_grad_enabled() else plain(*inputs)


def _with_own_memory(
    compiled: Callable[..., Tensor], x_ND: Tensor, layout: Layout, memory: Memory, layer: int
) -> Tensor:
    """A layer's number would be compiled in: show each layer its own keys and values, as if it were the first."""
    own = slice(layer, layer + 1)
    return compiled(x_ND, layout, Memory(memory.keys[own], memory.values[own], memory.mask), 0)
