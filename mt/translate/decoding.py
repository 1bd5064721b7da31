"""The model in the middle of a search: one Transformer, or several that decide together."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mt.data.tokenizer import BOS, EOS, PAD, UNK
from mt.device import up_to_kernel_size
from mt.model.attention import Memory
from mt.model.teacher_forcing import make_batch, target_log_probabilities
from mt.model.transformer import Transformer

NEVER = (PAD, BOS, UNK)  # pieces that no output contains

# Attention adds up over padding too, and the order in which it does changes with the length: a sentence among longer
# ones would score 1e-6 more or less. At multiples of 64 the order stays, at a cost of some 10% for short sentences.
SCORED_MULTIPLE = 64


class Decoding:
    """What a search steps through: each model's memory of the sources and its cache.

    Several models form an ensemble: the mean of their probabilities counts.
    """

    @torch.inference_mode()
    def __init__(self, models: Sequence[Transformer], source_BS: Tensor, width: int) -> None:
        self.models = models
        self.memories = [_laid_out(model.encode(source_BS)) for model in models]
        self.caches = [model.new_cache(source_BS.size(0), width) for model in models]

    def step(self, ids_BW: Tensor) -> Tensor:
        return log_probabilities(self._logits(ids_BW))

    def reorder(self, origin_BW: Tensor) -> None:
        for cache in self.caches:
            cache.reorder(origin_BW)

    def compact(self, finished_B: Tensor) -> Tensor | None:
        """Forget finished sentences; returns the rows that stay, in order, or None where all do.

        To forget copies what stays, so it waits until an eighth of the rows can go. Some finished sentences stay, so
        that the batch has one of the few sizes for which kernels are built.
        """
        if finished_B.device.type != "cpu" and self.caches[0].length % 8:
            return None  # to look would wait for the device
        finished = finished_B.nonzero()[:, 0]
        unfinished = len(finished_B) - len(finished)
        leaving = finished[up_to_kernel_size(unfinished) - unfinished :]
        if len(leaving) * 8 < len(finished_B):
            return None
        staying = torch.ones_like(finished_B).index_fill(0, leaving, False).nonzero()[:, 0]
        if len(staying):
            self.memories = [memory.select(staying) for memory in self.memories]
            for cache in self.caches:
                cache.keep(staying)
        return staying

    def _logits(self, ids_BW: Tensor) -> list[Tensor]:
        parts = zip(self.models, self.memories, self.caches, strict=True)
        return [model.step(ids_BW, memory, cache) for model, memory, cache in parts]


class GreedyDecoding(Decoding):
    """The same where only the order of the pieces counts: one model's logits need no normalising."""

    def step(self, ids_BW: Tensor) -> Tensor:
        logits = self._logits(ids_BW)
        return _without_never(logits[0]) if len(logits) == 1 else log_probabilities(logits)


def _laid_out(memory: Memory) -> Memory:
    """The same with each head's keys and values in one run of memory, else every step would copy them so."""
    keys, values = ([tensor.contiguous() for tensor in side] for side in (memory.keys, memory.values))
    return replace(memory, keys=tuple(keys), values=tuple(values))


def log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the models' probabilities, in float32; pieces no output contains have none."""
    return mean_probability([_without_never(model_logits.float()).log_softmax(dim=-1) for model_logits in logits])


def mean_probability(logps: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the models' probabilities."""
    return logps[0] if len(logps) == 1 else torch.stack(tuple(logps)).logsumexp(dim=0) - math.log(len(logps))


def _without_never(logits: Tensor) -> Tensor:
    for piece in NEVER:
        logits[..., piece] = float("-inf")
    return logits


def pad(sequences: Sequence[Sequence[int]], filler: int = PAD) -> Tensor:
    """Rows of ids as one int64 tensor, filled up at the end."""
    longest = max(len(ids) for ids in sequences)
    return torch.tensor([[*ids, *[filler] * (longest - len(ids))] for ids in sequences], dtype=torch.int64)


def pad_sources(sources: Sequence[Sequence[int]], multiple: int = 1) -> Tensor:
    """Sources as a model reads them, source_BS: each with its EOS, filled up to a multiple of so many pieces."""
    source_BS = pad([[*source, EOS] for source in sources])
    return F.pad(source_BS, (0, -source_BS.size(1) % multiple), value=PAD)


def forced_log_probabilities(
    models: Sequence[Transformer], sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The log-probability of each piece of given targets, and of the EOS after them, under the models.

    Sources and targets in pieces, without EOS.
    """
    source_BS, target_BT = (pad_sources(side, SCORED_MULTIPLE).numpy() for side in (sources, targets))
    batch = make_batch(source_BS, target_BT, BOS, models[0].device)
    logps_N = [target_log_probabilities(model, batch, impossible=NEVER) for model in models]
    logp_N = mean_probability(logps_N).tolist()
    ends = np.cumsum([len(target) + 1 for target in targets])
    return [logp_N[end - len(target) - 1 : end] for target, end in zip(targets, ends, strict=True)]
