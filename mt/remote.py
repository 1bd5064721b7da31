"""Files at addresses (s3://, gs://, https://, ...), through fsspec: which there are, their bytes, what changed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mt.errors import DataError, MtError

SILENCE = 60  # seconds without an answer after which a web server counts as unreachable

# What a store says of the content of a file; the first that is there tells whether it changed.
VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "generation"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created"),
)


def is_url(name: str) -> bool:
    """Whether this names a file by its address, not by its path on this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def has_pattern(url: str) -> bool:
    """Whether a glob is meant; in an address of the web, ? and [] may be its own."""
    return "*" in url if is_web(url) else re.search(r"[*?[]", url) is not None


def is_web(name: str) -> bool:
    """Whether it is an address of a web server, which may not give parts of a file, so that it is read as a stream."""
    return name.startswith(("http://", "https://"))


def matching(pattern: str) -> list[str]:
    """The addresses that match a glob, sorted. Raises DataError when the place cannot be reached."""
    with _store_of(pattern) as (store, path):
        return sorted(store.unstrip_protocol(name) for name, info in _found(store, path) if info["type"] == "file")


def _found(store: Any, path: str) -> list[tuple[str, Any]]:
    store.invalidate_cache()  # of listings, from which `stamp` may answer
    try:
        return list(store.glob(path, detail=True).items())
    except FileNotFoundError as error:
        if _is_missing(error):
            return []
        raise


def stamp(url: str) -> tuple[int, str] | None:
    """The size of a file, 0 where unknown, and what its store says of its content; None where there is no file.

    Raises DataError when the store cannot be reached.
    """
    with _store_of(url) as (store, path):
        try:
            info = store.info(path)
        except FileNotFoundError as error:
            if _is_missing(error):
                return None
            raise
        if info.get("type") == "directory":
            return None
        known = [f"{key} {info[key]}" for key in VERSIONS if info.get(key) not in (None, "")]
        return int(info.get("size") or 0), known[0] if known else ""


@contextmanager
def opened_url(url: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, those of the web as a stream; whatever goes wrong until the end is a DataError."""
    with _store_of(url) as (store, path), store.open(path, "rb", **({"block_size": 0} if is_web(url) else {})) as file:
        yield file


@contextmanager
def _store_of(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it."""
    try:
        yield _store(url)
    except MtError:
        raise
    except ImportError:
        raise DataError(f"{url}: the packages that read {_scheme(url)} addresses are missing: {_INSTALL}") from None
    except Exception as error:  # each store raises exceptions of its own library
        if isinstance(error, FileNotFoundError) and _is_missing(error):
            raise DataError(f"{url}: no such file") from None
        cause = error.__cause__ or error
        reason = " ".join((str(cause) or type(cause).__name__).split())[:200]
        raise DataError(f"{url}: cannot be read: {reason}") from None


_INSTALL = "pip install 'mt[remote]'"


def _store(url: str) -> tuple[Any, str]:
    import fsspec

    if not is_web(url):
        try:
            store, path = fsspec.core.url_to_fs(url)
        except ValueError:  # fsspec knows no such protocol
            raise DataError(f"{url}: {_scheme(url)} addresses cannot be read; copy it here first") from None
        return store, path
    import aiohttp

    client = {  # total: by default a file may take five minutes
        "timeout": aiohttp.ClientTimeout(
            total=None, sock_connect=SILENCE, sock_read=SILENCE
        ),  # not five minutes a file
        "auto_decompress": False,  # a .gz stays one, whatever the server says of it
        "headers": {"Accept-Encoding": "identity"},
    }
    store, path = fsspec.core.url_to_fs(url, client_kwargs=client)
    return store, path


def _scheme(url: str) -> str:
    return f"{url.split('://')[0]}://"


def _is_missing(error: FileNotFoundError) -> bool:
    """Whether the store said so; on the web fsspec says it too when there was no answer."""
    return error.__cause__ is None or getattr(error.__cause__, "status", None) in (404, 410)


def upload(content: bytes | Path, url: str) -> None:
    """Put bytes, or a file of this machine, under an address, whole or not at all. Raises DataError."""
    with _store_of(url) as (store, path):
        partial = f"{path}.partial"
        if isinstance(content, bytes):
            store.pipe_file(partial, content)
        else:
            store.put_file(str(content), partial)
        store.mv(partial, path)
