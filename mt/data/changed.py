"""Whether a folder holds the prepared data of a config already, and if not, what has changed since."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mt.config import Config
from mt.config_changes import differences
from mt.console import Console
from mt.data.manifest import FORMATS, SPLITS, Manifest, read_manifest, sources_of
from mt.data.prepared import TOKENIZER_KEYS, tokenizer_figures
from mt.data.source_files import SourceFile, files_of
from mt.data.vocabulary import given_tokenizers, tokenizer_paths
from mt.data_config import DataConfig, name_of
from mt.errors import DataError

_ELSEWHERE = {"dir", "store", "processes"}  # settings of data that decide nothing of what is prepared
# Settings without effect where the given tokenizer is the one already used.
_TOKENIZER_SETTINGS = ("data.tokenizer", "data.vocab", "data.symbols")  # also data.tokenizer_sample, data.vocab_size


def why_prepare(config: Config) -> str:
    """Why `prepare` would prepare the folder of a config; empty when it holds the data already. Writes nothing.

    Raises DataError when the folder holds something else, or a damaged manifest.
    """
    folder = config.data.dir
    manifest = read_manifest(folder)
    if manifest is None:
        if _is_foreign(folder):
            raise DataError(f"{folder} is no folder of prepared data; set data.dir to one that may be replaced")
        return "preparing"
    if manifest.get("format") not in FORMATS:
        return "preparing again, another version of mt did it"
    changes = what_changed(config)
    return f"preparing again, changed: {', '.join(changes)}" if changes else ""


def what_changed(config: Config) -> list[str]:
    """The settings and texts that differ from those of a prepared folder, each beginning with its key.

    Empty where nothing is prepared, or by another version; text that is gone counts as unchanged. Writes nothing.
    """
    manifest = read_manifest(config.data.dir)
    if manifest is None or manifest.get("format") not in FORMATS:
        return []
    # With a store, the text need not be where the prepared data are used.
    return _changed_settings(manifest, config) or ([] if config.data.store else _changed_text(manifest, config.data))


def deciding_settings(config: Config) -> dict[str, Any]:
    """All settings that decide what is prepared: not the folder it is prepared in or fetched from, nor by how many."""
    return config.data.model_dump(mode="json", exclude=_ELSEWHERE)


def warn_of_missing_text(data: DataConfig, console: Console) -> None:
    try:
        files_of([entry for entries in data.splits.values() for entry in entries], data)
    except DataError as error:
        console.warn(f"{error}; using {data.dir} as it was prepared")


def _is_foreign(folder: Path) -> bool:
    """Whether the folder holds something that `prepare` did not make and so must not replace."""
    if not folder.is_dir():
        return folder.exists()
    return not (folder / "manifest.json").exists() and any(folder.iterdir())


def _changed_settings(manifest: Manifest, config: Config) -> list[str]:
    try:
        before = DataConfig.model_validate(manifest["settings"] | config.data.model_dump(include=_ELSEWHERE))
    except ValidationError:
        return ["settings that this version of mt does not know"]
    same_sources = config.data.model_copy(update={split: getattr(before, split) for split in SPLITS})
    changes = [f"data.{line}" for line in differences(before, same_sources)]
    paths = tokenizer_paths(config.data)
    if paths and all(Path(path).exists() for path in paths):  # like the text, it may be gone once the data are prepared
        changes = [line for line in changes if not line.startswith(_TOKENIZER_SETTINGS)]
        if tokenizer_figures(given_tokenizers(paths)) != {
            key: manifest[key] for key in TOKENIZER_KEYS if key in manifest
        }:
            changes.append(f"data.tokenizer: {' and '.join(paths)} {'are others' if paths[1:] else 'is another one'}")
    return [f"data.{split}" for split in SPLITS if getattr(before, split) != getattr(config.data, split)] + changes


def _changed_text(manifest: Manifest, data: DataConfig) -> list[str]:
    changes = []
    for folder, entries in data.splits.items():
        for number, entry in enumerate(entries):
            with suppress(DataError):
                sources = sources_of(manifest, folder, number)
                paths = files_of([entry], data)
                files = [SourceFile(**file) for source in sources for file in source["files"]]
                if len(paths) != len(files) or not all(map(SourceFile.is_same, files, paths)):
                    changes.append(f"data.{folder.replace('/', '.')}: the text of {name_of(entry)}")
    return changes
