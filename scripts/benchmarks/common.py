"""What the benchmarks share: sizes, random sentences, systems that take turns, and a line about the machine."""

import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mt.config import ModelConfig
from mt.data.corpus import Corpus, Integers, Sentences
from mt.data.tokenizer import BOS, EOS, PAD
from mt.device import bfloat16_is_quick

MEAN_LENGTH = 27  # target tokens of a sentence of WMT14, EOS counted
LONGEST = 250  # tokens of a sentence
FIRST_PIECE = 4  # ids below it are PAD, BOS, EOS and UNK
MAXRSS_GIB = 2**30 if sys.platform == "darwin" else 2**20  # units of ru_maxrss in a GiB


# --- What is measured --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """The shape of a model."""

    model: ModelConfig
    vocabulary: int


SIZES = {
    "toy": Size(ModelConfig(d_model=16, heads=2, d_ff=32, encoder_layers=1, decoder_layers=1), 300),
    "small": Size(ModelConfig(d_model=256, heads=4, d_ff=1024, encoder_layers=3, decoder_layers=3), 8_000),
    "base": Size(ModelConfig(), 32_000),
    "big": Size(ModelConfig(d_model=1024, heads=16, d_ff=4096, dropout=0.3), 32_000),
}


def random_corpus(pairs: int, vocabulary: int, mean_length: float = MEAN_LENGTH) -> Corpus:
    """Random ids at WMT-like lengths: log-normal with this mean on the target side, the source within about a fifth.

    The same arguments give the same corpus in every process.
    """
    random, spread = np.random.default_rng(1), 0.65
    target_N = random.lognormal(np.log(mean_length) - spread**2 / 2, spread, pairs)
    source_N = target_N * np.exp(random.normal(0, 0.2, pairs))

    def sentences(lengths_N: np.ndarray) -> Sentences:
        lengths_N = np.clip(np.round(lengths_N), 2, LONGEST).astype(np.int64)
        offsets: Integers = np.concatenate([[0], np.cumsum(lengths_N)])
        ids = random.integers(FIRST_PIECE, vocabulary, offsets[-1], dtype=np.uint16)
        ids[offsets[1:] - 1] = EOS
        return Sentences(ids, offsets)

    return Corpus(sentences(source_N), sentences(target_N))


def marian_model(size: Size) -> Any:
    """Hugging Face's MarianMTModel in the same shape, its weights random."""
    from transformers import MarianConfig, MarianMTModel

    c = size.model
    config = MarianConfig(
        vocab_size=size.vocabulary,
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
        max_position_embeddings=1024,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        forced_eos_token_id=None,
        decoder_start_token_id=BOS,
    )
    return MarianMTModel(config)


# --- Where it is measured ----------------------------------------------------------------------------------------


def machine() -> str:
    """The processor or GPU, the instructions that torch may use, torch's version, the load, and the commit."""
    import torch  # here, as a large parent shows in the peak memory of its children

    parts = [_processor(), f"{os.cpu_count()} cores"]
    instructions = torch.backends.cpu.get_cpu_capability()
    parts.append(f"{instructions}{' with bfloat16' if bfloat16_is_quick(torch.device('cpu')) else ''}")
    limits = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    parts += [f"{name}={os.environ[name]}" for name in limits if name in os.environ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts += [f"torch {torch.__version__}", f"load {os.getloadavg()[0]:.1f}", f"commit {commit()}"]
    return ", ".join(parts)


def _processor() -> str:
    """Its name; the family and model too, as virtual machines often give little more than the maker's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return platform.processor() or platform.machine()
    found = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    if "model name" not in found:
        return platform.machine()
    return f"{found['model name']} (family {found.get('cpu family')}, model {found.get('model')})"


def commit() -> str:
    """The commit of the code measured, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=, with changes"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


# --- Files of records ---------------------------------------------------------------------------------------------


def read_records(path: Path) -> list[dict[str, Any]]:
    """What is in the file; a line that was cut off when a machine went away is no record."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Add a line that is on disk when this returns."""
    cut_off = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut_off else "") + json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


# --- A picture of results -----------------------------------------------------------------------------------------


