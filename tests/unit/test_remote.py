"""Text at addresses and in many files: the same pairs as from one local file, and each mistake with its sentence."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from helpers import COMPRESSORS

from mt.config_file import load_config
from mt.console import Console
from mt.data.changed import what_changed
from mt.data.epochs import plan_epoch
from mt.data.prepare import prepare
from mt.data.source_files import SourceFile, single_files
from mt.data.sources import read_pairs
from mt.data_config import DataConfig, Input, name_of
from mt.errors import DataError

PAIRS = [(f"house {number}", f"Haus {number}") for number in range(2_000)]
EN, DE = ("".join(f"{pair[side]}\n" for pair in PAIRS) for side in (0, 1))
FILES = {
    "plain.en": EN.encode(),
    "plain.de": DE.encode(),
    "packed.en.gz": COMPRESSORS[".gz"](EN.encode()),
    "packed.de.gz": COMPRESSORS[".gz"](DE.encode()),
    "table.tsv": "".join(f"{source}\t{target}\n" for source, target in PAIRS).encode(),
    "table.jsonl.xz": COMPRESSORS[".xz"]("".join(json.dumps({"en": s, "de": t}) + "\n" for s, t in PAIRS).encode()),
}


def data_of(**settings: Any) -> DataConfig:
    return DataConfig.model_validate({"train": settings, "valid": {"prefix": "nowhere"}})


def pairs_of(**settings: Any) -> list[tuple[str, str]]:
    data = data_of(**settings)
    blocks = [block for part in single_files(data.train[0], data) for block in read_pairs(part, "en", "de", seed=1)]
    return [pair for block in blocks for pair in zip(block.source, block.target, strict=True)]


def write(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    table = pyarrow.table({"en": [source for source, _ in PAIRS], "de": [target for _, target in PAIRS]})
    pyarrow.parquet.write_table(table, folder / "table.parquet")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """The files in fsspec's store in memory."""
    write(tmp_path)
    store = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    yield "memory://bucket"
    store.rm("/", recursive=True)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The files on a web server, which gives no parts of a file."""
    write(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("place", ["memory", "web"])
def test_every_kind_of_file_is_read_at_an_address(place: str, request: pytest.FixtureRequest) -> None:
    at = request.getfixturevalue(place)
    assert pairs_of(prefix=f"{at}/plain") == PAIRS
    assert pairs_of(prefix=f"{at}/packed") == PAIRS
    assert pairs_of(src=f"{at}/plain.en", tgt=f"{at}/packed.de.gz") == PAIRS
    for table in ("table.tsv", "table.jsonl.xz", "table.parquet"):
        assert pairs_of(pairs=f"{at}/{table}") == PAIRS
    assert pairs_of(prefix=f"{at}/p*") == PAIRS + PAIRS
    assert pairs_of(pairs=f"{at}/t*.tsv") == PAIRS


def test_a_file_at_an_address_is_known_by_its_size_and_what_the_store_says_of_it(memory: str, web: str) -> None:
    for at in (memory, web):
        before = SourceFile.now(f"{at}/plain.en", {})
        assert (before.bytes, bool(before.version)) == (len(EN), True)
        assert before.is_same(f"{at}/plain.en")
        assert not before.is_same(f"{at}/table.tsv")
        assert not before.is_same(f"{at}/gone.en")
    fsspec.filesystem("memory").pipe("/bucket/plain.en", EN.upper().encode())
    assert not SourceFile.now(f"{web}/plain.en", {}).is_same(f"{memory}/plain.en")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prefix": "AT/gone"}, r"AT/gone\.en: no such file, nor \.gz"),
        ({"pairs": "AT/gone.tsv"}, r"AT/gone\.tsv: no such file"),
        ({"pairs": "AT/gone*.tsv"}, r"AT/gone\*\.tsv: no file matches"),
        ({"prefix": "AT/gone*"}, r"AT/gone\*\.en: no file matches"),
        (
            {"src": ["AT/plain.en", "AT/packed.en.gz"], "tgt": "AT/p*.de"},
            "src names 2 files and tgt 1: they must be as many",
        ),
        ({"pairs": "AT/plain.en"}, r"plain\.en: pairs come from \.tsv"),
    ],
)
def test_what_is_not_there_is_said_with_its_address(memory: str, web: str, given: dict[str, Any], said: str) -> None:
    for at in (memory, web):
        there = json.loads(json.dumps(given).replace("AT", at))
        with pytest.raises(DataError, match=said.replace("AT", at)) as error:
            pairs_of(**there)
        assert "\n" not in str(error.value)


def test_a_server_that_does_not_answer_and_a_store_without_its_package_are_named(web: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DataError, match=rf"^http://127\.0\.0\.1:{port}/a\.tsv: cannot be read: .*onnect"):
        pairs_of(pairs=f"http://127.0.0.1:{port}/a.tsv")
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(DataError, match=r"^s3://bucket/a\.tsv: .* missing: pip install 'mt\[remote\]'$"):
            pairs_of(pairs="s3://bucket/a.tsv")


def test_a_cut_file_at_an_address_is_refused_by_name(memory: str) -> None:
    fsspec.filesystem("memory").pipe("/bucket/packed.en.gz", FILES["packed.en.gz"][:1000])
    with pytest.raises(DataError, match=r"^memory://bucket/packed\.en\.gz: cannot be read"):
        pairs_of(prefix=f"{memory}/packed")


# --- Globs and lists, of any place --------------------------------------------------------------------------------


def write_sides(folder: Path, name: str, pairs: list[tuple[str, str]]) -> None:
    for side, language in enumerate(("en", "de")):
        (folder / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs), "utf-8")


def test_globs_and_lists_are_single_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c.old"):
        write_sides(tmp_path, name, [(f"{name} one", f"{name} eins")])
    (tmp_path / "d[1].tsv").write_text("d one\td eins\n")
    first, second, old, table = [(f"{name} one", f"{name} eins") for name in ("a", "b", "c.old", "d")]
    at = f"{tmp_path}/"
    assert pairs_of(prefix=f"{at}*") == [first, second, old]
    assert pairs_of(prefix=[f"{at}c*", f"{at}b"]) == [old, second]
    assert pairs_of(src=[f"{at}b.en", f"{at}a.en"], tgt=[f"{at}b.de", f"{at}a.de"]) == [second, first]
    assert pairs_of(src=f"{at}?.en", tgt=f"{at}?.de") == [first, second]
    assert pairs_of(pairs=f"{at}d[1].tsv") == pairs_of(pairs=f"{at}*.tsv") == [table]
    assert name_of(Input(prefix=("a", "b", "c"))) == "a and 2 more"


def test_a_file_of_a_glob_without_its_partner_is_named(tmp_path: Path) -> None:
    write_sides(tmp_path, "a", [("x", "y")])
    (tmp_path / "b.en").write_text("x\n")
    with pytest.raises(DataError, match=r"b\.de: no such file, but the other language's is there"):
        pairs_of(prefix=f"{tmp_path}/*")


def test_prepared_pairs_of_a_glob_know_their_file_tag_and_weight(
    toy_yaml: Path, toy_text: Path, tmp_path: Path, quiet: Console
) -> None:
    """A new file that matches is noticed; weights of stages and tags are those of the entry that names the file."""
    text = [(f"a man runs {place}", f"ein Mann rennt {place}") for place in "abcdefghij"]
    for name, part in (("a", text[:3]), ("b", text[3:])):
        write_sides(tmp_path, name, part)
    many = f"{{prefix: '{tmp_path}/[ab]', weight: 2, name: many, tag: <x>}}"
    config = load_config(
        toy_yaml,
        [
            f"data.train=[{many}, {toy_text}/train]",
            f"data.valid={{prefix: '{tmp_path}/*', tag: <x>}}",
            "train.stages=[{update: 1, weights: {many: 3}}]",
        ],
    )
    prepared = prepare(config, quiet)
    assert prepared.origin(range(0, 20, 2)) == [
        *(f"{tmp_path}/a:{line}" for line in (1, 2, 3)),
        *(f"{tmp_path}/b:{line}" for line in range(1, 8)),
    ]
    assert [source["read"] for source in prepared.manifest["sources"]["valid"]] == [3, 7]
    assert prepared.text("valid")[2] == ["<x>"] * 10
    later, _ = plan_epoch(prepared, config, epoch=1, weights=config.weights(1))
    assert sum(len(rows) for rows in later) == 30 + len(prepared.train) - 20
    assert not what_changed(config)
    write_sides(tmp_path, "c", text[:1])
    assert what_changed(config) == [f"data.valid: the text of {tmp_path}/*"]
    (tmp_path / "a.en").write_text("another\n" * 3)
    assert what_changed(config)[0] == f"data.train: the text of {tmp_path}/[ab]"


def test_a_changed_file_at_an_address_is_prepared_again(
    toy_yaml: Path, toy_text: Path, memory: str, quiet: Console
) -> None:
    config = load_config(toy_yaml, [f"data.train=[{memory}/plain, {toy_text}/train]"])
    assert prepare(config, quiet).origin([1]) == [f"{memory}/plain:2"]
    assert not what_changed(config)
    fsspec.filesystem("memory").pipe("/bucket/plain.en", EN.upper().encode())
    assert what_changed(config) == [f"data.train: the text of {memory}/plain"]
    fsspec.filesystem("memory").rm("/bucket/plain.en")
    assert not what_changed(config)  # text may be gone once it is prepared


# --- Prepared data in a store -------------------------------------------------------------------------------------


@pytest.fixture
def stored(toy_yaml: Path, quiet: Console) -> Iterator[tuple[Path, str]]:
    """A folder of prepared data, and a copy of it in fsspec's store in memory."""
    folder = prepare(load_config(toy_yaml), quiet).dir
    store = fsspec.filesystem("memory")
    store.put(f"{folder}/", "/bucket/data/", recursive=True)
    yield folder, "memory://bucket/data"
    store.rm("/", recursive=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepared_data_are_fetched_once_and_then_needed_no_more(
    stored: tuple[Path, str], toy_yaml: Path, tmp_path: Path, quiet: Console
) -> None:
    """Also from a shared folder; the text is not looked at, but the settings are."""
    folder, store = stored
    for name, place in (("fast", store), ("shared", str(folder))):
        fetched = load_config(toy_yaml, [f"data.dir={tmp_path / name}", f"data.store={place}"])
        prepared = prepare(fetched, quiet)
        assert contents(tmp_path / name) == contents(folder)
        prepared.verify()
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
    offline = load_config(toy_yaml, [f"data.dir={tmp_path / 'fast'}", f"data.store={store}", "data.train=[gone]"])
    with pytest.raises(DataError, match=r"^memory://bucket/data: preparing again, changed: data\.train; put the"):
        prepare(offline, quiet)
    assert len(prepare(load_config(toy_yaml, [f"data.dir={tmp_path / 'fast'}", f"data.store={store}"]), quiet).train)


def test_a_fetch_that_was_stopped_goes_on_and_a_damaged_file_never_has_its_name(
    stored: tuple[Path, str], toy_yaml: Path, tmp_path: Path, quiet: Console
) -> None:
    folder, store = stored
    memory = fsspec.filesystem("memory")
    fast = tmp_path / "fast"
    fetched = load_config(toy_yaml, [f"data.dir={fast}", f"data.store={store}"])
    memory.pipe("/bucket/data/valid/source.txt", b"another text\n")
    with pytest.raises(DataError, match=r"^memory://bucket/data/valid/source\.txt: not what mt prepare wrote"):
        prepare(fetched, quiet)
    assert not fast.exists()
    kept = contents(tmp_path / ".fast.fetched")
    assert "train/source.ids.npy" in kept
    assert "valid/source.txt" not in kept
    memory.rm("/bucket/data/train/source.ids.npy")  # which is not fetched again
    memory.put(str(folder / "valid" / "source.txt"), "/bucket/data/valid/source.txt")
    prepare(fetched, quiet)
    assert contents(fast) == contents(folder)
    memory.pipe("/bucket/data/manifest.json", b"{}")
    with pytest.raises(DataError, match=r"holds other data than memory://bucket/data: remove it"):
        prepare(fetched, quiet)


def test_what_an_earlier_fetch_left_of_other_data_is_removed(
    stored: tuple[Path, str], toy_yaml: Path, tmp_path: Path, quiet: Console
) -> None:
    folder, store = stored
    left = tmp_path / ".fast.fetched"
    left.mkdir()
    for name in ("manifest.json", "tokenizer.target.model", "store.txt"):
        (left / name).write_text("{}")
    prepare(load_config(toy_yaml, [f"data.dir={tmp_path / 'fast'}", f"data.store={store}"]), quiet)
    assert contents(tmp_path / "fast") == contents(folder)


def test_a_store_without_prepared_data_is_named(toy_yaml: Path, memory: str, tmp_path: Path, quiet: Console) -> None:
    config = load_config(toy_yaml, [f"data.dir={tmp_path / 'fast'}", f"data.store={memory}"])
    with pytest.raises(DataError, match=r"^memory://bucket/manifest\.json: no such file; data\.store names a folder"):
        prepare(config, quiet)
    for name in ("manifest.json", "manifest.sha256"):
        fsspec.filesystem("memory").pipe(f"/bucket/{name}", b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"^memory://bucket/manifest\.json is not what mt prepare wrote"):
        prepare(config, quiet)


# --- The hub ------------------------------------------------------------------------------------------------------

COMMIT = "0123456789" * 4
HUB_FILES = {
    "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: pairs.jsonl}\n---\n",
    "pairs.jsonl": b'{"en": "a house", "de": "ein Haus"}\n{"en": "a dog", "de": "ein Hund"}\n',
}


class Hub(SimpleHTTPRequestHandler):
    """As much of the hub's interface as reading the data set me/pairs needs; `asked` is what was asked for."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        *_, place, name = path.split("/")
        listing = [{"type": "file", "path": file, "size": len(data), "oid": COMMIT} for file, data in HUB_FILES.items()]
        about = {"id": "me/pairs", "sha": COMMIT, "siblings": [{"rfilename": file} for file in HUB_FILES]}
        if path == "/" or "/resolve/" not in path:
            self.reply(json.dumps(listing if place == "tree" else about).encode())
        else:
            self.reply(HUB_FILES.get(name))

    def reply(self, body: bytes | None) -> None:
        first, last = re.match(r"bytes=(\d+)-(\d+)|", self.headers.get("Range", "")).groups()  # type: ignore[union-attr]
        part = (body or b"")[int(first or 0) : int(last or len(body or b"")) + 1]
        self.send_response(404 if body is None else 206 if last else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", COMMIT)
        if last:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body or b'')}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_data_set_of_the_hub_is_streamed_at_its_revision_without_a_copy(tmp_path: Path) -> None:
    code = (
        "from mt.data_config import Input; from mt.data.sources import read_pairs\n"
        "entry = Input(dataset='me/pairs', revision='v1', stream=True)\n"
        "print([(block.source, block.target) for block in read_pairs(entry, 'en', 'de', 1)])"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        read = subprocess.run([sys.executable, "-c", code], env=os.environ | hub, capture_output=True, text=True)
        server.shutdown()
    assert read.stdout == "[(['a house', 'a dog'], ['ein Haus', 'ein Hund'])]\n", read.stderr
    assert "/datasets/me/pairs/resolve/v1/README.md" in Hub.asked
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"a house" in path.read_bytes()]
