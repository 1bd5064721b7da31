"""`mt prepare`: text in, clean pairs, subword ids and a manifest out.

data/NAME/manifest.json     sources with sizes and hashes, settings, counts, drops by reason, versions
data/NAME/tokenizer.model   the joint BPE
data/NAME/dropped.tsv       a sample of the dropped pairs, by reason
data/NAME/train/            ids of both sides
data/NAME/valid/            ids and text
data/NAME/test/             text
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from mt.config import Config, DataConfig, Source, differences
from mt.console import Console
from mt.data.build import copy_text, encode_text, encode_training, keep_usable, learn_tokenizer, read_text
from mt.data.clean import Drops, SeenPairs
from mt.data.corpus import Corpus, open_corpus
from mt.data.folder import locked, replaced
from mt.data.sources import name_of, source_files
from mt.data.tokenizer import Tokenizer
from mt.errors import DataError

FORMAT = 1  # of the folder; another number means it has to be prepared again

Text = tuple[list[str], list[str]]  # source lines, target lines


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder, opened; `fingerprint` stands for all that training sees, the ids and the tokenizer."""

    dir: Path
    tokenizer: Tokenizer
    train: Corpus
    valid: Corpus
    manifest: dict[str, Any]
    fingerprint: str

    def text(self, split: str) -> Text:
        """The lines of `valid` or `test` as they were read; none when the config names no such source."""
        return read_text(self.dir / split / "source.txt"), read_text(self.dir / split / "target.txt")


def open_prepared(folder: Path) -> Prepared:
    """Open what `prepare` made; raises DataError when there is nothing or it is damaged."""
    manifest = _read_manifest(folder)
    if manifest is None:
        raise DataError(f"{folder} holds no prepared data; run mt prepare CONFIG")
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise DataError(f"{path} is missing or cut short; delete {folder} and run mt prepare CONFIG")
    return Prepared(
        dir=folder,
        tokenizer=Tokenizer((folder / "tokenizer.model").read_bytes()),
        train=open_corpus(folder / "train"),
        valid=open_corpus(folder / "valid"),
        manifest=manifest,
        fingerprint=manifest["fingerprint"],
    )


def prepare(config: Config, console: Console) -> Prepared:
    """Prepare the data of a config, unless its folder holds them already.

    Raises DataError when a source cannot be read, no pair is left, or a sentence is too long for a batch.
    """
    folder = config.data.dir
    reason = _why_prepare(config, console)
    if reason:
        with locked(folder, console):
            reason = _why_prepare(config, console)  # another run may have done it meanwhile
            if reason:
                console.say(f"{folder}: {reason}")
                _build(config, console)
    if not reason:
        console.say(f"{folder}: already prepared")
    prepared = open_prepared(folder)
    _refuse_too_long(prepared, config)
    return prepared


# --- Is it done already? -----------------------------------------------------------------------------------------


def _why_prepare(config: Config, console: Console) -> str:
    """Why the folder has to be prepared, or nothing when it has not."""
    manifest = _read_manifest(config.data.dir)
    if manifest is None:
        return "preparing"
    changes = _changed_settings(manifest, config)
    if not changes:
        try:
            changes = _changed_sources(manifest, config.data)
        except DataError as error:
            console.warn(f"{error}; using {config.data.dir} as it was prepared")
    return f"preparing again, changed: {', '.join(changes)}" if changes else ""


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}/manifest.json cannot be read ({error}); delete {folder} to prepare it again"
        ) from None
    return manifest if manifest.get("format") == FORMAT else None


def _settings(config: Config) -> dict[str, Any]:
    """All that decides what is prepared; where it lies does not."""
    return {"seed": config.seed, **config.data.model_dump(mode="json", exclude={"dir"})}


def _changed_settings(manifest: dict[str, Any], config: Config) -> list[str]:
    settings = dict(manifest["settings"])
    try:
        before = Config(seed=settings.pop("seed"), data=DataConfig.model_validate(settings | {"dir": config.data.dir}))
    except ValidationError:
        return ["the settings known"]
    return [*differences(before.data, config.data), *(["seed"] if before.seed != config.seed else [])]


def _changed_sources(manifest: dict[str, Any], data: DataConfig) -> list[str]:
    changes = []
    for split, sources in _splits(data).items():
        for source, entry in zip(sources, manifest["sources"][split], strict=True):
            files = source_files(source, data.src, data.tgt)
            if not _same_files(files, [SourceFile(**file) for file in entry["files"]]):
                changes.append(name_of(source))
    return changes


