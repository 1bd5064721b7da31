"""Preparing in shards: the same bytes with any number of processes and interruptions, and no shard made twice."""

import json
import math
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby, islice
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers import children_of, fork, statuses, wait_until

from mt.config import BatchConfig, Config, ModelConfig, Stage, TrainConfig
from mt.console import Advance, Console
from mt.data import shards
from mt.data.batches import Cursor
from mt.data.epochs import plan_window
from mt.data.feed import updates_from
from mt.data.finished import finish
from mt.data.inspect_corpus import inspect
from mt.data.prepare import prepare
from mt.data.prepared import Prepared, open_prepared
from mt.data.processes import WorkerLostError, Workers
from mt.data.source_files import SourceFile
from mt.data.store import FetchError
from mt.data_config import CleanConfig, DataConfig
from mt.errors import DataError, DiskError
from mt.run_files import METRICS, read_metrics
from mt.train.loop import train

SHARDS = 7  # of the text below


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.data.shards.SHARD", 40)
    for module in ("pairs", "shards"):
        monkeypatch.setattr(f"mt.data.{module}.BLOCK", 10)


@pytest.fixture
def text(toy_text: Path, tmp_path: Path) -> Path:
    """Three sources: one of them weighted, with duplicates and pairs that are dropped for other reasons."""
    folder = tmp_path / "text"
    shutil.copytree(toy_text, folder)
    english, german = (
        toy_text.joinpath(f"train.{language}").read_text("utf-8").splitlines() for language in ("en", "de")
    )
    for language, lines, others in (("en", english, ["", "long " * 90]), ("de", german, ["leer", "lang " * 90])):
        folder.joinpath(f"more.{language}").write_text("\n".join([*lines[20:60], *others, *lines[:3]]) + "\n", "utf-8")
        new = [f"{line} {number}" for number, line in enumerate(lines)]
        folder.joinpath(f"new.{language}").write_text("\n".join(new) + "\n", "utf-8")
    return folder


@pytest.fixture
def config(text: Path, tmp_path: Path) -> Config:
    train = [str(text / "train"), str(text / "more"), {"prefix": str(text / "new"), "weight": 1.5}]
    data = {"dir": tmp_path / "data", "train": train, "valid": str(text / "valid"), "vocab_size": 330, "processes": 1}
    return Config(data=DataConfig.model_validate({**data, "clean": CleanConfig(max_pieces=60)}))


def changed(config: Config, **data: Any) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def scratch(config: Config) -> Path:
    return config.data.dir.with_name(".data.new") / "scratch"


def pairs_of(prepared: Prepared) -> list[tuple[list[int], list[int], tuple[int, int]]]:
    sides = ([ids.tolist() for ids in side] for side in (prepared.train.source, prepared.train.target))
    return list(zip(*sides, prepared.origins[:].tolist(), strict=True))


