"""Prepared data, opened: the output of `mt prepare`, verified.

data/NAME/manifest.json     sources with sizes and hashes, settings, counts, drops by reason, versions
data/NAME/manifest.sha256   its own hash, as sha256sum writes it
data/NAME/tokenizer.model   the joint BPE; of two, the source's, beside the target's tokenizer.target.model
data/NAME/dropped.tsv       a sample of the dropped pairs, by reason
data/NAME/train/            ids of both sides, and where each pair was read; of large corpora in shards train/00000/ ...
data/NAME/valid/            ids and text; of named sets valid/SET/
data/NAME/test/             text; of named sets test/SET/
data/NAME/store.txt         where shards that are not here yet are fetched from, if the folder was fetched (data.store)
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

from mt.data.corpus import Corpus, Integers, Origins, ShardSizes, open_corpus, open_origins, open_shards
from mt.data.data_folder import MANIFEST, hold
from mt.data.manifest import FORMATS, FileEntries, Manifest, damaged, inputs_of, read_manifest, sha256
from mt.data.store import fetch_shard, files_here, remedy
from mt.data.tokenizer import Tokenizer
from mt.data.vocabulary import TOKENIZER_FILES, Tokenizers, read_tokenizer_files
from mt.data.word_model import WordModel, estimate_word_model
from mt.data_config import Input
from mt.errors import DataError

TOKENIZER_KEYS = ("tokenizer", "target_tokenizer")  # of the manifest; the second only where there are two

Text = tuple[list[str], list[str], list[str | None]]  # source lines, target lines, the tag of each


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder, not replaced while this is open; `fingerprint` identifies the ids and the tokenizers."""

    dir: Path
    tokenizers: Tokenizers
    train: Corpus
    origins: Origins  # of the training pairs
    valid: Mapping[str, Corpus]  # by folder: "valid", or "valid/SET" of each named set
    manifest: Manifest
    fingerprint: str
    lock: IO[bytes]
    shards: Sequence[int] = ()  # the pairs of each, where the training pairs are in shards

    def text(self, folder: str) -> Text:
        """The lines of a validation or test set as they were read; none when the config has no such entry.

        folder: such as `test` or `valid/news`.
        """
        names = f"{folder}/source.txt", f"{folder}/target.txt"
        _verify(self.dir, self.manifest, names)
        sources, entries = self.manifest["sources"][folder], self.entries(folder)
        readings = zip(inputs_of(sources), sources, strict=True)
        tags = [tag for number, reading in readings for tag in [entries[number].tag] * reading["read"]]
        return read_text(self.dir / names[0]), read_text(self.dir / names[1]), tags

    def entries(self, folder: str) -> list[Input]:
        """What the config had for a folder, such as `train` or `valid/news`."""
        split, _, name = folder.partition("/")
        if folder not in self.manifest["sources"]:
            return []
        settings = self.manifest["settings"][split]
        return [Input.model_validate(entry) for entry in (settings[name] if name else settings)]

    @cached_property
    def word_model(self) -> WordModel:
        """Which pieces translate which, by a sample of the training pairs."""
        return estimate_word_model(self.train)

    def origin(self, rows: Sequence[int] | Integers) -> list[str]:
        """Where training pairs were read, as `dropped.tsv` names places: source and line."""
        names = [source["name"] for source in self.manifest["sources"]["train"]]
        return [f"{names[source]}:{line}" for source, line in self.origins[rows].tolist()]

    def verify(self) -> None:
        """Compare every file with its hash in the manifest; raises DataError naming one that differs.

        Takes about a second a gigabyte; a thread may do it during training.
        """
        _verify(self.dir, self.manifest)
        if fingerprint(self.tokenizers, self.manifest["files"]) != self.fingerprint:
            raise damaged(self.dir / MANIFEST)


def open_prepared(folder: Path) -> Prepared:
    """Open what `prepare` made, and hold it.

    Raises DataError when there is nothing, when a quick look finds damage, or when it is being replaced.
    """
    lock = hold(folder)
    manifest = read_manifest(folder)
    if lock is None or manifest is None:
        raise DataError(f"{folder} holds no prepared data; run mt prepare CONFIG")
    if manifest.get("format") not in FORMATS:
        raise DataError(f"{folder} was prepared by another version of mt; run mt prepare CONFIG")
    for name, file in files_here(folder, manifest).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise DataError(f"{path} is missing or cut short; {remedy(folder, name)}")
    _verify(folder, manifest, [name for name in TOKENIZER_FILES if name in manifest["files"]])
    try:
        train, origins = open_training(folder, manifest, partial(fetch_shard, folder, manifest))
        return Prepared(
            dir=folder,
            tokenizers=Tokenizers.read(read_tokenizer_files(folder)),
            train=train,
            origins=origins,
            valid={name: open_corpus(folder / name) for name in manifest["sources"] if name.startswith("valid")},
            manifest=manifest,
            fingerprint=manifest["fingerprint"],
            lock=lock,
            shards=[shard["rows"] for shard in manifest.get("shards", {}).values()],
        )
    except DataError:
        _verify(folder, manifest)  # of two files that do not fit, name the damaged one
        raise


def open_training(
    folder: Path, manifest: Manifest, fetch: Callable[[str], None] = lambda shard: None
) -> tuple[Corpus, Origins]:
    """The training pairs of a prepared folder, and their origins; raises DataError when a file is damaged.

    fetch: makes sure that a shard is in the folder, before it is opened.
    """
    if "shards" not in manifest:
        return open_corpus(folder / "train"), open_origins(folder / "train")
    shards = manifest["shards"].items()
    return open_shards(
        [
            ShardSizes(folder / "train" / name, shard["rows"], tuple(shard["pieces"]), partial(fetch, name))
            for name, shard in shards
        ]
    )


def fingerprint(tokenizers: Tokenizers, files: FileEntries) -> str:
    """A hash of the tokenizers and of the ids, given the entries of their files."""
    arrays = (".ids.npy", ".offsets.npy", ".lengths.npy")
    ids = [f"{name} {file['sha256']}" for name, file in files.items() if name.endswith(arrays)]
    return hashlib.sha256("\n".join([tokenizers.fingerprint, *ids]).encode()).hexdigest()


def tokenizer_figures(tokenizers: Tokenizers) -> dict[str, dict[str, Any]]:
    """Of each tokenizer, as the manifest has them."""
    sides = [tokenizers.source] if tokenizers.is_joint else [tokenizers.source, tokenizers.target]
    return dict(zip(TOKENIZER_KEYS, map(_figures_of, sides), strict=False))


def _figures_of(side: Tokenizer) -> dict[str, Any]:
    figures = {"pieces": len(side), "fingerprint": side.fingerprint}
    return {**figures, "symbols": list(side.symbols)} if side.symbols else figures


def read_text(path: Path) -> list[str]:
    """The lines of text as prepared: UTF-8, a line feed after each line and nowhere else."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]


def _verify(folder: Path, manifest: Manifest, names: Sequence[str] = ()) -> None:
    """Compare the files named, by default all that are here, with their hashes, small ones first; raises DataError."""
    files = files_here(folder, manifest)
    for name in sorted(names or files, key=lambda name: int(files[name]["bytes"])):
        if sha256(folder / name) != files[name]["sha256"]:
            raise damaged(folder / name, remedy(folder, name))
