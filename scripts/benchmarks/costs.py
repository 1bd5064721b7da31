"""How the cost of training grows: tokens/s and memory by vocabulary, sentence length, batch and processes.

    scripts/benchmarks/costs.py
    scripts/benchmarks/costs.py --precision bfloat16

Each row is measured in fresh processes, on updates of the small model; what the first row does not say, the others
change one thing at a time. Several processes share the threads of one, as on several GPUs each update is shared.
Tokens are real target tokens; memory is the peak of one process.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue

import numpy as np
import torch
from train import SIZES

from mt.config import BatchConfig, Config, TrainConfig
from mt.data.batches import plan_batches
from mt.data.corpus import Corpus, Sentences
from mt.data.feed import cut_batch
from mt.device import keep_freed_memory
from mt.distributed import joined
from mt.train.learner import make_learner
from mt.train.update import take_update


@dataclass(frozen=True)
class Setting:
    vocabulary: int = 8_000
    length: int = 27  # target tokens of a sentence, on average
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=float, default=20, help="for which each row is measured")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"small, {options.precision}, {options.threads} threads, torch {torch.__version__}")
    print(f"{'vocabulary':>10}{'length':>8}{'batch':>8}{'processes':>11}{'tokens/s':>10}{'peak GiB':>10}")
    for setting in SETTINGS:
        rate, peak = measure(setting, options)
        s = setting
        print(f"{s.vocabulary:>10,}{s.length:>8}{s.tokens:>8,}{s.processes:>11}{rate:>10,.0f}{peak:>10.2f}", flush=True)


def measure(setting: Setting, options: argparse.Namespace) -> tuple[float, float]:
    """Tokens/s of all processes together, the median over updates, and the peak memory of one in GiB."""
    spawn = multiprocessing.get_context("spawn")
    answers: Queue[tuple[float, float]] = spawn.Queue()
    for rank in range(setting.processes):
        spawn.Process(target=train, args=(setting, options, rank, answers)).start()
    return max(answers.get() for _ in range(setting.processes))


def train(setting: Setting, options: argparse.Namespace, rank: int, answers: "Queue[tuple[float, float]]") -> None:
    os.environ.update(
        WORLD_SIZE=str(setting.processes), RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29_500)
    )
    keep_freed_memory()
    torch.set_num_threads(max(1, options.threads // setting.processes))
    device = torch.device("cpu")
    model_config, _ = SIZES["small"]
    config = Config(
        model=model_config,
        batch=BatchConfig(tokens=setting.tokens),
        train=TrainConfig(precision=options.precision),
    )
    learner, corpus, rates = make_learner(config, setting.vocabulary, device), random_corpus(setting), []
    with joined(device) as world:
        end = time.perf_counter() + options.seconds
        for update, rows in enumerate(plan_batches(corpus.lengths(), setting.tokens, seed=1, epoch=0), 1):
            start = time.perf_counter()
            record = take_update(learner, cut_batch(corpus, rows, config.batch, world.rank, world.size), update, world)
            rates.append(record["tokens"] / (time.perf_counter() - start))
            if world.max(len(rates) >= 4 and start > end):
                break
    answers.put((statistics.median(rates[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def random_corpus(setting: Setting) -> Corpus:
    """Random ids, their lengths log-normal about the setting's."""
    random = np.random.default_rng(1)
    lengths_N = random.lognormal(np.log(setting.length) - 0.5 * 0.5**2, 0.5, 20_000)
    lengths_N = np.clip(np.round(lengths_N), 2, 256).astype(int)

    def sentences() -> Sentences:
        return Sentences.from_lists(
            [random.integers(4, setting.vocabulary, length - 1).tolist() for length in lengths_N]
        )

    return Corpus(sentences(), sentences())


if __name__ == "__main__":
    main()
