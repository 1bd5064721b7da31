"""`mt report`: a run directory as one HTML page to look at, whatever part of it is there already."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.config import Config, differences, dump_config, parse_config
from mt.data.corpus import open_corpus
from mt.data.sources import name_of
from mt.errors import ConfigError, DataError
from mt.evaluate.charts import Curve, Mark, Point, binned, histogram, line_chart
from mt.evaluate.page import figure, page, section, table
from mt.files import write_whole

_STAGES = 7  # translations of a sample shown, from the first validation to the last

Record = dict[str, Any]


@dataclass(frozen=True)
class _Run:
    """What a run directory tells; each part is empty where its file is missing or cannot be read."""

    name: str
    config: Config | None
    problem: str  # why there is no config
    updates: list[Record]
    validations: list[Record]
    averages: list[Record]  # validations of averaged checkpoints
    scores: list[Record]
    curves: list[Record]  # BLEU of the checkpoints on a test set
    manifest: Record
    lengths: list[tuple[str, list[Point]]]  # of each language: share of sentences by length in pieces
    environment: Record

    @property
    def last(self) -> int:
        return max((record["update"] for record in [*self.updates, *self.validations]), default=0)


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run directory, in one step, so it can be written over while it is open in a browser.

    Raises DataError when the folder is no run, or cannot be written.
    """
    path = folder / "report.html"
    write_whole(path, report(folder))
    return path


def report(folder: Path) -> str:
    """The page: curves, scores, samples, settings, data and environment, as far as they are known.

    Raises DataError when the folder holds neither metrics.jsonl nor config.yaml.
    """
    run = _read(folder)
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


# --- Reading -----------------------------------------------------------------------------------------------------


def _read(folder: Path) -> _Run:
    if not (folder / "metrics.jsonl").exists() and not (folder / "config.yaml").exists():
        raise DataError(f"{folder}: not a run directory: it holds neither metrics.jsonl nor config.yaml")
    config, problem = _read_config(folder / "config.yaml")
    records = _read_metrics(folder / "metrics.jsonl")
    validations = [record for record in records if "valid_loss" in record or "valid_bleu" in record]
    manifest = _read_json(config.data.dir / "manifest.json") if config else None
    environment = _read_json(folder / "env.json")
    return _Run(
        name=folder.resolve().name,
        config=config,
        problem=problem,
        updates=_going_forward(record for record in records if "loss" in record),
        validations=_going_forward(record for record in validations if not record.get("averaged")),
        averages=[record for record in validations if record.get("averaged")][-1:],
        scores=list(_flat_scores(_read_json(folder / "scores.json"))),
        curves=_records(_read_json(folder / "curves.json")),
        manifest=manifest if isinstance(manifest, dict) else {},
        lengths=_read_lengths(config) if config else [],
        environment=environment if isinstance(environment, dict) else {},
    )


def _read_config(path: Path) -> tuple[Config | None, str]:
    try:
        return parse_config(path.read_text(encoding="utf-8"), path.name), ""
    except FileNotFoundError:
        return None, "config.yaml is missing"
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        return None, f"config.yaml cannot be read: {error}"


