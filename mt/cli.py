"""The command line: each command is a few lines that open a door.

Heavy libraries are imported inside the commands, so that `mt --help` answers at once.
"""

import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from mt import __version__, streams

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": max(40, shutil.get_terminal_size().columns),
    },
)

Door = TypeVar("Door", bound=Callable[..., object])

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/base.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings that go over the file's.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and results only.")]
CheckpointPath = Annotated[
    Path,
    typer.Option(
        "--ckpt", metavar="RUN|CHECKPOINT", help="A run (what validates best), RUN/best, RUN/last, RUN/averaged."
    ),
]
Beam = Annotated[int | None, typer.Option(help="Beam width; 1 is greedy. Default: the run's decode.beam.", min=1)]
Alpha = Annotated[float | None, typer.Option(help="Length penalty ((5+|Y|)/6)^alpha. Default: the run's.", min=0)]
Average = Annotated[int | None, typer.Option(help="Average the newest N checkpoints of the run.", min=1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str | None, typer.Option(help="float32 or bfloat16. Default: the run's, else float32.")]


def command(door: Door) -> Door:
    """Make a function a command; the list of commands shows the first paragraph of its docstring, all of it."""
    summary = (inspect.getdoc(door) or "").split("\n\n")[0]
    return app.command(short_help=summary)(door)


def _show_version(wanted: bool) -> None:
    if wanted:
        streams.write_out(f"mt {__version__}\n")
        raise typer.Exit


@app.callback()
def mt(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train, run and score the Transformer of 'Attention Is All You Need'."""


@command
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    inspect: Annotated[bool, typer.Option("--inspect", help="Show what was prepared, and write inspect.html.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="With --inspect: print one JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Turn raw parallel text into subword ids.

    Done already for the same settings and sources: says so and returns.
    """
    from mt.config import load_config
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
    processes: Annotated[
        int,
        typer.Option("--gpus", "--processes", metavar="N", help="Train on N GPUs; without any, in N processes.", min=1),
    ] = 1,
    init_from: Annotated[
        Path | None, typer.Option(metavar="RUN|CHECKPOINT", help="Begin a new run with these weights.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Rehearse, print the plan, train nothing.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model; a run that was stopped goes on.

    Prepares the data first if that is not done.
    """
    from mt.config import load_config
    from mt.console import Console

    settings = load_config(config, overrides or [])  # before torch: a wrong key is said at once
    if processes > 1:
        from mt.distributed import launch

        flags = [flag for flag, given in (("--dry-run", dry_run), ("--quiet", quiet)) if given]
        origin = [] if init_from is None else ["--init-from", str(init_from)]
        return launch(processes, ["train", str(config), *(overrides or []), *origin, *flags], settings.train.device)
    from mt.train.loop import train as train_model

    return train_model(settings, Console(quiet), init_from, dry_run)


@command
def translate(
    ckpt: Annotated[
        list[Path],
        typer.Option(
            "--ckpt",
            metavar="RUN|CHECKPOINT",
            help="A run (what validates best), RUN/best, RUN/last, RUN/averaged; several form an ensemble.",
        ),
    ],
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", metavar="FILE", help="Read from here; default: stdin.")
    ] = None,
    outputs: Annotated[
        list[Path] | None,
        typer.Option("--output", metavar="FILE|DIR", help="Write here; one for each --input. Default: stdout."),
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="text, tsv or jsonl. Default: by the name of the input.")
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="Column (a number, or a name in the first line) or key of the text.")
    ] = None,
    n_best: Annotated[int, typer.Option(help="So many translations a line, as columns.", min=1)] = 1,
    scores: Annotated[bool, typer.Option("--scores", help="Each translation's score behind it.")] = False,
    errors: Annotated[str, typer.Option(help="strict or replace, for bytes that are not UTF-8.")] = "strict",
    prefix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A line each: what the translation has to start with.")
    ] = None,
    score_ref: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Translate nothing; score these translations.")
    ] = None,
    alignments: Annotated[
        bool, typer.Option("--alignments", help="Which word comes from which (0-0 1-2) behind each translation.")
    ] = False,
    attention: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the model looked: a .json file, or an .html page.")
    ] = None,
    self_attention: Annotated[
        bool, typer.Option("--self-attention", help="With --attention: also within a side.")
    ] = False,
    unbuffered: Annotated[bool, typer.Option("--unbuffered", help="Answer each line as it comes.")] = False,
    beam: Beam = None,
    alpha: Alpha = None,
    penalty: Annotated[
        str | None, typer.Option(help="gnmt: ((5+|Y|)/6)^alpha, length: |Y|^alpha, or none.", rich_help_panel="Search")
    ] = None,
    min_length: Annotated[int | None, typer.Option(help="Pieces at least.", rich_help_panel="Search")] = None,
    max_length: Annotated[int | None, typer.Option(help="Pieces at most.", rich_help_panel="Search")] = None,
    groups: Annotated[
        int | None, typer.Option(help="Diverse beam search in so many groups.", rich_help_panel="Search")
    ] = None,
    diversity: Annotated[
        float | None, typer.Option(help="What repeating an earlier group costs.", rich_help_panel="Search")
    ] = None,
    sample: Annotated[
        bool | None, typer.Option("--sample", help="Draw each piece at random.", rich_help_panel="Sampling")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Below 1 more careful, above more varied.", rich_help_panel="Sampling")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="From the k likeliest.", rich_help_panel="Sampling")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="From those that make up this probability.", rich_help_panel="Sampling")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of sampling.", rich_help_panel="Sampling")] = None,
    long_lines: Annotated[
        str | None, typer.Option(help="split (at sentence ends) or cut.", rich_help_panel="Long lines")
    ] = None,
    max_source: Annotated[
        int | None, typer.Option(help="Lines of more pieces are long.", rich_help_panel="Long lines")
    ] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Source pieces decoded together.")] = None,
    average: Average = None,
    device: Device = "auto",
    precision: Precision = None,
    processes: Annotated[
        int,
        typer.Option("--gpus", "--processes", metavar="N", help="Share files among N GPUs or CPU processes.", min=1),
    ] = 1,
    quiet: Quiet = False,
) -> None:
    """Translate lines of text: one line out for each line in.

    A job that was killed goes on where it was when the same command is given again.
    """
    from mt.translate.job import Job, plan_job

    job = Job(
        inputs=tuple(inputs or [None]),
        outputs=tuple(outputs or [None]),
        format=file_format,
        field=field,
        n_best=n_best,
        scores=scores,
        errors=errors,
        prefixes=prefix,
        references=score_ref,
        unbuffered=unbuffered,
        alignments=alignments,
        attention=attention,
        self_attention=self_attention,
    )
    plan_job(job, processes)  # before the model is opened: a wrong path is said at once
    if processes > 1:
        from mt.distributed import launch

        return launch(processes, [*sys.argv[1:], "--gpus", "1"], device)  # of an option given twice, the last counts
    from mt.translate.command import translate as run_translation

    asked = {
        "beam": beam,
        "alpha": alpha,
        "penalty": penalty,
        "min_length": min_length,
        "max_length": max_length,
        "groups": groups,
        "diversity": diversity,
        "sample": sample,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "long_lines": long_lines,
        "max_source": max_source,
        "batch_tokens": batch_tokens,
        "precision": precision,
    }
    decode = {name: value for name, value in asked.items() if value is not None}
    return run_translation(ckpt, job, device, average, decode, quiet)


@command
def evaluate(
    ckpt: Annotated[
        list[Path] | None,
        typer.Option("--ckpt", metavar="RUN|CHECKPOINT", help="A model to score; several are compared."),
    ] = None,
    hyp: Annotated[
        list[Path] | None,
        typer.Option("--hyp", metavar="FILE", help="Translations to score; several are compared with the first."),
    ] = None,
    src: Annotated[Path | None, typer.Option(metavar="FILE", help="Source sentences, with --ref.")] = None,
    ref: Annotated[
        list[Path] | None,
        typer.Option("--ref", metavar="FILE", help="Reference translations; several score together."),
    ] = None,
    testset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Such as newstest2014. Default: the run's data.test.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the --testset lies, as NAME.en and NAME.de.")
    ] = None,
    langs: Annotated[
        str | None, typer.Option(metavar="SRC-TGT", help="Languages. Default: the model's; without one, en-de.")
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Keep the model's translations here.")
    ] = None,
    beam: Beam = None,
    alpha: Alpha = None,
    average: Average = None,
    device: Device = "auto",
    precision: Precision = None,
    paper_bleu: Annotated[
        bool, typer.Option("--paper-bleu", help="Also the paper's tokenised, compound-split BLEU.")
    ] = False,
    multi30k_bleu: Annotated[
        bool, typer.Option("--multi30k-bleu", help="Also lower-cased tokenised BLEU, as in papers on Multi30k.")
    ] = False,
    analysis: Annotated[
        bool, typer.Option("--analysis", help="Also BLEU by sentence length, and what goes wrong in which lines.")
    ] = False,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="BLEU of every checkpoint of one run, by update.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Translate a test set and score it with sacreBLEU, or score files of translations."""
    from mt.console import Console
    from mt.evaluate.command import evaluate as run_evaluation
    from mt.evaluate.request import Request

    request = Request(
        checkpoints=tuple(ckpt or ()),
        hypotheses=tuple(hyp or ()),
        source=src,
        references=tuple(ref or ()),
        testset=testset,
        data=data,
        languages=langs,
        output_file=output_file,
        beam=beam,
        alpha=alpha,
        average=average,
        device=device,
        precision=precision,
        paper_bleu=paper_bleu,
        multi30k_bleu=multi30k_bleu,
        analysis=analysis,
        all_checkpoints=all_checkpoints,
    )
    console = Console(quiet)
    if request.all_checkpoints:
        from mt.evaluate.curve import bleu_curve

        shown = bleu_curve(request, console).shown(json_output)
    else:
        shown = run_evaluation(request, console).shown(json_output)
    streams.write_out(f"{shown}\n")


@command
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, while it trains or later.")],
) -> None:
    """Write RUN/report.html, a page to look at: curves, scores, samples, settings, data."""
    from mt.evaluate.report import write_report

    streams.write_out(f"{write_report(run)}\n")
