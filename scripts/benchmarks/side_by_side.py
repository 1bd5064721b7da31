"""Systems measured in turns, each in a process of its own: none shares the memory, threads or settings of another."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

GIB = 2**20  # of the kilobytes in which Linux tells memory


@dataclass
class System:
    """One of them: it answers what it is asked, one question after another."""

    name: str
    connection: Connection
    rates: list[float] = field(default_factory=list)  # tokens/s, one for each turn

    def ask(self, question: object) -> tuple[float, Any]:
        """The seconds it took to answer, and the answer."""
        self.connection.send([question])
        seconds, answer = self.connection.recv()
        return seconds, answer

    def end(self) -> float:
        """Its peak memory in GiB."""
        self.connection.send([])
        peak: float = self.connection.recv()
        return peak


def start(name: str, make: Callable[..., Callable[[Any], Any]], *arguments: object) -> System:
    """A system in a new process, where `make(*arguments)` gives what answers its questions."""
    ours, theirs = multiprocessing.Pipe()
    multiprocessing.Process(target=_serve, args=(theirs, make, *arguments), daemon=True).start()
    return System(name, ours)


def _serve(connection: Connection, make: Callable[..., Callable[[Any], Any]], *arguments: object) -> None:
    answer = make(*arguments)
    while questions := connection.recv():
        begun = time.perf_counter()
        found = answer(*questions)
        connection.send((time.perf_counter() - begun, found))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB)
