"""The report: a run as one HTML page to look at, whatever part of it is known already."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mt.console import duration
from mt.files import number
from mt.pages.charts import histogram
from mt.pages.frame import bar_table, facts, isolated, keyed, page, rounded, section, table
from mt.pages.run_charts import run_figures
from mt.pages.run_record import Record, RunRecord, mapping, of_set

_STAGES = 7  # translations of a sample shown, from the first validation to the last


def report_page(run: RunRecord) -> str:
    """A whole HTML document: curves, scores, samples, settings, data and environment, as far as they are known."""
    sections = {
        "curves": section("curves", "Curves", _curves(run)),
        "scores": section("scores", "Scores", _scores(run)),
        "samples": section("samples", "Validation sentences as training went on", _samples(run)),
        "settings": section("settings", "Settings", _settings(run)),
        "data": section("data", "Data", _data(run)),
        "environment": section("environment", "Environment", _environment(run)),
    }
    links = [f'<a href="#{name}">{name}</a>' for name, content in sections.items() if content]
    problems = [f'<p class="soft">{escape(problem)}</p>' for problem in run.problems]
    head = [f"<header><h1>{escape(run.name)}</h1>", _headline(run), *problems, f"<nav>{''.join(links)}</nav></header>"]
    styles, scripts = ["charts.css", "report_page.css"], ["charts.js"]
    return page(f"{run.name} · mt report", [*head, *sections.values()], styles, scripts)


# --- Head and curves ---------------------------------------------------------------------------------------------


def _headline(run: RunRecord) -> str:
    if not run.last:
        return "<p>No update yet.</p>"
    found = {**_bleu_facts(run), "updates": f"{run.last:,}" + (f" of {run.planned:,}" if run.planned else "")}
    tokens = sum(number(record, "tokens") or 0 for record in run.updates)
    seconds = sum(number(record, "seconds") or 0 for record in run.updates)
    if tokens:
        found["target tokens"] = rounded(tokens)
    if seconds:
        found["time in updates"] = duration(seconds)
    if tokens and seconds:
        found["target tokens a second"] = f"{tokens / seconds:,.0f}"
    return facts(found)


def _bleu_facts(run: RunRecord) -> dict[str, str]:
    """Validation BLEU of the best checkpoint and of the average, the one that `--ckpt RUN` takes first."""
    found = []
    if run.best:
        update = run.best["update"]
        found.append((f"best checkpoint, update {update:,}", run.best, run.taken.endswith(f"-{update:08}")))
    for record in run.averages:
        found.append((f"average of {record['averaged']} checkpoints", record, run.taken == "averaged"))
    bleu = f"validation BLEU on {run.judged_on}" if run.judged_on else "validation BLEU"
    return {
        f"{bleu}, {what}" + (" (what --ckpt RUN takes)" if taken else ""): f"{value:.2f}"
        for what, record, taken in sorted(found, key=lambda one: not one[2])
        if (value := number(record, "valid_bleu")) is not None
    }


def _curves(run: RunRecord) -> list[str]:
    figures = run_figures(run)
    note = "By update; a band holds four updates in five. Point at a chart, or use the arrow keys, to read its values."
    return [f'<p class="soft small">{note}</p>', '<div class="grid">', *figures, "</div>"] if figures else []


# --- Scores and samples ------------------------------------------------------------------------------------------


def _scores(run: RunRecord) -> list[str]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for score in run.scores:
        groups.setdefault((str(score.get("testset", "")), str(score.get("system", ""))), []).append(score)
    parts = []
    for (testset, system), scores in groups.items():
        parts.append(f'<p>{isolated(testset)} <span class="soft">{isolated(system)}</span></p>')
        rows = [_score_row(score) for score in scores]
        parts.append(table(["metric", "score", "95% interval", "signature"], rows, numbers=(1, 2), kind="stacked"))
    return parts


def _score_row(score: Record) -> list[str]:
    mean, half_width = number(score, "mean"), number(score, "half_width")
    interval = f"{mean:.2f} ± {half_width:.2f}" if mean is not None and half_width is not None else ""
    name, signature = escape(str(score.get("name", ""))), escape(str(score.get("signature", "")))
    return [name, f"{score['value']:.2f}", interval, f"<code>{signature.replace('|', '|<wbr>')}</code>"]


def _samples(run: RunRecord) -> list[str]:
    """The samples of each validation set, under its name."""
    parts = [(name, _samples_of(run, name)) for name in run.sets]
    return [f"<h3>{escape(name)}</h3>\n{drawn}" if name else drawn for name, drawn in parts if drawn]


def _samples_of(run: RunRecord, name: str) -> str:
    shown = [*_stages(of_set(run.validations, name)), *of_set(run.averages, name)]
    samples = [record["samples"] for record in shown if isinstance(record.get("samples"), list)]
    most = max(map(len, samples), default=0)
    articles = [article for index in range(most) if (article := _sample(shown, index, run.languages))]
    return f'<div class="grid">\n{"".join(articles)}\n</div>' if articles else ""


def _stages(validations: Sequence[Record]) -> list[Record]:
    """A few validations from first to last, close together at first, where translations change most."""
    last = len(validations) - 1
    rows = {round((last + 1) ** (stage / (_STAGES - 1))) - 1 for stage in range(_STAGES)}
    return [validations[row] for row in sorted(rows) if 0 <= row <= last]


def _sample(records: Sequence[Record], index: int, languages: tuple[str, str]) -> str:
    """One sentence: source, reference, and what the model made of it, words that the reference lacks in grey."""
    found = [(record, _at(record.get("samples"), index)) for record in records]
    given = next((sample for _, sample in reversed(found) if sample), None)
    if given is None:
        return ""
    source, reference = str(given.get("source", "")), str(given.get("reference", ""))
    src, tgt = languages
    rows = [
        sample_line("source", escape(source), src, "given"),
        sample_line("reference", escape(reference), tgt, "given"),
    ]
    for record, sample in found:
        if sample and sample.get("source") == given.get("source"):
            label = f"average of {record['averaged']}" if record.get("averaged") else f"{record['update']:,}"
            rows.append(sample_line(label, _marked(str(sample.get("translation", "")), reference), tgt, ""))
    return f'<article><dl class="keyed">{"".join(rows)}</dl></article>\n'


def _at(samples: Any, index: int) -> Record | None:
    sample = samples[index] if isinstance(samples, list) and index < len(samples) else None
    return sample if isinstance(sample, dict) else None


def sample_line(label: str, text: str, language: str, kind: str) -> str:
    """What a sentence is, and its text as HTML; `kind` is given where no model made it."""
    return f'<dt>{escape(label)}</dt><dd class="{kind}" lang="{escape(language)}" dir="auto">{text}</dd>'


def _marked(translation: str, reference: str) -> str:
    known = set(reference.split())
    words = [
        escape(word) if word in known else f'<span class="soft">{escape(word)}</span>' for word in translation.split()
    ]
    return " ".join(words) or '<span class="soft">(empty)</span>'


# --- Settings, data, environment ---------------------------------------------------------------------------------


def _settings(run: RunRecord) -> list[str]:
    if not run.config:
        return []
    rows = [[f"<code>{escape(cell)}</code>" for cell in row] for row in run.settings]
    intro = "Where this run differs from the paper's base model:" if rows else "The paper's base model as published."
    whole = f"<details><summary>the whole configuration</summary><pre>{escape(run.config)}</pre></details>"
    return [f"<p>{intro}</p>", table(["setting", "base", "this run"], rows, kind="small keyed"), whole]


def _data(run: RunRecord) -> list[str]:
    drops = {str(reason): count for reason, count in mapping(run.manifest, "dropped").items() if isinstance(count, int)}
    parts = [
        histogram("Lengths of the training sentences", run.lengths, "pieces in a sentence, its end counted"),
        _sources(run.manifest),
        bar_table(["dropped because", "pairs"], drops),
    ]
    drawn = "\n".join(f"<div>{part}</div>" for part in parts if part)
    return [_sizes(run.manifest), f'<div class="grid">\n{drawn}\n</div>' if drawn else ""]


def _sizes(manifest: Mapping[str, Any]) -> str:
    train, tokenizer = mapping(manifest, "train"), mapping(manifest, "tokenizer")
    of_target = mapping(manifest, "target_tokenizer")  # where the target has one of its own
    counts = {
        "sentence pairs in an epoch": train.get("rows"),
        "source pieces": train.get("source_pieces"),
        "target pieces": train.get("target_pieces"),
        f"pieces in the {'source ' if of_target else ''}vocabulary": tokenizer.get("pieces"),
        "pieces in the target vocabulary": of_target.get("pieces"),
    }
    known = [f"{count:,} {what}" for what, count in counts.items() if isinstance(count, int)]
    return f"<p>{', '.join(known)}.</p>" if known else ""


def _sources(manifest: Mapping[str, Any]) -> str:
    rows = [
        [isolated(source.get("name", "")), escape(split), _shown(source.get("read"))]
        for split, sources in mapping(manifest, "sources").items()
        for source in (sources if isinstance(sources, list) else [])
        if isinstance(source, dict)
    ]
    return table(["source", "split", "pairs read"], rows, numbers=(2,))


def _environment(run: RunRecord) -> list[str]:
    """The last session whole; of several, first what each was."""
    columns = ["update", "started", "device", "precision", "processes", "commit"]
    rows = [[_shown(session.get(column))[:20] for column in columns] for session in run.sessions]
    heading = [*["from update", *columns[1:]]]
    sessions = table(heading, rows, numbers=(0,), kind="small") if len(rows) > 1 else ""
    last = {name: _shown(value) for session in run.sessions[-1:] for name, value in _leaves(session, "")}
    return [sessions, "<p>The last session:</p>" if sessions else "", keyed(last, "small")]


def _leaves(values: Record, prefix: str) -> Iterator[tuple[str, Any]]:
    """Names and values, those of inner records with dotted names; what is empty is left out."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value not in (None, ""):
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return escape(", ".join(map(str, value)))
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
