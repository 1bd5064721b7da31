"""Line charts and histograms as inline SVG that stretches to any width, its labels HTML beside it.

Colours and sizes come from charts.css, by class; charts.js shows the values under the pointer. Inside the SVG
both axes run from 0 to 1,000.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import count
from typing import TypedDict

Point = tuple[float, float]

_SIZE = 1000
_GAP = 8.5  # least distance between labels, in percent of the height
_BINS = 150  # more points than this say no more on a chart of a page's width
_DOTS = 60  # more than this would be a thick line
_LENGTHS = 80  # steps of a histogram
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Curve:
    """A series in ascending x; `band` is the range most single values lie in, where the points are means."""

    points: Sequence[Point]
    label: str = ""  # stands at the curve's end, before its last value
    kind: str = "ink"  # or "soft", for what is there to compare with
    band: Sequence[tuple[float, float, float]] = ()  # x, low, high
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """One point worth a word, which stands in the legend."""

    x: float
    y: float
    text: str
    hollow: bool = False


@dataclass(frozen=True)
class Axis:
    """What the values are, with their unit, and how one is written."""

    title: str
    shown: Callable[[float], str] = lambda value: f"{value:,.0f}"
    zero: bool = False  # begin there, so that a steady quantity looks steady
    log: bool = False


class _Series(TypedDict):
    """What charts.js shows of a curve: its places along the axis, and the words for each value."""

    label: str
    x: list[float]
    shown: list[str]


UPDATES = Axis("update")


@dataclass(frozen=True)
class _Scale:
    """Maps an axis to 0..1."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value, low, high = (math.log(v) if self.log else v for v in (value, self.low, self.high))
        return 0.5 if high <= low else min(max((value - low) / (high - low), 0.0), 1.0)


def line_chart(
    name: str, curves: Sequence[Curve], y: Axis, last: float, marks: Sequence[Mark] = (), x: Axis = UPDATES
) -> str:
    """A figure of curves over 0 to `last`, in updates or what `x` says; empty when there is nothing to draw."""
    curves = [curve for curve in (_drawable(curve, y.log) for curve in curves) if curve.points]
    if not curves:
        return ""
    values = [value for curve in curves for _, value in curve.points] + [mark.y for mark in marks]
    values += [high for curve in curves for _, _, high in curve.band] if y.zero else []
    y_ticks = _log_ticks(min(values), max(values)) if y.log else ticks(0 if y.zero else min(values), max(values))
    x_scale, y_scale = _Scale(0, last), _Scale(y_ticks[0], y_ticks[-1], y.log)
    drawn = [_band(curve, x_scale, y_scale) for curve in curves if len(curve.band) > 1]
    drawn += [_line(curve, x_scale, y_scale) for curve in curves]
    drawn += [_mark(mark, x_scale, y_scale) for mark in marks]
    key = "".join(f"<span><i>{'○' if mark.hollow else '●'}</i> {escape(mark.text)}</span>" for mark in marks)
    series = [_series(curve, y) for curve in curves]
    ends = _end_labels([(y_scale(curve.points[-1][1]), _end_text(curve, y), curve.kind) for curve in curves])
    parts = [_y_axis(y_ticks, y_scale, y), _plot(name, drawn, _rules(y_ticks, y_scale), series, last), ends]
    return _figure(name, key, [*parts, _x_axis([tick for tick in ticks(0, last) if tick <= last], x_scale, x.title)])


def histogram(name: str, counts: Sequence[tuple[str, Sequence[int]]], unit: str) -> str:
    """A figure of outlines of distributions: for each label, how many there are of 0, 1, 2, ... up to the most.

    Drawn as the share of the whole; the legend names each median and maximum.
    """
    counts = [(label, values) for label, values in counts if sum(values)]
    if not counts:
        return ""
    longest = max(len(values) for _, values in counts) - 1
    width = math.ceil((longest + 1) / _LENGTHS)
    curves = [
        Curve(_shares(values, width), label, kind)
        for (label, values), kind in zip(counts, ("soft", "ink"), strict=False)
    ]
    y = Axis("% of sentences", lambda value: f"{value:.2g}%", zero=True)
    x_ticks, y_ticks = ticks(0, longest), ticks(0, max(value for curve in curves for _, value in curve.points))
    x_scale, y_scale = _Scale(0, longest + width), _Scale(y_ticks[0], y_ticks[-1])
    drawn = [_line(replace(curve, points=_steps(curve.points, width)), x_scale, y_scale) for curve in curves]
    series = [_series(curve, y) for curve in curves]
    key = "".join(
        f'<span class="{curve.kind}">{swatch(curve.kind)} {escape(curve.label)}: median {_median(values):,}, '
        f"longest {len(values) - 1:,}</span>"
        for curve, (_, values) in zip(curves, counts, strict=True)
    )
    parts = [_y_axis(y_ticks, y_scale, y), _plot(name, drawn, _rules(y_ticks, y_scale), series, longest + width, width)]
    return _figure(name, key, [*parts, _x_axis([tick for tick in x_ticks if tick <= longest], x_scale, unit)])


