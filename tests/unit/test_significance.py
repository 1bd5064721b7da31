"""Paired tests: equal to the sacrebleu command's, and honest about equal and unequal systems."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mt.evaluate.significance import Comparison, compare, largest_differences

REFERENCES = [
    f"Der {noun} {verb} am {day} mit {number} Freunden durch die Stadt."
    for noun in ("Hund", "Mann", "Lehrer", "Nachbar")
    for verb in ("läuft", "fährt", "geht")
    for day in ("Montag", "Freitag", "Sonntag")
    for number in ("zwei", "drei")
]


def with_errors(every: int, instead: str) -> list[str]:
    return [line.replace("Freunden", instead) if row % every == 0 else line for row, line in enumerate(REFERENCES)]


GOOD, FAIR, POOR = with_errors(9, "Leuten"), with_errors(7, "Leuten"), with_errors(1, "den Leuten von hier")


def test_the_results_equal_the_sacrebleu_commands(tmp_path: Path) -> None:
    names = ("good", "fair", "poor")
    for name, lines in zip([*names, "ref"], (GOOD, FAIR, POOR, REFERENCES), strict=True):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    ours = compare(dict(zip(names, (GOOD, FAIR, POOR), strict=True)), REFERENCES, resamples=200, trials=300)
    options = {"p_bootstrap": "--paired-bs --paired-bs-n 200", "p_randomization": "--paired-ar --paired-ar-n 300"}
    for test, option in options.items():
        command = [sys.executable, "-m", "sacrebleu", "ref", "-i", *names, "-m", "bleu", "chrf", "-f", "latex"]
        command += ["-w", "10", "--no-color", *option.split()]
        printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        rows = [line for line in printed.split("\n") if "&" in line and any(name in line for name in names)]
        assert len(rows) == 3
        for number, row in enumerate(rows):
            cells = row.split("&")[1:]
            for comparison, cell in zip(ours, cells, strict=True):
                assert_equal_to_cell(comparison, number, test, cell)
        for comparison in ours:
            signature = comparison.bootstrap_signature if test == "p_bootstrap" else comparison.randomization_signature
            assert signature in printed


def assert_equal_to_cell(comparison: Comparison, number: int, test: str, cell: str) -> None:
    """A cell reads `98.76 (98.7 ± 0.4) (p = 0.0123)*`, its parts as far as they apply."""
    system = comparison.systems[number]
    assert f"{system.value:.10f}" in cell
    if test == "p_bootstrap":
        assert f"({system.mean:.10f}" in cell
        assert f"{system.half_width:.10f})" in cell
    p_value = re.search(r"p = ([0-9.]+)", cell)
    ours = getattr(system, test)
    assert (p_value is None) == (ours is None) == (number == 0)
    assert p_value is None or p_value[1] == f"{ours:.4f}"


def test_a_system_against_itself_is_never_significant() -> None:
    for comparison in compare({"a": GOOD, "b": list(GOOD)}, REFERENCES, resamples=100, trials=100):
        assert (comparison.systems[1].p_bootstrap, comparison.systems[1].p_randomization) == (1, 1)


def test_a_clear_difference_is_significant_and_a_small_one_is_not() -> None:
    for comparison in compare({"good": GOOD, "fair": FAIR, "poor": POOR}, REFERENCES, resamples=300, trials=300):
        baseline, fair, poor = comparison.systems
        assert (baseline.p_bootstrap, baseline.p_randomization) == (None, None)
        for p_poor, p_fair in (
            (poor.p_bootstrap, fair.p_bootstrap),
            (poor.p_randomization, fair.p_randomization),
        ):
            assert p_poor is not None
            assert p_fair is not None
            assert p_poor < 0.05 < p_fair
        assert baseline.value > fair.value > poor.value


def test_the_tests_give_the_same_answer_each_time() -> None:
    first, second = (compare({"a": GOOD, "b": FAIR}, REFERENCES, resamples=50, trials=50) for _ in range(2))
    assert first == second


def test_the_largest_gains_and_losses_come_first() -> None:
    references = ["Der Hund bellt.", "Die Katze schläft.", "Es regnet heute.", "Alles gut."]
    baseline = ["Der Hund bellt.", "xyz", "Es regnet gestern.", "Alles gut."]
    system = ["Der Hund singt.", "Die Katze schläft.", "Es regnet heute.", "Alles gut."]
    gains, losses = largest_differences(baseline, system, references, sources=list("abcd"))
    assert [(one.line, one.source) for one in gains] == [(2, "b"), (3, "c")]
    assert (gains[0].baseline, gains[0].system, gains[0].reference) == (
        "xyz",
        "Die Katze schläft.",
        "Die Katze schläft.",
    )
    assert (gains[0].baseline_chrf, gains[0].system_chrf) == pytest.approx((0, 100), abs=5)
    assert [one.line for one in losses] == [1]
    assert largest_differences(baseline, system, references, sources=list("abcd"), count=1) == (gains[:1], losses)


def test_equal_systems_have_no_largest_differences() -> None:
    assert largest_differences(GOOD, GOOD, REFERENCES) == ([], [])
