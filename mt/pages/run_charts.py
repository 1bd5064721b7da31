"""The charts of a run by update, as the report shows them."""

import itertools
from dataclasses import replace

from mt.files import number
from mt.pages.charts import Axis, Curve, Mark, Point, binned, line_chart, scientific
from mt.pages.frame import isolated
from mt.pages.run_record import Record, RunRecord, as_records, of_set, points

_BLEU = Axis("BLEU", lambda value: f"{value:.1f}")


def run_figures(run: RunRecord) -> list[str]:
    """A figure for each quantity that the run has values of."""
    rate, last = Axis("learning rate", scientific, zero=True), run.last
    norm = Axis("L2 norm of the gradient", _three_digits, zero=True)
    padding = Axis("% of a batch's positions", lambda value: f"{value:.1f}%", zero=True)
    perplexity = Axis("perplexity, log scale", _three_digits, log=True)
    found = [(update, 100 * share) for update, share in points(run.updates, "padding")]
    figures = [
        _loss_chart(run),
        _bleu_chart(run),
        line_chart("Validation perplexity", _validation_curves(run, "valid_perplexity"), perplexity, last),
        *map(_test_chart, run.curves),
        line_chart("Learning rate", [Curve(_thinned(run, "rate"))], rate, last, _stage_marks(run)),
        _speed_chart(run),
        line_chart("Gradient norm", [binned(points(run.updates, "gradient_norm"))], norm, last),
        line_chart("Padding", [binned(found)], padding, last),
        _steps_chart(run),
    ]
    return [drawn for drawn in figures if drawn]


def _loss_chart(run: RunRecord) -> str:
    training = replace(binned(points(run.updates, "loss")), label="train", kind="soft")
    validation = [replace(curve, label=curve.label or "valid") for curve in _validation_curves(run, "valid_loss")]
    axis = Axis("nats per target token; labels are smoothed in training only", two_decimals)
    return line_chart("Loss", [training, *validation], axis, run.last)


def _validation_curves(run: RunRecord, key: str) -> list[Curve]:
    """A curve for each validation set, that of the set that decides in ink."""
    return [
        Curve(points(of_set(run.validations, name), key), name, "ink" if name == run.judged_on else "soft", dots=True)
        for name in run.sets
    ]


def _bleu_chart(run: RunRecord) -> str:
    figure = f"{run.judged_on} {run.judged_by.replace('bleu', 'BLEU')}".strip()
    best = [(f"best by {figure}", run.best, False)] if run.best else []
    averages = [(f"average of {record['averaged']}", record, True) for record in run.averages]
    marks = [
        Mark(record["update"], value, f"{text}: {value:.2f} at update {record['update']:,}", hollow)
        for text, record, hollow in [*best, *averages]
        if (value := number(record, "valid_bleu")) is not None
    ]
    return line_chart("Validation BLEU", _validation_curves(run, "valid_bleu"), _BLEU, run.last, marks)


def _test_chart(curve: Record) -> str:
    """BLEU of the checkpoints on a test set, as `mt evaluate --all-checkpoints` found it."""
    checkpoints = [point for point in as_records(curve.get("points")) if number(point, "update") is not None]
    scheduled = points([point for point in checkpoints if point.get("mark") != "averaged"], "bleu")
    kinds = {"best": "best by validation", "averaged": "average"}
    marks = [
        Mark(point["update"], value, f"{kinds[mark]}: {value:.2f}", hollow=mark == "averaged")
        for point in checkpoints
        if (value := number(point, "bleu")) is not None and (mark := str(point.get("mark"))) in kinds
    ]
    last = max((point["update"] for point in checkpoints), default=0)
    chart = line_chart("Test BLEU", [Curve(scheduled, dots=True)], _BLEU, last, marks)
    note = f"{isolated(curve.get('testset', ''))}; {isolated(curve.get('decoding', ''))}"
    return chart.replace("</h3>", f'</h3><p class="key">{note}</p>', 1)


def _stage_marks(run: RunRecord) -> list[Mark]:
    """Where each stage of `train.stages` begins."""
    rates, marks = dict(points(run.updates, "rate")), []
    stages = points(run.updates, "stage")
    for (_, before), (update, stage) in itertools.pairwise(stages):
        if stage != before and update in rates:
            marks.append(Mark(update, rates[update], f"stage {stage:.0f} begins at update {update:,.0f}", hollow=True))
    return marks


def _speed_chart(run: RunRecord) -> str:
    speeds, seconds = [], []
    for record in run.updates:
        tokens, took = number(record, "tokens"), number(record, "seconds")
        if tokens is not None and took:
            speeds.append((record["update"], tokens / took))
            seconds.append(took)
    axis = Axis("target tokens per second, padding not counted", zero=True)
    return line_chart("Speed", [binned(speeds, seconds)], axis, run.last)


def _steps_chart(run: RunRecord) -> str:
    """How many steps a piece takes until it halts, where the model decides it."""
    encoder = replace(binned(points(run.updates, "encoder_steps")), label="encoder", kind="soft")
    decoder = replace(binned(points(run.updates, "decoder_steps")), label="decoder")
    axis = Axis("steps, mean over the pieces of an update", two_decimals)
    return line_chart("Steps until a piece halts", [encoder, decoder], axis, run.last)


def _thinned(run: RunRecord, key: str) -> list[Point]:
    """Every so many points and the last; for curves that have no noise to average out."""
    found = points(run.updates, key)
    step = max(1, len(found) // 300)
    return found[::step] + (found[-1:] if (len(found) - 1) % step else [])


def two_decimals(value: float) -> str:
    """A loss, or another small number; a large one with three digits."""
    return f"{value:.2f}" if abs(value) < 1000 else _three_digits(value)


def _three_digits(value: float) -> str:
    if abs(value) >= 1e6:
        return scientific(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
