"""BPE-dropout: in training, sentences cut into pieces anew each epoch (Provilkov et al., 2020)."""

import numpy as np

from mt.data.batches import Rows
from mt.data.corpus import Corpus, Sentences
from mt.data.tokenizer import Tokenizer


def with_bpe_dropout(corpus: Corpus, rows: Rows, tokenizer: Tokenizer, alpha: float, seed: int, epoch: int) -> Corpus:
    """The pairs of `rows`, in which each merge of pieces was skipped with probability `alpha`.

    How a sentence is cut depends on seed, epoch and row alone: not on where a run stopped, nor on who trains the pair.
    """
    pairs = corpus.take(rows)
    sides = [
        [
            tokenizer.sample([line], _seed(seed, epoch, int(row), number), alpha)[0]
            for line, row in zip(tokenizer.decode([side[i].tolist() for i in range(len(side))]), rows, strict=True)
        ]
        for number, side in enumerate((pairs.source, pairs.target))
    ]
    return Corpus(Sentences.from_lists(sides[0]), Sentences.from_lists(sides[1]))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
