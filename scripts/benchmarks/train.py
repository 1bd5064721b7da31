"""Training speed on the same batches: mt beside a plain torch.nn.Transformer loop and Hugging Face's MarianMTModel.

    scripts/benchmarks/train.py --size small --precision bfloat16

The systems take turns, a few updates at a time, so that a noisy machine favours none. The peers run as they come;
--settle-peers gives them what mt sets for itself, a C library that keeps freed memory, to see what the rest is worth.
Tokens are real target tokens: padding never counts. The limit is the time of the step's matrix products alone, measured
in the same run. MarianMTModel takes part when the extra `bench` is installed.
"""

import argparse
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from side_by_side import System, start
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config import BatchConfig, Config, ModelConfig, TrainConfig
from mt.data.batches import Lengths, plan_batches
from mt.data.corpus import Corpus, Sentences
from mt.data.feed import cut_batch
from mt.device import keep_freed_memory
from mt.model.layout import PAD
from mt.model.positions import positional_encoding
from mt.model.teacher_forcing import Batch
from mt.train.learner import make_learner
from mt.train.loss import load_batch
from mt.train.update import take_update

SIZES = {
    "small": (ModelConfig(d_model=256, heads=4, d_ff=1024, encoder_layers=3, decoder_layers=3), 8_000),
    "base": (ModelConfig(), 32_000),
}
CPU = torch.device("cpu")
SMOOTHING = 0.1
SENTENCES = 20_000


def main() -> None:
    arguments = parse_arguments()
    config, vocabulary = SIZES[arguments.size]
    precision = getattr(torch, arguments.precision)
    lengths_N2 = random_corpus(SENTENCES, vocabulary).lengths()
    batches = plan_batches(lengths_N2, arguments.tokens, seed=1, epoch=0)
    names = [name for name in SYSTEMS if name != "MarianMTModel" or importlib.util.find_spec("transformers")]
    systems = [start(name, prepared, name, arguments) for name in names]
    for system in systems:
        system.ask(batches[:1])  # warms up
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    limits = []
    for window in range(arguments.windows):
        first = window * arguments.updates
        chosen = [batches[index % len(batches)] for index in range(first, first + arguments.updates)]
        tokens = sum(int(lengths_N2[rows, 1].sum()) for rows in chosen)
        for system in systems:
            system.rates.append(tokens / system.ask(chosen)[0])
        limits.append(tokens / sum(product_seconds(config, vocabulary, lengths_N2[rows], precision) for rows in chosen))
    report(arguments, systems, limits)


def prepared(name: str, arguments: argparse.Namespace) -> Callable[[list[np.ndarray]], None]:
    """A system that takes an update on each batch it is given."""
    if name == "mt" or arguments.settle_peers:
        keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    config, vocabulary = SIZES[arguments.size]
    corpus = random_corpus(SENTENCES, vocabulary)
    update = SYSTEMS[name](config, vocabulary, corpus, getattr(torch, arguments.precision))

    def window(batches: list[np.ndarray]) -> None:
        for rows in batches:
            update(rows)

    return window


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tokens", type=int, default=4_096, help="target tokens a batch, padding counted")
    parser.add_argument("--windows", type=int, default=8, help="turns that each system has")
    parser.add_argument("--updates", type=int, default=3, help="updates that a system takes in its turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--settle-peers", action="store_true", help="let the peers keep freed memory too, as mt does")
    return parser.parse_args()


def report(arguments: argparse.Namespace, systems: list[System], limits: list[float]) -> None:
    limit = statistics.median(limits)
    print(f"{arguments.size}, {arguments.precision}, {arguments.threads} threads, torch {torch.__version__}")
    print(f"{'':16}{'tokens/s':>10}{'lowest':>10}{'highest':>10}{'of limit':>10}{'mt is':>10}{'peak GiB':>10}")
    for system in systems:
        peak, median = system.end(), statistics.median(system.rates)
        pairwise = statistics.median(a / b for a, b in zip(systems[0].rates, system.rates, strict=True))
        lowest, highest = min(system.rates), max(system.rates)
        share = median / limit
        print(
            f"{system.name:16}{median:10,.0f}{lowest:10,.0f}{highest:10,.0f}{share:10.0%}{pairwise:9.2f}x{peak:10.2f}"
        )
    print(f"{'products alone':16}{limit:10,.0f}{min(limits):10,.0f}{max(limits):10,.0f}")


def random_corpus(pairs: int, vocabulary: int) -> Corpus:
    """Random ids at WMT-like lengths: lognormal, 27 target tokens on average."""
    random = np.random.default_rng(1)
    target_N = np.clip(np.round(random.lognormal(3.1, 0.65, pairs)), 2, 200).astype(int)
    source_N = np.clip(np.round(target_N * np.exp(random.normal(0, 0.2, pairs))), 2, 200).astype(int)

    def sentences(lengths_N: np.ndarray) -> Sentences:
        return Sentences.from_lists([random.integers(4, vocabulary, length - 1).tolist() for length in lengths_N])

    return Corpus(sentences(source_N), sentences(target_N))


