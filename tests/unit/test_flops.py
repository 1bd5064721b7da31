"""The count of operations, beside torch's own count of what a training pass really does."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mt.config import Config, ModelConfig, TrainConfig
from mt.data.corpus import Corpus, Sentences
from mt.data.feed import cut_batch
from mt.model.transformer import training_flops
from mt.train.learner import make_learner
from mt.train.update import take_update

B, S, T, V = 3, 7, 11, 50


def test_the_count_is_torchs_own_for_a_batch_without_padding() -> None:
    config = ModelConfig(d_model=24, heads=4, d_ff=40, encoder_layers=2, decoder_layers=3)
    corpus = Corpus(*(Sentences.from_lists([[5] * (length - 1) for _ in range(B)]) for length in (S, T)))
    whole = Config(model=config, train=TrainConfig(precision="float32"))
    learner = make_learner(whole, V, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        take_update(learner, cut_batch(corpus, np.arange(B), whole.batch), update=1)
    assert training_flops(config, V, np.array([[S, T]] * B)) == counter.get_total_flops()