def binned(points: Sequence[Point], weights: Sequence[float] | None = None) -> Curve:
    """Means of neighbouring points, few enough to draw, with the band from their 10th to their 90th percentile."""
    size = max(1, math.ceil(len(points) / _BINS))
    means, band = [], []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        values = sorted(y for _, y in group)
        share = weights[start : start + size] if weights is not None else [1.0] * len(group)
        mean = sum(y * weight for (_, y), weight in zip(group, share, strict=True)) / (sum(share) or 1)
        end = group[-1][0]
        means.append((end, mean))
        band.append((end, values[len(values) // 10], values[-1 - len(values) // 10]))
    return Curve(means, band=band if size > 1 else ())


def scientific(value: float) -> str:
    """Such as 7.0·10⁻⁴."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


# --- Ticks -------------------------------------------------------------------------------------------------------


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers, at most `most` steps apart, from at most `low` to at least `high`."""
    if high <= low:
        low, high = (low, low + (abs(low) or 1)) if low >= 0 else (low - abs(low), low)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Of 1, 2, 5, 10, 20, ... those from at most `low` to at least `high`; of many, powers of ten alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    below, above = max(tick for tick in found if tick <= low), min(tick for tick in found if tick >= high)
    found = [tick for tick in found if below <= tick <= above]
    if len(found) <= 6:
        return found if len(found) > 1 else [below, below * 2]
    step = math.ceil((last - first) / 5)
    return [10.0**power for power in range(first, last + step, step)]


def _tick_text(tick: float, step: float) -> str:
    if not tick:
        return "0"
    if step < 0.01 or step >= 1e9:
        return scientific(tick).replace(".0·", "·")
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if step >= size or (size == 1e3 and abs(tick) >= 1e4 and step >= 100):
            return f"{tick / size:g}{letter}"
    return f"{tick:,.0f}" if step >= 1 and step == int(step) else f"{tick:,.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    return next(digits for digits in count(1) if math.isclose(step * 10**digits, round(step * 10**digits)))


def _step(found: Sequence[float]) -> float:
    return found[1] - found[0] if len(found) > 1 else 1.0


# --- Parts of a figure -------------------------------------------------------------------------------------------


def _figure(name: str, key: str, parts: Sequence[str]) -> str:
    caption = f"<h3>{escape(name)}</h3>" + (f'<p class="key">{key}</p>' if key else "")
    return f'<figure><figcaption>{caption}</figcaption><div class="chart">{"".join(parts)}</div></figure>'


def _y_axis(found: Sequence[float], scale: _Scale, axis: Axis) -> str:
    texts = [_tick_text(tick, 1 if axis.log and tick >= 1 else _step(found)) for tick in found]
    labels = [
        f'<span style="bottom:{_percent(scale(tick))}">{text}</span>' for tick, text in zip(found, texts, strict=True)
    ]
    return f'<div class="unit">{escape(axis.title)}</div><div class="y" aria-hidden="true">{"".join(labels)}</div>'


def _x_axis(found: Sequence[float], scale: _Scale, title: str) -> str:
    step = _step(found)
    labels = [f'<span style="left:{_percent(scale(tick))}">{_tick_text(tick, step)}</span>' for tick in found]
    return f'<div class="x"><div aria-hidden="true">{"".join(labels)}</div>{escape(title)}</div>'


def _plot(name: str, drawn: Sequence[str], rules: str, series: Sequence[_Series], high: float, step: int = 1) -> str:
    """The picture, over x from 0 to `high`; a value of `series` is that of `step` whole numbers together."""
    ends = ", ".join(f"{one['label']} {one['shown'][0]} to {one['shown'][-1]}".strip() for one in series)
    data = escape(json.dumps({"high": high, "step": step, "series": series}, ensure_ascii=False, separators=(",", ":")))
    frame = f'viewBox="0 0 {_SIZE} {_SIZE}" preserveAspectRatio="none" aria-hidden="true"'
    svg = f"<svg {frame}>{rules}{''.join(drawn)}</svg>"
    label = escape(f"{name}: {ends}. Arrow keys show the values.")
    return f'<div class="plot" tabindex="0" role="img" aria-label="{label}" data-values="{data}">{svg}</div>'


def _rules(y_ticks: Sequence[float], scale: _Scale) -> str:
    return f'<path class="rule" d="{"".join(f"M0 {_down(scale(tick))}H{_SIZE}" for tick in y_ticks)}"/>'


def _series(curve: Curve, y: Axis) -> _Series:
    return {
        "label": curve.label,
        "x": [int(x) if x == int(x) else x for x, _ in curve.points],
        "shown": [y.shown(value) for _, value in curve.points],
    }


def _drawable(curve: Curve, log: bool) -> Curve:
    return replace(curve, points=[(x, y) for x, y in curve.points if math.isfinite(y) and (y > 0 or not log)])


def _line(curve: Curve, x: _Scale, y: _Scale) -> str:
    places = [f"{_across(x(at))} {_down(y(value))}" for at, value in curve.points]
    line = f'<path class="line {curve.kind}" d="M{"L".join(places)}"/>'
    few = len(places) == 1 or (curve.dots and len(places) <= _DOTS)
    return line + (f'<path class="dot" d="{"".join(f"M{place}h0" for place in places)}"/>' if few else "")


def _band(curve: Curve, x: _Scale, y: _Scale) -> str:
    there = [f"{_across(x(at))} {_down(y(high))}" for at, _, high in curve.band]
    back = [f"{_across(x(at))} {_down(y(low))}" for at, low, _ in reversed(curve.band)]
    return f'<path class="band" d="M{"L".join(there + back)}Z"/>'


def _mark(mark: Mark, x: _Scale, y: _Scale) -> str:
    place = f"M{_across(x(mark.x))} {_down(y(mark.y))}h0"
    return f'<path class="mark" d="{place}"/>' + (f'<path class="hole" d="{place}"/>' if mark.hollow else "")


def _end_text(curve: Curve, y: Axis) -> str:
    return f"{curve.label} {y.shown(curve.points[-1][1])}".strip()


def _end_labels(ends: Sequence[tuple[float, str, str]]) -> str:
    """Each curve's name and last value beside its end, pushed apart where they would overlap."""
    labels, lowest = [], 100 + _GAP
    ordered = sorted(ends, reverse=True)
    for below, (height, text, kind) in zip(range(len(ends) - 1, -1, -1), ordered, strict=True):
        lowest = max(min(100 * height, lowest - _GAP), below * _GAP)
        labels.append(f'<span class="{kind}" style="bottom:{lowest:.1f}%">{escape(text)}</span>')
    return f'<div class="ends">{"".join(labels)}</div>'


def _across(portion: float) -> str:
    return f"{_SIZE * portion:.1f}".removesuffix(".0")


def _down(portion: float) -> str:
    return _across(1 - portion)


def _percent(portion: float) -> str:
    return f"{100 * portion:.2f}%"


# --- Distributions -----------------------------------------------------------------------------------------------


def _shares(counts: Sequence[int], width: int) -> list[Point]:
    """Percent of the whole in every `width` lengths together."""
    whole = sum(counts)
    return [(start, 100 * sum(counts[start : start + width]) / whole) for start in range(0, len(counts), width)]


def _steps(points: Sequence[Point], width: int) -> list[Point]:
    return [(x, y) for start, y in points for x in (start, start + width)]


def _median(counts: Sequence[int]) -> int:
    half, seen = (sum(counts) + 1) // 2, 0
    for length, found in enumerate(counts):
        seen += found
        if seen >= half:
            return length
    return 0


def swatch(kind: str) -> str:
    """A piece of a curve of this kind, for a legend."""
    return f'<svg class="swatch" viewBox="0 0 18 8" aria-hidden="true"><path class="line {kind}" d="M0 4H18"/></svg>'
