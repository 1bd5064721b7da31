"""The model in the middle of a search: one Transformer, or several that decide together."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mt.data.tokenizer import BOS, EOS, PAD, UNK
from mt.device import down_to_kernel_size, up_to_kernel_size
from mt.model.attention import Memory
from mt.model.inference import part_of_output
from mt.model.teacher_forcing import make_batch, target_log_probabilities
from mt.model.transformer import Transformer
from mt.translate.shortlist import Lists

NEVER = (PAD, BOS, UNK)  # pieces that no output contains

# Attention sums over padding too, in an order that changes with the padded length, so a sentence among longer ones
# would score 1e-6 more or less. Lengths that are multiples of 64 keep the order, and cost short sentences about 10%.
SCORED_MULTIPLE = 64
# In 8 bits a change so small may round an input to the next whole number. 16 kept 1,000 real translations the same at
# batches of 1, 7, 64 and 1,000; without it, one of them changed.
INT8_MULTIPLE = 16


class Decoding:
    """Each model's memory of the sources and its cache, in the middle of a search.

    The sources come on the CPU. Several models form an ensemble, which uses the mean of their probabilities.
    lists: where given, pieces are numbered by their places in them, and others are not computed; the models are those
    of `inference_model`.
    """

    @torch.inference_mode()
    def __init__(
        self, models: Sequence[Transformer], source_BS: Tensor, width: int, lists: Lists | None = None
    ) -> None:
        self.models = models
        self._lists = lists
        self._outputs = [None if lists is None else part_of_output(model, lists.pieces_U) for model in models]
        places_N = (source_BS != PAD).flatten().nonzero()[:, 0]  # looked for here, on the CPU, where nobody waits
        source_BS, places_N = source_BS.to(models[0].device), places_N.to(models[0].device)
        self.memories = [_laid_out(model.encode(source_BS, places_N)) for model in models]
        self.caches = [model.new_cache(source_BS.size(0), width) for model in models]

    def step(self, ids_BW: Tensor) -> Tensor:
        return log_probabilities(self._logits(ids_BW))

    def reorder(self, origin_BW: Tensor) -> None:
        for cache in self.caches:
            cache.reorder(origin_BW)

    def compact(self, finished_B: Tensor) -> Tensor | None:
        """Forget finished sentences; returns the rows that stay, in order, or None where all do.

        Compact only when an eighth of the rows can go, as the rest is copied. Some finished sentences stay, so that the
        batch has one of the few sizes for which kernels are built.
        """
        if finished_B.device.type != "cpu" and self.caches[0].length % 8:
            return None  # reading finished_B would wait for the device
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
            if self._lists is not None:
                self._lists = self._lists.select(staying)
        return staying

    def _logits(self, ids_BW: Tensor) -> list[Tensor]:
        lists = self._lists
        pieces_BW = ids_BW if lists is None else lists.pieces_BL.gather(1, ids_BW)
        parts = zip(self.models, self.memories, self.caches, self._outputs, strict=True)
        logits = [model.step(pieces_BW, memory, cache, output) for model, memory, cache, output in parts]
        possible = [_without_never(of_model) for of_model in logits]
        return possible if lists is None else [lists.own(logits_BWU) for logits_BWU in possible]


class GreedyDecoding(Decoding):
    """For greedy search, which needs only the order of the pieces: one model's logits are not normalised."""

    def step(self, ids_BW: Tensor) -> Tensor:
        logits = self._logits(ids_BW)
        return logits[0] if len(logits) == 1 else log_probabilities(logits)


def _laid_out(memory: Memory) -> Memory:
    """The same with contiguous keys and values, else every step would copy them."""
    keys, values = ([tensor.contiguous() for tensor in side] for side in (memory.keys, memory.values))
    return replace(memory, keys=tuple(keys), values=tuple(values))


def log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the models' probabilities, in float32."""
    # The type is given here, as a GPU then needs no copy of its bfloat16 logits in float32.
    exact = [model_logits.log_softmax(dim=-1, dtype=torch.float32) for model_logits in logits]
    return mean_probability(exact)


def mean_probability(logps: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the models' probabilities."""
    return logps[0] if len(logps) == 1 else torch.stack(tuple(logps)).logsumexp(dim=0) - math.log(len(logps))


def _without_never(logits: Tensor) -> Tensor:
    """The logits, those of NEVER at minus infinity; in a list these have the same numbers."""
    for piece in NEVER:
        logits[..., piece].fill_(float("-inf"))  # to assign a number would take a GPU twice as many kernels
    return logits


def pad(sequences: Sequence[Sequence[int]], filler: int = PAD) -> Tensor:
    """Rows of ids as one int64 tensor, padded at the end."""
    longest = max(len(ids) for ids in sequences)
    return torch.tensor([[*ids, *[filler] * (longest - len(ids))] for ids in sequences], dtype=torch.int64)


def pad_sources(sources: Sequence[Sequence[int]], multiple: int = 1) -> Tensor:
    """Sources as a model reads them, source_BS: each with its EOS, padded to a length that is a multiple."""
    source_BS = pad([[*source, EOS] for source in sources])
    return F.pad(source_BS, (0, -source_BS.size(1) % multiple), value=PAD)


def decoding_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Row numbers sorted by length, longest first, in batches of at most `max_tokens`, padding counted.

    The longest batch comes first, so that too little memory shows at once.
    """
    rows = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    batches, first = [], 0
    while first < len(rows):
        size = down_to_kernel_size(max(1, max_tokens // max(1, lengths[rows[first]])))
        batches.append(rows[first : first + size])
        first += size
    return batches


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
