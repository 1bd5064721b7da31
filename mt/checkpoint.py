"""Checkpoints: complete in themselves, written atomically, verified by SHA-256, free of pickle.

A checkpoint is a directory: model.safetensors, config.yaml, tokenizer.model (where there are two, that of the source,
beside tokenizer.target.model), state.json, for resuming also optimizer.safetensors, and MANIFEST.json with the size and
hash of each. It is renamed to its name once all files are on the disk and have been read back.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from mt.config import Config
from mt.config_file import dump_config, parse_config
from mt.console import counted
from mt.data.vocabulary import TOKENIZER_FILES
from mt.errors import CheckpointError
from mt.files import Bytes, rename, sync_folder, write_through, write_whole, writing

FORMAT = 1
AVERAGED = "averaged"  # the name of the checkpoint that averages the last ones at the end of training
SCALE = ".int8_scale"  # after the name of a weight in 8 bits: what 1 stands for in each of its rows, [rows, 1]
_STEP = re.compile(r"step-(\d{8})")
_STOP = re.compile(r"stop-(\d{8})")
_WHOLE = {torch.int8: "I8", torch.int32: "I32"}  # types that safetensors keep as they are, by its names

_Parts = Sequence[Bytes]  # of a file, in order


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds, hashes checked."""

    path: Path
    config: Config
    tokenizers: dict[str, bytes]  # by file name
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]  # empty where there is none, or it was not asked for
    state: dict[str, Any]


def step_name(update: int) -> str:
    """The name of the checkpoint that belongs to the schedule."""
    return f"step-{update:08d}"


def stop_name(update: int) -> str:
    """The name of the checkpoint written when the run is asked to stop, only for going on from it."""
    return f"stop-{update:08d}"


def save_checkpoint(
    path: Path,
    config: Config,
    tokenizers: Mapping[str, bytes],
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    optimizer: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint under a temporary name, verify it, and rename it.

    Raises WriteError when it cannot be written; what was there before is then untouched.
    """
    contents: dict[str, _Parts] = {
        "model.safetensors": safetensors_parts(weights),
        "config.yaml": [dump_config(config).encode()],
        **{name: [model_bytes] for name, model_bytes in tokenizers.items()},
        "state.json": [_json(state)],
    }
    if optimizer is not None:
        contents["optimizer.safetensors"] = safetensors_parts(optimizer)
    files = {name: {"bytes": sum(map(len, parts)), "sha256": _digest(parts)} for name, parts in contents.items()}
    contents["MANIFEST.json"] = [_json({"format": FORMAT, "files": files})]
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            path.parent.mkdir(exist_ok=True)  # without its parents: a removed run directory is not made again
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name, parts in contents.items():
                write_through(partial / name, parts)
            sync_folder(partial)
            for name, (_, digest) in _listing(partial).items():
                _compare(partial / name, digest)
            old = _set_aside(path)
            rename(partial, path)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(path: Path, resume: bool = False, in_int8: bool = False) -> Checkpoint:
    """Read and verify a checkpoint; the optimiser's state only to `resume` from it.

    in_int8: weights stored in 8 bits stay so, beside their scales.
    Raises CheckpointError naming the file that is missing, cut short or changed.
    """
    contents = dict(_verified_files(path, resume))
    return Checkpoint(
        path=path,
        config=parse_config(contents["config.yaml"].decode(), str(path / "config.yaml")),
        tokenizers={name: contents[name] for name in TOKENIZER_FILES if name in contents},
        weights=(dict if in_int8 else in_float32)(load_tensors(contents.pop("model.safetensors"))),
        optimizer=load_tensors(contents["optimizer.safetensors"]) if "optimizer.safetensors" in contents else {},
        state=json.loads(contents["state.json"]),
    )


def in_float32(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are used; those stored in 8 bits are multiplied by their scales."""
    return {
        name: tensor * weights[name + SCALE] if tensor.dtype == torch.int8 else tensor
        for name, tensor in weights.items()
        if not name.endswith(SCALE)
    }


def read_state(path: Path) -> dict[str, Any]:
    """The state.json of a checkpoint, verified; the rest is not read. Raises CheckpointError."""
    state: dict[str, Any] = json.loads(_verified(path, "state.json", _listing(path)))
    return state


def read_config(path: Path) -> Config:
    """The config.yaml of a checkpoint, verified; the rest is not read. Raises CheckpointError, ConfigError."""
    return parse_config(_verified(path, "config.yaml", _listing(path)).decode(), str(path / "config.yaml"))


def read_tokenizers(path: Path) -> dict[str, bytes]:
    """The tokenizers of a checkpoint by file name, verified; the rest is not read. Raises CheckpointError."""
    listing = _listing(path)
    return {name: _verified(path, name, listing) for name in TOKENIZER_FILES if name in listing}


def verify_checkpoint(path: Path, resume: bool = False) -> None:
    """Raise what `load_checkpoint` would."""
    for _ in _verified_files(path, resume):
        pass


def _verified_files(path: Path, resume: bool) -> Iterator[tuple[str, bytes]]:
    listing = _listing(path)
    for name in listing:
        if resume or name != "optimizer.safetensors":
            yield name, _verified(path, name, listing)


def _listing(path: Path) -> dict[str, tuple[int, str]]:
    """Size and hash of each file, as the manifest of a checkpoint states them."""
    manifest = _read(path, "MANIFEST.json")
    try:
        listing = json.loads(manifest)
        version, files = listing["format"], dict(listing["files"])
        stated = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path / 'MANIFEST.json'}: damaged; use another checkpoint of the run") from None
    if version != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {version}, but this version of mt reads format {FORMAT}")
    return stated