class Picture:
    """Points and lines over two axes as a picture of its own (SVG), on light and dark pages."""

    COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by all (Okabe and Ito)
    WIDTH, HEIGHT, LEFT, TOP = 720, 360, 56, 24  # of the plot alone, and its place

    def __init__(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str, y_title: str) -> None:
        self._x_ticks, self._y_ticks = x_ticks, y_ticks
        bottom, right = self.down(y_ticks[0]), self.across(x_ticks[-1])
        self._drawn = [f'<path class="rule" d="M{self.LEFT} {self.down(tick)}H{right}"/>' for tick in y_ticks]
        self._drawn += [self._text(self.LEFT - 8, self.down(tick) + 4, f"{tick:g}", "end") for tick in y_ticks]
        self._drawn += [self._text(self.across(tick), bottom + 20, f"{tick:,g}", "middle") for tick in x_ticks]
        self._drawn.append(self._text(self.LEFT, self.TOP - 10, y_title))
        self._drawn.append(self._text(right, bottom + 40, x_title, "end"))

    def across(self, x: float) -> float:
        return round(self.LEFT + self.WIDTH * x / self._x_ticks[-1], 1)

    def down(self, y: float) -> float:
        low, high = self._y_ticks[0], self._y_ticks[-1]
        return round(self.TOP + self.HEIGHT * (high - y) / (high - low), 1)

    def level(self, y: float) -> None:
        """A dashed line from side to side."""
        right = self.across(self._x_ticks[-1])
        self._drawn.append(f'<path class="rule" stroke-dasharray="4 4" d="M{self.LEFT} {self.down(y)}H{right}"/>')

    def key(self, number: int, name: str) -> None:
        """What the colour of this number stands for."""
        style = f"fill:{self.colour(number)};font-weight:bold"
        self._drawn.append(self._text(self.LEFT + 16, self.TOP + 18 * (number + 1), name, style=style))

    def line(self, number: int, points: Sequence[tuple[float, float]]) -> None:
        places = "L".join(f"{self.across(x)} {self.down(y)}" for x, y in points)
        self._drawn.append(f'<path fill="none" stroke="{self.colour(number)}" stroke-width="2" d="M{places}"/>')

    def point(self, number: int, place: tuple[float, float], name: str, is_ring: bool = False) -> None:
        x, y, colour = self.across(place[0]), self.down(place[1]), self.colour(number)
        fill = "none" if is_ring else colour
        self._drawn.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
        is_right = x > self.LEFT + self.WIDTH / 2
        self._drawn.append(self._text(x + (-9 if is_right else 9), y + 4, name, "end" if is_right else "start"))

    def colour(self, number: int) -> str:
        return self.COLOURS[number % len(self.COLOURS)]

    @staticmethod
    def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="{style}">{escape(text)}</text>'

    def __str__(self) -> str:
        style = "text{font:13px sans-serif;fill:#777}.rule{stroke:#999;stroke-opacity:.4}"
        size = f'viewBox="0 0 {self.LEFT + self.WIDTH + 24} {self.TOP + self.HEIGHT + 48}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{"".join(self._drawn)}</svg>\n'


# --- Systems in turns --------------------------------------------------------------------------------------------

PEERS = {  # and the packages each needs
    "MarianMTModel": ("transformers",),
    "Hugging Face generate": ("transformers",),
    "CTranslate2 float32": ("transformers", "ctranslate2"),
    "CTranslate2 int8": ("transformers", "ctranslate2"),
}
LIMIT = "products alone"  # the system that computes nothing but the matrix products that all need

Answer = Callable[[Any], Any]


@dataclass
class System:
    """A process of its own, which shares memory, threads and settings with no other, and answers questions."""

    name: str
    connection: Connection
    rates: list[float] = field(default_factory=list)  # tokens/s, one for each turn

    def ask(self, question: object) -> tuple[float, Any]:
        """The seconds it took to answer, and the answer."""
        self.send(question)
        return self.receive()

    def send(self, question: object) -> None:
        self.connection.send([question])

    def receive(self) -> tuple[float, Any]:
        seconds, answer = self.connection.recv()
        return seconds, answer

    def take_turn(self, question: object) -> None:
        """Ask for work whose answer is the number of tokens done."""
        seconds, tokens = self.ask(question)
        self.rates.append(tokens / seconds)

    def end(self) -> float:
        """End the process; gives its peak memory in GiB."""
        self.connection.send([])
        peak: float = self.connection.recv()
        return peak


def start(name: str, make: Callable[..., Answer], *arguments: object) -> System:
    """A system in a new process, where `make(*arguments)` gives the function that answers."""
    spawn = multiprocessing.get_context("spawn")  # a forked process could not use a GPU
    ours, theirs = spawn.Pipe()
    spawn.Process(target=_serve, args=(theirs, make, *arguments), daemon=True).start()
    theirs.close()  # here, so that a process that dies is noticed
    return System(name, ours)


def _serve(connection: Connection, make: Callable[..., Answer], *arguments: object) -> None:
    answer = make(*arguments)
    while questions := connection.recv():
        begun = time.perf_counter()
        found = answer(*questions)
        connection.send((time.perf_counter() - begun, found))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MAXRSS_GIB)


def chosen(systems: Iterable[str], wanted: Sequence[str] | None) -> list[str]:
    """The systems that take part, ours first: those wanted, or else all whose packages are installed."""
    if wanted:
        return [name for name in systems if name == "mt" or name in wanted]
    missing = {
        name: [package for package in PEERS.get(name, ()) if not importlib.util.find_spec(package)] for name in systems
    }
    for name, packages in missing.items():
        if packages:
            print(f"without {name}: {' and '.join(packages)} not installed (pip install '.[bench]')")
    return [name for name, packages in missing.items() if not packages]


def advantage(ours: System, theirs: System) -> float:
    """How many times as quick we are: the median over the turns, each compared with the other's same turn."""
    return statistics.median(our / their for our, their in zip(ours.rates, theirs.rates, strict=True))


def report(systems: Sequence[System]) -> None:
    """End the systems and print a row for each: tokens/s, share of the limit, how we compare, peak memory.

    Our own system comes first, the limit last.
    """
    ours, limit = systems[0], statistics.median(systems[-1].rates)
    print(f"{'':<22}{'tokens/s':>10}{'lowest':>10}{'highest':>10}{'of limit':>10}{'mt is':>9}{'peak GiB':>10}")
    for system in systems:
        median, peak = statistics.median(system.rates), system.end()
        rates = f"{median:>10,.0f}{min(system.rates):>10,.0f}{max(system.rates):>10,.0f}"
        print(f"{system.name:<22}{rates}{median / limit:>10.0%}{advantage(ours, system):>8.2f}x{peak:>10.2f}")
