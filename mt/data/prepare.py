"""`mt prepare`: text in, clean pairs, subword ids and a manifest out; mt/data/prepared.py lists the files."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mt.config import Config
from mt.console import Console
from mt.data.build import (
    SOURCE,
    TARGET,
    Reading,
    clean_training,
    copy_text,
    encode_text,
    encode_training,
    learn_tokenizers,
    readings_of,
    refuse_weights,
    text_shards,
)
from mt.data.changed import deciding_settings, warn_of_missing_text, why_prepare
from mt.data.clean import Drops
from mt.data.corpus import open_corpus
from mt.data.data_folder import SCRATCH, only_builder, replaced, unfinished
from mt.data.encoding import PairEncoder
from mt.data.finished import Record, read_record, write_record
from mt.data.manifest import FORMAT, SHARDED, Manifest, file_entries, write_manifest
from mt.data.prepared import Prepared, fingerprint, open_prepared, tokenizer_figures
from mt.data.processes import Workers
from mt.data.protect import Protection
from mt.data.shards import MOST_SOURCES, SHARD, Encoding
from mt.data.source_files import SourceFile, source_files, with_single_files
from mt.data.store import fetch_prepared
from mt.data.vocabulary import Tokenizers, given_tokenizers, read_tokenizer_files, tokenizer_paths
from mt.data_config import DataConfig
from mt.errors import ConfigError, DataError
from mt.files import write_whole


def prepare(config: Config, console: Console) -> Prepared:
    """Prepare the data of a config, or fetch them from `data.store`, unless its folder holds them already.

    Raises DataError when a source of text cannot be read, no pair is left, a sentence is too long for a batch or the
    model, or the folder is in use by a run that began with other data.
    """
    folder, store = config.data.dir, config.data.store
    if store is not None:
        fetch_prepared(store, folder, console)
        if reason := why_prepare(config):
            raise DataError(f"{store}: {reason}; put the settings back, or prepare there again")
        console.say(f"{folder}: as prepared at {store}")
    elif why_prepare(config):
        with only_builder(folder, console):
            if reason := why_prepare(config):  # unless another run has done it meanwhile
                console.say(f"{folder}: {reason}")
                _build(config, console)
    else:
        warn_of_missing_text(config.data, console)
        console.say(f"{folder}: already prepared")
    prepared = open_prepared(folder)
    _refuse_one_embedding(prepared.tokenizers, config)
    _refuse_too_long(prepared, config)
    return prepared


# --- Building ----------------------------------------------------------------------------------------------------

Files = dict[str, list[list[SourceFile]]]  # folder -> entry -> files
Readings = dict[str, list[Reading]]  # folder -> entry

# Records, in the folder of what only preparing needs:
FILES = "files.json"  # what the files of text are
LEARNT = "tokenizers.json"  # the hashes of the tokenizers


def _build(given_config: Config, console: Console) -> None:
    data, inputs = with_single_files(given_config.data)
    config = given_config.model_copy(update={"data": data})
    paths = tokenizer_paths(data)
    given = given_tokenizers(paths) if paths else None
    if given:
        _refuse_one_embedding(given, config)
        _refuse_unknown_tags(given, data)
    if len(data.train) > MOST_SOURCES:
        raise DataError(f"data.train names {len(data.train):,} sources, more than {MOST_SOURCES:,}: join some of them")
    known = _files_before(data.dir)
    files = {
        name: [[SourceFile.now(file, known) for file in source_files(entry, data.src, data.tgt)] for entry in entries]
        for name, entries in data.splits.items()
    }
    with replaced(data.dir, _plan(config, files, given), console) as folder, Workers(data.processes) as workers:
        write_record(folder / SCRATCH / FILES, [asdict(file) for file in _all_of(files)])
        held_out = [name for name in data.splits if name != "train"]
        readings = {name: copy_text(name, folder / name, config, console) for name in held_out}
        text_records = clean_training(config, folder / SCRATCH, workers, console)
        for file in _all_of(files):
            if not file.is_same(file.path):
                raise DataError(f"{file.path} changed while it was read; run again when it is complete")
        shards = text_shards(text_records, folder / SCRATCH, config, console)
        readings["train"] = readings_of(text_records, shards, config)
        for reading in readings["train"]:
            reading.warn(console)
        drops = _drops(config, text_records)
        _refuse_nothing(sum(reading.kept for reading in readings["train"]), readings["train"], drops)
        refuse_weights(readings["train"], text_records, config, folder)
        tokenizers = given or _learnt(folder) or learn_tokenizers(shards, config, workers, console)
        for name, model_bytes in tokenizers.files.items():
            write_whole(folder / name, model_bytes)
        write_record(folder / SCRATCH / LEARNT, _hashes(tokenizers.files))
        encoding = Encoding(config, folder, folder / SCRATCH / "ids", is_single=len(shards) == 1)
        records = encode_training(encoding, shards, workers, console)
        for name in data.valid_folders:
            encode_text(
                folder / name, PairEncoder(tokenizers, Protection(data.protect)), data.splits[name], readings[name]
            )
        drops = _drops(config, [*text_records, *records])
        names = [reading.name for reading in readings["train"]]
        drops.write(folder / "dropped.tsv", names)
        manifest = _manifest(given_config, _sources(inputs, files, readings), tokenizers, drops, encoding, records)
        _refuse_nothing(manifest["train"]["rows"], readings["train"], drops)
        write_manifest(folder, manifest)
    _report(manifest, console)
    for warning in drops.warnings(sum(reading.read for reading in readings["train"]), names):
        console.warn(warning)


def _plan(config: Config, files: Files, given: Tokenizers | None) -> str:
    """What is to be prepared: what an earlier process finished is of use only where this is the same."""
    plan = {
        "versions": _versions(),
        "settings": deciding_settings(config),
        "files": [(file.path, file.bytes, file.sha256, file.version) for file in _all_of(files)],
        "tokenizers": given and given.fingerprint,
        "shard": SHARD,
    }
    return json.dumps(plan, indent=1)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("mt", "sentencepiece")}


def _all_of(files: Files) -> list[SourceFile]:
    return [file for entries in files.values() for entry in entries for file in entry]


def _files_before(folder: Path) -> dict[str, SourceFile]:
    """The files of text, by path, as an earlier process found them that was stopped."""
    records = read_record(unfinished(folder) / SCRATCH / FILES) or []
    return {record["path"]: SourceFile(**record) for record in records}


def _learnt(folder: Path) -> Tokenizers | None:
    """The tokenizers that an earlier process learnt, if it came so far and they are as they were written."""
    files = read_tokenizer_files(folder)
    return Tokenizers.read(files) if read_record(folder / SCRATCH / LEARNT) == _hashes(files) else None


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def _drops(config: Config, records: Iterable[Record]) -> Drops:
    drops = Drops(config.data.seed)
    for record in records:
        drops.merge(record["drops"])
    return drops


def _refuse_nothing(pairs: int, readings: Sequence[Reading], drops: Drops) -> None:
    if not pairs:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in drops.counts.most_common())
        problem = f"no training pair is left: {dropped or 'the sources are empty'}; see data.train and data.clean"
        names, read = [reading.name for reading in readings], sum(reading.read for reading in readings)
        raise DataError("\n".join([problem, *drops.warnings(read, names)]))


def _sources(inputs: dict[str, list[int]], files: Files, readings: Readings) -> dict[str, list[dict[str, Any]]]:
    """By folder, what was read; inputs: the entry of the config that each source comes from."""
    return {
        name: [
            asdict(reading) | {"input": number, "files": [asdict(file) for file in of_entry]}
            for reading, number, of_entry in zip(readings[name], inputs[name], files[name], strict=True)
        ]
        for name in inputs
    }


def _manifest(
    config: Config,
    sources: dict[str, list[dict[str, Any]]],
    tokenizers: Tokenizers,
    drops: Drops,
    encoding: Encoding,
    records: Sequence[Record],
) -> Manifest:
    known = {
        f"{encoding.name(number)}/{name}": file
        for number, record in enumerate(records)
        for name, file in record["files"].items()
    }
    entries = file_entries(encoding.folder, known)
    pieces = np.sum([record["pieces"] for record in records], axis=0).tolist()
    manifest = {
        "format": FORMAT if encoding.is_single else SHARDED,
        "fingerprint": fingerprint(tokenizers, entries),
        "versions": _versions(),
        "settings": deciding_settings(config),
        "sources": sources,
        "dropped": dict(sorted(drops.counts.items())),
        "train": {
            "rows": sum(record["rows"] for record in records),
            "source_pieces": pieces[SOURCE],
            "target_pieces": pieces[TARGET],
        },
        **{name: _sizes(encoding.folder / name) for name in config.data.valid_folders},
        **tokenizer_figures(tokenizers),
        "files": entries,
    }
    if not encoding.is_single:
        manifest["shards"] = {
            Path(encoding.name(number)).name: {key: record[key] for key in ("rows", "pieces", "longest")}
            for number, record in enumerate(records)
            if record["rows"]
        }
    if config.data.protect:
        protected = Counter[str]()
        for record in records:
            protected.update(record["protected"])
        manifest["protected"] = dict(sorted(protected.items()))
    return manifest


def _sizes(folder: Path) -> dict[str, int]:
    corpus = open_corpus(folder)
    pieces = {f"{side}_pieces": len(getattr(corpus, side).ids) for side in ("source", "target")}
    return {"rows": len(corpus), **pieces}


def _report(manifest: Manifest, console: Console) -> None:
    read = sum(reading["read"] for reading in manifest["sources"]["train"])
    dropped = sum(manifest["dropped"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest["dropped"].items())
    console.say(f"{read - dropped:,} of {read:,} training pairs kept" + (f"; dropped {reasons}" if reasons else ""))
    if protected := manifest.get("protected"):
        console.say("data.protect: " + ", ".join(f"{count:,} pairs {outcome}" for outcome, count in protected.items()))


# --- What would otherwise stop training later --------------------------------------------------------------------


def _refuse_one_embedding(tokenizers: Tokenizers, config: Config) -> None:
    if config.model.embeddings == "tied" and not tokenizers.share_ids:
        raise ConfigError(
            "the tokenizers of source and target number their pieces each in its own way, but model.embeddings tied "
            "has one matrix for both: set model.embeddings=decoder, or separate"
        )


def _refuse_unknown_tags(given: Tokenizers, data: DataConfig) -> None:
    tags = [source.tag for source in data.inputs("test") if source.tag is not None]
    try:
        for symbol in (*data.all_symbols, *tags):
            given.source.tag_id(symbol)
    except DataError as error:
        raise DataError(f"data.tokenizer: {error}") from None


def _refuse_too_long(prepared: Prepared, config: Config) -> None:
    limits = (
        (config.batch.tokens, "a batch holds", "batch.tokens"),
        (config.model.longest, "learned positions end at", "model.max_positions"),
    )
    for name, part in _parts_to_check(prepared, min(limit for limit, *_ in limits if limit is not None)):
        corpus = prepared.train if name == "train" else prepared.valid[name]
        longest_N = corpus.lengths(part).max(axis=1)
        row = int(longest_N.argmax())
        for limit, what, key in limits:
            if limit is None or longest_N[row] <= limit:
                continue
            prepared.verify()  # damaged offsets would name a pair that is not long
            pair = (
                prepared.origin([row + part.start])[0]
                if name == "train"
                else f"{name.replace('valid', 'validation')} pair {row + 1}"
            )
            raise DataError(
                f"{pair} has {longest_N[row]:,} pieces on one side, but {what} {limit:,}: "
                f"raise {key}{' or lower data.clean.max_pieces' if name == 'train' else ''}"
            )


def _parts_to_check(prepared: Prepared, limit: int) -> Iterator[tuple[str, slice]]:
    """Which rows may hold a sentence above the limit: of shards, those of the one with the longest, by the manifest."""
    longest = [max(shard["longest"]) for shard in prepared.manifest.get("shards", {}).values()]
    if not longest:
        yield "train", slice(0, len(prepared.train))
    elif max(longest) > limit:
        number = longest.index(max(longest))
        start = sum(prepared.shards[:number])
        yield "train", slice(start, start + prepared.shards[number])
    for name, corpus in prepared.valid.items():
        yield name, slice(0, len(corpus))
