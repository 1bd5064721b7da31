"""`mt prepare`: text in, clean pairs, subword ids and a manifest out.

data/NAME/manifest.json     sources with sizes and hashes, settings, counts, drops by reason, versions
data/NAME/tokenizer.model   the joint BPE
data/NAME/dropped.tsv       a sample of the dropped pairs, by reason
data/NAME/train/            ids of both sides, and where each pair was read
data/NAME/valid/            ids and text
data/NAME/test/             text
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from mt.config import Config, DataConfig, Source, differences
from mt.console import Console
from mt.data.build import Reading, copy_text, encode_text, encode_training, keep_usable, learn_tokenizer, read_text
from mt.data.clean import Drops
from mt.data.corpus import Corpus, Whole, open_corpus, open_origins
from mt.data.folder import locked, replaced
from mt.data.sources import name_of, source_files
from mt.data.tokenizer import Tokenizer
from mt.errors import DataError

FORMAT = 2  # of the folder; another number means it has to be prepared again

SPLITS = ("train", "valid", "test")

Text = tuple[list[str], list[str]]  # source lines, target lines


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder, opened; `fingerprint` stands for all that training sees, the ids and the tokenizer."""

    dir: Path
    tokenizer: Tokenizer
    train: Corpus
    origins: npt.NDArray[np.void]  # of the training pairs
    valid: Corpus
    manifest: dict[str, Any]
    fingerprint: str

    def text(self, split: str) -> Text:
        """The lines of `valid` or `test` as they were read; none when the config names no such source."""
        return read_text(self.dir / split / "source.txt"), read_text(self.dir / split / "target.txt")

    def origin(self, rows: Sequence[int] | Whole) -> list[str]:
        """Where training pairs were read, as `dropped.tsv` names places: source and line."""
        names = [source["name"] for source in self.manifest["sources"]["train"]]
        return [f"{names[source]}:{line}" for source, line in self.origins[rows].tolist()]


def open_prepared(folder: Path) -> Prepared:
    """Open what `prepare` made; raises DataError when there is nothing or it is damaged."""
    manifest = _read_manifest(folder)
    if manifest is None:
        raise DataError(f"{folder} holds no prepared data; run mt prepare CONFIG")
    if manifest.get("format") != FORMAT:
        raise DataError(f"{folder} was prepared by another version of mt; run mt prepare CONFIG")
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise DataError(f"{path} is missing or cut short; delete {folder} and run mt prepare CONFIG")
    return Prepared(
        dir=folder,
        tokenizer=Tokenizer((folder / "tokenizer.model").read_bytes()),
        train=open_corpus(folder / "train"),
        origins=open_origins(folder / "train"),
        valid=open_corpus(folder / "valid"),
        manifest=manifest,
        fingerprint=manifest["fingerprint"],
    )


def prepare(config: Config, console: Console) -> Prepared:
    """Prepare the data of a config, unless its folder holds them already.

    Raises DataError when a source cannot be read, no pair is left, or a sentence is too long for a batch.
    """
    folder = config.data.dir
    if _why_prepare(config, console):
        with locked(folder, console):
            if reason := _why_prepare(config, console):  # unless another run has done it meanwhile
                console.say(f"{folder}: {reason}")
                _build(config, console)
    else:
        console.say(f"{folder}: already prepared")
    prepared = open_prepared(folder)
    _refuse_too_long(prepared, config)
    return prepared


# --- Is it done already? -----------------------------------------------------------------------------------------


def _why_prepare(config: Config, console: Console) -> str:
    """Why the folder has to be prepared, or nothing when it has not."""
    folder = config.data.dir
    manifest = _read_manifest(folder)
    if manifest is None:
        if _is_foreign(folder):
            raise DataError(f"{folder} is no folder of prepared data; set data.dir to one that may be replaced")
        return "preparing"
    if manifest.get("format") != FORMAT:
        return "preparing again, another version of mt did it"
    changes = _changed_settings(manifest, config)
    if not changes:
        try:
            changes = _changed_sources(manifest, config.data)
        except DataError as error:
            console.warn(f"{error}; using {folder} as it was prepared")
    return f"preparing again, changed: {', '.join(changes)}" if changes else ""


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}/manifest.json cannot be read ({error}); delete {folder} to prepare it again"
        ) from None
    return manifest


