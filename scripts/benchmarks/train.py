#!/usr/bin/env python
"""Training speed on the same batches: mt beside a plain torch.nn.Transformer loop and Hugging Face's MarianMTModel.

    scripts/benchmarks/train.py --size small --precision bfloat16

Each system has a process of its own, and they take turns, a few updates at a time, so that a noisy machine favours
none. The peers run as they come; --settle-peers lets them keep freed memory too, which mt sets for itself.
Tokens are real target tokens: padding never counts. The limit is the time of the update's matrix products alone,
measured in turn with the systems. MarianMTModel takes part when the extra `bench` is installed.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from common import LIMIT, SIZES, Size, chosen, machine, marian_model, random_corpus, report, start
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config import BatchConfig, Config, ModelConfig, TrainConfig
from mt.data.batches import Rows, plan_batches
from mt.data.corpus import Corpus
from mt.data.feed import cut_batch
from mt.device import keep_freed_memory
from mt.model.layout import PAD
from mt.model.positions import positional_encoding
from mt.model.teacher_forcing import Batch
from mt.train.learner import Learner, make_learner
from mt.train.loss import load_batch
from mt.train.update import take_update

CPU = torch.device("cpu")
SMOOTHING = 0.1
SENTENCES = 20_000
ONE_PASS = 1_000_000  # more tokens than any update has

Update = Callable[[Rows], object]


@dataclass(frozen=True)
class Task:
    """What every system trains: a model of this shape, on these batches."""

    size: Size
    corpus: Corpus
    batches: list[Rows]
    precision: torch.dtype
    device: torch.device = CPU

    def tokens(self, batches: list[Rows]) -> int:
        return sum(int(self.corpus.target.lengths[rows].sum()) for rows in batches)

    def some(self, first: int, count: int) -> list[Rows]:
        """So many batches; after the last one the first comes again."""
        return [self.batches[index % len(self.batches)] for index in range(first, first + count)]


def make_task(
    size: Size, pairs: int, tokens: int, precision: torch.dtype = torch.float32, device: torch.device = CPU
) -> Task:
    corpus = random_corpus(pairs, size.vocabulary)
    return Task(size, corpus, plan_batches(corpus.lengths(), tokens, seed=1, epoch=0), precision, device)


def main() -> None:
    options = parse_options()
    print(f"{options.size}, {options.precision}, {options.threads} threads; {machine()}")
    names = [*chosen(SYSTEMS, options.systems), LIMIT]
    systems = [start(name, make_system, name, options) for name in names]
    for system in systems:
        system.ask((0, 1))  # warms up
    for window in range(options.windows):
        for system in systems:
            system.take_turn((window * options.updates, options.updates))
    report(systems)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tokens", type=int, default=4_096, help="target tokens a batch, padding counted")
    parser.add_argument("--windows", type=int, default=8, help="turns that each system has")
    parser.add_argument("--updates", type=int, default=3, help="updates that a system takes in its turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, help="those beside mt; by default all")
    parser.add_argument("--settle-peers", action="store_true", help="let the peers keep freed memory too, as mt does")
    return parser.parse_args()


def make_system(name: str, options: argparse.Namespace) -> Callable[[tuple[int, int]], int]:
    """A system that takes updates on the batches it is told, and answers how many tokens they had."""
    if name in ("mt", LIMIT) or options.settle_peers:
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    task = make_task(SIZES[options.size], SENTENCES, options.tokens, getattr(torch, options.precision))
    update = products(task) if name == LIMIT else SYSTEMS[name](task)

    def answer(window: tuple[int, int]) -> int:
        batches = task.some(*window)
        for rows in batches:
            update(rows)
        return task.tokens(batches)

    return answer


# --- The systems -------------------------------------------------------------------------------------------------


def ours(task: Task, compiled: bool = False, residual: Literal["float32", "bfloat16"] = "float32") -> Update:
    """Each update in one pass."""
    learner, numbers = our_learner(task, compiled, residual), itertools.count(1)
    return lambda rows: take_update(learner, cut_batch(task.corpus, rows, learner.config.batch), next(numbers))


def our_learner(task: Task, compiled: bool, residual: Literal["float32", "bfloat16"] = "float32") -> Learner:
    precision: Any = str(task.precision).removeprefix("torch.")
    config = Config(
        model=task.size.model,
        batch=BatchConfig(micro_tokens=ONE_PASS),
        train=TrainConfig(label_smoothing=SMOOTHING, precision=precision, compile=compiled, residual=residual),
    )
    return make_learner(config, task.size.vocabulary, task.device)


class PlainTransformer(nn.Module):
    """torch.nn.Transformer with embeddings and an output layer, as its tutorials use it."""

    positions_TD: Tensor

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        c = config
        self.embedding = nn.Embedding(vocabulary, c.d_model, padding_idx=PAD)
        self.register_buffer("positions_TD", positional_encoding(256, c.d_model))
        self.dropout = nn.Dropout(c.dropout)
        self.transformer = nn.Transformer(
            c.d_model, c.heads, c.encoder_layers, c.decoder_layers, c.d_ff, c.dropout, batch_first=True
        )
        self.scale = c.d_model**0.5

    def embed(self, ids_BT: Tensor) -> Tensor:
        x_BTD: Tensor = self.dropout(self.embedding(ids_BT) * self.scale + self.positions_TD[: ids_BT.size(1)])
        return x_BTD

    def forward(self, source_BS: Tensor, input_BT: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(input_BT.size(1), device=input_BT.device)
        x_BTD = self.transformer(
            self.embed(source_BS),
            self.embed(input_BT),
            tgt_mask=causal,
            src_key_padding_mask=source_BS == PAD,
            memory_key_padding_mask=source_BS == PAD,
            tgt_is_causal=True,
        )
        return F.linear(x_BTD, self.embedding.weight)


def plain(task: Task, compiled: bool = False) -> Update:
    torch.manual_seed(1)
    model = PlainTransformer(task.size.model, task.size.vocabulary).to(task.device).train()
    if compiled:
        model.compile(dynamic=True)
    return peer_update(model, lambda batch: model(batch.source_BS, batch.input_BT), task)


def hugging_face(task: Task) -> Update:
    torch.manual_seed(1)
    model = marian_model(task.size).to(task.device).train()

    def logits(batch: Batch) -> Tensor:
        mask_BS = batch.source_BS != PAD
        found = model(input_ids=batch.source_BS, attention_mask=mask_BS, decoder_input_ids=batch.input_BT)
        logits_BTV: Tensor = found.logits
        return logits_BTV

    return peer_update(model, logits, task)


def peer_update(model: nn.Module, logits: Callable[[Batch], Tensor], task: Task) -> Update:
    """One update the usual way: autocast, torch's cross-entropy over all positions, torch's default Adam."""
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)

    def update(rows: Rows) -> None:
        batch = load_batch(task.corpus.take(rows), task.device)
        target_BT = torch.full_like(batch.input_BT, PAD)
        target_BT.view(-1)[batch.target_places_N] = batch.targets_N
        adam.zero_grad()
        with torch.autocast(task.device.type, task.precision, enabled=task.precision != torch.float32):
            logits_BTV = logits(batch)
        loss = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(), target_BT.flatten(), ignore_index=PAD, label_smoothing=SMOOTHING
        )
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return update


SYSTEMS: dict[str, Callable[[Task], Update]] = {"mt": ours, "nn.Transformer": plain, "MarianMTModel": hugging_face}


# --- The limit ---------------------------------------------------------------------------------------------------


def products(task: Task) -> Update:
    """The products of an update's activations with the weights, forward and twice that backward, and nothing else."""
    all_shapes = [shape for rows in task.batches for shape in product_shapes(task, rows)]
    elements = max(max(rows * inner, rows * outer, inner * outer) for rows, inner, outer in all_shapes)
    x_, weight_, gradient_ = torch.ones(3, elements, dtype=task.precision)

    def update(rows: Rows) -> None:
        for N, inner, outer in product_shapes(task, rows):
            x = x_[: N * inner].view(N, inner)
            weight = weight_[: outer * inner].view(outer, inner)
            gradient = gradient_[: N * outer].view(N, outer)
            F.linear(x, weight)
            gradient @ weight
            gradient.t() @ x

    return update


def product_shapes(task: Task, rows: Rows) -> list[tuple[int, int, int]]:
    """Rows, width and width of the result of each forward product of an update; padding takes part, as it does."""
    c, lengths_R2 = task.size.model, task.corpus.lengths()[rows]
    source, target = (int(longest) * len(rows) for longest in lengths_R2.max(axis=0))
    d, f = c.d_model, c.d_ff
    encoder = [(source, d, 3 * d), (source, d, d), (source, d, f), (source, f, d)] * c.encoder_layers
    decoder = [
        *[(target, d, 3 * d), (target, d, d), (target, d, d), (source, d, 2 * d), (target, d, d)] * c.decoder_layers,
        *[(target, d, f), (target, f, d)] * c.decoder_layers,
    ]
    return [*encoder, *decoder, (int(lengths_R2[:, 1].sum()), d, task.size.vocabulary)]


if __name__ == "__main__":
    main()
