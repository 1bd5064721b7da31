"""The pieces that gpu.py measures: each a function that gives what it found, and that has a process of its own.

Training, updates and random decoding: bfloat16, random sentences of WMT-like lengths, 37,000 pieces, 25,000 tokens an
update. Tokens are real target tokens: padding never counts.
"""

import itertools
import json
import multiprocessing
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from common import Size, machine
from decode import Decode, Sequences, hugging_face_decoding, marian_twin, our_decoding, random_sources
from torch._dynamo.utils import counters
from train import ONE_PASS, Task, Update, hugging_face, make_task, our_learner, ours, plain

from mt.checkpoint import list_checkpoints, load_checkpoint, read_state, resumable_checkpoints
from mt.config_file import load_config
from mt.console import Console
from mt.data.feed import cut_batch, prefetched
from mt.data.vocabulary import Tokenizers
from mt.device import choose_device, keep_freed_memory, repeat_exactly
from mt.evaluate.bleu import bleu
from mt.files import read_lines
from mt.model.inference import inference_model
from mt.model.transformer import Transformer, training_flops
from mt.run_files import METRICS, read_metrics
from mt.run_folder import find_checkpoint
from mt.train import learner, loss
from mt.train.loop import train
from mt.train.update import take_update

ROOT = Path(__file__).parents[2]
CEILING_TURNS = 30
PROFILED = 3  # updates
SHOWN = 12  # kernels of a profile
PACKAGES = ("torch", "triton", "numpy", "transformers", "pydantic", "sentencepiece", "sacrebleu", "pytest")

Found = dict[str, Any]  # of values that JSON has


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    device: str = "cuda"
    vocabulary: int = 37_000
    pairs: int = 120_000
    tokens: int = 25_000  # an update
    windows: int = 10
    updates: int = 20  # a window
    square: int = 8_192  # rows and columns of the ceiling's matrices
    copied: int = 2**30  # bytes
    sentences: int = 2_048
    together: tuple[int, ...] = (64, 256, 1_024)  # sentences decoded at once
    batch_tokens: tuple[int, ...] = (4_096, 32_000, 64_000)
    decoding_turns: int = 3
    compiled: bool = True
    resumed: tuple[str, ...] = ("train.updates=60", "train.checkpoint_every=20", "train.log_every=1", "decode.beam=1")
    kill_at: int = 30  # updates


TOY = Scale(
    device="cpu",
    vocabulary=300,
    pairs=100,
    tokens=500,
    windows=2,
    updates=1,
    square=64,
    copied=2**20,
    sentences=8,
    together=(4,),
    batch_tokens=(100,),
    decoding_turns=1,
    compiled=False,
    resumed=("train.updates=80", "train.checkpoint_every=20", "train.log_every=1", "decode.max_length=5"),
    kill_at=30,
)


def settle(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str) -> float:
    """How long `work` takes, all it leaves to the GPU done."""
    settle(device)
    begun = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - begun


# --- The machine and its limits ----------------------------------------------------------------------------------


