"""From rows of the corpus to the tensors of one forward pass."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.data.batches import Lengths, Rows
from mt.data.corpus import Corpus
from mt.data.tokenizer import BOS, PAD


@dataclass(frozen=True)
class Batch:
    """Sentence pairs ready for teacher forcing: position t of the input is answered by position t of the target."""

    source_BS: Tensor
    source_places_N: Tensor  # where, of B * S, the source is a piece and not padding
    input_BT: Tensor  # the target shifted right by one, BOS first (section 3.1)
    target_places_N: Tensor  # where, of B * T, the target is a piece and not padding
    targets_N: Tensor  # the target's pieces at these places


def load_batch(corpus: Corpus, rows: Rows, device: torch.device) -> Batch:
    """Gather and pad the pairs of `rows` on `device`.

    A GPU gets them when it comes to it: nobody waits, so these are made ready while it computes the ones before.
    """
    source_BS, target_BT = corpus.gather(rows)
    input_BT = np.empty_like(target_BT)
    input_BT[:, 0] = BOS
    input_BT[:, 1:] = target_BT[:, :-1]
    source_places_N, target_places_N = (np.flatnonzero(ids != PAD) for ids in (source_BS, target_BT))
    targets_N = target_BT.reshape(-1)[target_places_N]
    arrays = (source_BS, source_places_N, input_BT, target_places_N, targets_N)
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":  # from memory that is not pinned, a copy would wait for all work queued before it
        tensors = [tensor.pin_memory() for tensor in tensors]
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def lengths_of(corpus: Corpus) -> Lengths:
    """Tokens of each pair with EOS, [N, 2]: source and target."""
    return np.stack([corpus.source.lengths, corpus.target.lengths], axis=1)
