"""The page that compares runs: their curves over each other, what sets them apart, scores, and outputs side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape

from mt.console import duration
from mt.files import number
from mt.pages.charts import Axis, Curve, Point, binned, line_chart, swatch
from mt.pages.frame import isolated, page, rounded, section, table
from mt.pages.report_page import sample_line
from mt.pages.run_charts import two_decimals
from mt.pages.run_record import RunRecord, as_records, of_set, points

# What the curves can be drawn by; the first is what a browser without scripts begins with, too.
_AXES = {"update": Axis("update"), "tokens": Axis("target tokens"), "hours": Axis("hours of updates")}
_CONTROLS = "".join(
    f'<input type="radio" name="axis" id="by-{name}"{" checked" if name == "update" else ""}>'
    f'<label for="by-{name}">by {name}</label> '
    for name in _AXES
)
_CONTROLS += '<input type="checkbox" id="log"><label for="log">loss on a log scale</label> '
_CONTROLS += (
    '<label id="smoothing" hidden>smoothing <input type="range" min="0" max="0.98" step="0.02" value="0"></label>'
)
_NOTE = (
    "Point at a chart, or use the arrow keys, to read its values; they are those measured, smoothed or not. "
    "Hours are those of updates, without validation."
)


@dataclass(frozen=True)
class Tested:
    """One run under one metric; the p-values, against the first run tested, are None for that run itself."""

    run: int
    value: float
    mean: float  # of the bootstrap resamples
    half_width: float  # of their 95% interval
    p_bootstrap: float | None
    p_randomization: float | None


@dataclass(frozen=True)
class Sample:
    """One sentence, and what runs made of it, by the number of the run."""

    title: str
    source: str
    reference: str
    outputs: Mapping[int, str]


@dataclass(frozen=True)
class SharedTest:
    """A test set of which several runs keep their output lines."""

    title: str
    systems: Sequence[str]  # which checkpoint of each run, and how it decoded
    metrics: Mapping[str, Sequence[Tested]]
    signatures: Sequence[str]
    samples: Sequence[Sample]  # those in which the runs differ most
    problem: str = ""  # why there are no metrics


@dataclass(frozen=True)
class Contest:
    """Runs side by side, and what was found out about them together."""

    runs: Sequence[RunRecord]
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by key, a value for each run
    tests: Sequence[SharedTest] = ()


def compare_page(contest: Contest) -> str:
    """A whole HTML document; a run has one colour throughout."""
    runs = contest.runs
    names = ", ".join(run.name for run in runs)
    notes = [*_notes(runs), *(f"{run.name}: {problem}" for run in runs for problem in run.problems)]
    sections = {
        "curves": section("curves", "Curves", _curves(runs)),
        "settings": section("settings", "Settings that differ", _settings(contest)),
        "scores": section("scores", "Scores", _scores(contest)),
        "samples": section("samples", "Side by side", _samples(contest)),
    }
    links = [f'<a href="#{name}">{name}</a>' for name, content in sections.items() if content]
    head = [
        f"<header><h1>{len(runs)} runs compared</h1>",
        _legend(runs),
        *(f'<p class="soft">{escape(note)}</p>' for note in notes),
        f"<nav>{''.join(links)}</nav></header>",
    ]
    styles, scripts = ["charts.css", "report_page.css", "compare_page.css"], ["charts.js", "compare_page.js"]
    return page(f"{names} · mt report", [*head, *sections.values()], styles, scripts)


def _of(run: int) -> str:
    """The classes of what has the colour of a run."""
    return f"run run{run + 1}"


# --- Head --------------------------------------------------------------------------------------------------------


def _legend(runs: Sequence[RunRecord]) -> str:
    rows = []
    for index, run in enumerate(runs):
        bleu = number(run.best, "valid_bleu") if run.best else None
        places = _places(run)
        rows.append(
            [
                f"{swatch(_of(index))} {isolated(run.name)}",
                "" if bleu is None or run.best is None else f"BLEU {bleu:.2f} at {run.best['update']:,}",
                f"{run.last:,}" + (f" of {run.planned:,}" if run.planned else "") + " updates",
                f"{rounded(max(places['tokens'].values(), default=0))} target tokens",
                duration(3600 * max(places["hours"].values(), default=0)),
            ]
        )
    return table(["run", "best on validation", "", "", "in updates"], rows, numbers=(1, 2, 3, 4), kind="lines")


def _notes(runs: Sequence[RunRecord]) -> Iterator[str]:
    """What keeps figures of these runs from being compared."""
    for name in _set_names(runs):
        texts = [{key for key, _ in _samples_on(run, name)} for run in runs]
        known = [text for text in texts if text]
        if any(text.isdisjoint(known[0]) for text in known):
            what = f"the validation set {name}" if name else "their validation set"
            yield f"These runs do not have the same text as {what}: their validation figures do not compare."
    if len({str(run.sessions[-1].get("data")) for run in runs if run.sessions}) > 1:
        yield (
            "These runs were trained on text prepared in different ways. Losses are per piece: with other vocabularies "
            "they do not compare; BLEU does."
        )


def _set_names(runs: Sequence[RunRecord]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.sets))


# --- Curves ------------------------------------------------------------------------------------------------------


def _curves(runs: Sequence[RunRecord]) -> list[str]:
    """Each chart in all its views, of which the controls show one."""
    loss = Axis("nats per target token; labels are smoothed in training only", two_decimals)
    bleu = Axis("BLEU", lambda value: f"{value:.1f}")
    figures = _views("Training loss", loss, runs, [binned(points(run.updates, "loss")) for run in runs])
    for name in _set_names(runs):
        on = f" on {name}" if name else ""
        for title, key, axis in (("loss", "valid_loss", loss), ("BLEU", "valid_bleu", bleu)):
            curves = [Curve(points(of_set(run.validations, name), key), dots=True) for run in runs]
            figures += _views(f"Validation {title}{on}", axis, runs, curves)
    return (
        [f'<p class="soft small">{_NOTE}</p>', _CONTROLS, '<div class="grid">', *figures, "</div>"] if figures else []
    )


def _views(title: str, y: Axis, runs: Sequence[RunRecord], curves: Sequence[Curve]) -> list[str]:
    """A figure by update, by tokens and by hours; where low values matter, each on a log scale, too."""
    scales = {"linear": y, "log": replace(y, title=f"{y.title}; log scale", log=True)} if "loss" in title else {"": y}
    figures = []
    for name, x in _AXES.items():
        placed = [
            Curve(_placed(curve.points, _places(run)[name]), run.name, _of(index), dots=curve.dots)
            for index, (run, curve) in enumerate(zip(runs, curves, strict=True))
        ]
        last = max((at for curve in placed for at, _ in curve.points), default=0)
        for scale, axis in scales.items():
            figure = line_chart(title, placed, axis, last, x=x)
            figures.append(figure.replace("<figure>", f'<figure class="{name} {scale}">', 1))
    return [figure for figure in figures if figure]


def _places(run: RunRecord) -> dict[str, dict[float, float]]:
    """Where each update stands on each axis."""
    places: dict[str, dict[float, float]] = {name: {} for name in _AXES}
    tokens = seconds = 0.0
    for record in run.updates:
        update = record["update"]
        tokens += number(record, "tokens") or 0
        seconds += number(record, "seconds") or 0
        places["update"][update], places["tokens"][update] = update, tokens
        places["hours"][update] = round(seconds / 3600, 4)
    return places


def _placed(found: Sequence[Point], places: Mapping[float, float]) -> list[Point]:
    return [(places[update], value) for update, value in found if update in places]


# --- Settings and scores -----------------------------------------------------------------------------------------


def _settings(contest: Contest) -> list[str]:
    rows = [
        [f"<code>{escape(key)}</code>", *(f'<code class="{_of(i)}">{escape(v)}</code>' for i, v in enumerate(values))]
        for key, values in contest.settings.items()
    ]
    heads = ["setting", *(isolated(run.name) for run in contest.runs)]
    return [table(heads, rows, kind="small keyed") or "<p>None: these runs have the same settings.</p>"]


def _scores(contest: Contest) -> list[str]:
    parts = [_tests(contest.runs, test) for test in contest.tests]
    parts.append(_on_record(contest))
    if not contest.tests:
        parts.append(
            "<p>No two of these runs keep their outputs of the same test set, so there is no test of significance. "
            "<code>mt evaluate --ckpt RUN</code>, for each of them, scores a run and keeps its outputs in it.</p>"
        )
    return parts


def _tests(runs: Sequence[RunRecord], test: SharedTest) -> str:
    if test.problem:
        return f"<h3>{isolated(test.title)}</h3><p>Not tested: {escape(test.problem)}.</p>"
    rows = []
    for metric, results in test.metrics.items():
        for one in results:
            change = one.value - results[0].value
            rows.append(
                [
                    f"{swatch(_of(one.run))} {isolated(runs[one.run].name)}",
                    f"{escape(metric)} {one.value:.2f}",
                    f"{one.mean:.2f} ± {one.half_width:.2f}",
                    "" if one.p_bootstrap is None else f"{change:+.2f}",
                    _p_value(one.p_bootstrap),
                    _p_value(one.p_randomization),
                ]
            )
    first = runs[next(iter(test.metrics.values()))[0].run].name
    heads = ["run", "score", "95% interval", "change", "p, bootstrap", "p, randomisation"]
    signatures = "".join(f"<code>{escape(text).replace('|', '|<wbr>')}</code><br>" for text in test.signatures)
    systems = "; ".join(map(isolated, test.systems))
    note = (
        f"{systems}. Changes are against {isolated(first)}. A p is the probability of a difference this large if the "
        "two were equally good: below 0.05 (*) it is hardly luck, but of twenty such tests one says so of nothing."
    )
    return (
        f"<h3>{isolated(test.title)}</h3>{table(heads, rows, numbers=(1, 2, 3, 4, 5), kind='lines')}"
        f'<p class="soft small">{note}</p><p class="soft small">{signatures}</p>'
    )


def _p_value(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}{'*' if value < 0.05 else ''}"


def _on_record(contest: Contest) -> str:
    """The scores that the runs carry, the newest of each name on each test set."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for index, run in enumerate(contest.runs):
        for score in run.scores:
            key = (str(score.get("testset", "")), str(score.get("name", "")))
            found.setdefault(key, {})[index] = score["value"]
    rows = [
        [
            f"{isolated(testset)}, {escape(name)}",
            *(
                f'<span class="{_of(i)}">{values[i]:.2f}</span>' if i in values else ""
                for i in range(len(contest.runs))
            ),
        ]
        for (testset, name), values in found.items()
    ]
    heads = ["scores on record", *(isolated(run.name) for run in contest.runs)]
    return table(heads, rows, numbers=range(1, len(heads)), kind="keyed")


