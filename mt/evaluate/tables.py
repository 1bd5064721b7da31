"""Results as text for people and as plain dictionaries for programs; nothing here prints or writes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mt.evaluate.analysis import Analysis
from mt.evaluate.bleu import Score
from mt.evaluate.significance import Comparison, Difference

_LINES_SHOWN = 8  # line numbers named for each fault
_BAR = 40  # characters of the longest bar


def score_table(scores: Sequence[Score]) -> str:
    """A line for each metric: value, 95% interval where there is one, signature; BLEU's parts below."""
    rows = [
        [score.name, f"{score.value:.2f}", _interval(score.mean, score.half_width), score.signature] for score in scores
    ]
    details = [f"{score.name}: {score.detail}" for score in scores[:1] if score.detail]
    return "\n".join([_columns(rows, "<>><"), *details])


def score_dicts(scores: Sequence[Score], testset: str, system: str) -> list[dict[str, Any]]:
    """What `scores.json` in a run directory holds: each score with the test set and the system it belongs to."""
    return [{"testset": testset, "system": system, **asdict(score)} for score in scores]


def curve_table(rows: Sequence[tuple[int, float, str]]) -> str:
    """BLEU by update, each with its mark and a bar from zero."""
    longest = max(value for _, value, _ in rows) or 1
    head = [["update", "BLEU", "", ""]]
    lines = [[f"{update:,}", f"{value:.2f}", "█" * round(_BAR * value / longest), mark] for update, value, mark in rows]
    return _columns(head + lines, ">><<")


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """A block for each metric, the baseline first, p-values below 0.05 marked by a star."""
    return "\n\n".join(_comparison_block(comparison) for comparison in comparisons)


def gain_table(comparisons: Mapping[str, Sequence[Comparison]], index: int) -> str:
    """What system `index` gained and lost against the first one on each set, p-values below 0.05 marked by a star."""
    rows = [["set", "metric", "before", "after", "change", "p bootstrap", "p randomisation"]]
    for name, metrics in comparisons.items():
        for comparison in metrics:
            before, after = comparison.systems[0], comparison.systems[index]
            values = [f"{before.value:.2f}", f"{after.value:.2f}", f"{after.value - before.value:+.2f}"]
            tests = [_p_value(after.p_bootstrap), _p_value(after.p_randomization)]
            rows.append([name, comparison.metric, *values, *tests])
    return _columns(rows, "<<>>>>>")


def stress_table(rows: Sequence[tuple[str, int, Sequence[Score]]]) -> str:
    """Scores by kind of noise, with the number of lines that have it; the first row is the clean set."""
    shown = range(3)  # BLEU, BLEU lower-cased, chrF2
    lines = [["noise", "lines", *(part for at in shown for part in (rows[0][2][at].name, "change"))]]
    for noise, changed, scores in rows:
        values = [(scores[at].value, scores[at].value - rows[0][2][at].value) for at in shown]
        cells = [cell for value, change in values for cell in (f"{value:.2f}", f"{change:+.2f}" if changed else "")]
        lines.append([noise, f"{changed:,}" if changed else "", *cells])
    return "\n".join([_columns(lines, "<>>>>>>>"), *(rows[0][2][at].signature for at in shown)])


def difference_table(gains: Sequence[Difference], losses: Sequence[Difference], baseline: str, system: str) -> str:
    """The sentences that differ most, with both translations one above the other."""
    blocks = [f"{system} gains most over {baseline} (chrF2 of the sentence)"]
    blocks += [_difference_block(one, baseline, system) for one in gains] or ["nowhere"]
    blocks += [f"{system} loses most against {baseline}"]
    blocks += [_difference_block(one, baseline, system) for one in losses] or ["nowhere"]
    return "\n\n".join(blocks)


def analysis_table(analysis: Analysis) -> str:
    """Faults with the first lines that show them, then BLEU by length of the reference."""
    faults = {
        "exactly right": analysis.exact,
        "empty": analysis.empty,
        "repeated": analysis.repeated,
        "copied from the source": analysis.copied,
        "byte-fallback pieces": analysis.byte_pieces,
        "not detokenised": analysis.tokenized,
    }
    count = analysis.sentences
    rows = [[name, f"{len(at):,}", f"{len(at) / count:.1%}", _line_numbers(at)] for name, at in faults.items()]
    head = [["reference words", "sentences", "BLEU", "length ratio"]]
    buckets = [
        [bucket.words, f"{bucket.sentences:,}", f"{bucket.bleu:.2f}", f"{bucket.length_ratio:.3f}"]
        for bucket in analysis.buckets
    ]
    whole = [["all", f"{count:,}", f"{analysis.bleu:.2f}", f"{analysis.length_ratio:.3f}"]]
    return _columns(rows, "<>><") + "\n\n" + _columns(head + buckets + whole, ">>>>")


def _comparison_block(comparison: Comparison) -> str:
    head = [[comparison.metric, "", "95% interval", "p bootstrap", "p randomisation"]]
    rows = [
        [
            system.system,
            f"{system.value:.2f}",
            _interval(system.mean, system.half_width),
            _p_value(system.p_bootstrap),
            _p_value(system.p_randomization),
        ]
        for system in comparison.systems
    ]
    signatures = [
        f"bootstrap: {comparison.bootstrap_signature}",
        f"randomisation: {comparison.randomization_signature}",
    ]
    return "\n".join([_columns(head + rows, "<>>>>"), *signatures])


def _difference_block(difference: Difference, baseline: str, system: str) -> str:
    rows = [
        ["source", "", difference.source or ""],
        ["reference", "", difference.reference],
        [baseline, f"{difference.baseline_chrf:.1f}", difference.baseline],
        [system, f"{difference.system_chrf:.1f}", difference.system],
    ]
    return f"line {difference.line:,}\n" + _columns(rows if difference.source is not None else rows[1:], "<><")


def _interval(mean: float | None, half_width: float | None) -> str:
    return "" if mean is None or half_width is None else f"{mean:.2f} ± {half_width:.2f}"


def _p_value(value: float | None) -> str:
    return "baseline" if value is None else f"{value:.4f}{'*' if value < 0.05 else ' '}"


def _line_numbers(lines: Sequence[int]) -> str:
    if not lines:
        return ""
    shown = ", ".join(str(line) for line in lines[:_LINES_SHOWN])
    return f"line{'s' if len(lines) > 1 else ''} {shown}{', ...' if len(lines) > _LINES_SHOWN else ''}"


def _columns(rows: Sequence[Sequence[str]], aligns: str) -> str:
    """Aligned columns, `<` to the left and `>` to the right, without those that are empty in every row."""
    kept = [(column, align) for column, align in zip(zip(*rows, strict=True), aligns, strict=True) if any(column)]
    padded = [[f"{cell:{align}{max(map(len, column))}}" for cell in column] for column, align in kept]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*padded, strict=True))
