"""From rows of the corpus to the tensors of one forward pass."""

import numpy as np
import torch

from mt.data.batches import Lengths, Rows
from mt.data.corpus import Corpus
from mt.data.tokenizer import BOS
from mt.model.teacher_forcing import Batch, make_batch


def load_batch(corpus: Corpus, rows: Rows, device: torch.device) -> Batch:
    """The pairs of `rows`, padded, on `device`."""
    return make_batch(*corpus.gather(rows), BOS, device)


def lengths_of(corpus: Corpus) -> Lengths:
    """Tokens of each pair with EOS, [N, 2]: source and target."""
    return np.stack([corpus.source.lengths, corpus.target.lengths], axis=1)