# --- Samples -----------------------------------------------------------------------------------------------------


def _samples(contest: Contest) -> list[str]:
    """Of each shared test the sentences in which the runs differ most; then those of the validation sets."""
    parts = []
    groups = [(f"Where they differ most on {test.title}", test.samples) for test in contest.tests]
    groups += [
        (
            f"Validation sentences{f' of {name}' if name else ''}, each run at its best",
            _validation_samples(contest, name),
        )
        for name in _set_names(contest.runs)
    ]
    for title, samples in groups:
        if samples:
            articles = "\n".join(_article(contest.runs, sample) for sample in samples)
            parts.append(f'<h3>{isolated(title)}</h3>\n<div class="grid">\n{articles}\n</div>')
    note = "Words that the reference lacks are grey; words that not all the runs have are underlined."
    return [f'<p class="soft small">{note}</p>', *parts] if parts else []


def _validation_samples(contest: Contest, name: str) -> list[Sample]:
    outputs: dict[tuple[str, str], dict[int, str]] = {}
    for index, run in enumerate(contest.runs):
        for given, translation in _samples_on(run, name):
            outputs.setdefault(given, {})[index] = translation
    return [Sample("", *given, found) for given, found in outputs.items() if len(found) > 1]


def _samples_on(run: RunRecord, name: str) -> list[tuple[tuple[str, str], str]]:
    """Source and reference, and the translation of each sample of a validation set when the run was at its best."""
    records = of_set([run.best] if run.best else [], name)
    samples = [sample for record in records for sample in as_records(record.get("samples"))]
    return [
        ((str(one.get("source", "")), str(one.get("reference", ""))), str(one.get("translation", "")))
        for one in samples
    ]


def _article(runs: Sequence[RunRecord], sample: Sample) -> str:
    src, tgt = runs[0].languages
    rows = [sample_line("source", escape(sample.source), src, "given")]
    rows.append(sample_line("reference", escape(sample.reference), tgt, "given"))
    known = set(sample.reference.split())
    shared = set.intersection(*(set(output.split()) for output in sample.outputs.values()))
    for index, output in sample.outputs.items():
        words = [_word(word, word in known, word in shared) for word in output.split()]
        text = " ".join(words) or '<span class="soft">(empty)</span>'
        line = sample_line(runs[index].name, text, tgt, "")
        rows.append(line.replace("<dt>", f'<dt class="{_of(index)}">', 1))
    title = f'<p class="soft small">{escape(sample.title)}</p>' if sample.title else ""
    return f'<article>{title}<dl class="keyed">{"".join(rows)}</dl></article>'


def _word(word: str, is_known: bool, is_shared: bool) -> str:
    text = escape(word) if is_known else f'<span class="soft">{escape(word)}</span>'
    return text if is_shared else f"<u>{text}</u>"
