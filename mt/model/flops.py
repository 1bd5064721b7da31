"""The work of a training pass, counted."""

import numpy as np
import numpy.typing as npt

from mt.config import ModelConfig


def training_flops(config: ModelConfig, vocab_size: int, lengths_N2: npt.NDArray[np.int64]) -> int:
    """Floating-point operations to train once on pairs of these lengths, in tokens: source and target.

    Those of the matrix products alone, a multiplication and its addition as two, forward once and backward twice.
    Padding is not counted; what the look-ahead mask hides is.
    """
    c, (source, target) = config, lengths_N2.sum(axis=0)
    square, feed_forward = c.d_model**2, 2 * c.d_model * c.d_ff
    weights = c.encoder_layers * source * (4 * square + feed_forward)
    weights += c.decoder_layers * (target * (6 * square + feed_forward) + source * 2 * square)
    weights += target * c.d_model * vocab_size
    source_N, target_N = lengths_N2.T
    attended = c.encoder_layers * (source_N**2).sum() + c.decoder_layers * (target_N * (target_N + source_N)).sum()
    return int(6 * (weights + 2 * c.d_model * attended))
