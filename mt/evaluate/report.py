"""`mt report`: a run directory as one HTML page to look at, whatever part of it is there already."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mt.config import Config, differences, dump_config
from mt.console import duration
from mt.data.sources import name_of
from mt.evaluate.charts import histogram
from mt.evaluate.page import apart, figure, page, section, table
from mt.evaluate.run_charts import run_figures
from mt.evaluate.run_record import Record, RunRecord, number, read_run
from mt.files import write_whole

_STAGES = 7  # translations of a sample shown, from the first validation to the last


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run directory, in one step, so it can be written over while it is open in a browser.

    Raises DataError when the folder is no run, WriteError when the page cannot be written.
    """
    path = folder / "report.html"
    write_whole(path, report(folder))
    return path


def report(folder: Path) -> str:
    """The page: curves, scores, samples, settings, data and environment, as far as they are known.

    Raises DataError when the folder holds neither metrics.jsonl nor config.yaml.
    """
    run = read_run(folder)
    sections = {
        "curves": section("curves", "Curves", [_curves(run)]),
        "scores": section("scores", "Scores", _scores(run)),
        "samples": section("samples", "Validation sentences as training went on", [_samples(run)]),
        "settings": section("settings", "Settings", _settings(run)),
        "data": section("data", "Data", _data(run)),
        "environment": section("environment", "Environment", [_pairs(run.environment)]),
    }
    links = [f'<a href="#{name}">{name}</a>' for name, content in sections.items() if content]
    head = f"<header><h1>{escape(run.name)}</h1>\n{_lede(run)}\n<nav>{''.join(links)}</nav></header>"
    return page(f"{run.name} · mt report", [head, *sections.values()])


# --- Head and curves ---------------------------------------------------------------------------------------------


def _lede(run: RunRecord) -> str:
    parts = []
    if run.last:
        of = f" of {run.config.train.updates:,}" if run.config else ""
        parts.append(f"{run.last:,}{of} updates")
    if tokens := sum(number(record, "tokens") or 0 for record in run.updates):
        parts.append(f"{_rounded(tokens)} target tokens")
    if seconds := sum(number(record, "seconds") or 0 for record in run.updates):
        parts.append(f"{duration(seconds)} of updates")
    if run.best:
        parts.append(f"best validation BLEU {run.best[1]:.2f} at update {run.best[0]:,.0f}")
    problem = f'<p class="soft">{escape(run.problem)}</p>' if run.problem else ""
    return f'<p class="lede">{escape("; ".join(parts) or "No update yet")}.</p>{problem}'


def _curves(run: RunRecord) -> str:
    note = '<p class="soft small">By update; each band holds four updates in five.</p>'
    figures = run_figures(run)
    return "\n".join([note, '<div class="grid">', *figures, "</div>"]) if figures else ""


# --- Scores and samples ------------------------------------------------------------------------------------------


def _scores(run: RunRecord) -> list[str]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for score in run.scores:
        groups.setdefault((str(score.get("testset", "")), str(score.get("system", ""))), []).append(score)
    parts = []
    for (testset, system), scores in groups.items():
        parts.append(f'<p>{apart(testset)} <span class="soft">{apart(system)}</span></p>')
        rows = [_score_row(score) for score in scores]
        parts.append(table(["metric", "score", "95% interval", "signature"], rows, numbers=(1, 2), kind="stacked"))
    return parts


def _score_row(score: Record) -> list[str]:
    mean, half_width = number(score, "mean"), number(score, "half_width")
    interval = f"{mean:.2f} ± {half_width:.2f}" if mean is not None and half_width is not None else ""
    name, signature = escape(str(score.get("name", ""))), escape(str(score.get("signature", "")))
    return [name, f"{score['value']:.2f}", interval, f"<code>{signature.replace('|', '|<wbr>')}</code>"]


def _samples(run: RunRecord) -> str:
    shown = [*_stages(run.validations), *run.averages]
    samples = [record["samples"] for record in shown if isinstance(record.get("samples"), list)]
    count = max(map(len, samples), default=0)
    articles = [article for number in range(count) if (article := _sample(shown, number, run.config))]
    return f'<div class="grid wide">\n{"".join(articles)}\n</div>' if articles else ""


def _stages(validations: Sequence[Record]) -> list[Record]:
    """A few validations from first to last, close together at first, where translations change most."""
    last = len(validations) - 1
    rows = {round((last + 1) ** (stage / (_STAGES - 1))) - 1 for stage in range(_STAGES)}
    return [validations[row] for row in sorted(rows) if 0 <= row <= last]


