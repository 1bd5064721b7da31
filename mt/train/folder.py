"""The run directory: one trainer at a time, nothing half-written, and a note of where each session ran."""

import fcntl
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mt.checkpoint import resumable_checkpoints
from mt.distributed import World
from mt.errors import UsageError, WriteError
from mt.files import write_whole, writing
from mt.train.learner import Learner
from mt.train.progress import Progress

__all__ = ["locked", "note_session", "write_whole", "writing"]


@contextmanager
def locked(folder: Path, leave: bool = True) -> Iterator[None]:
    """Be the only trainer of a run directory, and clear away what a killed one left half-written.

    leave: whether what it wrote stays; else a directory that was not there before is removed again.
    The system lets go of the lock should this process be killed. Raises UsageError when another one has it.
    """
    new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a+b", buffering=0)  # noqa: SIM115 (closed below)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            other = lock.read().decode(errors="replace").strip()
            raise UsageError(
                f"{folder}: another run is training here ({other}); wait, or name another train.dir"
            ) from None
        try:
            with writing(folder / ".lock"):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {platform.node()}\n".encode())
            for leftover in (folder / "checkpoints").glob(".*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
        except WriteError as error:
            if not (saved := resumable_checkpoints(folder)):
                raise
            raise type(error)(f"{error}; the same command goes on from {saved[0].name}") from None
        finally:
            if new and not leave:
                shutil.rmtree(folder, ignore_errors=True)


def note_session(learner: Learner, progress: Progress, world: World, init_from: Path | None) -> None:
    """Add this session to env.json: versions, commit, command, hardware, data."""
    path = learner.config.train.dir / "env.json"
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        sessions = []
    sessions.append(_session(learner, progress, world, init_from))
    write_whole(path, json.dumps(sessions, indent=1, ensure_ascii=False) + "\n")


def _session(learner: Learner, progress: Progress, world: World, init_from: Path | None) -> dict[str, Any]:
    return {
        "update": progress.update,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join(sys.argv),
        "init_from": None if init_from is None else str(init_from),
        "commit": _commit(),
        "data": progress.data,
        "processes": world.size,
        "device": _device_name(learner.model.device),
        "precision": str(learner.precision).removeprefix("torch."),
        "machine": f"{platform.node()}, {platform.platform()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> dict[str, str]:
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda or ""}
    for name in ("mt", "numpy", "sentencepiece", "safetensors", "sacrebleu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a copy that was never installed
            versions[name] = ""
    return versions


def _commit() -> str:
    """The commit of the code, with a + when it was changed since; empty when that is not known."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty=+",
        "--exclude=*",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
