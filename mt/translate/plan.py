"""What `mt translate` is asked to do; an impossible job is refused before any work."""

from dataclasses import dataclass
from pathlib import Path

from mt.console import counted
from mt.errors import UsageError
from mt.files import check_target, final_path, is_special

Stream = Path | None  # None stands for stdin or stdout


@dataclass(frozen=True)
class Job:
    """What `mt translate` reads, what it writes, and how; the path `-` is stdin or stdout."""

    inputs: tuple[Stream, ...] = (None,)
    outputs: tuple[Stream, ...] = (None,)  # one for each input, or a folder for all
    format: str | None = None  # text, tsv or jsonl; None: by the name of the input
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
    if job.format not in (None, "text", "tsv", "jsonl"):
        raise UsageError(f"--format {job.format}: choose text, tsv or jsonl")
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
        if processes != 1 and not (_is_file(source) and _is_file(target)):
            raise UsageError("several processes share files, no pipes: give --input and --output")
    return plan


def kind_of(job: Job, source: Stream) -> str:
    """The format of an input: text, tsv or jsonl, as asked, else by its name."""
    suffixes = [] if source is None else [suffix.lower() for suffix in source.suffixes[-2:]]
    return job.format or next((kind for kind in ("tsv", "jsonl") if f".{kind}" in suffixes), "text")


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
