"""What was broken, and what became of it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Faults:
    """What was injected, by kind, and what it cost."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)  # updates, a fault each
    interval: int = 0  # updates from checkpoint to checkpoint
    mismatches: int = 0