def _verified(path: Path, name: str, listing: Mapping[str, tuple[int, str]]) -> bytes:
    """The content of a file of a checkpoint, of the size and hash that the manifest states."""
    data = _read(path, name)
    if (len(data), _digest([data])) != listing.get(name):
        raise CheckpointError(f"{path / name}: damaged (its hash is not the manifest's); use another checkpoint")
    return data


def _compare(path: Path, digest: str) -> None:
    """Read a file back, a block at a time to save memory; raises OSError when its hash differs."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise OSError(errno.EIO, f"{path.name} does not read as it was written")


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path / name}: cannot be read: {error.strerror}; use another checkpoint") from None


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def safetensors_parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Sequence[Bytes]:
    """Tensors as a file of safetensors in float32, int8 or int32, whose own writer would block the other threads.

    The length of the header in 8 bytes, the header in JSON, then the tensors' own memory, which is not copied.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data, end = [], 0
    for name, tensor in tensors.items():
        kind = tensor.dtype if tensor.dtype in _WHOLE else torch.float32
        flat = tensor.detach().to("cpu", kind).flatten()
        start, end = end, end + flat.nbytes
        header[name] = {"dtype": _WHOLE.get(kind, "F32"), "shape": list(tensor.shape), "data_offsets": [start, end]}
        data.append(flat.numpy().data.cast("B"))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8 bytes
    return [len(text).to_bytes(8, "little"), text, *data]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of another program's file, in float32. Raises CheckpointError when it is none."""
    try:
        return {name: tensor.float() for name, tensor in load_tensors(path.read_bytes()).items()}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is no whole safetensors file ({error})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a file of safetensors with its own hash in it, whole or not at all. Raises WriteError."""
    _, _, *data = safetensors_parts(tensors)
    write_whole(path, b"".join(safetensors_parts(tensors, {**about, "sha256": _digest(data)})))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote: the tensors, and what is said about them, the hash too.

    Raises CheckpointError where the file cannot be read or is damaged.
    """
    try:
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        about = dict(json.loads(content[8:end])["__metadata__"])
        if about["sha256"] == _digest([content[end:]]):
            return load_tensors(content), about
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, SafetensorError):
        pass
    raise CheckpointError(f"{path}: damaged, or not a file of mt; make it again")


def _digest(parts: _Parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# --- The checkpoints of a run -----------------------------------------------------------------------------------


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The scheduled checkpoints of a run with their updates, oldest first."""
    return _named(run, _STEP)


def resumable_checkpoints(run: Path) -> list[Path]:
    """The checkpoints that a run can go on from, newest first; at the same update, the scheduled one first."""
    found = [*_named(run, _STOP), *_named(run, _STEP)]
    return [path for _, path in sorted(found, key=lambda entry: entry[0])][::-1]


def _named(run: Path, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    folder = run / "checkpoints"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [(int(found[1]), folder / name) for name in names if (found := pattern.fullmatch(name))]


def prune_checkpoints(run: Path, keep: int, best: int | None, keep_every: int = 0) -> None:
    """Remove scheduled checkpoints other than the newest `keep` and the best one, and those written at stops.

    keep_every: those at multiples of it stay too; 0 for none.
    """
    older = list_checkpoints(run)[:-keep]
    obsolete = [path for update, path in older if update != best and not (keep_every and update % keep_every == 0)]
    for path in obsolete:
        shutil.rmtree(_set_aside(path))
    prune_stops(run)


def prune_stops(run: Path, keep: str = "") -> None:
    """Remove the checkpoints that were written at stops or between scheduled ones, but that of this name."""
    for _, path in _named(run, _STOP):
        if path.name != keep:
            shutil.rmtree(_set_aside(path))


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint before it is removed, so that an interrupted removal leaves no half of it under its name."""
    aside = path.with_name(f".{path.name}.leaving")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
    return aside


def last_checkpoints(run: Path, count: int) -> list[Path]:
    """The newest `count` scheduled checkpoints of a run.

    Raises CheckpointError when there are fewer.
    """
    found = [path for _, path in list_checkpoints(run)]
    if not found:
        raise CheckpointError(f"{run}: not a run with checkpoints to average")
    if len(found) < count:
        raise CheckpointError(f"{run}: {counted(count, 'checkpoint')} to average, but it holds {len(found)}")
    return found[-count:]


def newest_whole(run: Path, count: int) -> tuple[list[Path], list[str]]:
    """At most `count` scheduled checkpoints, the newest intact ones, oldest first; and what is wrong with others."""
    whole: list[Path] = []
    problems: list[str] = []
    for _, path in reversed(list_checkpoints(run)):
        if len(whole) == count:
            break
        try:
            verify_checkpoint(path)
            whole.append(path)
        except CheckpointError as error:
            problems.append(str(error))
    return whole[::-1], problems


def average_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of each weight over checkpoints (section 6.1), summed in float64."""
    total: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in load_checkpoint(path).weights.items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {name: (tensor / len(paths)).to(torch.float32) for name, tensor in total.items()}
