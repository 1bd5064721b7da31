"""Models under evaluation: what `--ckpt` names, the run's own test set, and translations, which are made only once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mt import __version__
from mt.checkpoint import last_checkpoints, read_config
from mt.config import Config, DecodeConfig
from mt.console import Console, counted
from mt.data.prepared import open_prepared
from mt.data_config import name_of
from mt.device import choose_device
from mt.errors import DataError, WriteError
from mt.evaluate.testsets import TestSet
from mt.files import read_json, write_whole
from mt.model.inference import decoding_warning
from mt.run_folder import choose_checkpoint
from mt.translate.opening import decode_settings
from mt.translate.translator import Translator


@dataclass(frozen=True)
class Candidate:
    """A model to score: a checkpoint, or several to average, and how it decodes. Its weights are not read yet."""

    path: Path  # as given: a run or a checkpoint
    checkpoints: tuple[Path, ...]
    config: Config
    decode: DecodeConfig
    reason: str = ""  # why this checkpoint of a run

    @property
    def run(self) -> Path | None:
        """The run directory that the checkpoint lies in."""
        folder = self.checkpoints[-1].parent
        return folder.parent if folder.name == "checkpoints" else None

    @property
    def decoding(self) -> str:
        """Such as: beam 4, alpha 0.6; then the settings that differ from the defaults."""
        decode, usual = self.decode, DecodeConfig()
        beam = f"beam {decode.beam}, alpha {decode.alpha:g}" if decode.beam > 1 else "greedy"
        named = ("beam", "alpha", "batch_tokens")
        others = [f"{key} {value}" for key, value in decode if key not in named and value != getattr(usual, key)]
        return ", ".join([beam, *others])

    @property
    def name(self) -> str:
        """Such as: runs/base (averaged, beam 4, alpha 0.6)."""
        names = [checkpoint.name for checkpoint in self.checkpoints if checkpoint != self.path]
        weights = [f"average of {names[0]} to {names[-1]}"] if len(names) > 1 else names
        return f"{self.path} ({', '.join([*weights, self.decoding])})"


def find_model(path: Path, decode: Mapping[str, object] | None = None, average: int | None = None) -> Candidate:
    """The model meant by a path; keys of `decode` go over its config's.

    Raises CheckpointError when there is no such checkpoint.
    """
    choice = choose_checkpoint(path) if average is None else None
    checkpoints = (choice.path,) if choice else tuple(last_checkpoints(path, average or 1))
    config = read_config(checkpoints[-1])
    reason = choice.reason if choice else ""
    return Candidate(path, checkpoints, config, decode_settings(config.decode, decode or {}), reason)


def own_folder(model: Candidate, name: str) -> str | None:
    """Where the set of this name in the run's config lies in its prepared data: test/NAME, or else valid/NAME.

    Such a folder is itself a name, as are `test` and `valid` of sets without one. None where no set is called so.
    """
    folders = [folder for folder in model.config.data.splits if folder != "train"]
    return next((folder for folder in (f"test/{name}", f"valid/{name}", name) if folder in folders), None)


def own_testsets(model: Candidate) -> list[TestSet]:
    """The test sets that the run's config names; where it names none, its validation sets."""
    splits = model.config.data.splits
    tests = [folder for folder, inputs in splits.items() if folder.startswith("test") and inputs]
    return [own_testset(model, folder) for folder in tests or model.config.data.valid_folders]


def own_testset(model: Candidate, folder: str) -> TestSet:
    """A test or validation set that the run's config names, as it was prepared.

    Raises DataError when there is none, or when another one was prepared.
    """
    data, key = model.config.data, f"data.{folder.replace('/', '.')}"
    remedy = "name a test set: --testset, or --src and --ref"
    try:
        prepared = open_prepared(data.dir)
    except DataError as error:
        raise DataError(f"{error};\nor {remedy}") from None
    names = [name_of(entry) for entry in prepared.entries(folder)]
    if names != [name_of(source) for source in data.splits[folder]]:
        raise DataError(f"{data.dir} was prepared with another {key} than that of {model.path};\nor {remedy}")
    if not names:
        raise DataError(f"{model.path}: its config has no {key}; {remedy}")
    sources, references, tags = prepared.text(folder)
    pair, given = f"{data.src}-{data.tgt}", tuple(tags) if any(tags) else ()
    name = folder.removeprefix("test/") if "/" in folder else " + ".join(names)
    return TestSet(name, pair, str(data.dir), sources, (references,), given)


def translate(model: Candidate, testset: TestSet, device: str, console: Console) -> list[str]:
    """One translation for each source; those of a run's checkpoint are kept in the run and used again."""
    sources = testset.sources
    kept = _kept_file(model, testset, device)
    before = read_json(kept) if kept is not None else None
    if isinstance(before, list) and len(before) == len(sources):
        console.say(f"translations made before: {kept}")
        return before
    single = len(model.checkpoints) == 1
    path, average = (model.checkpoints[0], None) if single else (model.path, len(model.checkpoints))
    translator = Translator(path, device=device, average=average, decode=model.decode.model_dump())
    console.say(f"model: {model.name}{f'; {model.reason}' if model.reason else ''}")
    if warning := decoding_warning(model.decode.precision, choose_device(device)):
        console.warn(warning)
    with console.track("translating", total=len(sources)) as advance:
        found = translator.n_best(sources, advance=advance, scored=False, tag=testset.tags or None)
    translations = [outputs[0].text for outputs in found]
    if notes := [outputs[0].note for outputs in found if outputs[0].note]:
        console.warn(f"{counted(len(notes), 'line')} with a note such as: {notes[0]}")
    if kept is not None:
        try:
            write_whole(kept, json.dumps(translations, ensure_ascii=False, indent=0) + "\n")
        except WriteError as error:
            console.warn(f"{error}; these translations will not be used again")
    return translations


def _kept_file(model: Candidate, testset: TestSet, device: str) -> Path | None:
    """The file that keeps the translations; its name has a hash of the weights, decoding, text and kind of device."""
    if model.run is None or len(model.checkpoints) > 1:
        return None
    (checkpoint,) = model.checkpoints
    try:
        manifest = (checkpoint / "MANIFEST.json").read_bytes()  # holds the hash of every file of the checkpoint
    except OSError:
        return None  # opening the model will say what is wrong
    settings: list[object] = [model.decode.model_dump(), choose_device(device).type, __version__, testset.sources]
    if testset.tags:
        settings.append(testset.tags)
    key = hashlib.sha256(manifest + json.dumps(settings).encode()).hexdigest()[:16]
    return model.run / "translations" / f"{checkpoint.name}-{key}.json"