# --- The systems -------------------------------------------------------------------------------------------------


def ours(
    config: ModelConfig,
    vocabulary: int,
    corpus: Corpus,
    precision: torch.dtype,
    device: torch.device = CPU,
    compiled: bool = False,
) -> Callable[[np.ndarray], None]:
    """Each update in one pass."""
    train = TrainConfig(label_smoothing=SMOOTHING, precision=str(precision).removeprefix("torch."), compile=compiled)
    whole = Config(model=config, batch=BatchConfig(micro_tokens=1_000_000), train=train)
    learner, updates = make_learner(whole, vocabulary, device), itertools.count(1)

    def update(rows: np.ndarray) -> None:
        take_update(learner, cut_batch(corpus, rows, whole.batch), next(updates))

    return update


class PlainTransformer(nn.Module):
    """torch.nn.Transformer with embeddings and an output layer, as its tutorials use it."""

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
        return self.dropout(self.embedding(ids_BT) * self.scale + self.positions_TD[: ids_BT.size(1)])

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


def plain(
    config: ModelConfig,
    vocabulary: int,
    corpus: Corpus,
    precision: torch.dtype,
    device: torch.device = CPU,
    compiled: bool = False,
) -> Callable[[np.ndarray], None]:
    torch.manual_seed(1)
    model = PlainTransformer(config, vocabulary).to(device).train()
    if compiled:
        model.compile(dynamic=True)
    return peer_update(model, lambda batch: model(batch.source_BS, batch.input_BT), corpus, precision)


def hugging_face(
    config: ModelConfig, vocabulary: int, corpus: Corpus, precision: torch.dtype, device: torch.device = CPU
) -> Callable[[np.ndarray], None]:
    from transformers import MarianConfig, MarianMTModel

    c = config
    torch.manual_seed(1)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=vocabulary,
            d_model=c.d_model,
            encoder_layers=c.encoder_layers,
            decoder_layers=c.decoder_layers,
            encoder_attention_heads=c.heads,
            decoder_attention_heads=c.heads,
            encoder_ffn_dim=c.d_ff,
            decoder_ffn_dim=c.d_ff,
            dropout=c.dropout,
            attention_dropout=0.0,
            activation_function="relu",
            scale_embedding=True,
            max_position_embeddings=256,
            pad_token_id=PAD,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )
    model.to(device).train()

    def logits(batch: Batch) -> Tensor:
        return model(
            input_ids=batch.source_BS, attention_mask=batch.source_BS != PAD, decoder_input_ids=batch.input_BT
        ).logits

    return peer_update(model, logits, corpus, precision)


def peer_update(
    model: nn.Module, logits: Callable[[Batch], Tensor], corpus: Corpus, precision: torch.dtype
) -> Callable[[np.ndarray], None]:
    """One update the usual way: autocast, torch's cross-entropy over all positions, torch's default Adam."""
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    device = next(model.parameters()).device

    def update(rows: np.ndarray) -> None:
        batch = load_batch(corpus.take(rows), device)
        target_BT = torch.full_like(batch.input_BT, PAD)
        target_BT.view(-1)[batch.target_places_N] = batch.targets_N
        adam.zero_grad()
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits_BTV = logits(batch)
        loss = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(), target_BT.flatten(), ignore_index=PAD, label_smoothing=SMOOTHING
        )
        loss.backward()
        adam.step()

    return update


SYSTEMS = {"mt": ours, "nn.Transformer": plain, "MarianMTModel": hugging_face}


# --- The limit ---------------------------------------------------------------------------------------------------


def product_seconds(config: ModelConfig, vocabulary: int, lengths_R2: Lengths, precision: torch.dtype) -> float:
    """How long the weights' matrix products of one update take by themselves: forward, and twice that backward."""
    c = config
    source, target = (int(rows) * len(lengths_R2) for rows in lengths_R2.max(axis=0))
    d, f = c.d_model, c.d_ff
    encoder = [(source, d, 3 * d), (source, d, d), (source, d, f), (source, f, d)] * c.encoder_layers
    decoder = [
        *[(target, d, 3 * d), (target, d, d), (target, d, d), (source, d, 2 * d), (target, d, d)] * c.decoder_layers,
        *[(target, d, f), (target, f, d)] * c.decoder_layers,
    ]
    output = [(int(lengths_R2[:, 1].sum()), d, vocabulary)]
    total = 0.0
    for rows, inner, outer in [*encoder, *decoder, *output]:
        x, weight, gradient = (
            torch.ones(shape, dtype=precision) for shape in ((rows, inner), (outer, inner), (rows, outer))
        )
        start = time.perf_counter()
        F.linear(x, weight)
        gradient @ weight
        gradient.t() @ x
        total += time.perf_counter() - start
    return total


if __name__ == "__main__":
    main()