def _is_foreign(folder: Path) -> bool:
    """Whether something lies there that `prepare` did not make, and so must not replace."""
    if not folder.is_dir():
        return folder.exists()
    return not (folder / "manifest.json").exists() and any(folder.iterdir())


def _settings(config: Config) -> dict[str, Any]:
    """All that decides what is prepared; where it lies does not."""
    return {"seed": config.seed, **config.data.model_dump(mode="json", exclude={"dir"})}


def _changed_settings(manifest: dict[str, Any], config: Config) -> list[str]:
    settings = dict(manifest["settings"])
    seed = settings.pop("seed")
    try:
        before = DataConfig.model_validate(settings | {"dir": config.data.dir})
    except ValidationError:
        return ["the settings there are"]
    sources = [f"data.{split}" for split in SPLITS if getattr(before, split) != getattr(config.data, split)]
    same_sources = config.data.model_copy(update={split: getattr(before, split) for split in SPLITS})
    others = [f"data.{line}" for line in differences(before, same_sources)]
    if not others and _is_other_tokenizer(config.data.tokenizer, manifest):
        others = [f"data.tokenizer: {config.data.tokenizer} is another one"]
    return [*sources, *others, *([f"seed: {seed} -> {config.seed}"] if seed != config.seed else [])]


def _is_other_tokenizer(path: str | None, manifest: dict[str, Any]) -> bool:
    """Whether the file named differs from what was used; like a source, it may be gone once the data are prepared."""
    if path is None or not Path(path).exists():
        return False
    return Tokenizer(Path(path).read_bytes()).fingerprint != str(manifest["tokenizer"]["fingerprint"])


def _given_tokenizer(data: DataConfig) -> Tokenizer | None:
    if data.tokenizer is None:
        return None
    try:
        return Tokenizer(Path(data.tokenizer).read_bytes())
    except OSError as error:
        raise DataError(f"data.tokenizer {data.tokenizer}: cannot be read: {error.strerror}") from None
    except DataError as error:
        raise DataError(f"data.tokenizer {data.tokenizer}: {error}") from None


def _changed_sources(manifest: dict[str, Any], data: DataConfig) -> list[str]:
    changes = []
    for split, sources in _splits(data).items():
        for source, entry in zip(sources, manifest["sources"][split], strict=True):
            if not _same_files(source_files(source, data.src, data.tgt), entry["files"]):
                changes.append(name_of(source))
    return changes


def _splits(data: DataConfig) -> dict[str, Sequence[Source]]:
    return {split: getattr(data, split) for split in SPLITS}


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when it was read."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str

    def is_equal(self, path: Path) -> bool:
        """Whether the file at `path` has the same content; when its size and time are the same, it counts as unread."""
        if (stat := path.stat()).st_size != self.bytes:
            return False
        return stat.st_mtime_ns == self.mtime_ns or _source_file(path).sha256 == self.sha256

    def is_untouched(self) -> bool:
        try:
            stat = os.stat(self.path)
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.mtime_ns)


def _files(source: Source, data: DataConfig) -> list[SourceFile]:
    return [_source_file(path) for path in source_files(source, data.src, data.tgt)]


