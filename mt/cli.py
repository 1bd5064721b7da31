"""The command line: each command is a few lines that open a door.

Heavy libraries are imported inside the commands, so that `mt --help` answers at once.
"""

import inspect
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mt import __version__, streams
from mt.device import DECODING_SPINS, TRAINING_SPINS, share_cores

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": max(40, shutil.get_terminal_size().columns),
    },
)

if TYPE_CHECKING:
    from mt.evaluate.request import Request
    from mt.serve.server import Address
    from mt.translate.plan import Job

Door = TypeVar("Door", bound=Callable[..., object])
Asked = TypeVar("Asked", "Job", "Request", "Address")


def option(metavar: str, help: str, *names: str, minimum: float | None = None) -> Any:
    """An option with a value; its name is that of the parameter if none is given."""
    return typer.Option(*names, metavar=metavar, help=help, min=minimum)


def flag(help: str, *names: str) -> Any:
    """An option without a value."""
    return typer.Option(*names, help=help)


def _processes(given: str | int) -> int:
    """A number of processes; 0 stands for `auto`."""
    if str(given) == "auto":
        return 0
    try:
        if (number := int(given)) >= 1:
            return number
    except ValueError:
        pass
    raise typer.BadParameter(f"{given} is neither a number from 1 on nor auto")


def _processes_option(default: str = "") -> Any:
    what = "Use N GPUs; without any, N processes on the CPU. auto: all GPUs, or a process for each core."
    return typer.Option("--gpus", "--processes", metavar="N|auto", parser=_processes, help=f"{what} {default}".strip())


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, or demo for the built-in demo.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings that override the file's.")
]
Quiet = Annotated[bool, flag("Print warnings and results only.", "--quiet", "-q")]
Beam = Annotated[int | None, option("N", "Beam width; 1 is greedy. Default: the run's.", minimum=1)]
Alpha = Annotated[float | None, option("X", "Length penalty ((5+|Y|)/6)^alpha. Default: the run's.", minimum=0)]
Average = Annotated[int | None, option("N", "Average the newest N checkpoints of the run.", minimum=1)]

Processes = Annotated[int, _processes_option()]
SomeProcesses = Annotated[int | None, _processes_option("Default: 1; auto for files of 5 MB and more on a CPU.")]
Device = Annotated[str, option("DEVICE", "auto, cpu, cuda or mps.")]
Precision = Annotated[str | None, option("KIND", "float32, bfloat16 or (CPU) int8. Default: the run's, else float32.")]
Tag = Annotated[str | None, option("TAG", "A symbol to put before each source line, as in training.")]
DecodeOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="decode.KEY=VALUE", help="Settings of the search, such as decode.max_length=80."),
]


def command(door: Door) -> Door:
    """Make a function a command; `mt --help` shows the first paragraph of its docstring in full."""
    summary = (inspect.getdoc(door) or "").split("\n\n")[0]
    return app.command(short_help=summary)(door)


def _show_version(wanted: bool) -> None:
    if wanted:
        streams.write_out(f"mt {__version__}\n")
        raise typer.Exit


