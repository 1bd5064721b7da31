"""Time to plan an epoch's batches, and tokens a second that one core makes ready for the model.

scripts/benchmarks/batches.py --pairs 4500000
"""

import argparse
import time

import numpy as np
import torch

from mt.data.batches import padding_share, plan_batches
from mt.data.corpus import Corpus, Sentences
from mt.train.loss import load_batch

BATCHES = 300  # of which the rate is taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[500_000, 1_500_000, 4_500_000])
    parser.add_argument("--tokens", type=int, default=25_000, help="the batch budget")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'pairs':>10} {'plan, s':>8} {'batches':>8} {'padding':>8} {'target tokens/s':>16}")
    for pairs in arguments.pairs:
        corpus = random_corpus(pairs)
        lengths_N2 = corpus.lengths()
        start = time.perf_counter()
        plan = plan_batches(lengths_N2, arguments.tokens, seed=1, epoch=0)
        seconds = time.perf_counter() - start
        rate = tokens_a_second(corpus, plan[:BATCHES])
        padding = padding_share(plan, lengths_N2)
        print(f"{pairs:>10,} {seconds:>8.2f} {len(plan):>8,} {padding:>8.2%} {rate:>16,.0f}", flush=True)


def random_corpus(pairs: int) -> Corpus:
    """Random ids at WMT-like lengths: lognormal, 27 target tokens on average, the source alike."""
    random = np.random.default_rng(1)
    target_N = random.lognormal(3.1, 0.65, pairs)
    source_N = target_N * np.exp(random.normal(0, 0.2, pairs))

    def sentences(lengths_N: np.ndarray) -> Sentences:
        offsets = np.concatenate([[0], np.cumsum(np.clip(np.round(lengths_N), 2, 250).astype(np.int64))])
        return Sentences(random.integers(4, 37_000, offsets[-1], dtype=np.uint16), offsets)

    return Corpus(sentences(source_N), sentences(target_N))


def tokens_a_second(corpus: Corpus, batches: list[np.ndarray]) -> float:
    """Batches gathered, padded, shifted and turned into tensors, as a training step takes them."""
    start = time.perf_counter()
    for rows in batches:
        load_batch(corpus.take(rows), torch.device("cpu"))
    seconds = time.perf_counter() - start
    return sum(int(corpus.target.lengths[rows].sum()) for rows in batches) / seconds


if __name__ == "__main__":
    main()
