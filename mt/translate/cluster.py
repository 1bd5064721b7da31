"""`mt translate --cluster`: many files translated by the workers of a Ray cluster, which may come, go and die."""

import fcntl
import io
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import IO, Any

from mt import __version__
from mt.console import Console, counted
from mt.data.lines import opened
from mt.device import DECODING_SPINS, share_cores
from mt.errors import DataError, Interrupted, MtError, UsageError
from mt.files import writing
from mt.remote import is_url, stamp, upload
from mt.translate.blocks import Block, Translated, read_blocks, write_outputs
from mt.translate.plan import Cluster, Job, Source, Sources, inside

READERS = 8  # files that are read at the same time
RECORD = ".translate.json"  # in the folder of outputs: the settings that they are made with
_ADVICE = (
    "give HOST:6379, or ray://HOST:10001 from elsewhere, as `ray start --head` names them; "
    "for a cluster guarded by a token set RAY_AUTH_MODE=token"
)


class ClusterError(MtError):
    """The cluster is gone, or cannot do what is asked."""


@dataclass(frozen=True)
class Opening:
    """How a model is opened, and what was found where the job began: the fingerprint of its weights, and which mt."""

    checkpoints: tuple[Path, ...]
    device: str
    average: int | None
    decode: Mapping[str, object]
    weights: str = ""
    version: str = __version__


def translate_on_cluster(cluster: Cluster, sources: Sources, job: Job, opening: Opening, quiet: bool = False) -> None:
    """Translate each source into its output in the folder, in order; outputs that are there already stay.

    Through Ray's client, at ray:// addresses, a machine of the cluster does all of this.
    Raises UsageError when Ray is not installed, the cluster cannot be reached or the outputs were made otherwise,
    DataError naming the file and row that cannot be read, Interrupted after a Ctrl-C, ClusterError when the cluster is
    lost, and what Translator raises.
    """
    ray, console = _import_ray(), Console(quiet)
    opening = replace(opening, checkpoints=tuple(path.absolute() for path in opening.checkpoints))
    if cluster.address.startswith("ray://"):
        there = replace(cluster, address="ray")
        with _connected(cluster.address):
            error = ray.get(ray.remote(num_cpus=0)(_on_a_machine).remote(there, sources, job, opening, quiet))
        if error:
            raise {2: UsageError}.get(error[0], ClusterError)(error[1])
        return
    opening, language, settings = _checked(opening, job, console)
    with _claimed(sources, settings) as done:
        if done:
            console.say(f"{counted(len(done), 'file')} of {len(sources.files):,} translated before")
        if left := [source for source in sources.files if source not in done]:
            with _connected(cluster.address):
                cluster = replace(cluster, resources=_resources(cluster, opening.device, console))
                with closing(_translated(cluster, left, job, opening, language)) as blocks:
                    write_outputs(left, blocks, console)


def _on_a_machine(
    cluster: Cluster, sources: Sources, job: Job, opening: Opening, quiet: bool
) -> tuple[int, str] | None:
    """Do it all in a task of the cluster itself; gives exit status and message of an error that a person can act on."""
    try:
        translate_on_cluster(cluster, sources, job, opening, quiet)
    except MtError as error:
        return error.exit_status, str(error)
    return None


def _checked(opening: Opening, job: Job, console: Console) -> tuple[Opening, str, dict[str, object]]:
    """The opening with checkpoints found and fingerprinted, the source language, and all that decides the outputs.

    The model is opened here once, so that a mistake is found before any work.
    """
    from mt.run_folder import choose_checkpoint
    from mt.translate.chunks import check_model
    from mt.translate.translator import Translator

    paths = opening.checkpoints
    if opening.average is None:  # a run that is training may have a better checkpoint when the next worker starts
        paths = tuple(choose_checkpoint(path).path for path in paths)
    translator = Translator(*paths, device="cpu", average=opening.average, decode=opening.decode)
    console.say(f"model: {translator.name}")
    if warning := check_model(translator, job):
        console.warn(warning)
    asked = {
        name: getattr(job, name) for name in ("format", "field", "tag", "n_best", "scores", "alignments", "errors")
    }
    settings = {**translator.settings, **asked, "device": opening.device}
    del settings["batch_tokens"]  # each device has its own
    decode = dict(opening.decode)
    if translator.decode.shortlist not in ("no", "yes"):
        decode["shortlist"] = str(Path(translator.decode.shortlist).absolute())
    found = replace(opening, checkpoints=paths, decode=decode, weights=translator.fingerprint)
    return found, translator.source_language, settings