def _source_file(path: Path) -> SourceFile:
    try:
        stat = path.stat()
        return SourceFile(str(path), stat.st_size, stat.st_mtime_ns, _sha256(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _same_files(paths: list[Path], entries: list[dict[str, Any]]) -> bool:
    files = [SourceFile(**entry) for entry in entries]
    return len(paths) == len(files) and all(file.is_equal(path) for path, file in zip(paths, files, strict=True))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Building ----------------------------------------------------------------------------------------------------

Files = dict[str, list[list[SourceFile]]]  # split -> source -> files
Readings = dict[str, list[Reading]]  # split -> source


def _build(config: Config, console: Console) -> None:
    data, drops = config.data, Drops(config.seed)
    given = _given_tokenizer(data)
    files = {split: [_files(source, data) for source in sources] for split, sources in _splits(data).items()}
    with replaced(data.dir) as folder:
        readings = {split: _hold_out(split, folder, config, console) for split in ("valid", "test")}
        (folder / "scratch").mkdir()
        kept = keep_usable(config, folder / "scratch", drops, console)
        readings["train"] = [source.reading for source in kept]
        _refuse_changed(files)
        _refuse_nothing(sum(reading.kept for reading in readings["train"]), drops)
        tokenizer = given or learn_tokenizer(kept, config, console)
        (folder / "tokenizer.model").write_bytes(tokenizer.model_bytes)
        (folder / "train").mkdir()
        encode_training(kept, tokenizer, folder / "train", config, drops, console)
        encode_text(folder / "valid", tokenizer)
        shutil.rmtree(folder / "scratch")
        drops.write(folder / "dropped.tsv")
        manifest = _manifest(config, files, readings, tokenizer, drops, folder)
        _refuse_nothing(manifest["train"]["rows"], drops)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    _report(manifest, console)


def _hold_out(split: str, folder: Path, config: Config, console: Console) -> list[Reading]:
    (folder / split).mkdir()
    readings = copy_text(_splits(config.data)[split], folder / split, config)
    for reading in readings:
        if not reading.read:
            raise DataError(f"{reading.name}: no pairs; data.{split} names it")
        if reading.repaired:
            console.warn(f"{reading.name}: {reading.repaired:,} lines that are not UTF-8; U+FFFD stands in them now")
        if reading.line_feeds:
            console.warn(f"{reading.name}: {reading.line_feeds:,} fields with a line feed, which is a space now")
    return readings


def _refuse_changed(files: Files) -> None:
    for file in (file for sources in files.values() for source in sources for file in source):
        if not file.is_untouched():
            raise DataError(f"{file.path} changed while it was read; run again when it is complete")


def _refuse_nothing(pairs: int, drops: Drops) -> None:
    if not pairs:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in drops.counts.most_common())
        raise DataError(
            f"no training pair is left: {dropped or 'the sources are empty'}; see data.train and data.clean"
        )


def _manifest(
    config: Config, files: Files, readings: Readings, tokenizer: Tokenizer, drops: Drops, folder: Path
) -> dict[str, Any]:
    written = _written(folder)
    return {
        "format": FORMAT,
        "fingerprint": _fingerprint(tokenizer, written),
        "versions": {name: version(name) for name in ("mt", "sentencepiece")},
        "settings": _settings(config),
        "sources": {
            split: [
                asdict(reading) | {"files": [asdict(file) for file in of_source]}
                for reading, of_source in zip(readings[split], files[split], strict=True)
            ]
            for split in SPLITS
        },
        "dropped": dict(sorted(drops.counts.items())),
        "train": _sizes(folder / "train"),
        "valid": _sizes(folder / "valid"),
        "tokenizer": {"pieces": len(tokenizer), "fingerprint": tokenizer.fingerprint},
        "files": written,
    }


def _sizes(folder: Path) -> dict[str, int]:
    corpus = open_corpus(folder)
    pieces = {f"{side}_pieces": int(getattr(corpus, side).offsets[-1]) for side in ("source", "target")}
    return {"rows": len(corpus), **pieces}


def _written(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths}


def _fingerprint(tokenizer: Tokenizer, files: dict[str, dict[str, Any]]) -> str:
    ids = [f"{name} {file['sha256']}" for name, file in files.items() if name.endswith((".ids.npy", ".offsets.npy"))]
    return hashlib.sha256("\n".join([tokenizer.fingerprint, *ids]).encode()).hexdigest()


def _report(manifest: dict[str, Any], console: Console) -> None:
    read = sum(reading["read"] for reading in manifest["sources"]["train"])
    dropped = sum(manifest["dropped"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest["dropped"].items())
    console.say(f"{read - dropped:,} of {read:,} training pairs kept" + (f"; dropped {reasons}" if reasons else ""))


# --- What training would otherwise meet too late -----------------------------------------------------------------


def _refuse_too_long(prepared: Prepared, config: Config) -> None:
    for split, corpus in (("training", prepared.train), ("validation", prepared.valid)):
        longest_N = np.maximum(corpus.source.lengths, corpus.target.lengths)
        row = int(longest_N.argmax())
        if longest_N[row] > config.batch.tokens:
            pair = prepared.origin([row])[0] if split == "training" else f"validation pair {row + 1}"
            raise DataError(
                f"{pair} has {longest_N[row]:,} pieces on one side, but a batch holds "
                f"{config.batch.tokens:,}: raise batch.tokens or lower data.clean.max_pieces"
            )