def _read_metrics(path: Path) -> list[Record]:
    """The whole records; a line cut short by a crash is passed over."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    records = [_parse_json(line) for line in lines if line.strip()]
    return [record for record in records if isinstance(record, dict) and _number(record, "update") is not None]


def _going_forward(records: Iterable[Record]) -> list[Record]:
    """Where a resumed run took updates again, its later record replaces all from there on."""
    kept: list[Record] = []
    for record in records:
        while kept and kept[-1]["update"] >= record["update"]:
            kept.pop()
        kept.append(record)
    return kept


def _read_json(path: Path) -> Any:
    try:
        return _parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _records(found: Any) -> list[Record]:
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _flat_scores(found: Any) -> Iterator[Record]:
    """Scores one by one, whether the file lists scores or evaluations that hold several."""
    for entry in found if isinstance(found, list) else [found]:
        if isinstance(entry, dict) and isinstance(entry.get("scores"), list):
            shared = {key: value for key, value in entry.items() if key != "scores"}
            yield from ({**shared, **score} for score in entry["scores"] if isinstance(score, dict))
        elif isinstance(entry, dict) and _number(entry, "value") is not None:
            yield entry


def _read_lengths(config: Config) -> list[tuple[str, list[Point]]]:
    try:
        corpus = open_corpus(config.data.dir / "train")
    except DataError:
        return []
    sides = ((config.data.src, corpus.source), (config.data.tgt, corpus.target))
    return [(language, _distribution(sentences.lengths)) for language, sentences in sides]


def _distribution(lengths_N: npt.NDArray[np.int64]) -> list[Point]:
    """Share of sentences by length, up to the length that all but one in 200 stay within."""
    if not len(lengths_N):
        return []
    longest = int(np.quantile(lengths_N, 0.995))
    width = max(1, math.ceil(longest / 60))
    counts = np.bincount(lengths_N[lengths_N <= longest] // width)
    return [(float(row * width), float(count / len(lengths_N))) for row, count in enumerate(counts)]


def _number(record: Record, key: str) -> float | None:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _points(records: Sequence[Record], key: str) -> list[Point]:
    return [(record["update"], value) for record in records if (value := _number(record, key)) is not None]


# --- Head and curves ---------------------------------------------------------------------------------------------


def _lede(run: _Run) -> str:
    parts = []
    if run.last:
        of = f" of {run.config.train.updates:,}" if run.config else ""
        parts.append(f"{run.last:,}{of} updates")
    if tokens := sum(_number(record, "tokens") or 0 for record in run.updates):
        parts.append(f"{_rounded(tokens)} target tokens")
    if seconds := sum(_number(record, "seconds") or 0 for record in run.updates):
        parts.append(f"{_duration(seconds)} of updates")
    if best := _best(run):
        parts.append(f"best validation BLEU {best.y:.2f} at update {best.x:,.0f}")
    problem = f'<p class="soft">{escape(run.problem)}</p>' if run.problem else ""
    return f'<p class="lede">{escape("; ".join(parts) or "No update yet")}.</p>{problem}'


def _best(run: _Run) -> Mark | None:
    points = _points(run.validations, "valid_bleu")
    if not points:
        return None
    update, value = max(points, key=lambda point: point[1])
    return Mark(update, value, f"best: {value:.2f} at update {update:,.0f}")


def _curves(run: _Run) -> str:
    figures = [
        figure("Loss", "nats per target token, smoothed labels in training", _loss_chart(run)),
        figure("Validation perplexity", "log scale", _perplexity_chart(run)),
        figure("Validation BLEU", _bleu_note(run), _bleu_chart(run)),
        *(_test_figure(curve) for curve in run.curves),
        figure("Learning rate", "", line_chart("learning rate", [Curve(_thinned(run, "rate"))], _scientific, run.last)),
        figure("Speed", "target tokens per second, padding not counted", _speed_chart(run)),
        figure("Gradient norm", "", _gradient_chart(run)),
        figure("Padding", "share of a batch", _padding_chart(run)),
    ]
    drawn = "\n".join(figure for figure in figures if figure)
    note = '<p class="soft small">By update; each band holds four updates in five.</p>'
    return f'{note}\n<div class="grid">\n{drawn}\n</div>' if drawn else ""


def _loss_chart(run: _Run) -> str:
    training = replace(binned(_points(run.updates, "loss")), label="train", kind="soft")
    validation = Curve(_points(run.validations, "valid_loss"), "valid", dots=True)
    return line_chart("loss", [training, validation], lambda value: f"{value:.2f}", run.last)


def _perplexity_chart(run: _Run) -> str:
    curve = Curve(_points(run.validations, "valid_perplexity"), dots=True)
    return line_chart("perplexity", [curve], _three_digits, run.last, log=True)


def _bleu_chart(run: _Run) -> str:
    averages = [Mark(update, value, "average", "ring") for update, value in _points(run.averages, "valid_bleu")]
    marks = [mark for mark in (_best(run), *averages) if mark is not None]
    curve = Curve(_points(run.validations, "valid_bleu"), dots=True)
    return line_chart("BLEU", [curve], lambda value: f"{value:.1f}", run.last, marks)


def _test_figure(curve: Record) -> str:
    """BLEU of the checkpoints on a test set, as `mt evaluate --all-checkpoints` found it."""
    points = [point for point in _records(curve.get("points")) if _number(point, "update") is not None]
    scheduled = _points([point for point in points if point.get("mark") != "averaged"], "bleu")
    kinds = {"best": ("best by validation", "best", "●"), "averaged": ("average", "ring", "○")}
    marks, notes = [], [f"{_apart(curve.get('testset', ''))}; {_apart(curve.get('decoding', ''))}"]
    for point in points:
        value, mark = _number(point, "bleu"), str(point.get("mark"))
        if value is not None and mark in kinds:
            text, kind, sign = kinds[mark]
            marks.append(Mark(point["update"], value, text, kind))
            notes.append(_key(sign, f"{text}: {value:.2f}"))
    last = max((point["update"] for point in points), default=0)
    chart = line_chart("test BLEU", [Curve(scheduled, dots=True)], lambda value: f"{value:.1f}", last, marks)
    return figure("Test BLEU", " ".join(notes), chart)


def _bleu_note(run: _Run) -> str:
    best = _best(run)
    notes = [_key("●", f"best: {best.y:.2f}")] if best else []
    for record in run.averages:
        if (value := _number(record, "valid_bleu")) is not None:
            notes.append(_key("○", f"average of {record['averaged']}: {value:.2f}"))
    return " ".join(notes)


def _key(sign: str, text: str) -> str:
    return f'<span class="key"><i>{sign}</i> {escape(text)}</span>'


def _speed_chart(run: _Run) -> str:
    speeds, seconds = [], []
    for record in run.updates:
        tokens, took = _number(record, "tokens"), _number(record, "seconds")
        if tokens is not None and took:
            speeds.append((record["update"], tokens / took))
            seconds.append(took)
    return line_chart(
        "tokens per second", [binned(speeds, seconds)], lambda value: f"{value:,.0f}", run.last, zero=True
    )


def _gradient_chart(run: _Run) -> str:
    key = "gradient_norm" if any("gradient_norm" in record for record in run.updates) else "grad_norm"
    return line_chart("gradient norm", [binned(_points(run.updates, key))], _three_digits, run.last, zero=True)


def _padding_chart(run: _Run) -> str:
    curve = binned(_points(run.updates, "padding"))
    return line_chart("padding", [curve], lambda value: f"{value:.1%}", run.last, zero=True)


def _thinned(run: _Run, key: str) -> list[Point]:
    """Every so many points and the last; for curves that have no noise to average out."""
    points = _points(run.updates, key)
    step = max(1, len(points) // 300)
    return points[::step] + (points[-1:] if (len(points) - 1) % step else [])


# --- Scores and samples ------------------------------------------------------------------------------------------


def _scores(run: _Run) -> list[str]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for score in run.scores:
        groups.setdefault((str(score.get("testset", "")), str(score.get("system", ""))), []).append(score)
    parts = []
    for (testset, system), scores in groups.items():
        parts.append(f'<p>{_apart(testset)} <span class="soft">{_apart(system)}</span></p>')
        rows = [_score_row(score) for score in scores]
        parts.append(table(["metric", "score", "95% interval", "signature"], rows, numbers=(1, 2), kind="stacked"))
    return parts


def _score_row(score: Record) -> list[str]:
    mean, half_width = _number(score, "mean"), _number(score, "half_width")
    interval = f"{mean:.2f} ± {half_width:.2f}" if mean is not None and half_width is not None else ""
    name, signature = escape(str(score.get("name", ""))), escape(str(score.get("signature", "")))
    return [name, f"{_number(score, 'value') or 0:.2f}", interval, f"<code>{signature.replace('|', '|<wbr>')}</code>"]


def _samples(run: _Run) -> str:
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


def _settings(run: _Run) -> list[str]:
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


def _data(run: _Run) -> list[str]:
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


def _apart(text: object) -> str:
    """A name from outside, whose own direction of writing must not turn what follows."""
    return f"<bdi>{escape(str(text))}</bdi>"


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


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _scientific(value: float) -> str:
    """Such as 7.0·10⁻⁴."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{superscript}"


def _rounded(count: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.1f} {word}"
    return f"{count:,.0f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min"
        if minutes
        else f"{seconds:.0f} s"
    )
