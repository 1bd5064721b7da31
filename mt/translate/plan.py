"""What `mt translate` is asked to do; an impossible job is refused before any work."""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mt.console import counted
from mt.device import choose_device
from mt.errors import UsageError
from mt.files import check_target, final_path, is_special
from mt.remote import has_pattern, is_url, matching

Stream = Path | None  # None stands for stdin or stdout
MUCH_TEXT = 5_000_000  # bytes: minutes of work, of which starting the processes takes some seconds
MOST_PROCESSES = 8  # unless asked for, as each holds the model; each has its share of the cores


@dataclass(frozen=True)
class Job:
    """What `mt translate` reads, what it writes, and how; the path `-` is stdin or stdout."""

    inputs: tuple[Stream, ...] = (None,)
    outputs: tuple[Stream, ...] = (None,)  # one for each input, or a folder for all
    format: str | None = None  # text, tsv, jsonl or parquet; None: by the name of the input
    field: str | None = None  # the column or key that holds the text; None: the one named by the source language
    n_best: int = 1
    scores: bool = False
    errors: str = "strict"  # strict or replace, for bytes that are not UTF-8
    tag: str | None = None  # a symbol put before each line
    prefix: Path | None = None  # for each line, what its translation has to start with
    score_ref: Path | None = None  # for each line, a translation to score in place of making one
    unbuffered: bool = False  # answer each line as it comes
    alignments: bool = False  # after each translation, which word comes from which
    attention: Path | None = None  # write the attention weights of the first lines here, as .json or as an .html page
    self_attention: bool = False  # those of self-attention too


def plan_job(job: Job, processes: int = 1) -> list[tuple[Stream, Stream]]:
    """The input and output of each file, links followed.

    processes: that are to share them; 0 means as many as the machine has GPUs or cores.
    Raises UsageError where they do not fit, before any work is done.
    """
    if job.format not in (None, "text", "tsv", "jsonl", "parquet"):
        raise UsageError(f"--format {job.format}: choose text, tsv, jsonl or parquet")
    if job.errors not in ("strict", "replace"):
        raise UsageError(f"--errors {job.errors}: choose strict or replace")
    if job.prefix is not None and job.score_ref is not None:
        raise UsageError("give either --prefix or --score-ref")
    if len(job.inputs) > 1 and (job.prefix or job.score_ref):
        raise UsageError("--prefix and --score-ref go line by line with one --input, but there are several")
    if job.attention is not None:
        if job.attention.suffix.lower() not in (".json", ".html", ".htm"):
            raise UsageError(f"--attention {job.attention}: name a .json file, or an .html page")
        check_target(job.attention)
    plan = _pairs(job)
    for path in (job.prefix, job.score_ref, *(source for source, _ in plan)):
        if path is not None and not path.exists():
            raise UsageError(f"{path}: no such file")
    for source, target in plan:
        _check_paths(source, target)
        if job.field is not None and kind_of(job, source) == "text":
            raise UsageError(f"--field {job.field}: plain text has no fields; give --format tsv or jsonl where it has")
        if kind_of(job, source) == "parquet":
            _check_parquet(job, source, target, processes)
        if processes != 1 and not (_is_file(source) and _is_file(target)):
            raise UsageError("several processes share files, no pipes: give --input and --output")
    return plan


def default_processes(job: Job, plan: Sequence[tuple[Stream, Stream]], device: str) -> int:
    """How many processes translate a plan when nobody says: for much text on a CPU one for each core, else one.

    Processes wait for each other only at the end, threads in every step, which costs most where the machine is busy.
    """
    files = [source for pair in plan for source in pair]
    if not all(map(_is_file, files)) or any(kind_of(job, source) == "parquet" for source, _ in plan):
        return 1
    if job.unbuffered or job.attention or "RANK" in os.environ:
        return 1
    if sum(source.stat().st_size for source, _ in plan if source is not None) < MUCH_TEXT:
        return 1
    if choose_device(device).type != "cpu":
        return 1
    from mt.distributed import cores  # imports torch

    threads = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), MOST_PROCESSES, int(threads) if threads.isdecimal() and int(threads) else MOST_PROCESSES)


def _check_parquet(job: Job, source: Stream, target: Stream, processes: int) -> None:
    if not (_is_file(source) and _is_file(target)):
        raise UsageError("Parquet goes from file to file: give --input and --output")
    if processes != 1:
        raise UsageError(f"{source}: Parquet files are shared by --cluster, not by --gpus or --processes")
    for name in ("prefix", "score_ref", "attention"):
        if getattr(job, name):
            raise UsageError(f"--{name.replace('_', '-')} is for lines of text, not for Parquet")


def kind_of(job: Job, source: Stream) -> str:
    """The format of an input: text, tsv, jsonl or parquet, as asked, else by its name."""
    suffixes = [] if source is None else [suffix.lower() for suffix in source.suffixes[-2:]]
    return job.format or next((kind for kind in ("tsv", "jsonl", "parquet") if f".{kind}" in suffixes), "text")


def table_field(field: str | None, language: str, first: str) -> str:
    """The column of a table that holds the text: its name, or its number from 1; `first` is the table's first line."""
    return field or (language if language in first.split("\t") else "1")


def record_fields(field: str | None, language: str) -> tuple[str, ...]:
    """The keys under which the text of a record may stand."""
    return (field,) if field else (language, f"translation.{language}", "source")


