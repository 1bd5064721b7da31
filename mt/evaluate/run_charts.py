"""The charts of a run by update, as the report shows them."""

from dataclasses import replace
from html import escape

from mt.evaluate.charts import Curve, Mark, Point, binned, line_chart
from mt.evaluate.page import apart, figure
from mt.evaluate.run_record import Record, RunRecord, as_records, number, points


def run_figures(run: RunRecord) -> list[str]:
    """Those for which there are figures."""
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
    return [drawn for drawn in figures if drawn]


def _loss_chart(run: RunRecord) -> str:
    training = replace(binned(points(run.updates, "loss")), label="train", kind="soft")
    validation = Curve(points(run.validations, "valid_loss"), "valid", dots=True)
    return line_chart("loss", [training, validation], lambda value: f"{value:.2f}", run.last)


def _perplexity_chart(run: RunRecord) -> str:
    curve = Curve(points(run.validations, "valid_perplexity"), dots=True)
    return line_chart("perplexity", [curve], _three_digits, run.last, log=True)


def _bleu_chart(run: RunRecord) -> str:
    averages = [Mark(update, value, "average", "ring") for update, value in points(run.averages, "valid_bleu")]
    best = [Mark(*run.best, f"best: {run.best[1]:.2f} at update {run.best[0]:,.0f}")] if run.best else []
    curve = Curve(points(run.validations, "valid_bleu"), dots=True)
    return line_chart("BLEU", [curve], lambda value: f"{value:.1f}", run.last, [*best, *averages])


def _test_figure(curve: Record) -> str:
    """BLEU of the checkpoints on a test set, as `mt evaluate --all-checkpoints` found it."""
    checkpoints = [point for point in as_records(curve.get("points")) if number(point, "update") is not None]
    scheduled = points([point for point in checkpoints if point.get("mark") != "averaged"], "bleu")
    kinds = {"best": ("best by validation", "best", "●"), "averaged": ("average", "ring", "○")}
    marks, notes = [], [f"{apart(curve.get('testset', ''))}; {apart(curve.get('decoding', ''))}"]
    for point in checkpoints:
        value, mark = number(point, "bleu"), str(point.get("mark"))
        if value is not None and mark in kinds:
            text, kind, sign = kinds[mark]
            marks.append(Mark(point["update"], value, text, kind))
            notes.append(_key(sign, f"{text}: {value:.2f}"))
    last = max((point["update"] for point in checkpoints), default=0)
    chart = line_chart("test BLEU", [Curve(scheduled, dots=True)], lambda value: f"{value:.1f}", last, marks)
    return figure("Test BLEU", " ".join(notes), chart)


def _bleu_note(run: RunRecord) -> str:
    notes = [_key("●", f"best: {run.best[1]:.2f}")] if run.best else []
    for record in run.averages:
        if (value := number(record, "valid_bleu")) is not None:
            notes.append(_key("○", f"average of {record['averaged']}: {value:.2f}"))
    return " ".join(notes)


def _key(sign: str, text: str) -> str:
    return f'<span class="key"><i>{sign}</i> {escape(text)}</span>'


def _speed_chart(run: RunRecord) -> str:
    speeds, seconds = [], []
    for record in run.updates:
        tokens, took = number(record, "tokens"), number(record, "seconds")
        if tokens is not None and took:
            speeds.append((record["update"], tokens / took))
            seconds.append(took)
    return line_chart(
        "tokens per second", [binned(speeds, seconds)], lambda value: f"{value:,.0f}", run.last, zero=True
    )


def _gradient_chart(run: RunRecord) -> str:
    curve = binned(points(run.updates, "gradient_norm"))
    return line_chart("gradient norm", [curve], _three_digits, run.last, zero=True)


def _padding_chart(run: RunRecord) -> str:
    curve = binned(points(run.updates, "padding"))
    return line_chart("padding", [curve], lambda value: f"{value:.1%}", run.last, zero=True)


def _thinned(run: RunRecord, key: str) -> list[Point]:
    """Every so many points and the last; for curves that have no noise to average out."""
    found = points(run.updates, key)
    step = max(1, len(found) // 300)
    return found[::step] + (found[-1:] if (len(found) - 1) % step else [])


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _scientific(value: float) -> str:
    """Such as 7.0·10⁻⁴."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{superscript}"