@app.callback()
def mt(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train, run and score the Transformer of 'Attention Is All You Need'."""


@command
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    inspect: Annotated[bool, flag("Show what was prepared, and write inspect.html.", "--inspect")] = False,
    json_output: Annotated[bool, flag("With --inspect: print one JSON object.", "--json")] = False,
    quiet: Quiet = False,
) -> None:
    """Turn raw parallel text into subword ids.

    Says so and returns where this was done already for the same settings and sources.
    """
    from mt.config_file import load_config
    from mt.console import Console

    settings, console = load_config(config, overrides or []), Console(quiet)
    if inspect:
        from mt.data.inspect_corpus import as_json, render_text
        from mt.data.inspect_corpus import inspect as inspect_data

        inspection = inspect_data(settings, console)
        shown = as_json(inspection) if json_output else render_text(inspection)
        streams.write_out(f"{shown}\n")
    else:
        from mt.data.prepare import prepare as prepare_data

        prepare_data(settings, console).verify()


@command
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    processes: Processes = 1,
    init_from: Annotated[Path | None, option("RUN|CHECKPOINT", "Begin a new run with these weights.")] = None,
    dry_run: Annotated[bool, flag("Rehearse, print the plan, train nothing.", "--dry-run")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model; a run that was stopped goes on.

    Prepares the data first if that is not done.
    """
    from mt.config_file import load_config
    from mt.console import Console

    settings = load_config(config, overrides or [])  # before torch is imported: a wrong key is reported at once
    share_cores(TRAINING_SPINS)
    if processes != 1:
        from mt.distributed import launch

        flags = [flag for flag, given in (("--dry-run", dry_run), ("--quiet", quiet)) if given]
        origin = [] if init_from is None else ["--init-from", str(init_from)]
        return launch(processes, ["train", str(config), *(overrides or []), *origin, *flags], settings.train.device)
    from mt.train.loop import train as train_model

    return train_model(settings, Console(quiet), init_from, dry_run)


@command
def translate(
    context: typer.Context,
    ckpt: Annotated[
        list[Path],
        option(
            "RUN|CHECKPOINT",
            "A run (what validates best), RUN/best, RUN/last, RUN/averaged; several form an ensemble.",
            "--ckpt",
        ),
    ],
    overrides: DecodeOverrides = None,
    inputs: Annotated[
        list[str] | None, option("FILE", "Read from here. Default: -, which is stdin.", "--input")
    ] = None,
    outputs: Annotated[
        list[str] | None, option("FILE|DIR", "Write here; one for each --input. Default: -, stdout.", "--output")
    ] = None,
    format: Annotated[str | None, option("KIND", "text, tsv, jsonl or parquet. Default: by its name.")] = None,
    field: Annotated[
        str | None,
        option(
            "NAME|N", "Column (a number, or a name in the first line) or key of the text. Default: the source language."
        ),
    ] = None,
    n_best: Annotated[int, option("N", "Write N translations of each line, as columns.", minimum=1)] = 1,
    scores: Annotated[bool, flag("Write a score after each translation.", "--scores")] = False,
    errors: Annotated[str, option("KIND", "strict or replace, for bytes that are not UTF-8.")] = "strict",
    tag: Tag = None,
    prefix: Annotated[Path | None, option("FILE", "For each line, what its translation has to start with.")] = None,
    score_ref: Annotated[
        Path | None, option("FILE", "For each line, a translation to score, as the tokenizer segments it.")
    ] = None,
    alignments: Annotated[
        bool, flag("Write word alignments (0-0 1-2) after each translation.", "--alignments")
    ] = False,
    attention: Annotated[
        Path | None, option("FILE", "Write attention weights: a .json file, or an .html page.")
    ] = None,
    self_attention: Annotated[bool, flag("With --attention: self-attention too.", "--self-attention")] = False,
    unbuffered: Annotated[bool, flag("Answer each line as it comes.", "--unbuffered")] = False,
    beam: Beam = None,
    alpha: Alpha = None,
    sample: Annotated[bool | None, flag("Draw each piece at random.", "--sample")] = None,
    top_p: Annotated[float | None, option("P", "Sample from the pieces that make up this probability.")] = None,
    seed: Annotated[int | None, option("N", "Seed of sampling.")] = None,
    long_lines: Annotated[str | None, option("KIND", "split long lines (at sentence ends) or cut them.")] = None,
    precision: Precision = None,
    average: Average = None,
    device: Device = "auto",
    processes: SomeProcesses = None,
    cluster: Annotated[
        str | None, option("ray|ADDRESS", "Share many files among the machines of a Ray cluster.")
    ] = None,
    workers: Annotated[str | None, option("N|MIN:MAX", "With --cluster: how many. Default: all that fit.")] = None,
    resources: Annotated[
        str | None, option("cpu=N,gpu=N", "With --cluster: what each worker takes. Default: a GPU, else a core.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Translate lines of text: one line out for each line in.

    A job that was stopped goes on from where it was when the same command is given again. All settings of the search
    are decode.KEY=VALUE; the common ones are options too.
    """
    from mt.translate.plan import Job, default_processes, plan_job

    decode = _decode(context, overrides)
    places = [tuple(map(Path, given or ["-"])) for given in (inputs, outputs)]
    job = replace(_given(context, Job), inputs=places[0], outputs=places[1])
    if cluster is not None or workers is not None or resources is not None:
        from mt.translate.cluster import Opening, translate_on_cluster
        from mt.translate.plan import cluster_of, plan_cluster

        where = cluster_of(cluster, workers, resources, 1 if processes is None else processes)
        sources = plan_cluster(job, inputs or [], outputs or [])
        opening = Opening(tuple(ckpt), device, average, decode)
        return translate_on_cluster(where, sources, job, opening, quiet)
    # Before torch is imported, so that a wrong path is reported at once.
    plan = plan_job(job, 1 if processes is None else processes)
    if processes is None:
        processes = default_processes(job, plan, device)
    if processes != 1:
        from mt.distributed import launch

        return launch(processes, [*sys.argv[1:], "--gpus", "1"], device)  # the later --gpus counts
    share_cores(DECODING_SPINS)
    from mt.translate.job import translate as run_translation

    return run_translation(ckpt, job, device, average, decode, quiet)


@command
def evaluate(
    context: typer.Context,
    overrides: DecodeOverrides = None,
    ckpt: Annotated[
        list[Path] | None, option("RUN|CHECKPOINT", "A model to score; several are compared.", "--ckpt")
    ] = None,
    hyp: Annotated[
        list[Path] | None, option("FILE", "Translations to score; several are compared with the first.", "--hyp")
    ] = None,
    src: Annotated[Path | None, option("FILE", "Source sentences, with --ref.")] = None,
    ref: Annotated[
        list[Path] | None, option("FILE", "Reference translations; several score together.", "--ref")
    ] = None,
    testset: Annotated[
        str | None, option("NAME", "Such as newstest2014, or a set that the run names. Default: its data.test.")
    ] = None,
    data: Annotated[Path | None, option("DIR", "Folder of the --testset, as NAME.en and NAME.de.")] = None,
    langs: Annotated[str | None, option("SRC-TGT", "Languages. Default: the model's; without one, en-de.")] = None,
    output: Annotated[Path | None, option("FILE", "Write the model's translations here.")] = None,
    tag: Tag = None,
    beam: Beam = None,
    alpha: Alpha = None,
    precision: Precision = None,
    average: Average = None,
    device: Device = "auto",
    paper_bleu: Annotated[bool, flag("Also the paper's tokenised, compound-split BLEU.", "--paper-bleu")] = False,
    multi30k_bleu: Annotated[
        bool, flag("Also lower-cased tokenised BLEU, as in papers on Multi30k.", "--multi30k-bleu")
    ] = False,
    analysis: Annotated[bool, flag("Also BLEU by sentence length, and faulty lines by kind.", "--analysis")] = False,
    all_checkpoints: Annotated[
        bool, flag("BLEU of every checkpoint of one run, by update.", "--all-checkpoints")
    ] = False,
    all_sets: Annotated[
        bool, flag("Every set of the last run's data.test, else data.valid: gains and losses of models.", "--all-sets")
    ] = False,
    stress: Annotated[
        bool, flag("Also with lower case, upper case, no end marks, typos: what noise costs.", "--stress")
    ] = False,
    json_output: Annotated[bool, flag("Print one JSON object.", "--json")] = False,
    quiet: Quiet = False,
) -> None:
    """Translate a test set and score it with sacreBLEU, or score files of translations."""
    from mt.console import Console

    share_cores(DECODING_SPINS)
    from mt.evaluate.evaluation import evaluate as run_evaluation
    from mt.evaluate.request import Request

    request = replace(_given(context, Request), decode=_decode(context, overrides))
    console = Console(quiet)
    if request.all_checkpoints:
        from mt.evaluate.curve import bleu_curve

        shown = bleu_curve(request, console).shown(json_output)
    elif request.stress:
        from mt.evaluate.stress import stress_test

        shown = stress_test(request, console).shown(json_output)
    elif request.all_sets:
        from mt.evaluate.gains import evaluate_sets

        shown = evaluate_sets(request, console).shown(json_output)
    else:
        shown = run_evaluation(request, console).shown(json_output)
    streams.write_out(f"{shown}\n")


def _given(context: typer.Context, kind: type[Asked]) -> Asked:
    """A dataclass filled from the parameters of the same names; a parameter not given leaves the default."""
    given = {field.name: context.params.get(field.name) for field in fields(kind)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value not in (None, [], ())
    }
    return kind(**values)


def _decode(context: typer.Context, overrides: list[str] | None) -> dict[str, object]:
    """The settings of the search that were given; decode.KEY=VALUE overrides an option."""
    from mt.config import DecodeConfig
    from mt.config_file import decode_overrides

    options = {key: context.params.get(key) for key in DecodeConfig.model_fields}
    given = [f"decode.{key}={value}" for key, value in options.items() if value is not None]
    return decode_overrides([*given, *(overrides or [])])


@command
def export(
    ckpt: Annotated[list[Path], option("RUN|CHECKPOINT", "As in mt translate; one.", "--ckpt")],
    to: Annotated[str, option("FORMAT", "ctranslate2, huggingface, argos, or mt for a checkpoint in 8 bits.")],
    output: Annotated[Path, option("DIR", "A new folder.")],
    quantization: Annotated[
        str | None, option("KIND", "float32, int8, int8_float32 or float16. Default: float32; for argos and mt, int8.")
    ] = None,
    average: Average = None,
    quiet: Quiet = False,
) -> None:
    """Write a model in the format of CTranslate2, Hugging Face or Argos Translate.

    What is written was seen to compute what the model computes.
    """
    from mt.console import Console
    from mt.interop.export import export as export_model

    export_model(ckpt, to, output, quantization, average, Console(quiet))


@command
def shortlist(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run whose prepared data are there.")],
    best: Annotated[int, option("N", "Target pieces for each source piece.", minimum=1)] = 50,
    frequent: Annotated[int, option("N", "Most frequent target pieces, for every source.", minimum=0)] = 200,
    all_pairs: Annotated[bool, flag("Learn from all training pairs, not from a sample.", "--all")] = False,
    quiet: Quiet = False,
) -> None:
    """List the pieces that translate each source piece, for decode.shortlist=yes."""
    from mt.console import Console
    from mt.translate.shortlist import make_shortlist

    make_shortlist(run, best, frequent, all_pairs, Console(quiet))


@app.command("import", short_help="Make a run of a Hugging Face Marian folder, such as a model of OPUS-MT.")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With config.json, model.safetensors, source.spm, ...")],
    output: Annotated[Path, option("RUN", "A new run.")],
    quiet: Quiet = False,
) -> None:
    """Make a run of a Hugging Face Marian folder, such as a model of OPUS-MT.

    It translates, can be trained on (mt train --init-from RUN) and exported like any other.
    """
    from mt.console import Console
    from mt.interop.import_marian import import_marian

    import_marian(folder, output, Console(quiet))


@command
def serve(
    context: typer.Context,
    ckpt: Annotated[
        list[Path], option("RUN|CHECKPOINT", "A model to serve; several, each for other languages.", "--ckpt")
    ],
    overrides: DecodeOverrides = None,
    host: Annotated[str, option("ADDRESS", "Listen here. 0.0.0.0: for the whole network.")] = "127.0.0.1",
    port: Annotated[int, option("N", "Listen on this port. 0: on a free one.", minimum=0)] = 5000,
    char_limit: Annotated[int, option("N", "Most characters of text in a request.", minimum=1)] = 10_000,
    queue: Annotated[int, option("N", "Most requests that wait; others are refused.", minimum=1)] = 256,
    tag: Tag = None,
    beam: Beam = None,
    precision: Precision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Try models out in a browser, or through LibreTranslate's API.

    For one person or a few; to serve many, see mt export.
    """
    from mt.console import Console

    share_cores(DECODING_SPINS)
    from mt.serve.server import Address
    from mt.serve.server import serve as run_server

    run_server(ckpt, _given(context, Address), device, _decode(context, overrides), tag, Console(quiet))


@command
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="That of the runs; or a run.")] = Path("runs"),
    best: Annotated[bool, flag("Highest BLEU first. Default: the run written to last.", "--best")] = False,
    json_output: Annotated[bool, flag("Print one JSON object.", "--json")] = False,
) -> None:
    """List the runs of a folder: updates, best BLEU, state, settings that differ."""
    from mt.train.runs import list_runs

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    streams.write_out(f"{list_runs(folder, best).shown(json_output, width)}\n")


@command
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN ...", help="A run, or several to compare; running or not.")
    ],
    output: Annotated[
        Path | None, option("FILE", "Write here. Default: RUN/report.html; of several, compare.html.", "-o", "--output")
    ] = None,
) -> None:
    """Write RUN/report.html: curves, scores, samples, settings, data; or one page that compares several runs."""
    from mt.evaluate.comparison import write_page

    streams.write_out(f"{write_page(runs, output)}\n")
