"""What mt makes of a GPU, as tables for the README: ceilings, training, where an update's time goes, decoding.

    scripts/benchmarks/gpu.py                     # everything, in about 20 minutes
    scripts/benchmarks/gpu.py training --size big
    scripts/benchmarks/gpu.py --toy               # on any machine, in seconds: shows that the script works, no more

In bfloat16, on random sentences of WMT-like lengths, 37,000 pieces, updates of 25,000 tokens. The systems take turns.
Tokens are real target tokens: padding never counts. `flops` gives the operations of a token, and the share of the
ceiling is theirs alone. Hugging Face takes part where transformers is installed. Whether a GPU computes what a CPU
does, `pytest -m gpu` says.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from decode import Decode, marian_twin, random_sources
from decode import hugging_face as hugging_face_decoding
from decode import ours as our_decoding
from train import hugging_face, ours, plain, random_corpus

from mt.config import ModelConfig
from mt.data.batches import Lengths, Rows, plan_batches
from mt.data.corpus import Corpus
from mt.device import repeat_exactly
from mt.model.transformer import Transformer, training_flops

PARTS = ("ceilings", "training", "profile", "decoding")

Update = Callable[[Rows], None]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    device: torch.device
    sizes: dict[str, ModelConfig]
    vocabulary: int = 37_000
    pairs: int = 120_000
    tokens: int = 25_000  # an update
    windows: int = 10
    updates: int = 10  # a window
    square: int = 8_192  # rows and columns of the ceiling's matrices
    copied: int = 2**30  # bytes
    sentences: int = 2_048
    decoded_together: tuple[int, ...] = (64, 256, 1_024)
    compiled: bool = True


BASE = ModelConfig()
BIG = ModelConfig(d_model=1024, heads=16, d_ff=4096, dropout=0.3)
TINY = ModelConfig(d_model=16, heads=2, d_ff=32, encoder_layers=1, decoder_layers=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--size", choices=["base", "big"], help="one of the two; both by default")
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    if options.toy:
        scale = Scale(torch.device("cpu"), {"tiny": TINY}, 100, 300, 500, 2, 1, 64, 2**20, 8, (4,), compiled=False)
    else:
        sizes = {"base": BASE, "big": BIG}
        scale = Scale(torch.device("cuda"), {options.size: sizes[options.size]} if options.size else sizes)
    parts = options.parts or PARTS
    print(f"{machine(scale.device)}, torch {torch.__version__}")
    ceiling = ceilings(scale)
    for name, config in scale.sizes.items():
        if "training" in parts:
            training(scale, name, config, ceiling)
        if "profile" in parts:
            profile(scale, name, config)
    if "decoding" in parts:
        decoding(scale, *next(iter(scale.sizes.items())))


def machine(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes, all it leaves to the GPU done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


# --- Ceilings ----------------------------------------------------------------------------------------------------


def ceilings(scale: Scale) -> float:
    """Print how quick products and copies are by themselves; returns the products' operations a second."""
    n, device = scale.square, scale.device
    a_NN, b_NN = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(255, (scale.copied,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    products = [seconds(lambda: a_NN @ b_NN, device) for _ in range(30)]
    copies = [seconds(lambda: target.copy_(source), device) for _ in range(30)]
    product, copy = 2 * n**3 / statistics.median(products), 2 * scale.copied / statistics.median(copies)
    print(f"\nceilings: {product / 1e12:,.1f} TFLOP/s (bfloat16, {n:,} squared), {copy / 1e12:.3f} TB/s (a copy)")
    return product


# --- Training ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What all systems train on."""

    corpus: Corpus
    lengths_N2: Lengths
    batches: list[Rows]

    def tokens(self, batches: list[Rows]) -> int:
        return sum(int(self.lengths_N2[rows, 1].sum()) for rows in batches)


@dataclass
class System:
    """One trainer, and what was seen of it."""

    name: str
    update: Update
    repeatable: bool = False
    rates: list[float] = field(default_factory=list)  # tokens a second
    memory: list[float] = field(default_factory=list)  # GiB, beyond what all systems' weights take


def make_task(scale: Scale) -> Task:
    corpus = random_corpus(scale.pairs, scale.vocabulary)
    lengths_N2 = corpus.lengths()
    return Task(corpus, lengths_N2, plan_batches(lengths_N2, scale.tokens, seed=1, epoch=0))


def training(scale: Scale, size: str, config: ModelConfig, ceiling: float) -> None:
    """Each system's tokens a second, median of windows in which they take turns."""
    task = make_task(scale)
    systems = training_systems(scale, config, task)
    for system in systems:  # load kernels, compile, find memory for all shapes
        take_turn(system, task.batches[-2 * scale.updates :], task, scale.device)
        system.rates.clear()
        system.memory.clear()
    for window in range(scale.windows):
        first = window * scale.updates % (len(task.batches) - scale.updates)
        for system in systems:
            take_turn(system, task.batches[first : first + scale.updates], task, scale.device)
    flops = training_flops(config, scale.vocabulary, task.lengths_N2) / task.tokens(task.batches)
    print(f"\n{size}: {flops / 1e6:,.0f} MFLOP a target token; {scale.windows * scale.updates} updates a system")
    print("\n| training | tokens/s | lowest | highest | of the ceiling | mt is | GiB | 100,000 updates |")
    print("|---|---|---|---|---|---|---|---|")
    for system in systems:
        rate = statistics.median(system.rates)
        ratio = statistics.median(a / b for a, b in zip(systems[0].rates, system.rates, strict=True))
        hours = 100_000 * task.tokens(task.batches) / len(task.batches) / rate / 3600
        print(
            f"| {system.name} | {rate:,.0f} | {min(system.rates):,.0f} | {max(system.rates):,.0f} "
            f"| {rate * flops / ceiling:.1%} | {ratio:.2f}x | {max(system.memory):.1f} | {hours:.2f} h |"
        )


def training_systems(scale: Scale, config: ModelConfig, task: Task) -> list[System]:
    alike = (config, scale.vocabulary, task.corpus, torch.bfloat16, scale.device)
    systems = [
        System("mt", ours(*alike), repeatable=True),
        System("mt, train.deterministic=no", ours(*alike)),
        System("nn.Transformer", plain(*alike)),
    ]
    if importlib.util.find_spec("transformers"):
        systems.append(System("MarianMTModel", hugging_face(*alike)))
    if scale.compiled:
        systems = [
            System("mt, train.compile=yes", ours(*alike, compiled=True), repeatable=True),
            System("the same, train.deterministic=no", ours(*alike, compiled=True)),
            *systems,
            System("nn.Transformer, torch.compile", plain(*alike, compiled=True)),
        ]
    return systems


def take_turn(system: System, batches: list[Rows], task: Task, device: torch.device) -> None:
    cuda = device.type == "cuda"
    if system.repeatable:
        repeat_exactly(device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    taken = seconds(lambda: [system.update(rows) for rows in batches], device)
    torch.use_deterministic_algorithms(False)
    system.rates.append(task.tokens(batches) / taken)
    system.memory.append((torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else 0.0)


# --- Where the time goes -----------------------------------------------------------------------------------------


def profile(scale: Scale, size: str, config: ModelConfig) -> None:
    """The kernels of three updates, by time."""
    task = make_task(scale)
    update = ours(config, scale.vocabulary, task.corpus, torch.bfloat16, scale.device, scale.compiled)
    system = System("mt", update, repeatable=True)
    take_turn(system, task.batches[3:6], task, scale.device)
    with torch.profiler.profile() as profiler:
        take_turn(system, task.batches[:3], task, scale.device)
    order = "self_device_time_total" if scale.device.type == "cuda" else "self_cpu_time_total"
    print(f"\n{size}: three updates of mt\n")
    print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=70))


# --- Decoding ----------------------------------------------------------------------------------------------------


def decoding(scale: Scale, size: str, config: ModelConfig) -> None:
    """Output tokens a second with random weights, every output as long as the longest source of its batch."""
    torch.manual_seed(1)
    model = Transformer(config, scale.vocabulary).eval()
    models = {"mt": (our_decoding, model)}
    if importlib.util.find_spec("transformers"):
        models["Hugging Face generate"] = (hugging_face_decoding, marian_twin(model))
    sources = sorted(random_sources(scale.sentences, scale.vocabulary), key=len, reverse=True)
    print(f"\n{size}, bfloat16, {scale.sentences:,} sentences\n")
    print("| decoding | beam | sentences together | tokens/s |")
    print("|---|---|---|---|")
    for name, (decoding_of, weights) in models.items():
        weights.to(scale.device, torch.bfloat16)
        for beam in (1, 4):
            for together in scale.decoded_together:
                batches = [sources[start : start + together] for start in range(0, len(sources), together)]
                tokens = sum(len(batch) * (len(batch[0]) + 1) for batch in batches)
                rate = tokens / decoding_seconds(decoding_of(weights, beam, forced=True), batches, scale.device)
                print(f"| {name} | {beam} | {together:,} | {rate:,.0f} |", flush=True)


def decoding_seconds(decode: Decode, batches: list[list[list[int]]], device: torch.device) -> float:
    decode(batches[-1])  # loads kernels
    return statistics.median(seconds(lambda: [decode(batch) for batch in batches], device) for _ in range(3))


if __name__ == "__main__":
    main()
