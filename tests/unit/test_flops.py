"""The count of operations, beside torch's own count of what a training pass really does."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mt.config import ModelConfig
from mt.data.corpus import Corpus, Sentences
from mt.model.flops import training_flops
from mt.model.transformer import Transformer
from mt.train.update import accumulate

B, S, T, V = 3, 7, 11, 50


def test_the_count_is_torchs_own_for_a_batch_without_padding() -> None:
    config = ModelConfig(d_model=24, heads=4, d_ff=40, encoder_layers=2, decoder_layers=3)
    corpus = Corpus(*(Sentences.from_lists([[5] * (length - 1) for _ in range(B)]) for length in (S, T)))
    with FlopCounterMode(display=False) as counter:
        accumulate(Transformer(config, V), corpus, np.arange(B), B * T, 0.1, torch.float32)
    assert training_flops(config, V, np.array([[S, T]] * B)) == counter.get_total_flops()
