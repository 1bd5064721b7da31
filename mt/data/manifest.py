"""The manifest of prepared data: what they are, where they came from, and the size and hash of each file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mt.data.data_folder import MANIFEST, SCRATCH
from mt.errors import DataError

FORMAT, SHARDED = 2, 3  # of the folder, in one piece and in shards; others have to be prepared again
FORMATS = (FORMAT, SHARDED)

SPLITS = ("train", "valid", "test")

MANIFEST_HASH = "manifest.sha256"
KEYS = {"fingerprint", "settings", "sources", "dropped", "tokenizer", "files"}  # that a manifest has at least

Manifest = dict[str, Any]
FileEntries = dict[str, dict[str, Any]]  # name in the folder: bytes and sha256


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a prepared folder, None where there is none; raises DataError when it is damaged."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete {folder} to prepare it again") from None
    hash_path = folder / MANIFEST_HASH  # data prepared by earlier versions have none
    if hash_path.exists() and hash_path.read_bytes() != _hash_line(data):
        raise damaged(path)
    if not isinstance(manifest, dict) or (manifest.get("format") in FORMATS and not manifest.keys() >= KEYS):
        raise damaged(path)
    return manifest


def sources_of(manifest: Manifest, folder: str, number: int) -> list[dict[str, Any]]:
    """What was read from one entry of the config: a source for each file, or pair of files, that it named."""
    sources = manifest["sources"][folder]
    return [source for source, of in zip(sources, inputs_of(sources), strict=True) if of == number]


def inputs_of(sources: Sequence[Mapping[str, Any]]) -> list[int]:
    """The number of the entry of the config that each source of a folder comes from."""
    return [source.get("input", place) for place, source in enumerate(sources)]  # earlier versions had one each


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest and its hash into a folder that is being built."""
    data = f"{json.dumps(manifest, indent=1, ensure_ascii=False)}\n".encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_HASH).write_bytes(_hash_line(data))


def _hash_line(data: bytes) -> bytes:
    """The hash of the manifest in the format of sha256sum, which can check it with -c."""
    return f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()


def file_entries(folder: Path, known: FileEntries | None = None) -> FileEntries:
    """Size and hash of every file in a folder, by name, but for scratch; known: those that need not be read again."""
    known = known or {}
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name: known.get(name) or _file_entry(folder / name) for name in names if not name.startswith(f"{SCRATCH}/")}


def _file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """The SHA-256 of a file; raises DataError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def damaged(path: Path, remedy: str = "delete its folder and run mt prepare CONFIG") -> DataError:
    """That a file is another than its hash in the manifest says."""
    return DataError(f"{path} is damaged: not what mt prepare wrote; {remedy}")
