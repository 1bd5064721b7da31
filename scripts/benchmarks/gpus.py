#!/usr/bin/env python3
"""Count what 8 and 64 GPUs can reach in training. Nothing here is measured, and no GPU is needed.

scripts/benchmarks/gpus.py

On each GPU an update takes the sum of
- its passes: its target tokens at RATES, but no less than LAUNCHING;
- Adam: 28 bytes a weight at MEMORY, as it reads weight, gradient and two moments and writes all but the gradient;
- the exchange that computing does not hide: of the gradients the last part, and what of the other parts takes longer
  than the last backward pass, two thirds of a pass; with shards also the joining of the weights.
Parts and their bytes are those that a run sends, found on torch's meta device. To sum B bytes over n GPUs each sends
2 (n - 1) / n B; summing into shares, and joining shares, is half of that each.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from mt.config import Config, ModelConfig
from mt.model.transformer import Transformer
from mt.train.exchange import parts_of
from mt.train.learner import order_of_gradients
from mt.train.loss import make_loss

MODELS = {"base": ModelConfig(), "big": ModelConfig(d_model=1024, heads=16, d_ff=4096, dropout=0.3)}
VOCABULARY = 37_000
BATCHES = {25_000: 21_400, 400_000: 342_400}  # tokens with padding: target tokens

# Estimates and data sheets, of an H100 and machines of eight.
RATES = {"base": 590_000, "big": 237_000}  # target tokens a second on one GPU, compiled
LAUNCHING = 9e-3  # seconds in which the CPU launches the kernels of one forward and backward pass
LONGEST_PASS = 21_400  # target tokens
MEMORY = 0.85 * 3.35e12  # bytes a second
NVLINK, NETWORK = 450e9, 8 * 400e9 / 8  # bytes a second that a GPU, and a machine for its eight, can send
LATENCY = {True: 20e-6, False: 60e-6}  # seconds to start one exchange, within a machine or between machines
PAYS = 1.5  # times as fast with twice the GPUs


@dataclass(frozen=True)
class Update:
    """The seconds of one update on each GPU."""

    passes: float
    adam: float
    exchange: float  # that computing does not hide

    @property
    def seconds(self) -> float:
        return self.passes + self.adam + self.exchange


@cache
def parts(name: str) -> list[int]:
    """The bytes of each part of the gradients, in the order in which they are sent."""
    with torch.device("meta"):
        model = Transformer(MODELS[name], VOCABULARY).train()
    model.to("meta")  # tables of positions too, which are computed on the CPU
    order = order_of_gradients(model, make_loss(Config(model=MODELS[name])), torch.float32, rows=2)
    return [part.gradients.nbytes for part in parts_of(order, 1)]


def update_of(name: str, sizes: list[int], tokens: int, gpus: int, shard: bool) -> Update:
    """One update of so many target tokens on so many GPUs; `sizes` as of `parts`."""
    of_each = tokens / gpus
    one_pass = max(LAUNCHING, min(of_each, LONGEST_PASS) / RATES[name])
    passes = max(of_each / RATES[name], LAUNCHING)
    adam = 7 * sum(sizes) / (gpus if shard else 1) / MEMORY
    if gpus == 1:
        return Update(passes, adam, 0.0)

    def sent(count: int) -> float:
        """Seconds to sum a part into shares, or to join its shares."""
        return count * (gpus - 1) / gpus / (NVLINK if gpus <= 8 else NETWORK) + LATENCY[gpus <= 8]

    ways = 1 if shard else 2
    *hidden, last = [ways * sent(size) for size in sizes]
    exchange = last + max(0.0, sum(hidden) - 2 / 3 * one_pass) + (sum(map(sent, sizes)) if shard else 0.0)
    return Update(passes, adam, exchange)


def table() -> str:
    """The count as a Markdown table; where two figures stand in a cell, the second is with train.shard=optimizer."""
    head = (
        "| model, batch | GPUs | each sends | passes | Adam | exchange | target tokens/s | of one GPU's |\n|"
        + "---|" * 8
    )
    lines = [head]
    for name in MODELS:
        sizes = parts(name)
        for batch, tokens in BATCHES.items():
            alone = update_of(name, sizes, tokens, 1, shard=False)
            for gpus in (8, 64):
                both = [update_of(name, sizes, tokens, gpus, shard) for shard in (False, True)]
                cells = [
                    f"{name}, {batch:,}",
                    str(gpus),
                    f"{2 * (gpus - 1) / gpus * sum(sizes) / 1e6:,.0f} MB",
                    f"{both[0].passes * 1e3:.1f} ms",
                    " / ".join(f"{each.adam * 1e3:.2f}" for each in both) + " ms",
                    " / ".join(f"{each.exchange * 1e3:.1f}" for each in both) + " ms",
                    " / ".join(f"{tokens / each.seconds / 1e6:.1f}" for each in both) + " million",
                    " / ".join(f"{alone.seconds / each.seconds:.1f}" for each in both) + " times",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pays_until(name: str, tokens: int) -> int:
    """The most GPUs, a power of two, up to which each doubling pays."""
    sizes, counts = parts(name), [1 << power for power in range(12)]
    seconds = [update_of(name, sizes, tokens, gpus, shard=False).seconds for gpus in counts]
    gains = [before / after for before, after in pairwise(seconds)]
    return next(gpus for gpus, gain in zip(counts, gains, strict=False) if gain < PAYS)


def main() -> None:
    print(f"{table()}\n")
    for name in MODELS:
        for batch, tokens in BATCHES.items():
            print(f"- {name}, {batch:,}: up to {pays_until(name, tokens)} GPUs")


if __name__ == "__main__":
    main()