# --- The folder of outputs -----------------------------------------------------------------------------------------


def _exists(name: str) -> bool:
    return stamp(name) is not None if is_url(name) else Path(name).exists()


@contextmanager
def _claimed(sources: Sources, settings: Mapping[str, object]) -> Iterator[list[Source]]:
    """Be the only job that writes to a folder, where it is on a disk; yields the sources that have their outputs.

    Raises UsageError when another job writes there, or something else than such a job with these settings wrote there.
    """
    record, now = inside(sources.folder, RECORD), json.dumps(dict(settings), indent=1, sort_keys=True)
    if is_url(sources.folder):
        before = ""
        if _exists(record):
            with opened(record) as remote:
                before = remote.read().decode()
        done = _done(sources, record, before, now)
        if not before:
            upload(now.encode(), record)
        yield done
        return
    with writing(Path(record)):
        Path(sources.folder).mkdir(exist_ok=True)
    with _locked(Path(record)) as file:
        file.seek(0)
        is_begun = any(name != RECORD and not name.endswith(".partial") for name in os.listdir(sources.folder))
        before = file.read() if is_begun else ""
        done = _done(sources, record, before, now)
        if not before:
            with writing(Path(record)):
                file.truncate(0)
                file.write(now)
                file.flush()
        yield done


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    with writing(path):
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{path.parent}: another job is writing there") from None
        except OSError:
            pass  # a file system without locks
        yield file


def _done(sources: Sources, record: str, before: str, now: str) -> list[Source]:
    """The sources that have their outputs; before: what the record says, empty where there is none."""
    done = [source for source in sources.files if _exists(source.target)]
    if done and not before:
        raise UsageError(f"{done[0].target}: is there, but no job with --cluster made it; name another --output")
    try:
        old, new = json.loads(before or now), json.loads(now)
    except ValueError:
        raise UsageError(f"{record}: is damaged; name another --output, or remove the folder") from None
    if changed := sorted(key for key in {**old, **new} if old.get(key) != new.get(key)):
        raise UsageError(
            f"{record}: outputs beside it were made with other settings ({', '.join(changed)} differ): "
            "give those again to go on, or name another --output"
        )
    return done


# --- Ray -----------------------------------------------------------------------------------------------------------


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a Ray that is started here
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of this process, not of a cluster that is there
    try:
        import ray.data
    except ImportError:
        raise UsageError("--cluster needs Ray: pip install 'mt[ray]'") from None
    return ray


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection to the cluster; without one a Ray of its own on this machine, which ends with the job."""
    ray = _import_ray()
    if ray.is_initialized():  # in a task of the cluster
        yield
        return
    try:
        with redirect_stdout(_FirstLines()):
            _connect(address)
            yield
    except (ConnectionError, ray.exceptions.RaySystemError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"lost the cluster ({reason}); the same command goes on with the files left") from None
    except (ImportError, ray.exceptions.ActorDiedError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClusterError(
            f"a machine of the cluster cannot run mt ({reason}); each needs the same Python, Ray and mt"
        ) from None
    finally:
        ray.shutdown()


class _FirstLines(io.StringIO):
    """Stands for stdout, where Ray tells of workers that are lost: the first line of each message goes to stderr."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text.split("\n")[0] or text)


def _connect(address: str) -> None:
    import ray

    if place := re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address):
        try:  # at once, as Ray tries for a quarter of an hour
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"--cluster {address}: nothing answers there ({error}); {_ADVICE}") from None
    on_sigterm, stderr = signal.getsignal(signal.SIGTERM), os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)  # Ray says each of its trials there, past Python
        ray.init(
            None if address == "ray" else address,
            include_dashboard=False,
            log_to_driver=address.startswith("ray://"),  # what the job there has to say
            logging_level=logging.ERROR,
        )
    except SystemExit:  # by the handler that Ray puts there, which says nothing
        raise Interrupted("stopped by SIGTERM; the same command goes on") from None
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError, ImportError) as error:
        raise UsageError(f"--cluster {address}: {shorten(str(error), 300)}; {_ADVICE}") from None
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        signal.signal(signal.SIGTERM, on_sigterm)


