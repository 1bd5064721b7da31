"""Doing with less memory: recomputed activations, and knowing when memory ran out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from mt.model.transformer import Transformer


def recompute_activations(model: Transformer) -> None:
    """Keep only each layer's input; the backward pass computes the rest again, with the same dropout masks.

    Chen et al., 2016.
    """
    for layer in (*model.encoder, *model.decoder):
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or on the CPU."""
    words = ("not enough memory", "can't allocate memory", "bad_alloc")  # of the CPU's allocators
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def release(device: torch.device) -> None:
    """Give back what torch keeps for reuse, so that pieces of another size find room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