def _pairs(job: Job) -> list[tuple[Stream, Stream]]:
    inputs, outputs = [[None if str(path) == "-" else path for path in paths] for paths in (job.inputs, job.outputs)]
    if len(outputs) == 1 and outputs[0] is not None and outputs[0].is_dir():
        outputs = [outputs[0] / (source.name if source is not None else "stdin") for source in inputs]
    if outputs == [None]:
        outputs *= len(inputs)
    if len(outputs) != len(inputs):
        raise UsageError(
            f"{counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}: "
            "give an --output for each --input, or one folder"
        )
    outputs = [final_path(path) if path and path.is_symlink() and not is_special(path) else path for path in outputs]
    files = [final_path(path) for path in outputs if path is not None]
    if len(set(files)) < len(files):
        raise UsageError("two outputs have the same name: give an --output of its own for each --input")
    return list(zip(inputs, outputs, strict=True))


def _is_file(path: Stream) -> bool:
    return path is not None and not is_special(path)


def _check_paths(source: Stream, target: Stream) -> None:
    if source is not None and source.is_dir():
        raise UsageError(f"{source}: is a folder; name a file")
    if target is not None:
        check_target(target)
        if source is not None and target.exists() and target.samefile(source):
            raise UsageError(f"{target}: is the input itself; name another --output")


# --- On a cluster ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """Where the workers are, how many may be there, and what each of them takes."""

    address: str  # ray: where Ray's own tools find one, else a new one on this machine; or as ray.init takes it
    fewest: int = 1
    most: int | None = None  # None: as many as the machines hold
    resources: Mapping[str, float] = field(default_factory=dict)  # none: a GPU where there are any, else a core


@dataclass(frozen=True)
class Source:
    """An input of a cluster's job and its output: absolute paths that every machine sees, or URLs."""

    name: str
    target: str
    kind: str  # text, tsv, jsonl or parquet


def cluster_of(address: str | None, workers: str | None, resources: str | None, processes: int = 1) -> Cluster:
    """What --cluster, --workers and --resources say; raises UsageError where it makes no sense."""
    if address is None:
        raise UsageError("--workers and --resources are for --cluster")
    if processes != 1:
        raise UsageError("give --cluster, with --workers, or --gpus: not both")
    fewest, most = 1, None
    if workers is not None:
        if not (found := re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*)?)?", workers)):
            raise UsageError(f"--workers {workers}: give a number, or the fewest and the most as 1:64")
        fewest = int(found[1])
        most = fewest if ":" not in workers else int(found[2]) if found[2] else None
        if most is not None and most < fewest:
            raise UsageError(f"--workers {workers}: the fewest come first, as in {most}:{fewest}")
    taken = dict[str, float]()
    for item in (resources or "").split(",") if resources else []:
        if not (match := re.fullmatch(r"([^=\s]+)=(\d+(?:\.\d+)?(?:e\d+)?)", item.strip())):
            raise UsageError(f"--resources {resources}: give what each worker takes as cpu=2 or gpu=1,memory=8e9")
        known = match[1].lower() in ("cpu", "gpu", "memory")
        taken[match[1].lower() if known else match[1]] = float(match[2])
    if taken.get("gpu", 0) > 1 and taken["gpu"] % 1:
        raise UsageError(f"--resources {resources}: give whole GPUs, or a part of one")
    if address == "ray":
        address = os.environ.get("RAY_ADDRESS") or address
    return Cluster(address, fewest, most, taken)


@dataclass(frozen=True)
class Sources:
    """The inputs of a cluster's job, and the folder of its outputs."""

    files: list[Source]
    folder: str


def plan_cluster(job: Job, inputs: Sequence[str], outputs: Sequence[str]) -> Sources:
    """The files of a job and their outputs; each input is a path, a URL, or a glob of either.

    Raises UsageError where they do not fit, before any work is done.
    """
    if not inputs or len(outputs) != 1:
        raise UsageError("--cluster needs --input, a file or a glob, and as --output one folder")
    (output,) = outputs
    for name in ("prefix", "score_ref", "attention", "unbuffered"):
        if getattr(job, name):
            raise UsageError(f"--{name.replace('_', '-')} is not for --cluster: translate that file on one machine")
    names = [name for given in inputs for name in _files(given)]
    if not is_url(output) and not Path(output).absolute().parent.is_dir():
        raise UsageError(f"{output}: there is no folder {Path(output).parent}; make it first")
    if not is_url(output) and Path(output).exists() and not Path(output).is_dir():
        raise UsageError(f"{output}: is a file; with --cluster name a folder, in which each input has its output")
    targets = [inside(output, name.split("?")[0].rsplit("/", 1)[-1]) for name in names]
    if twice := next((target for target in targets if targets.count(target) > 1), None):
        raise UsageError(f"{twice}: would be the output of two inputs; translate them into folders of their own")
    if same := next((target for target in targets if target in names), None):
        raise UsageError(f"{same}: is an input itself; name another --output")
    sources = []
    for name, target in zip(names, targets, strict=True):
        kind = kind_of(job, Path(target))
        if job.field is not None and kind == "text":
            raise UsageError(f"--field {job.field}: {name} is plain text, which has no fields")
        sources.append(Source(name, target, kind))
    return Sources(sources, output if is_url(output) else os.path.abspath(output))


def _files(given: str) -> list[str]:
    """The files that are meant, as absolute paths or URLs."""
    if is_url(given):
        found = matching(given) if has_pattern(given) else [given]
    else:
        is_plain = Path(given).exists() or not glob.has_magic(given)
        found = [given] if is_plain else sorted(name for name in glob.glob(given) if Path(name).is_file())
        found = [os.path.abspath(name) for name in found]
        if is_plain and not Path(given).is_file():
            problem = "is a folder; name its files, by a glob" if Path(given).is_dir() else "no such file"
            raise UsageError(f"{given}: {problem}")
    if not found:
        raise UsageError(f"{given}: no file matches")
    return found


def inside(folder: str, name: str) -> str:
    """The path or URL of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(os.path.abspath(folder), name)