def test_shards_hold_what_one_corpus_would(
    config: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = prepare(config, quiet)
    assert len(many.manifest["shards"]) == SHARDS
    assert sorted(path.name for path in (config.data.dir / "train" / "00002").iterdir()) == [
        f"{name}.npy" for name in ("origins", "source.ids", "source.lengths", "target.ids", "target.lengths")
    ]
    monkeypatch.setattr("mt.data.shards.SHARD", 10**6)
    one = prepare(changed(config, dir=tmp_path / "one"), quiet)
    assert "shards" not in one.manifest
    assert many.tokenizers.fingerprint == one.tokenizers.fingerprint
    assert pairs_of(many) == pairs_of(one)
    assert many.train.lengths().tolist() == one.train.lengths().tolist()
    for key in ("dropped", "train", "valid", "sources"):
        assert many.manifest[key] == one.manifest[key]
    assert many.manifest["dropped"] == {"duplicate": 43, "empty side": 1, "too long": 1}
    assert contents(config.data.dir)["dropped.tsv"] == contents(tmp_path / "one")["dropped.tsv"]
    many.verify()


def test_processes_change_no_byte_and_end_with_the_work(config: Config, tmp_path: Path, quiet: Console) -> None:
    prepare(config, quiet)
    prepare(changed(config, dir=tmp_path / "other", processes=2), quiet)
    assert contents(tmp_path / "other") == contents(config.data.dir)
    assert [pid for pid in children_of(os.getpid()) if "_serve" in Path(f"/proc/{pid}/cmdline").read_text()] == []


def killed_after(config: Config, calls: int) -> int:
    """Prepare in a process of its own, which is killed when it is about to finish so many shards."""
    left = calls

    def deadly(*args: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return finish(*args, **named)

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "finish", deadly)
            prepare(config, Console(quiet=True))

    return statuses([fork(work)])[0]


@pytest.mark.parametrize("calls", [0, 3, SHARDS, 10])
def test_a_killed_process_is_gone_on_with(config: Config, tmp_path: Path, quiet: Console, calls: int) -> None:
    prepare(changed(config, dir=tmp_path / "undisturbed"), quiet)
    assert killed_after(config, calls) == -signal.SIGKILL
    made = {path: path.stat().st_mtime_ns for path in config.data.dir.parent.glob(".data.new/**/*.npy")}
    kept = {path for path in made if not any(part.endswith(".part") for part in path.parts)}
    finished: list[Path] = []
    with watched(finished):
        prepare(config, quiet)
    assert len(finished) == 2 * SHARDS - calls
    assert not {path.parent for path in kept} & set(finished)
    assert contents(config.data.dir) == contents(tmp_path / "undisturbed")
    assert not scratch(config).parent.exists()


@contextmanager
def watched(finished: list[Path]) -> Iterator[None]:
    """Remember the folder of each shard that is made."""

    def remember(folder: Path, *args: Any, **named: Any) -> Any:
        finished.append(folder)
        return finish(folder, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "finish", remember)
        yield


@pytest.mark.parametrize("name", ["text/00001/text", "text/00004/hashes.npy", "../train/00002/target.ids.npy"])
def test_a_damaged_shard_alone_is_made_again(config: Config, tmp_path: Path, quiet: Console, name: str) -> None:
    prepare(changed(config, dir=tmp_path / "undisturbed"), quiet)
    assert killed_after(config, 2 * SHARDS - 2) == -signal.SIGKILL
    path = scratch(config) / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    finished: list[Path] = []
    with watched(finished):
        prepare(config, quiet)
    assert [folder.resolve() for folder in finished if folder.resolve() == path.parent.resolve()]
    assert len(finished) == 1 + 2
    assert contents(config.data.dir) == contents(tmp_path / "undisturbed")


def test_what_is_damaged_beside_the_shards_is_made_again(config: Config, tmp_path: Path, quiet: Console) -> None:
    """A shard's record, the marks of duplicates, the pieces: all are known by their hashes."""
    prepare(changed(config, dir=tmp_path / "undisturbed"), quiet)
    assert killed_after(config, 2 * SHARDS - 2) == -signal.SIGKILL
    for name in ("text/00001.json", "ids/00002.json"):
        record = scratch(config) / name
        record.write_text(re.sub(r'"rows": (\d+)', r'"rows": 1\1', record.read_text()))
    for path in (scratch(config) / "repeated" / "00001.npy", scratch(config).parent / "tokenizer.model"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    finished: list[Path] = []
    with watched(finished):
        prepare(config, quiet)
    assert [folder.name for folder in finished] == ["00001", "00002", "00005", "00006"]
    assert contents(config.data.dir) == contents(tmp_path / "undisturbed")


def test_going_on_reads_no_source_whose_shards_are_there(config: Config, text: Path) -> None:
    """From any shard on the blocks are those of the whole text, without the sources before."""
    config = with_sources(config, [text / "train", text / "more", text / "new"], weights=[1.1, 1, 0.5])
    blocks = list(shards.numbered_pairs(config, shards.Beginning()))
    records = [
        {"counts": [(entry, [sum(len(block.pairs.source) for block in of), 0, 0]) for entry, of in by_entry(inside)]}
        for _, inside in groupby(blocks, operator.attrgetter("shard"))
    ]
    assert len(records) > 4
    for done in range(len(records) + 1):
        start = shards.place_after(records[:done], config)
        expected = [block for block in blocks if block.number >= start.entry]
        assert {block.shard for block in blocks} - {block.shard for block in expected} <= set(range(done))
        assert list(shards.numbered_pairs(config, start)) == expected
        for path in text.glob("train.*") if start.entry else ():
            path.unlink()
    assert start.entry == 2


def with_sources(config: Config, prefixes: list[Path], weights: list[float]) -> Config:
    entries = [{"prefix": str(prefix), "weight": weight} for prefix, weight in zip(prefixes, weights, strict=True)]
    return changed(config, train=DataConfig.model_validate({"train": entries, "valid": "v"}).train)


def by_entry(blocks: Iterable[shards.NumberedPairs]) -> list[tuple[int, list[shards.NumberedPairs]]]:
    return [(entry, list(of_entry)) for entry, of_entry in groupby(blocks, operator.attrgetter("number"))]


def test_a_file_of_the_same_size_and_time_is_not_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.en"
    path.write_text("one\n")
    before = SourceFile.now(str(path), {})
    path.write_text("two\n")
    after = SourceFile.now(str(path), {before.path: before})
    assert after.sha256 != before.sha256
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    assert SourceFile.now(str(path), {before.path: before}) == before


def test_other_settings_or_text_begin_anew(config: Config, text: Path, quiet: Console) -> None:
    for change in ("settings", "text"):
        assert killed_after(config, 8) == -signal.SIGKILL
        if change == "text":
            text.joinpath("more.en").write_text(text.joinpath("more.en").read_text("utf-8").replace("garden", "house"))
        config = changed(config, vocab_size=320) if change == "settings" else config
        finished: list[Path] = []
        with watched(finished):
            prepare(config, quiet)
        assert len(finished) == 2 * SHARDS
        shutil.rmtree(config.data.dir)


class Stopping(Console):
    """Raises an error when encoding begins; remembers what was said."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(quiet=True)
        self.error, self.heard = error, list[str]()

    def say(self, text: str) -> None:
        self.heard.append(text)

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "line") -> Iterator[Advance]:
        if description == "encoding":
            raise self.error
        yield lambda count, share=0.0: None


def test_what_is_done_is_kept_on_ctrl_c_and_on_a_full_disk(config: Config, quiet: Console) -> None:
    full = OSError(28, "No space left on device")
    for error, seen in ((KeyboardInterrupt(), KeyboardInterrupt), (full, DiskError)):
        console = Stopping(error)
        with pytest.raises(seen):
            prepare(config, console)
        assert console.heard[-1].endswith(".data.new: what is done is kept here; the same command goes on with it")
        assert len(list(scratch(config).glob("text/*.json"))) == SHARDS
    finished: list[Path] = []
    with watched(finished):
        prepare(config, quiet)
    assert len(finished) == SHARDS


def test_bad_text_leaves_nothing(config: Config, text: Path, quiet: Console) -> None:
    with open(text / "new.en", "a", encoding="utf-8") as file:
        file.write("one more\n")
    with pytest.raises(DataError, match="first line without a partner"):
        prepare(config, quiet)
    assert not scratch(config).parent.exists()


# --- Training ------------------------------------------------------------------------------------------------------


def test_shards_in_one_window_train_as_one_corpus_does(
    config: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same passes, with BPE-dropout, noise and weights, although shards are opened one by one."""
    monkeypatch.setattr("mt.data.epochs.SHARDS", SHARDS)
    monkeypatch.setattr("mt.data.corpus.HELD", 2)
    many = prepare(config, quiet)
    monkeypatch.setattr("mt.data.shards.SHARD", 10**6)
    one = prepare(changed(config, dir=tmp_path / "one"), quiet)
    settings = Config(
        data=changed(
            config, train=tuple(source.model_copy(update={"name": "all"}) for source in config.data.train)
        ).data,
        batch=BatchConfig(tokens=400, micro_tokens=200),
        train=TrainConfig(bpe_dropout=0.2, noise=0.3, stages=(Stage(update=9, weights={"all": 2.5}),)),
    )
    found = [
        [
            (place, [(index, *map(list, map(np.ndarray.tolist, pairs.padded()))) for index, pairs in batches.passes])
            for batches, place in islice(updates_from(0, Cursor(), prepared, settings), 60)
        ]
        for prepared in (one, many)
    ]
    assert found[0] == found[1]
    assert found[0][-1][0].epoch >= 1


def test_a_run_on_shards_goes_on_from_any_window(
    config: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what a run looks at beside its batches: rehearsal, inspection, word model, report."""
    monkeypatch.setattr("mt.data.epochs.SHARDS", 2)
    settings = Config(
        data=config.data,
        model=ModelConfig(d_model=16, heads=2, d_ff=32, encoder_layers=1, decoder_layers=1),
        batch=BatchConfig(tokens=400, micro_tokens=400),
        train=TrainConfig(dir=tmp_path / "run", updates=24, checkpoint_every=8, average=1, device="cpu"),
    )
    train(settings, quiet)
    whole = (tmp_path / "run" / "checkpoints" / "step-00000024" / "model.safetensors").read_bytes()
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000016" / "state.json").read_text())
    assert state["cursor"]["window"] > 0
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000024")
    train(settings, quiet)
    assert (tmp_path / "run" / "checkpoints" / "step-00000024" / "model.safetensors").read_bytes() == whole
    inspection = inspect(settings, quiet)
    assert inspection.rows == len(open_prepared(config.data.dir).train)
    assert sum(inspection.source.histogram) == inspection.rows


def test_a_sentence_too_long_for_a_batch_is_found_in_its_shard(config: Config, quiet: Console) -> None:
    prepared = prepare(config, quiet)
    longest = int(prepared.train.lengths().max())
    row = int(prepared.train.lengths().max(axis=1).argmax())
    small = config.model_copy(update={"batch": BatchConfig(tokens=longest - 1)})
    with pytest.raises(DataError) as error:
        prepare(small, quiet)
    assert str(error.value).startswith(f"{prepared.origin([row])[0]} has {longest} pieces on one side, but a batch")


# --- Shards from a store -------------------------------------------------------------------------------------------


class Store(SimpleHTTPRequestHandler):
    """`asked`: the paths that were fetched."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def stored(config: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A config whose data, in windows of two shards, lie on a web server."""
    monkeypatch.setattr("mt.data.epochs.SHARDS", 2)
    Store.asked.clear()
    prepare(config, quiet)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Store, directory=str(config.data.dir))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        settings = config.model_copy(update={"batch": BatchConfig(tokens=400, micro_tokens=400)})
        yield changed(settings, dir=tmp_path / "fast", store=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def fetched(config: Config) -> set[str]:
    return {path.name for path in config.data.dir.glob("train/[0-9]*")}


def windows_of(prepared: Prepared, config: Config, epoch: int = 0) -> list[set[str]]:
    """The shards of each window."""
    ends = np.cumsum(prepared.shards)
    plans = [plan_window(prepared, config, epoch, window, (1, 1, 1.5)) for window in range(math.ceil(SHARDS / 2))]
    return [{f"{shard:05}" for rows in plan for shard in np.searchsorted(ends, rows, "right")} for plan in plans]


def batches_from(prepared: Prepared, config: Config, cursor: Cursor) -> Iterator[Any]:
    for batches, place in updates_from(0, cursor, prepared, config):
        yield place, [(index, *map(np.ndarray.tolist, pairs.padded())) for index, pairs in batches.passes]


def test_shards_are_fetched_once_as_an_epoch_comes_to_them(config: Config, stored: Config, quiet: Console) -> None:
    """The batches are those of the folder that was fetched, which is the same in the end."""
    here, there = open_prepared(config.data.dir), prepare(stored, quiet)
    assert fetched(stored) == set()
    updates, epoch = batches_from(there, stored, Cursor()), 0
    for number, expected in enumerate(islice(batches_from(here, stored, Cursor()), 100)):
        assert next(updates) == expected
        assert number or fetched(stored) == windows_of(here, stored)[0]
        epoch = expected[0].epoch
    assert epoch >= 1
    beside = {"store.txt": str(stored.data.store).encode(), ".train.lock": b""}
    assert contents(stored.data.dir) == {**contents(config.data.dir), **beside}
    assert len(Store.asked) == len(set(Store.asked)) == len(contents(config.data.dir))
    there.verify()


def test_a_run_that_goes_on_within_an_epoch_fetches_its_window(config: Config, stored: Config, quiet: Console) -> None:
    windows = windows_of(open_prepared(config.data.dir), stored)
    prepared = prepare(stored, quiet)
    next(updates_from(0, Cursor(0, 0, 2), prepared, stored))
    assert fetched(stored) == windows[2]
    prepared.verify()


def read_all(prepared: Prepared) -> None:
    assert len(prepared.train.lengths()) == len(prepared.train)


def test_processes_that_need_a_shard_at_once_fetch_it_once(stored: Config, quiet: Console) -> None:
    prepared = prepare(stored, quiet)
    assert statuses([fork(lambda: read_all(prepared)) for _ in range(3)]) == [0, 0, 0]
    assert len(Store.asked) == len(set(Store.asked))
    assert len(fetched(stored)) == SHARDS


def test_a_damaged_shard_is_named_and_a_fetch_goes_on_with_its_other_files(
    config: Config, stored: Config, quiet: Console
) -> None:
    prepared = prepare(stored, quiet)
    lengths = config.data.dir / "train" / "00003" / "target.lengths.npy"
    whole = lengths.read_bytes()
    lengths.write_bytes(whole[:-1])
    with pytest.raises(FetchError, match=r"/train/00003/target\.lengths\.npy: not what mt prepare wrote"):
        prepared.train.lengths()
    assert "00003" not in fetched(stored)
    lengths.write_bytes(whole)
    here = stored.data.dir / "train" / "00004"
    partial = here.with_name(".00004.partial")
    partial.touch()
    with pytest.raises(FetchError, match=r"/train/\.00004\.partial/.*: cannot be written"):
        prepared.train.lengths()
    partial.unlink()
    prepared.train.lengths()
    assert Store.asked.count("/train/00003/target.lengths.npy") == 2
    assert len(Store.asked) == len(set(Store.asked)) + 1
    (here / "target.ids.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"/00004/target\.ids\.npy is damaged: .*; delete .*/train/00004, and training"):
        prepared.verify()


def test_a_fetch_that_failed_ahead_is_tried_again_when_its_window_comes(
    config: Config, stored: Config, tmp_path: Path, quiet: Console
) -> None:
    here, there = open_prepared(config.data.dir), prepare(stored, quiet)
    lost = config.data.dir / "train" / min(windows_of(here, stored)[1])
    lost.rename(tmp_path / "lost")
    updates = batches_from(there, stored, Cursor())
    place, asked = Cursor(), f"/train/{lost.name}/origins.npy"
    while place.window == 0:
        place, _ = next(updates)
    for _ in range(1_000):
        if asked not in Store.asked:
            time.sleep(0.01)
    (tmp_path / "lost").rename(lost)
    assert next(updates) == next(batches_from(here, stored, place))
    assert Store.asked.count(asked) == 2


def test_a_run_whose_store_is_lost_saves_where_it_is_and_goes_on(
    config: Config, stored: Config, tmp_path: Path, quiet: Console
) -> None:
    model = ModelConfig(d_model=16, heads=2, d_ff=32, encoder_layers=1, decoder_layers=1)
    limits = TrainConfig(dir=tmp_path / "run", updates=20, checkpoint_every=20, average=1, device="cpu")
    settings = stored.model_copy(update={"model": model, "train": limits})
    prepared = open_prepared(config.data.dir)
    *_, last = windows_of(prepared, stored)
    lost = config.data.dir / "train" / min(last)
    lost.rename(tmp_path / "lost")
    said = rf"/train/{lost.name}/.*: no such file; saved at update \d+, the same command goes on"
    with pytest.raises(FetchError, match=said):
        train(settings, quiet)
    (tmp_path / "lost").rename(lost)
    train(settings, quiet)
    assert [record["update"] for record in read_metrics(limits.dir / METRICS) if "loss" in record] == [*range(1, 21)]


# --- The formats' limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [40, 10**6])
def test_a_sentence_longer_than_the_format_holds_is_named(
    config: Config, text: Path, quiet: Console, shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.data.shards.SHARD", shard)
    with open(text / "new.en", "a") as english, open(text / "new.de", "a") as german:
        english.write("q " * 70_000 + "\n")
        german.write("y " * 70_000 + "\n")
    rules = CleanConfig(max_pieces=200_000, max_ratio=0)
    with pytest.raises(DataError, match=r"new:101 has \d+,\d+ pieces on one side, more than the 65,535"):
        prepare(changed(config, clean=rules), quiet)


def test_more_sources_than_origins_can_name_are_refused(
    config: Config, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.data.prepare.MOST_SOURCES", 2)
    with pytest.raises(DataError, match=r"^data\.train names 3 sources, more than 2: join some of them"):
        prepare(config, quiet)
    monkeypatch.setattr("mt.data.prepare.MOST_SOURCES", 3)
    monkeypatch.setattr("mt.data.shards.MOST_LINES", 99)
    with pytest.raises(DataError, match=r"train: more than 99 lines; cut it into several sources"):
        prepare(config, quiet)


# --- Processes -----------------------------------------------------------------------------------------------------


def test_results_come_in_order_and_errors_as_they_were_raised() -> None:
    with Workers(2) as workers:
        assert list(workers.map(operator.neg, range(-20, 0), alone=3)) == list(range(20, 0, -1))
        with pytest.raises(ValueError, match="math domain error"):
            list(workers.map(math.sqrt, [1, -1, 3]))


def test_a_worker_that_is_killed_is_said() -> None:
    with Workers(2) as workers, pytest.raises(WorkerLostError, match="ended from outside"):
        list(workers.map(os._exit, [1, 2, 3]))


def test_workers_do_not_outlive_the_process_that_is_killed() -> None:
    code = (
        "import os; from mt.data.processes import Workers\n"
        "with Workers(2) as workers:\n"
        "    list(workers.map(abs, [1, 2]))\n"
        "    print(*(process.pid for process, _ in workers._started), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    pids = killed.stdout.split()
    assert len(pids) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_what_is_prepared_in_shards_opens_again(config: Config, quiet: Console) -> None:
    before = pairs_of(prepare(config, quiet))
    assert pairs_of(open_prepared(config.data.dir)) == before
    path = config.data.dir / "train" / "00001" / "source.lengths.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DataError, match=r"00001/source\.lengths\.npy is damaged"):
        open_prepared(config.data.dir).verify()
