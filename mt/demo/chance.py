"""Seeded choices that come out the same on every machine and Python version.

Python promises an unchanging sequence only for `Random.random()`, so every choice is made from that method alone.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def below(rng: Random, limit: int) -> int:
    """Draw a whole number from 0 up to, not including, the limit."""
    return int(rng.random() * limit)


def pick(rng: Random, choices: Sequence[T]) -> T:
    """Draw one of the choices, each as likely as the others."""
    return choices[below(rng, len(choices))]


def happens(rng: Random, probability: float) -> bool:
    """Say yes with the given probability."""
    return rng.random() < probability
