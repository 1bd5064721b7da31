"""What people read: numbers of things as they say them."""

import pytest

from mt.console import counted, duration


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "line", "0 lines"),
        (1, "line", "1 line"),
        (2_000, "line", "2,000 lines"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
        (3, "batch", "3 batches"),
    ],
)
def test_one_thing_is_singular(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


@pytest.mark.parametrize(("seconds", "said"), [(12.4, "12 s"), (200, "3 min 20 s"), (3_900, "1 h 05 min")])
def test_durations_have_the_units_that_fit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
