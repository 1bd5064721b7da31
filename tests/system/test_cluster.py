"""Laws of jobs on a cluster: machines and workers come and die, and the outputs are those of one machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from helpers import PATIENCE, children_of, free_port, mt, wait_until, write_lines

from mt.errors import Interrupted, UsageError
from mt.translate.cluster import Opening, _connect, translate_on_cluster
from mt.translate.plan import Cluster, Job, cluster_of, plan_cluster

pytest.importorskip("ray", reason="needs Ray: pip install 'mt[ray]'")

# The law at any size and with any model: CLUSTER_LINES=200000 CLUSTER_RUN=runs/my pytest tests/system/test_cluster.py
LINES = int(os.environ.get("CLUSTER_LINES", 8_000))
KILLS = 10 if "CLUSTER_LINES" in os.environ else 3  # a worker takes seconds to begin


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray that keeps its files together, tells nobody of itself and finds no cluster of somebody else's."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # of pytest's folders the names are too long for sockets
    settings = {
        "TMPDIR": folder,
        "USAGE_STATS_ENABLED": "0",
        "prestart_worker_first_driver": "0",
        "worker_niceness": "0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"RAY_{name}", value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, on_sigterm)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three nodes on this machine, of one core each."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(**small)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        cluster.shutdown()


def workers(cluster: Any, doing: bytes = b".submit") -> list[int]:
    """The processes that translate right now, or that hold a model whatever they do."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    running = [pid for raylet in raylets for pid in children_of(raylet)]
    return [pid for pid in running if b"MapWorker" in (title := title_of(pid)) and doing in title]


def title_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(job: "subprocess.Popen[bytes]", ready: Callable[[], object]) -> None:
    """Look now and then, as the job needs the cores."""
    deadline = time.monotonic() + PATIENCE + LINES / 20
    while not ready():
        assert job.poll() is None, f"the job has ended with status {job.poll()}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_workers_and_a_killed_node_change_no_byte(cluster: Any, toy_run: Path, tmp_path: Path) -> None:
    """Nor does a bad row in the last file, once it is put right: what is finished is not done again.

    The pool begins with one worker, grows to several as there is work, and is gone when the job is.
    """
    run = os.environ.get("CLUSTER_RUN", toy_run)
    lines = [f"a man number {number % 700} runs here ." for number in range(LINES)]
    write_lines(tmp_path / "in" / "a.txt", lines)
    records = [json.dumps({"id": number, "en": line}) for number, line in enumerate(lines[:1_000])]
    write_lines(tmp_path / "in" / "b.jsonl", records)
    table = pyarrow.table({"en": lines[:1_000], "id": range(1_000)})
    pyarrow.parquet.write_table(table, tmp_path / "in" / "c.parquet")
    bad = write_lines(tmp_path / "in" / "d.txt", lines[:400])
    bad.write_bytes(bad.read_bytes() + b"a \xff\n")
    search = ["--ckpt", run, "--beam", "1", "--scores", "--device", "cpu"]
    command = ["translate", *search, "--input", tmp_path / "in" / "*", "--output", tmp_path / "out"]
    command += ["--workers", "1:64"]
    with (tmp_path / "errors").open("w") as errors:
        job = subprocess.Popen([sys.executable, "-m", "mt", *map(str, command), "--cluster", "ray"], stderr=errors)
    try:
        killed, pools = set[int](), list[int]()
        while len(killed) < KILLS or max(pools) < 2:
            wait_for(job, lambda: set(workers(cluster)) - killed)
            pools.append(len(workers(cluster, doing=b"")))
            for worker in set(workers(cluster)) - killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
        partial = tmp_path / "out" / ".a.txt.partial"
        wait_for(job, lambda: partial.exists() and partial.stat().st_size)
        cluster.remove_node(min(cluster.worker_nodes, key=id), allow_graceful=False)
        assert job.wait(PATIENCE + LINES / 20) == 2
        assert pools[0] == 1
        wait_until(lambda: not workers(cluster, doing=b""))
    finally:
        job.kill()
    assert (tmp_path / "errors").read_text().splitlines()[-1] == (
        f"mt: {bad}:401: not UTF-8 text; convert the file, with iconv for instance, or give --errors replace"
    )
    outputs = sorted(tmp_path.glob("out/*"))
    assert [path.name for path in outputs if path.suffix != ".json"] == ["a.txt", "b.jsonl", "c.parquet"]
    before = [path.stat().st_mtime_ns for path in outputs]
    write_lines(bad, lines[:400])
    again = mt(*command, "--cluster", cluster.address)
    assert again.returncode == 0, again.stderr
    assert "3 files of 4 translated before" in again.stderr
    assert [path.stat().st_mtime_ns for path in outputs] == before
    (tmp_path / "one").mkdir()
    inputs = [given for path in sorted(tmp_path.glob("in/*")) for given in ("--input", path)]
    assert mt("translate", *search, *inputs, "--output", tmp_path / "one").returncode == 0
    for path in sorted(tmp_path.glob("in/*")):
        assert (tmp_path / "out" / path.name).read_bytes() == (tmp_path / "one" / path.name).read_bytes(), path.name


def test_a_folder_holds_the_outputs_of_one_kind_of_job(environment: None, toy_run: Path, tmp_path: Path) -> None:
    """And what is finished needs no cluster: here there is none."""
    source, output = write_lines(tmp_path / "in.txt", ["a man"]), tmp_path / "out" / "in.txt"

    def run(**decode: object) -> None:
        sources = plan_cluster(Job(), [str(source)], [str(output.parent)])
        opening = Opening((toy_run,), "cpu", None, decode)
        translate_on_cluster(cluster_of("x://y", None, None), sources, Job(), opening, quiet=True)

    write_lines(output, ["somebody's"])
    for _ in range(2):
        with pytest.raises(UsageError, match=r"out/in\.txt: is there, but no job with --cluster made it"):
            run()
    output.unlink()
    with pytest.raises(UsageError, match=r"^--cluster x://y: "):
        run()
    write_lines(output, ["ein Mann"])
    run()
    with pytest.raises(UsageError, match=r"made with other settings \(beam differ\)"):
        run(beam=3)


def test_settings_of_a_job_without_outputs_bind_nobody(environment: None, toy_run: Path, tmp_path: Path) -> None:
    """Nor is Ray asked, which would try for a quarter of an hour, where nothing answers."""
    source, address = write_lines(tmp_path / "in.txt", ["a man"]), f"127.0.0.1:{free_port()}"
    sources = plan_cluster(Job(), [str(source)], [str(tmp_path / "out")])
    for beam, prefix in ((1, ""), (2, ""), (2, "ray://")):
        opening = Opening((toy_run,), "cpu", None, {"beam": beam})
        with pytest.raises(
            UsageError, match=rf"^--cluster {prefix}{address}: nothing answers there .*refused.*; give "
        ):
            translate_on_cluster(Cluster(prefix + address), sources, Job(), opening, quiet=True)


def test_sigterm_while_ray_starts_is_said(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*args: object, **named: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("ray.init", init)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM; the same command goes on") as error:
        _connect("ray")
    assert error.value.exit_status == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_example_of_machines_in_a_cloud_is_one_that_ray_reads() -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    example = yaml.safe_load((Path(__file__).parents[2] / "configs" / "ray" / "aws.yaml").read_text())
    jsonschema.validate(example, schema)
    assert example["head_node_type"] in example["available_node_types"]
