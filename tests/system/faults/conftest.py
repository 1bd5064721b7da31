"""The report of what was broken and what became of it."""

import pytest
from fault_report import EVERY, Faults

FAULTS = Faults()


@pytest.fixture
def faults() -> Faults:
    return FAULTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FAULTS.injected:
        return
    terminalreporter.section("faults")
    for kind, count in FAULTS.injected.items():
        terminalreporter.line(f"{kind:<44} {count:>4} injected  {FAULTS.survived[kind]:>4} survived")
    total, survived = FAULTS.injected.total(), FAULTS.survived.total()
    terminalreporter.line(f"{'together':<44} {total:>4} injected  {survived:>4} survived")
    most = max(FAULTS.lost, default=0)
    terminalreporter.line(f"updates lost to one fault: at most {most} (checkpoints every {EVERY})")
    terminalreporter.line(f"updates or weights that differ from the undisturbed run: {FAULTS.mismatches}")