def _splits(data: DataConfig) -> dict[str, Sequence[Source]]:
    return {"train": data.train, "valid": data.valid, "test": data.test}


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when it was read."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str

    def is_untouched(self, path: Path) -> bool:
        stat = path.stat()
        return (str(path), stat.st_size, stat.st_mtime_ns) == (self.path, self.bytes, self.mtime_ns)

    def is_equal(self, path: Path) -> bool:
        return self.is_untouched(path) or (path.stat().st_size == self.bytes and _sha256(path) == self.sha256)


def _source_file(path: Path) -> SourceFile:
    stat = path.stat()
    return SourceFile(str(path), stat.st_size, stat.st_mtime_ns, _sha256(path))


def _same_files(paths: list[Path], files: list[SourceFile]) -> bool:
    return len(paths) == len(files) and all(file.is_equal(path) for path, file in zip(paths, files, strict=True))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Building ----------------------------------------------------------------------------------------------------


def _build(config: Config, console: Console) -> None:
    data, drops, seen = config.data, Drops(config.seed), SeenPairs()
    files = {name: [_files(source, data) for source in sources] for name, sources in _splits(data).items()}
    with replaced(data.dir) as folder:
        for split in (*_splits(data), "scratch"):
            (folder / split).mkdir()
        held_out = {split: copy_text(_splits(data)[split], folder / split, config) for split in ("valid", "test")}
        if not held_out["valid"].pairs:
            raise DataError(f"no pairs in data.valid ({', '.join(map(name_of, data.valid))})")
        kept = [
            keep_usable(source, folder / "scratch" / str(number), config, seen, drops, console)
            for number, source in enumerate(data.train)
        ]
        _refuse_changed(files)
        _refuse_nothing(sum(source.pairs for source in kept), drops)
        tokenizer = learn_tokenizer(kept, config, console)
        (folder / "tokenizer.model").write_bytes(tokenizer.model_bytes)
        encode_training(kept, tokenizer, folder / "train", config, drops, console)
        encode_text(folder / "valid", tokenizer)
        shutil.rmtree(folder / "scratch")
        drops.write(folder / "dropped.tsv")
        train = open_corpus(folder / "train")
        _refuse_nothing(len(train), drops)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "versions": {"mt": version("mt"), "sentencepiece": version("sentencepiece")},
            "settings": _settings(config),
            "sources": {
                split: [
                    {"name": name_of(source), "files": [asdict(file) for file in files[split][number]]}
                    for number, source in enumerate(sources)
                ]
                for split, sources in _splits(data).items()
            },
            "train": {
                "read": [source.read for source in kept],
                "rows": len(train),
                "source_pieces": int(train.source.offsets[-1]),
                "target_pieces": int(train.target.offsets[-1]),
                "line_feeds": sum(source.line_feeds for source in kept),
                "dropped": dict(sorted(drops.counts.items())),
            },
            **{split: asdict(counts) for split, counts in held_out.items()},
            "pieces": len(tokenizer),
            "files": _written(folder),
        }
        manifest["fingerprint"] = _fingerprint(tokenizer, manifest["files"])
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _files(source: Source, data: DataConfig) -> list[SourceFile]:
    return [_source_file(path) for path in source_files(source, data.src, data.tgt)]


def _refuse_changed(files: dict[str, list[list[SourceFile]]]) -> None:
    for file in (file for sources in files.values() for source in sources for file in source):
        if not file.is_untouched(Path(file.path)):
            raise DataError(f"{file.path} changed while it was read; run again when it is complete")


def _refuse_nothing(pairs: int, drops: Drops) -> None:
    if not pairs:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in drops.counts.most_common()) or "none was read"
        raise DataError(f"no training pair is left ({reasons}); look at the sources, or loosen data.clean")


def _refuse_too_long(prepared: Prepared, config: Config) -> None:
    """Name the sentence no batch can hold before training meets it."""
    room = min(config.batch.tokens, config.batch.micro_tokens)
    for split, corpus in (("training", prepared.train), ("validation", prepared.valid)):
        longest_N = np.maximum(corpus.source.lengths, corpus.target.lengths)
        row = int(longest_N.argmax())
        if longest_N[row] > room:
            raise DataError(
                f"{split} pair {row + 1} has {longest_N[row]:,} pieces on one side but a batch holds {room:,}: "
                "raise batch.tokens and batch.micro_tokens, or lower data.clean.max_pieces"
            )


def _written(folder: Path) -> dict[str, dict[str, object]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths
    }


def _fingerprint(tokenizer: Tokenizer, files: dict[str, dict[str, object]]) -> str:
    ids = [f"{name} {file['sha256']}" for name, file in files.items() if name.endswith(".npy")]
    return hashlib.sha256("\n".join([tokenizer.fingerprint, *ids]).encode()).hexdigest()
