"""Prepared data fetched from a store, an address or a shared folder, into a folder of this machine, each file once.

What training begins with is fetched before it begins. Each shard of a large corpus follows when it is first read, which
is when its window is planned, while training is busy with the window before.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from mt.console import Console
from mt.data.data_folder import MANIFEST, only_builder
from mt.data.manifest import MANIFEST_HASH, FileEntries, Manifest, read_manifest, sha256
from mt.errors import DataError, WriteError
from mt.files import sync_folder, sync_tree, write_whole, writing
from mt.remote import is_url, opened_url

STORE = "store.txt"  # in the folder of data in shards: where these come from

_BLOCK = 1 << 22  # bytes


class FetchError(DataError):
    """Prepared data could not be fetched to this machine."""


def fetch_prepared(store: str, folder: Path, console: Console) -> None:
    """Make `folder` what lies at `store`, but for shards: each file is fetched once, its hash that of the manifest.

    A fetch that is killed goes on with the file it was at. Where the store cannot be reached, what was fetched is used.
    Raises FetchError when a file is missing or is not what the manifest says, or when the folder holds something else.
    """
    store = store.rstrip("/") if is_url(store) else str(Path(store).absolute())
    with only_builder(folder, console):
        try:
            manifest = _bytes(f"{store}/{MANIFEST}")
        except DataError as error:
            if not (folder / MANIFEST).exists():
                raise FetchError(f"{error}; data.store names a folder that mt prepare wrote") from None
            console.warn(f"{error}; using {folder} as it was fetched")
            return
        if not (folder / MANIFEST).exists():
            _refuse_foreign(folder)
            _fetch_first(store, folder, manifest, console)
        elif (folder / MANIFEST).read_bytes() != manifest:
            raise FetchError(f"{folder} holds other data than {store}: remove it, or name another data.dir")
        elif (folder / STORE).exists():
            write_whole(folder / STORE, store)  # which may have moved


def fetch_shard(folder: Path, manifest: Manifest, shard: str) -> None:
    """Make sure that a shard is in its folder of prepared data, fetching it where it is still to come.

    Several processes may ask at once: one fetches, the others wait. Raises FetchError.
    """
    path = folder / "train" / shard
    if path.exists() or not (folder / STORE).exists():
        return
    with only_builder(folder / "train", Console(quiet=True)):
        if not path.exists():
            of_shard = f"train/{shard}/"
            files = {
                name.removeprefix(of_shard): file
                for name, file in manifest["files"].items()
                if name.startswith(of_shard)
            }
            partial = path.with_name(f".{shard}.partial")
            _fetch_files(f"{(folder / STORE).read_text('utf-8')}/train/{shard}", files, partial, lambda count: None)
            with writing(path):
                sync_tree(partial)
                partial.rename(path)
                sync_folder(path.parent)


def files_here(folder: Path, manifest: Manifest) -> FileEntries:
    """The files of the manifest, but those of shards that are still to be fetched."""
    files: FileEntries = manifest["files"]
    if not (folder / STORE).exists():
        return files
    to_come = {f"train/{shard}" for shard in manifest["shards"] if not (folder / "train" / shard).exists()}
    return {name: file for name, file in files.items() if name.rpartition("/")[0] not in to_come}


def remedy(folder: Path, name: str) -> str:
    """What to do about a damaged file of a folder of prepared data."""
    if (folder / STORE).exists() and name.startswith("train/"):
        return f"delete {(folder / name).parent}, and training fetches it again"
    return f"delete {folder} and run mt prepare CONFIG"


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FetchError(f"{folder} is no folder of prepared data; set data.dir to a new one")


def _fetch_first(store: str, folder: Path, manifest_bytes: bytes, console: Console) -> None:
    partial = folder.resolve().with_name(f".{folder.resolve().name}.fetched")
    with writing(folder):
        if not (partial / MANIFEST).exists() or (partial / MANIFEST).read_bytes() != manifest_bytes:
            shutil.rmtree(partial, ignore_errors=True)  # of other data
        (partial / "train").mkdir(parents=True, exist_ok=True)
    write_whole(partial / MANIFEST, manifest_bytes)
    write_whole(partial / MANIFEST_HASH, _bytes(f"{store}/{MANIFEST_HASH}"))
    try:
        manifest = read_manifest(partial) or {}
    except DataError:
        raise FetchError(f"{store}/{MANIFEST} is not what mt prepare wrote; look at data.store") from None
    if shards := manifest.get("shards"):
        write_whole(partial / STORE, store)
        console.say(f"{folder}: its {len(shards):,} shards are fetched from {store} when training comes to them")
    files = files_here(partial, manifest)
    with console.track(f"fetching {store}", sum(file["bytes"] for file in files.values()), unit="byte") as advance:
        _fetch_files(store, files, partial, advance)
    with writing(folder):
        sync_tree(partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
        sync_folder(folder.resolve().parent)


def _fetch_files(url: str, files: FileEntries, folder: Path, advance: Callable[[int], None]) -> None:
    """Those that are there already, as they should be, from an earlier try, are left alone. Raises FetchError."""
    for name, file in files.items():
        try:
            _fetch_file(f"{url}/{name}", folder / name, file["sha256"])
        except (DataError, WriteError) as error:
            raise FetchError(f"{error}") from None
        advance(file["bytes"])


def _fetch_file(url: str, path: Path, expected: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and sha256(path) == expected:
        return
    digest = hashlib.sha256()
    with writing(path), open(path, "wb") as file, opened_url(url) as source:
        while block := source.read(_BLOCK):
            digest.update(block)
            with writing(path):
                file.write(block)
    if digest.hexdigest() != expected:
        path.unlink()
        raise FetchError(f"{url}: not what mt prepare wrote (its SHA-256 is another); copy it there again")


def _bytes(url: str) -> bytes:
    with opened_url(url) as file:
        return file.read()
