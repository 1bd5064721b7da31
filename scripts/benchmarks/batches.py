#!/usr/bin/env python
"""Time to plan an epoch's batches, and tokens a second that one core makes ready for the model.

scripts/benchmarks/batches.py --pairs 4500000
"""

import argparse
import time

import torch
from common import machine, random_corpus

from mt.data.batches import Rows, padding_share, plan_batches
from mt.data.corpus import Corpus
from mt.train.loss import load_batch

VOCABULARY = 37_000
BATCHES = 300  # of which the rate is taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[500_000, 1_500_000, 4_500_000])
    parser.add_argument("--tokens", type=int, default=25_000, help="the batch budget")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"batches of {options.tokens:,} tokens, one thread; {machine()}")
    print(f"{'pairs':>10} {'plan, s':>8} {'batches':>8} {'padding':>8} {'target tokens/s':>16}")
    for pairs in options.pairs:
        corpus = random_corpus(pairs, VOCABULARY)
        lengths_N2 = corpus.lengths()
        start = time.perf_counter()
        plan = plan_batches(lengths_N2, options.tokens, seed=1, epoch=0)
        seconds = time.perf_counter() - start
        rate = tokens_a_second(corpus, plan[:BATCHES])
        padding = padding_share(plan, lengths_N2)
        print(f"{pairs:>10,} {seconds:>8.2f} {len(plan):>8,} {padding:>8.2%} {rate:>16,.0f}", flush=True)


def tokens_a_second(corpus: Corpus, batches: list[Rows]) -> float:
    """Batches gathered, padded, shifted and turned into tensors, as an update takes them."""
    start = time.perf_counter()
    for rows in batches:
        load_batch(corpus.take(rows), torch.device("cpu"))
    seconds = time.perf_counter() - start
    return sum(int(corpus.target.lengths[rows].sum()) for rows in batches) / seconds


if __name__ == "__main__":
    main()
