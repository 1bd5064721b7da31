"""Line charts and histograms as inline SVG, after Tufte: axes end where the data end, and curves carry their labels.

Colours come from the page's style sheet, by class; sizes are in the SVG's own units, about one to a pixel.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 270, 140
_LEFT, _RIGHT, _TOP, _BOTTOM = 47, 51, 10, 24  # room for labels around the data
_LINE = 12  # least distance between labels
_BINS = 150  # more points than this say no more on a chart of this width
_DOTS = 40  # more than this would be a thick line


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
    """One point worth a word."""

    x: float
    y: float
    text: str
    kind: str = "best"


@dataclass(frozen=True)
class _Frame:
    """Maps data to places in the picture; the data fill it from edge to edge."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log: bool = False

    def x(self, value: float) -> float:
        return _LEFT + _portion(value, self.x_low, self.x_high) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        scale = math.log if self.log else float
        portion = _portion(scale(value), scale(self.y_low), scale(self.y_high))
        return _HEIGHT - _BOTTOM - portion * (_HEIGHT - _TOP - _BOTTOM)


def line_chart(
    name: str,
    curves: Sequence[Curve],
    shown: Callable[[float], str],
    last: float,
    marks: Sequence[Mark] = (),
    log: bool = False,
    zero: bool = False,
) -> str:
    """Curves over updates 0 to `last`; nothing when there is no point to draw.

    `shown` writes a value of y. With `zero` the axis begins there, so that a steady quantity looks steady.
    """
    curves = [curve for curve in (_drawable(curve, log) for curve in curves) if curve.points]
    if not curves:
        return ""
    ys = [y for curve in curves for _, y in curve.points] + [mark.y for mark in marks]
    ys += [high for curve in curves for _, _, high in curve.band] if zero else []
    frame = _Frame(0, last, 0 if zero else min(ys), max(ys), log)
    parts = [_axes(frame, shown)]
    parts += [_band(frame, curve) for curve in curves if len(curve.band) > 1]
    parts += [_line(frame, curve) for curve in curves]
    parts += [_dots(frame, curve, shown) for curve in curves if curve.dots and len(curve.points) <= _DOTS]
    parts += [_mark(frame, mark) for mark in marks]
    parts += _end_labels(frame, curves, shown)
    return _svg(name, parts)


def histogram(name: str, counts: Sequence[tuple[str, Sequence[Point]]], unit: str) -> str:
    """Outlines of distributions over one axis: for each label, the share of the whole at each x, in ascending x."""
    curves = [
        Curve(points, label, kind) for (label, points), kind in zip(counts, ("soft", "ink"), strict=False) if points
    ]
    if not curves:
        return ""
    xs, ys = zip(*(point for curve in curves for point in curve.points), strict=True)
    frame = _Frame(min(xs), max(xs), 0, max(ys))
    parts = [_x_axis(frame, unit), *(_line(frame, curve) for curve in curves)]
    for row, curve in enumerate(curves):
        peak = max(curve.points, key=lambda point: point[1])
        text = f"{curve.label}, most often {peak[0]:,.0f}"
        parts.append(_text(_WIDTH, _TOP + 6 + 14 * row, text, f"end {curve.kind}"))
    return _svg(name, parts)


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


# --- Parts of a picture ------------------------------------------------------------------------------------------


def _drawable(curve: Curve, log: bool) -> Curve:
    return replace(curve, points=[(x, y) for x, y in curve.points if math.isfinite(y) and (y > 0 or not log)])


def _portion(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else min(max((value - low) / (high - low), 0.0), 1.0)


def _axes(frame: _Frame, shown: Callable[[float], str]) -> str:
    x, top, bottom = _LEFT - 6, frame.y(frame.y_high), frame.y(frame.y_low)
    parts = [_x_axis(frame, ""), f'<path class="axis" d="M{x} {top:.1f}V{bottom:.1f}"/>']
    parts.append(_text(x - 4, top + 4, shown(frame.y_high), "end label"))
    if bottom - top > 10:
        parts.append(_text(x - 4, bottom + 4, shown(frame.y_low), "end label"))
    return "".join(parts)


def _x_axis(frame: _Frame, unit: str) -> str:
    y, left, right = _HEIGHT - _BOTTOM + 6, frame.x(frame.x_low), frame.x(frame.x_high)
    parts = [f'<path class="axis" d="M{left:.1f} {y}H{right:.1f}"/>']
    parts.append(_text(left, y + 13, f"{frame.x_low:,.0f}", "label start" if right > left else "label middle"))
    if right > left:
        parts.append(_text(right, y + 13, f"{frame.x_high:,.0f} {unit}".strip(), "end label"))
    return "".join(parts)


def _line(frame: _Frame, curve: Curve) -> str:
    path = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in curve.points)
    return f'<path class="line {curve.kind}" d="M{path}"/>'


def _band(frame: _Frame, curve: Curve) -> str:
    there = [f"{frame.x(x):.1f} {frame.y(high):.1f}" for x, _, high in curve.band]
    back = [f"{frame.x(x):.1f} {frame.y(low):.1f}" for x, low, _ in reversed(curve.band)]
    return f'<path class="band" d="M{"L".join(there + back)}Z"/>'


def _dots(frame: _Frame, curve: Curve, shown: Callable[[float], str]) -> str:
    return "".join(
        f'<circle class="dot {curve.kind}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2">'
        f"<title>update {x:,.0f}: {escape(shown(y))}</title></circle>"
        for x, y in curve.points
    )


def _mark(frame: _Frame, mark: Mark) -> str:
    x, y = frame.x(mark.x), frame.y(mark.y)
    title = f"<title>{escape(mark.text)}</title>"
    return f'<circle class="mark {mark.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.2">{title}</circle>'


def _end_labels(frame: _Frame, curves: Sequence[Curve], shown: Callable[[float], str]) -> list[str]:
    """Each curve's name and last value beside its end, pushed apart where they would overlap."""
    labels, lowest = [], -math.inf
    for y, curve in sorted(((frame.y(curve.points[-1][1]), curve) for curve in curves), key=lambda end: end[0]):
        x, last = curve.points[-1]
        lowest = max(y, lowest + _LINE)
        labels.append(_text(frame.x(x) + 7, lowest + 4, f"{curve.label} {shown(last)}".strip(), f"start {curve.kind}"))
    return labels


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(name: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">{"".join(parts)}</svg>'
