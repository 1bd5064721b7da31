"""A run that is asked to stop ends with status 130 and a sentence, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PATIENCE, children_of, fork, statuses, wait_until

from mt.checkpoint import AVERAGED
from mt.train.stop import StopRequest


def start(toy_yaml: Path, *settings: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mt", "train", str(toy_yaml), *settings]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE)


def is_loading_torch(process: int) -> bool:
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_sigterm_during_start_up(toy_yaml: Path) -> None:
    process = start(toy_yaml)
    wait_until(lambda: is_loading_torch(process.pid))
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.endswith("mt: stopped by SIGTERM\n")


def test_a_stop_within_code_that_a_library_makes_has_the_same_status(tmp_path: Path) -> None:
    """After a KeyboardInterrupt in exec(), even if caught, Python ends by SIGINT; dataclasses are made by exec()."""
    made = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    program = f"import sys; from mt import streams; sys.exit(streams.run(lambda: exec({made!r})))"
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "program"]
    result = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (130, "mt: stopped by SIGTERM\n")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_while_two_processes_start_is_said_once(toy_yaml: Path) -> None:
    command = [sys.executable, "-m", "mt", "train", str(toy_yaml), "--processes", "2"]
    process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: len(children_of(process.pid)) == 2 and all(map(is_loading_torch, children_of(process.pid))))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, "mt: stopped by Ctrl-C\n")


def test_sigterm_during_the_rehearsal(toy_yaml: Path, tmp_path: Path) -> None:
    """It begins when the run directory has been locked; nothing is left of a run that had not begun."""
    process = start(toy_yaml, "train.updates=100000", "train.checkpoint_every=100000")
    wait_until(lambda: (tmp_path / "run" / ".lock").exists())
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "mt: stopped" in errors


def test_a_second_ctrl_c_ends_a_run_at_once_with_a_word(tmp_path: Path) -> None:
    def interrupted_twice() -> None:
        with StopRequest():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(PATIENCE)

    assert statuses([fork(interrupted_twice, tmp_path / "errors")]) == [130]
    assert (tmp_path / "errors").read_text() == "\nmt: stopped by Ctrl-C\n"


def test_sigterm_while_averaging_and_the_same_command_after_it(toy_yaml: Path, tmp_path: Path) -> None:
    """It follows the last validation."""
    process = start(toy_yaml)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("update 12: valid loss"):
            break
    process.terminate()
    errors = process.stderr.read()
    assert process.wait(timeout=PATIENCE) == 130
    assert "mt: stopped" in errors
    again = start(toy_yaml)
    again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert (tmp_path / "run" / "checkpoints" / AVERAGED / "MANIFEST.json").exists()