def _translated(
    cluster: Cluster, sources: Sequence[Source], job: Job, opening: Opening, language: str
) -> Generator[Translated]:
    """What the blocks of the files become, in order."""
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, from_items

    resources = dict(cluster.resources)
    has_gpu = resources.get("gpu", 0) > 0
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # byte, so that Ray hands on each block as it comes
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    files = from_items([{"file": number} for number in range(len(sources))], override_num_blocks=len(sources))
    blocks = files.map_batches(
        _read,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"sources": sources, "job": job, "language": language, "on_gpu": has_gpu},
        compute=TaskPoolStrategy(min(READERS, len(sources))),
        num_cpus=0,  # else workers that take all cores would wait for blocks for ever
    )
    translated = blocks.map_batches(
        _Worker,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_kwargs={"sources": sources, "job": job, "opening": opening, "on_gpu": has_gpu},
        compute=ActorPoolStrategy(min_size=cluster.fewest, max_size=cluster.most),
        num_cpus=resources.pop("cpu", 0.0 if has_gpu else 1.0),
        num_gpus=resources.pop("gpu", 0.0),
        memory=resources.pop("memory", None),
        resources=resources or None,
    )
    for table in translated.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in table.to_pylist():
            yield Translated(**row)


def _resources(cluster: Cluster, device: str, console: Console) -> dict[str, float]:
    """What each worker takes; a cluster that starts machines may get some that hold it, so that to wait is no error."""
    import ray

    has_gpu = device in ("auto", "cuda") and ray.cluster_resources().get("GPU")
    taken = dict(cluster.resources) or {"gpu" if has_gpu else "cpu": 1.0}
    if device == "cuda" and not taken.get("gpu"):
        raise UsageError(
            "--device cuda: the cluster shows no GPU; give --resources gpu=1 if it starts machines with some"
        )
    names = {"cpu": "CPU", "gpu": "GPU"}
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    if not any(all(machine.get(names.get(key, key), 0) >= taken[key] for key in taken) for machine in machines):
        asked = ",".join(f"{key}={amount:g}" for key, amount in taken.items())
        console.warn(f"--resources {asked}: no machine of the cluster has as much; the job waits until one comes")
    return taken


def _read(batch: Any, sources: Sequence[Source], job: Job, language: str, on_gpu: bool) -> Iterator[Any]:
    """The blocks of a file, each as the one row of a table; runs on any machine."""
    from mt.translate.reading import CHUNK_LINES, GPU_CHUNK_LINES

    (file,) = batch.column("file").to_pylist()
    name = sources[file].name
    if not is_url(name) and not Path(name).exists():
        yield _row(Block(file, 0, error=f"machine {_machine()}: {name}: no such file"))
        return
    for block in read_blocks(file, sources[file], job, language, GPU_CHUNK_LINES if on_gpu else CHUNK_LINES):
        yield _row(block)


def _machine() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


class _Worker:
    """A model on one of the machines; what goes wrong in opening it is said by the first block."""

    def __init__(self, sources: Sequence[Source], job: Job, opening: Opening, on_gpu: bool) -> None:
        self._sources, self._job, self._error = sources, job, ""
        share_cores(DECODING_SPINS)
        from mt.translate.translator import Translator

        device = opening.device if on_gpu else "cpu"
        try:
            if opening.version != __version__:
                raise DataError(f"has mt {__version__}, but the job began with mt {opening.version}: install the same")
            self._translator = Translator(
                *opening.checkpoints, device=device, average=opening.average, decode=opening.decode
            )
            if self._translator.fingerprint != opening.weights:
                raise DataError(f"{opening.checkpoints[0]}: has other weights here than where the job began")
        except MtError as error:
            self._error = f"machine {_machine()}: {error}"

    def __call__(self, batch: Any) -> Any:
        from mt.translate.worker import translated

        (block,) = (Block(**row) for row in batch.to_pylist())
        if self._error:
            return _row(Translated(block.file, 0, b"", [], self._error))
        return _row(translated(self._translator, self._job, self._sources[block.file], block))


def _row(block: Block | Translated) -> Any:
    import pyarrow

    types = {"data": pyarrow.large_binary(), "notes": pyarrow.list_(pyarrow.string())}
    return pyarrow.table({key: pyarrow.array([value], types.get(key)) for key, value in asdict(block).items()})
