"""By how many processes a job of `mt translate` is done when nobody says."""

from dataclasses import replace
from pathlib import Path

import pytest

from mt.distributed import cores
from mt.translate.plan import MOST_PROCESSES, MUCH_TEXT, Job, default_processes, plan_job


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Two inputs that are much text together, and their outputs."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    inputs = (tmp_path / "first", tmp_path / "second")
    for path in inputs:
        path.write_bytes(b"a\n" * (MUCH_TEXT // 4))
    return Job(inputs=inputs, outputs=(tmp_path / "first.de", tmp_path / "second.de"))


def processes_for(job: Job) -> int:
    return default_processes(job, plan_job(job), "cpu")


def test_much_text_has_a_process_for_each_core(job: Job) -> None:
    assert processes_for(job) == min(cores(), MOST_PROCESSES)


def test_little_text_has_one_process(job: Job) -> None:
    assert processes_for(replace(job, inputs=job.inputs[:1], outputs=job.outputs[:1])) == 1


def test_pipes_and_devices_have_one_process(job: Job) -> None:
    assert processes_for(replace(job, outputs=(None,))) == 1
    assert processes_for(replace(job, outputs=(Path("/dev/null"), Path("/dev/stdout")))) == 1


def test_lines_answered_as_they_come_have_one_process(job: Job) -> None:
    assert processes_for(replace(job, unbuffered=True)) == 1


def test_a_user_who_asks_for_one_thread_gets_one_process(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert processes_for(job) == 1


def test_a_process_of_torchrun_starts_no_others(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    assert processes_for(job) == 1
