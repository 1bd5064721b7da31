#!/usr/bin/env python
"""How the cost of training grows: tokens/s and memory by vocabulary, sentence length, batch and processes.

    scripts/benchmarks/costs.py
    scripts/benchmarks/costs.py --precision bfloat16

Each row is measured in fresh processes, on updates of the small model. The first row is what the others are compared
with: each of them changes one thing. Several processes share the threads of one, and share each update, as several GPUs
do. Tokens are real target tokens; memory is the peak of one process.
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from common import MEAN_LENGTH, SIZES, machine, random_corpus, start

from mt.config import BatchConfig, Config, TrainConfig
from mt.data.batches import plan_batches
from mt.data.feed import cut_batch
from mt.device import keep_freed_memory
from mt.distributed import joined
from mt.train.learner import make_learner
from mt.train.update import take_update

CPU = torch.device("cpu")
PAIRS = 20_000
LEAST_UPDATES = 4  # of which the first does not count


@dataclass(frozen=True)
class Setting:
    vocabulary: int = 8_000
    length: int = MEAN_LENGTH  # target tokens of a sentence, on average
    tokens: int = 4_096  # of an update
    processes: int = 1


FIRST = Setting()
SETTINGS = [
    FIRST,
    replace(FIRST, vocabulary=37_000),
    replace(FIRST, length=10),
    replace(FIRST, length=80),
    replace(FIRST, tokens=1_024),
    replace(FIRST, tokens=16_384),
    replace(FIRST, processes=2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model; the vocabulary is the row's")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=float, default=20, help="for which each row is measured")
    parser.add_argument("--threads", type=int, default=2)
    every = range(1, len(SETTINGS) + 1)
    parser.add_argument("--rows", type=int, nargs="+", choices=every, default=every, help="which; by default all")
    options = parser.parse_args()
    print(f"{options.size}, {options.precision}, {options.threads} threads; {machine()}")
    print(f"{'vocabulary':>10}{'length':>8}{'batch':>8}{'processes':>11}{'tokens/s':>10}{'peak GiB':>10}")
    for row in options.rows:
        s = SETTINGS[row - 1]
        rate, peak = measure(s, options)
        print(f"{s.vocabulary:>10,}{s.length:>8}{s.tokens:>8,}{s.processes:>11}{rate:>10,.0f}{peak:>10.2f}", flush=True)


def measure(setting: Setting, options: argparse.Namespace) -> tuple[float, float]:
    """Tokens/s of all processes together, the median over updates, and the peak memory of one in GiB."""
    port = free_port()
    ranks = range(setting.processes)
    processes = [start(f"rank {rank}", make_trainer, setting, options, rank, port) for rank in ranks]
    for process in processes:
        process.send("train")
    rates = [process.receive()[1] for process in processes]
    return min(rates), max(process.end() for process in processes)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def make_trainer(setting: Setting, options: argparse.Namespace, rank: int, port: int) -> Callable[[str], float]:
    """One process of the setting, which trains for some seconds and answers with the tokens/s of all of them."""
    os.environ.update(WORLD_SIZE=str(setting.processes), RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    keep_freed_memory()
    torch.set_num_threads(max(1, options.threads // setting.processes))
    config = Config(
        model=SIZES[options.size].model,
        batch=BatchConfig(tokens=setting.tokens),
        train=TrainConfig(precision=options.precision),
    )
    corpus = random_corpus(PAIRS, setting.vocabulary, setting.length)

    def train(_: str) -> float:
        rates: list[float] = []
        with joined(CPU) as world:
            learner = make_learner(config, setting.vocabulary, CPU, world=world)
            end = time.perf_counter() + options.seconds
            for update, rows in enumerate(plan_batches(corpus.lengths(), setting.tokens, seed=1, epoch=0), 1):
                begun = time.perf_counter()
                batches = cut_batch(corpus, rows, config.batch, world.rank, world.size)
                take_update(learner, batches, update)
                rates.append(batches.tokens / (time.perf_counter() - begun))
                if world.any(len(rates) >= LEAST_UPDATES and time.perf_counter() > end):
                    break
        return statistics.median(rates[1:])

    return train


if __name__ == "__main__":
    main()
