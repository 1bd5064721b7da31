"""Charts: what is drawn stands where its value belongs, between round ticks that enclose the data."""

import json
import math
import random
import re
from html import unescape
from itertools import pairwise

import pytest
from helpers import captured
from hypothesis import given
from hypothesis import strategies as st

from mt.pages.charts import Axis, Curve, Mark, binned, histogram, line_chart, ticks

PLAIN = Axis("things", str)


def drawn_points(svg: str) -> list[tuple[float, float]]:
    pairs = captured(r'class="line ink" d="M([^"]*)"', svg).split("L")
    return [(float(x), float(y)) for x, y in map(str.split, pairs)]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_even_and_enclose_the_data(low: float, span: float) -> None:
    high = low + max(span, abs(low) * 1e-6)
    found = ticks(low, high)
    steps = [after - before for before, after in pairwise(found)]
    assert 1 <= len(steps) <= 5
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)
    assert found[0] <= low + steps[0] * 1e-6
    assert found[-1] >= high - steps[0] * 1e-6
    assert found[0] > low - steps[0]
    assert found[-1] < high + steps[0]


def test_ticks_are_round_numbers() -> None:
    assert ticks(0, 2400) == [0, 500, 1000, 1500, 2000, 2500]
    assert ticks(2.31, 8.9) == [2, 4, 6, 8, 10]
    assert ticks(0, 0.0051) == [0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006][::2]
    assert ticks(3, 3) == ticks(3, 6)
    assert len(ticks(0, 0)) > 1


def test_a_curve_stands_where_its_values_belong() -> None:
    """Ticks are 0, 2, ... 10: the frame's height."""
    svg = line_chart("x", [Curve([(0, 5.0), (50, 0.0), (100, 9.0)])], PLAIN, last=100)
    assert drawn_points(svg) == [(0, 500), (500, 1000), (1000, 100)]
    heights = {int(tick): float(height) for height, tick in re.findall(r'bottom:([\d.]+)%">(\d+)<', svg)}
    assert heights == {tick: 10 * tick for tick in range(0, 11, 2)}


def test_a_log_chart_has_equal_steps_for_equal_factors() -> None:
    points = [(0, 1.0), (1, 10.0), (2, 100.0), (3, -5.0), (4, math.inf)]
    ys = [y for _, y in drawn_points(line_chart("x", [Curve(points)], Axis("", str, log=True), last=2))]
    assert ys == [1000, 500, 0]


def test_a_single_or_a_constant_value_is_drawn_and_none_is_not() -> None:
    for log in (False, True):
        axis = Axis("things", str, log=log)
        assert 'class="dot"' in line_chart("x", [Curve([(5, 3.0)])], axis, last=5)
        assert "<svg" in line_chart("x", [Curve([(1, 3.0), (2, 3.0)])], axis, last=2)
        assert line_chart("x", [Curve([])], axis, last=0) == ""
        assert line_chart("x", [Curve([(1, math.nan), (2, math.inf)])], axis, last=2) == ""


def test_axes_say_what_they_measure_and_marks_what_they_mark() -> None:
    svg = line_chart("x", [Curve([(0, 1), (9, 2)])], Axis("tokens <per> second"), 9, [Mark(9, 2, "best & last")])
    assert '<div class="unit">tokens &lt;per&gt; second</div>' in svg
    assert "</div>update</div>" in svg
    assert "<i>●</i> best &amp; last" in svg


def test_a_histogram_reaches_the_longest_sentence() -> None:
    """Of 1,000 sentences one has 301 pieces; lengths are drawn by fours."""
    counts = [0] * 302
    counts[10], counts[12], counts[301] = 600, 399, 1
    chart = histogram("lengths", [("en", counts), ("de", [0, 5])], "pieces")
    assert "en: median 10, longest 301" in chart
    assert "de: median 1, longest 1" in chart
    values = json.loads(unescape(captured(r'data-values="([^"]*)"', chart)))
    assert (values["step"], values["high"]) == (4, 305)
    en = dict(zip(values["series"][0]["x"], values["series"][0]["shown"], strict=True))
    assert (en[8], en[12], en[300]) == ("60%", "40%", "0.1%")
    assert sum(float(share.rstrip("%")) for share in en.values()) == pytest.approx(100, abs=0.2)
    assert "</div>pieces</div>" in chart
    assert ">300</span>" in chart
    assert histogram("lengths", [("en", []), ("de", [0])], "pieces") == ""


def test_bins_keep_the_weighted_mean_and_end_where_the_data_end() -> None:
    choice = random.Random(3)
    values, weights = ([choice.random() for _ in range(1500)] for _ in range(2))
    curve = binned(list(enumerate(values)), weights)
    sums = [sum(weights[start : start + 10]) for start in range(0, 1500, 10)]
    mean = sum(y * weight for (_, y), weight in zip(curve.points, sums, strict=True)) / sum(weights)
    assert mean == pytest.approx(sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights))
    assert curve.points[-1][0] == 1499
    assert len(curve.band) == 150
    assert all(low <= high for _, low, high in curve.band)


def test_labels_at_the_ends_of_like_curves_do_not_overlap() -> None:
    for values in ([5.0, 5.01, 5.02], [0, 0, 0, 0], [9, 9, 9, 0]):
        curves = [Curve([(0, 0), (1, 9.0), (2, value)], f"c{number}") for number, value in enumerate(values)]
        ends = captured(r'<div class="ends">(.*?)</div>', line_chart("x", curves, PLAIN, last=1))
        heights = sorted(float(height) for height in re.findall(r"bottom:([\d.]+)%", ends))
        assert min(above - below for below, above in pairwise(heights)) >= 8.4
        assert heights[0] >= 0
        assert heights[-1] <= 100