def _sample(records: Sequence[Record], number: int, config: Config | None) -> str:
    """One sentence: source, reference, and what the model made of it, words that the reference lacks in grey."""
    found = [(record, _at(record.get("samples"), number)) for record in records]
    given = next((sample for _, sample in reversed(found) if sample), None)
    if given is None:
        return ""
    source, reference = str(given.get("source", "")), str(given.get("reference", ""))
    src, tgt = (config.data.src, config.data.tgt) if config else ("", "")
    rows = [_line("source", escape(source), src, "given"), _line("reference", escape(reference), tgt, "given")]
    for record, sample in found:
        if sample and sample.get("source") == given.get("source"):
            label = f"average of {record['averaged']}" if record.get("averaged") else f"{record['update']:,}"
            rows.append(_line(label, _marked(str(sample.get("translation", "")), reference), tgt, ""))
    return f"<article><dl>{''.join(rows)}</dl></article>\n"


def _at(samples: Any, number: int) -> Record | None:
    sample = samples[number] if isinstance(samples, list) and number < len(samples) else None
    return sample if isinstance(sample, dict) else None


def _line(label: str, text: str, language: str, kind: str) -> str:
    return f'<dt>{escape(label)}</dt><dd class="{kind}" lang="{escape(language)}" dir="auto">{text}</dd>'


def _marked(translation: str, reference: str) -> str:
    known = set(reference.split())
    words = [
        escape(word) if word in known else f'<span class="off">{escape(word)}</span>' for word in translation.split()
    ]
    return " ".join(words) or '<span class="off">(empty)</span>'


# --- Settings, data, environment ---------------------------------------------------------------------------------


def _settings(run: RunRecord) -> list[str]:
    if run.config is None:
        return []
    rows = [[f"<code>{escape(cell)}</code>" for cell in row] for row in _changes(run.config)]
    intro = "Where this run differs from the paper's base model:" if rows else "The paper's base model as published."
    whole = f"<details><summary>the whole configuration</summary><pre>{escape(dump_config(run.config))}</pre></details>"
    return [f"<p>{intro}</p>", table(["setting", "base", "this run"], rows, kind="small keyed"), whole]


def _changes(config: Config) -> Iterator[tuple[str, str, str]]:
    base = Config()
    for line in differences(base, config):
        key, _, values = line.partition(": ")
        before, _, after = values.partition(" -> ")
        split = key.removeprefix("data.")
        if split in ("train", "valid", "test") and key != split:
            before, after = _source_names(base, split), _source_names(config, split)
        yield key, before, after


def _source_names(config: Config, split: str) -> str:
    return ", ".join(name_of(source) for source in getattr(config.data, split)) or "none"


def _data(run: RunRecord) -> list[str]:
    chart = histogram("sentence lengths", run.lengths, "pieces")
    parts = [_sources(run.manifest), _drops(run.manifest), figure("Lengths", "of the training sentences", chart)]
    drawn = "\n".join(part for part in parts if part)
    return [_sizes(run.manifest), f'<div class="side">\n{drawn}\n</div>' if drawn else ""]


def _sizes(manifest: Record) -> str:
    train, tokenizer = _mapping(manifest, "train"), _mapping(manifest, "tokenizer")
    counts = {
        "sentence pairs in an epoch": train.get("rows"),
        "source pieces": train.get("source_pieces"),
        "target pieces": train.get("target_pieces"),
        "pieces in the vocabulary": tokenizer.get("pieces"),
    }
    known = [f"{count:,} {what}" for what, count in counts.items() if isinstance(count, int)]
    return f"<p>{', '.join(known)}.</p>" if known else ""


def _sources(manifest: Record) -> str:
    rows = [
        [escape(str(source.get("name", ""))), escape(split), _shown(source.get("read"))]
        for split, sources in _mapping(manifest, "sources").items()
        for source in (sources if isinstance(sources, list) else [])
        if isinstance(source, dict)
    ]
    return table(["source", "split", "pairs read"], rows, numbers=(1, 2))


def _drops(manifest: Record) -> str:
    drops = {reason: count for reason, count in _mapping(manifest, "dropped").items() if isinstance(count, int)}
    largest = max(drops.values(), default=0)
    rows = [
        [escape(reason), f"{count:,}", f'<i style="width: {100 * count / largest:.1f}%"></i>']
        for reason, count in sorted(drops.items(), key=lambda drop: -drop[1])
        if count
    ]
    cells = table(["dropped because", "pairs", ""], rows, numbers=(1,))
    return cells.replace("<td><i ", '<td class="bar"><i ')


def _mapping(record: Record, key: str) -> Record:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _pairs(values: Record) -> str:
    """Names and values, those of inner mappings with dotted names."""
    rows = [f"<dt>{escape(key)}</dt><dd>{_shown(value)}</dd>" for key, value in _leaves(values, "")]
    return f'<dl class="small">{"".join(rows)}</dl>' if rows else ""


def _leaves(values: Record, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- Numbers as people write them --------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return escape(", ".join(map(str, value)))
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _rounded(count: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.1f} {word}"
    return f"{count:,.0f}"
