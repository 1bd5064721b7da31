"""Prepared data fetched from a store, an address or a shared folder, into a folder of this machine, once."""

import hashlib
import os
from pathlib import Path

from mt.console import Console
from mt.data.data_folder import MANIFEST, only_builder
from mt.data.prepared import MANIFEST_HASH, read_manifest, sha256
from mt.errors import DataError
from mt.files import sync_folder, write_whole, writing
from mt.remote import opened_url

_BLOCK = 1 << 22  # bytes


class FetchError(DataError):
    """Prepared data could not be fetched to this machine."""


def fetch_prepared(store: str, folder: Path, console: Console) -> None:
    """Make `folder` what lies at `store`: each file is fetched once and compared with its hash in the manifest.

    A fetch that is killed goes on with the file it was at. Where the store cannot be reached, what was fetched is used.
    Raises FetchError when a file is missing or is not what the manifest says, or when the folder holds something else.
    """
    store = store.rstrip("/")
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
            _fetch(store, folder, manifest, console)
        elif (folder / MANIFEST).read_bytes() != manifest:
            raise FetchError(f"{folder} holds other data than {store}: remove it, or name another data.dir")


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FetchError(f"{folder} is no folder of prepared data; set data.dir to a new one")


def _fetch(store: str, folder: Path, manifest: bytes, console: Console) -> None:
    partial = folder.resolve().with_name(f".{folder.resolve().name}.fetched")
    with writing(folder):
        partial.mkdir(exist_ok=True)
    write_whole(partial / MANIFEST, manifest)
    write_whole(partial / MANIFEST_HASH, _bytes(f"{store}/{MANIFEST_HASH}"))
    files = (read_manifest(partial) or {})["files"]
    total = sum(file["bytes"] for file in files.values())
    with console.track(f"fetching {store}", total, unit="byte") as advance:
        for name, file in files.items():
            _fetch_file(f"{store}/{name}", partial / name, file["sha256"])
            advance(file["bytes"])
    with writing(folder):
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
        sync_folder(folder.resolve().parent)


def _fetch_file(url: str, path: Path, expected: str) -> None:
    """Raises FetchError when it is another file; it has its name only once it is whole."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and sha256(path) == expected:
        return
    digest, partial = hashlib.sha256(), path.with_name(f".{path.name}.partial")
    with opened_url(url) as source, writing(path), open(partial, "wb") as file:
        while block := source.read(_BLOCK):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != expected:
        partial.unlink()
        raise FetchError(f"{url}: not what mt prepare wrote (its SHA-256 is another); copy it there again")
    partial.rename(path)


def _bytes(url: str) -> bytes:
    with opened_url(url) as file:
        return file.read()