def environment() -> Found:
    """What the figures depend on."""
    return {
        "machine": machine(),
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "gcc": (printed("gcc", "--version").splitlines() or ["missing: torch.compile cannot work"])[0],
        "driver": printed("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "nvidia-smi": printed("nvidia-smi"),
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def printed(*command: str) -> str:
    """What a program prints; nothing where there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def gpu_tests() -> Found:
    """`pytest -m gpu`, of the files that have such tests: others may need packages that a GPU machine lacks."""
    files = [str(path) for path in sorted((ROOT / "tests").glob("*/test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "--durations=5", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return {"summary": lines[-1] if lines else "", "status": done.returncode, "output": "\n".join(lines[-150:])}


def ceilings(scale: Scale) -> Found:
    """How quick products and copies are by themselves."""
    n, device = scale.square, scale.device
    a_NN, b_NN = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(255, (scale.copied,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    products = [seconds(lambda: a_NN @ b_NN, device) for _ in range(CEILING_TURNS)]
    copies = [seconds(lambda: target.copy_(source), device) for _ in range(CEILING_TURNS)]
    return {"flops": 2 * n**3 / statistics.median(products), "bytes": 2 * scale.copied / statistics.median(copies)}


# --- Training ----------------------------------------------------------------------------------------------------

NOT_REPEATABLE = "deterministic=no"  # their results may differ in the last bits from time to time


def without(module: ModuleType, name: str, plain: Callable[..., object], task: Task) -> Update:
    """mt, compiled, with something plain in place of a function that is there for its speed."""
    setattr(module, name, plain)  # for good: the process measures nothing else
    return ours(task, compiled=True)


PADDED = partial(without, learner, "can_be_unpadded", lambda *_: False)
PLAIN_LOSS = partial(without, loss, "_compiled_pass", loss._log_sum_and_gradient)
TRAINERS: dict[str, Callable[[Task], Update]] = {
    "mt": ours,
    "mt, compiled": partial(ours, compiled=True),
    f"mt, compiled, {NOT_REPEATABLE}": partial(ours, compiled=True),
    "mt, compiled, attention with padding": PADDED,
    "mt, compiled, plain loss": PLAIN_LOSS,
    "mt, compiled, residual in bfloat16": partial(ours, compiled=True, residual="bfloat16"),
    "nn.Transformer": plain,
    "nn.Transformer, compiled": partial(plain, compiled=True),
    "MarianMTModel": hugging_face,
}


def gpu_task(scale: Scale, size: Size) -> Task:
    return make_task(size, scale.pairs, scale.tokens, torch.bfloat16, choose_device(scale.device))


def start_trainer(name: str, task: Task) -> Update:
    if name.startswith("mt"):
        keep_freed_memory()
        if NOT_REPEATABLE not in name:
            repeat_exactly(task.device)
    return TRAINERS[name](task)


def training(scale: Scale, name: str, size: Size) -> Found:
    """A system's tokens a second in each window, after as many updates to warm up as two windows have."""
    task = gpu_task(scale, size)

    def take(first: int, count: int) -> int:
        batches = task.some(first, count)
        for rows in batches:
            update(rows)
        settle(scale.device)
        return task.tokens(batches)

    begun = time.perf_counter()
    update = start_trainer(name, task)
    take(len(task.batches) - 2 * scale.updates, 2 * scale.updates)
    warm_up, rates, cpu = time.perf_counter() - begun, [], time.process_time()
    for window in range(scale.windows):
        begun = time.perf_counter()
        tokens = take(window * scale.updates, scale.updates)
        rates.append(tokens / (time.perf_counter() - begun))
    updates = scale.windows * scale.updates
    return {
        "system": name,
        "tokens_per_second": rates,
        "updates": updates,
        "tokens_per_update": task.tokens(task.batches) / len(task.batches),
        "flops_per_token": flops_per_token(task),
        "cpu_seconds_per_update": (time.process_time() - cpu) / updates,
        "warm_up_seconds": warm_up,
        "graphs": counters["stats"]["unique_graphs"],
        "gib": torch.cuda.max_memory_allocated() / 2**30 if scale.device == "cuda" else None,
    }


def flops_per_token(task: Task) -> float:
    """Operations of the products of training, for each target token and what comes with it."""
    flops = training_flops(task.size.model, task.size.vocabulary, task.corpus.lengths())
    return flops / task.tokens(task.batches)


def updates(scale: Scale, size: Size) -> Found:
    """Updates as `mt train` takes them, in one pass and in passes of 8,192 tokens: does the CPU limit, or the GPU?

    The CPU does where it takes as long to issue an update as the update takes in all.
    """
    task = gpu_task(scale, size)
    keep_freed_memory()
    repeat_exactly(task.device)
    learner = our_learner(task, scale.compiled)
    by_passes = {}
    for micro_tokens in (ONE_PASS, 8_192):
        config = learner.config.batch.model_copy(update={"micro_tokens": micro_tokens})
        made = (cut_batch(task.corpus, rows, config) for rows in itertools.cycle(task.batches))
        batches, numbers = prefetched(made), itertools.count(1)

        def take() -> None:
            take_update(learner, next(batches), next(numbers))  # noqa: B023 (called in this turn only)

        for _ in range(scale.updates):
            take()
        settle(scale.device)
        count = scale.windows * scale.updates
        wall, cpu, main = time.perf_counter(), time.process_time(), time.thread_time()
        for _ in range(count):
            take()
        settle(scale.device)
        wall, cpu, main = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - main
        issued = []
        for _ in range(5):  # each on its own: the CPU is not held up by work that still waits
            settle(scale.device)
            begun = time.perf_counter()
            take()
            issued.append(time.perf_counter() - begun)
        batches.close()
        issue = statistics.median(issued)
        by_passes["one pass" if micro_tokens == ONE_PASS else f"passes of {micro_tokens:,} tokens"] = {
            "ms_per_update": 1_000 * wall / count,
            "ms_to_issue": 1_000 * issue,
            "cpu_ms_per_update": 1_000 * cpu / count,
            "main_thread_ms_per_update": 1_000 * main / count,
            "tokens_per_second": task.tokens(task.batches) / len(task.batches) * count / wall,
            "limited_by": "CPU" if issue > 0.9 * wall / count else "GPU",
        }
    return by_passes


def profile(scale: Scale, size: Size) -> Found:
    """Where the time of some updates goes, by kernel."""
    task = gpu_task(scale, size)
    update = start_trainer("mt, compiled" if scale.compiled else "mt", task)

    def take(first: int) -> None:
        for rows in task.some(first, PROFILED):
            update(rows)
        settle(scale.device)

    take(PROFILED)  # loads kernels
    wall = seconds(lambda: take(0), scale.device)
    with torch.profiler.profile() as profiler:
        take(0)
    found, on_gpu = profiler.key_averages(), scale.device == "cuda"
    time_of = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    kernels = [event for event in found if event.device_type.name == ("CUDA" if on_gpu else "CPU")]
    kernels.sort(key=lambda event: -getattr(event, time_of))
    return {
        "ms_per_update": 1_000 * wall / PROFILED,
        "kernel_ms_per_update": sum(getattr(event, time_of) for event in kernels) / 1_000 / PROFILED,
        "kernels": [
            {"name": event.key, "ms": getattr(event, time_of) / 1_000 / PROFILED, "calls": event.count / PROFILED}
            for event in kernels[:SHOWN]
        ],
        "table": found.table(sort_by=time_of, row_limit=40, max_name_column_width=70),
    }


# --- Decoding ----------------------------------------------------------------------------------------------------


def decoding(scale: Scale, name: str, size: Size) -> Found:
    """Output tokens a second with random weights, every output as long as the longest source of its batch."""
    torch.manual_seed(1)
    model = Transformer(size.model, size.vocabulary).eval()
    return decoding_speed(scale, name, model, random_sources(scale.sentences, size.vocabulary), forced=True)


def decoding_text(scale: Scale, name: str, ckpt: Path, source: Path, reference: Path | None) -> Found:
    """The same with a trained model, whose outputs end as they end, and their BLEU."""
    checkpoint = load_checkpoint(find_checkpoint(ckpt))
    tokenizers = Tokenizers.read(checkpoint.tokenizers)
    model = Transformer(checkpoint.config.model, len(tokenizers.target), len(tokenizers.source)).eval()
    model.load_state_dict(checkpoint.weights)
    references = None if reference is None else read_lines(reference)

    def score(outputs: Sequences) -> float | None:
        return None if references is None else bleu(tokenizers.target.decode(outputs), references).value

    return decoding_speed(scale, name, model, tokenizers.source.encode(read_lines(source)), forced=False, score=score)


def decoding_speed(
    scale: Scale,
    name: str,
    model: Transformer,
    sources: Sequences,
    forced: bool,
    score: Callable[[Sequences], float | None] = lambda outputs: None,
) -> Found:
    """Greedily and with a beam of 4, so many sentences together, longest first."""
    device = choose_device(scale.device)  # for its settings: peers have them too
    decoding_with: Callable[[int], Decode]
    if name == "mt":
        keep_freed_memory()
        decoding_with = partial(our_decoding, inference_model(model.to(device), torch.bfloat16), forced=forced)
    else:
        decoding_with = partial(hugging_face_decoding, marian_twin(model).to(device, torch.bfloat16), forced=forced)
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    rows = []
    for beam, together in itertools.product((1, 4), scale.together):
        decode = decoding_with(beam)
        batches = [
            [sources[row] for row in order[first : first + together]] for first in range(0, len(order), together)
        ]
        decode(batches[0])  # loads kernels
        rates = []
        for _ in range(scale.decoding_turns):
            begun = time.perf_counter()
            outputs = [output for batch in batches for output in decode(batch)]
            rates.append(sum(len(output) + 1 for output in outputs) / (time.perf_counter() - begun))
        in_order = [output for _, output in sorted(zip(order, outputs, strict=True))]
        rows.append({"beam": beam, "together": together, "tokens_per_second": rates, "bleu": score(in_order)})
    return {"system": name, "sentences": len(sources), "rows": rows}


def translating(scale: Scale, ckpt: Path, source: Path, reference: Path | None) -> Found:
    """`mt translate` end to end, from start to exit, in batches of several sizes."""
    references, rows = None if reference is None else read_lines(reference), []
    with tempfile.TemporaryDirectory() as folder:
        for tokens in scale.batch_tokens:
            output = Path(folder, f"{tokens}.txt")
            files = ("--ckpt", str(ckpt), "--input", str(source), "--output", str(output))
            how = ("--device", scale.device, "--precision", "bfloat16", "--quiet", f"decode.batch_tokens={tokens}")
            begun = time.perf_counter()
            mt("translate", *files, *how)
            taken, lines = time.perf_counter() - begun, read_lines(output)
            score = None if references is None else bleu(lines, references).value
            rows.append({"batch_tokens": tokens, "lines": len(lines), "seconds": taken, "bleu": score})
    return {"rows": rows}


# --- Runs --------------------------------------------------------------------------------------------------------


def training_for(scale: Scale, config: str, minutes: float) -> Found:
    """Go on with a run for some minutes of updates; `mt train` ends it there, validated, saved and averaged."""
    folder = load_config(config).train.dir
    checkpoints = resumable_checkpoints(folder)
    before = read_state(checkpoints[0]) if checkpoints else {"seconds": 0.0, "update": 0}
    hours = before["seconds"] / 3600 + minutes / 60
    train(load_config(config, [f"train.hours={hours}", f"train.device={scale.device}"]), Console())
    records = read_metrics(folder / METRICS)
    taken = [record for record in records if "tokens" in record and record["update"] > before["update"]]
    scored = [record for record in records if "valid_bleu" in record]
    spent = sum(record["seconds"] for record in taken)
    return {
        "updates": records[-1]["update"],
        "minutes": (before["seconds"] + spent) / 60,
        "tokens_per_second": sum(record["tokens"] for record in taken) / spent if taken else None,
        "valid_bleu": scored[-1]["valid_bleu"] if scored else None,
        "valid_loss": scored[-1]["valid_loss"] if scored else None,
    }


def scoring(scale: Scale, ckpt: Path, source: Path | None, reference: Path | None) -> Found:
    """`mt evaluate` of a run, on the text given or else on the run's own test set."""
    text = [] if source is None or reference is None else ["--src", str(source), "--ref", str(reference)]
    done = mt("evaluate", "--ckpt", str(ckpt), *text, "--device", scale.device, "--json", "--quiet")
    evaluation: Found = json.loads(done)
    return {"testset": evaluation["testset"], "scores": evaluation["results"][0]["scores"]}


def mt(*arguments: str) -> str:
    """Run a command of mt, and give what it prints."""
    done = subprocess.run([sys.executable, "-m", "mt", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mt {' '.join(arguments)}: {done.stderr.strip()[-1_000:]}")
    return done.stdout


def resuming(scale: Scale, config: str) -> Found:
    """Whether a run that was killed and went on has the bytes of one that was left alone."""
    with tempfile.TemporaryDirectory() as work:
        straight, killed = (Path(work, name) for name in ("straight", "killed"))
        finish(training_process(scale, config, straight))
        process = training_process(scale, config, killed)
        while process.is_alive() and not (update := newest_update(killed)) >= scale.kill_at:
            time.sleep(0.01)
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"the run was to be killed after update {scale.kill_at}, but ended by itself")
        finish(training_process(scale, config, killed))
        last = list_checkpoints(straight)[-1][1].name
        files = [f"checkpoints/{last}/{name}.safetensors" for name in ("model", "optimizer")]
        same = all((straight / name).read_bytes() == (killed / name).read_bytes() for name in files)
    return {"killed_after": update, "compared_at": last, "same_bytes": same}


def training_process(scale: Scale, config: str, folder: Path) -> Any:
    """A process that trains; forked, as this one has not begun to use the GPU."""
    overrides = [*scale.resumed, f"train.device={scale.device}", f"train.dir={folder}", "train.precision=bfloat16"]
    arguments = (load_config(config, overrides), Console(quiet=True))
    process = multiprocessing.get_context("fork").Process(target=train, args=arguments)
    process.start()
    return process


def finish(process: Any) -> None:
    process.join()
    if process.exitcode:
        raise RuntimeError(f"mt train ended with exit status {process.exitcode}")


def newest_update(run: Path) -> int:
    """The update that a run has last written down."""
    records = read_metrics(run / METRICS) if (run / METRICS).exists() else []
    return int(records[-1]["update"]) if records else 0
