"""Where and how a run was started and went on: the sessions in its env.json."""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mt.distributed import World
from mt.files import write_whole
from mt.run_files import SESSIONS, read_records
from mt.train.learner import Learner
from mt.train.progress import Progress


def session_of(learner: Learner, progress: Progress, world: World, init_from: Path | None) -> dict[str, Any]:
    """What env.json is to say of this start: the part that depends on the run."""
    device = learner.model.device
    return {
        "update": progress.update,
        "init_from": None if init_from is None else str(init_from),
        "data": progress.data,
        "processes": world.size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": learner.config.train.precision,
    }


def note_session(folder: Path, session: Mapping[str, Any]) -> None:
    """Add a session to env.json, with versions, commit, command and machine."""
    record = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join(sys.argv),
        "commit": _commit(),
        **session,
        "machine": f"{platform.node()}, {platform.platform()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **_versions()},
    }
    sessions = [*read_records(folder / SESSIONS), record]
    write_whole(folder / SESSIONS, json.dumps(sessions, indent=1, ensure_ascii=False) + "\n")


def _versions() -> dict[str, str]:
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda or ""}
    for name in ("mt", "numpy", "sentencepiece", "safetensors", "sacrebleu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # mt runs from a copy that was never installed
            versions[name] = ""
    return versions


def _commit() -> str:
    """The commit of the code, with a + when files have changed since; empty when unknown."""
    describe = ["describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    command = ["git", "-C", str(Path(__file__).parents[1]), *describe]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
