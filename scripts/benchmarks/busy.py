#!/usr/bin/env python
"""What is left of the speed when another process burns a core: training and decoding, ours and the peers'.

    scripts/benchmarks/busy.py decode --size small --beam 1
    scripts/benchmarks/busy.py train --size small

Each system has a process of its own; they take turns, each turn once with the machine to itself and once beside a
process that counts for ever. "left" is the median of busy over quiet, turn by turn. Decoding has one more row, for what
`mt translate --processes 2` does: two processes with one thread each.
"""

import argparse
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import decode
import train
from common import System, chosen, machine, start

from mt.device import DECODING_SPINS, TRAINING_SPINS, share_cores

TASKS = {"decode": decode, "train": train}
QUESTIONS: dict[str, object] = {"decode": "tokens", "train": (0, 3)}
SETTLE_SECONDS = 0.3  # until the scheduler has spread the processes


def main() -> None:
    options = parse_options()
    module, question = TASKS[options.task], QUESTIONS[options.task]
    print(f"{options.task}, {options.size}, {options.threads} threads; {machine()}")
    teams = {name: [begin(module, name, options)] for name in chosen(module.SYSTEMS, options.systems)}
    if options.task == "decode":
        options.threads = 1
        teams["mt, 2 processes"] = [begin(module, "mt", options) for _ in range(2)]
    burner = multiprocessing.Process(target=burn, daemon=True)
    burner.start()
    os.kill(burner.pid or 0, signal.SIGSTOP)
    for team in teams.values():
        rate(team, question)  # warms up
    quiet: dict[str, list[float]] = {name: [] for name in teams}
    busy: dict[str, list[float]] = {name: [] for name in teams}
    for _ in range(options.windows):
        for name, team in teams.items():
            quiet[name].append(rate(team, question))
            with burning(burner):
                busy[name].append(rate(team, question))
    print(f"{'':<24}{'quiet':>10}{'busy':>10}{'left':>8}{'lowest':>8}")
    for name, team in teams.items():
        left = [with_it / alone for with_it, alone in zip(busy[name], quiet[name], strict=True)]
        medians = f"{statistics.median(quiet[name]):>10,.0f}{statistics.median(busy[name]):>10,.0f}"
        print(f"{name:<24}{medians}{statistics.median(left):>8.2f}{min(left):>8.2f}")
        for system in team:
            system.end()
    burner.kill()  # it may be stopped, and would not hear a gentler word


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--size", default="small")
    parser.add_argument("--beam", type=int, default=1, help="of decode")
    parser.add_argument("--sentences", type=int, default=128, help="of decode, decoded in each turn")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of train")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=5, help="turns that each system has, quiet and busy")
    parser.add_argument("--systems", nargs="+", help="those beside mt; by default all")
    parser.set_defaults(ckpt=None, input=None, batch=64, tokens=4_096, settle_peers=False)
    return parser.parse_args()


def begin(module: object, name: str, options: argparse.Namespace) -> System:
    """A system; the threads of ours wait for each other as those of `mt` do, the others' as they come."""
    given = dict(os.environ)
    if name == "mt":
        share_cores(TRAINING_SPINS if options.task == "train" else DECODING_SPINS)
    try:
        make: Callable[..., Callable[[object], int]] = module.make_system  # type: ignore[attr-defined]
        return start(name, make, name, options)
    finally:
        os.environ.clear()
        os.environ.update(given)


def rate(team: list[System], question: object) -> float:
    """Tokens/s of systems that do the same work side by side."""
    for system in team:
        system.send(question)
    answers = [system.receive() for system in team]
    return float(sum(tokens / seconds for seconds, tokens in answers))


@contextmanager
def burning(burner: multiprocessing.Process) -> Iterator[None]:
    assert burner.pid is not None
    os.kill(burner.pid, signal.SIGCONT)
    time.sleep(SETTLE_SECONDS)
    yield
    os.kill(burner.pid, signal.SIGSTOP)


def burn() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
