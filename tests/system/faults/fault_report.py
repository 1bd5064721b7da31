"""What was broken, and what became of it."""

from collections import Counter
from dataclasses import dataclass, field

EVERY = 7  # updates from checkpoint to checkpoint


@dataclass
class Faults:
    """What was injected, by kind, and what it cost."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)  # updates, a fault each
    mismatches: int = 0
