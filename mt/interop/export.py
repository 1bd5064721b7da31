"""`mt export`: a model in another program's format, which gets its name once it was seen to compute what ours does."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mt import __version__
from mt.checkpoint import SCALE, Checkpoint, save_checkpoint
from mt.config import Config, ModelConfig
from mt.console import Console
from mt.data.prepared import Text
from mt.data.vocabulary import Tokenizers
from mt.errors import UsageError
from mt.evaluate.bleu import bleu
from mt.files import check_new, new_folder
from mt.interop import ctranslate, marian
from mt.interop.ctranslate import CTranslate2Model, write_argos, write_ctranslate2
from mt.interop.exported_text import Exported, argos_files, ctranslate2_files, hugging_face_files
from mt.interop.marian import marian_log_probabilities, read_marian, write_marian
from mt.interop.self_check import (
    TOLERANCE,
    LogProbabilities,
    Pairs,
    difference,
    our_log_probabilities,
    pairs_to_check,
    source_ids,
    validation_text,
)
from mt.model.inference import quantised
from mt.model.transformer import Transformer
from mt.patterns import NUMBERED
from mt.run_folder import folder_of
from mt.translate.opening import chosen_checkpoints, fingerprint_of, open_model
from mt.translate.shortlist import FILE as SHORTLIST
from mt.translate.translator import Translator

FORMATS = {  # and the types that the weights may have there, the usual one first
    "ctranslate2": ("float32", "int8", "int8_float32", "float16"),
    "huggingface": ("float32",),
    "argos": ("int8", "int8_float32", "float16", "float32"),
    "mt": ("int8",),  # a checkpoint like any other, for translating on a CPU
}
HELD: dict[str, dict[str, tuple[object, ...]]] = {
    "ctranslate2": ctranslate.HELD,
    "huggingface": marian.HELD,
    "argos": ctranslate.HELD,
}
ANY = {
    "encoder_layers",
    "decoder_layers",
    "d_model",
    "heads",
    "d_ff",
    "max_positions",
}  # settings that no format limits
IN_TRAINING = {"dropout", "attention_dropout", "activation_dropout"}  # and those that end with training


def export(
    ckpt: Sequence[Path], to: str, output: Path, quantization: str | None, average: int | None, console: Console
) -> None:
    """Write a model in another format, with all that is needed to run it there, into a new folder.

    Raises UsageError for what the format cannot hold, MtError when the exported model computes something else; then
    nothing is written.
    """
    quantization = _check(ckpt, to, output, quantization)
    opened = _open(ckpt[0], average)
    refuse(to, opened.model.config, opened.tokenizers)
    console.say(f"model: {opened.name}")
    with new_folder(output) as folder:
        if to == "huggingface":
            files, checks = _write_hugging_face(folder, opened)
        elif to == "ctranslate2":
            files, checks = _write_ctranslate2(folder, opened, quantization)
        elif to == "argos":
            files, checks = _write_argos(folder, opened, quantization)
        else:
            files, checks = {}, _write_int8(folder, opened)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    for check in checks:
        console.say(check)
    how = f"mt translate --ckpt {output} runs it" if to == "mt" else "its README.md says how to run it"
    console.say(f"{output}: written; {how}")


@dataclass(frozen=True)
class _Opened:
    """The model, and what its copy is compared on."""

    name: str
    fingerprint: str
    checkpoint: Checkpoint
    model: Transformer
    tokenizers: Tokenizers
    text: Text | None  # the validation set
    pairs: Pairs
    logps: LogProbabilities  # of the pairs, under the model
    shortlist: Path  # of the run, where it has one

    @property
    def config(self) -> Config:
        return self.checkpoint.config

    def about(self, quantization: str, checks: list[str]) -> Exported:
        languages = (self.config.data.src, self.config.data.tgt)
        symbols = [symbol for symbol in self.tokenizers.source.symbols if symbol not in NUMBERED]
        joint, longest = self.tokenizers.is_joint, self.config.model.longest
        return Exported(
            self.name,
            quantization,
            languages,
            checks,
            self.config.decode,
            joint,
            symbols,
            self.config.data.protect,
            longest,
        )

    def mt_json(self, quantization: str, checks: list[str]) -> str:
        """Where the export comes from, for programs."""
        content = {
            "mt": __version__,
            "model": self.name,
            "sha256": self.fingerprint,
            "quantization": quantization,
            "checks": checks,
            "config": self.config.model_dump(mode="json"),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _open(path: Path, average: int | None) -> _Opened:
    checkpoints, name = chosen_checkpoints(path, average)
    checkpoint, model = open_model(checkpoints)
    tokenizers, config = Tokenizers.read(checkpoint.tokenizers), checkpoint.config
    text = validation_text(config, tokenizers)
    pairs = pairs_to_check(text, tokenizers, config)
    fingerprint = fingerprint_of(checkpoints)
    logps, shortlist = our_log_probabilities(model, pairs), folder_of(path) / SHORTLIST
    return _Opened(name, fingerprint, checkpoint, model, tokenizers, text, pairs, logps, shortlist)


def _check(ckpt: Sequence[Path], to: str, output: Path, quantization: str | None) -> str:
    if to not in FORMATS:
        raise UsageError(f"--to {to}: there are {', '.join(FORMATS)}")
    if len(ckpt) > 1:
        raise UsageError("no format holds an ensemble: export one model, such as the --average of several checkpoints")
    check_new(output)
    if quantization is not None and quantization not in FORMATS[to]:
        raise UsageError(f"--quantization {quantization}: {to} takes {', '.join(FORMATS[to])}")
    return quantization or FORMATS[to][0]


def refuse(to: str, c: ModelConfig, tokenizers: Tokenizers) -> None:
    """Raise UsageError naming what a format cannot hold, and a format that can."""
    if to in HELD and (problems := _problems(to, c, tokenizers)):
        others = [other for other in HELD if not _problems(other, c, tokenizers)]
        remedy = f"--to {others[0]} can" if others else "no other format can either; train a model without it"
        raise UsageError(f"{to} cannot hold {' and '.join(problems)}; {remedy}")


def _problems(to: str, c: ModelConfig, tokenizers: Tokenizers) -> list[str]:
    usual, held = ModelConfig(), HELD[to]
    problems = [
        f"model.{key}={value}"
        for key, value in c
        if key not in ANY | IN_TRAINING and value != getattr(usual, key) and value not in held.get(key, ())
    ]
    if to == "huggingface" and not tokenizers.share_ids:
        problems.append("two vocabularies")
    if to == "argos" and not tokenizers.is_joint:
        problems.append("two tokenizers")
    return problems


# --- Writing and comparing ---------------------------------------------------------------------------------------

Written = tuple[dict[str, str], list[str]]  # files of text that are still to be written, and what was compared


def _write_hugging_face(folder: Path, opened: _Opened) -> Written:
    write_marian(folder, opened.model, opened.tokenizers, opened.config)
    try:
        logps, how = marian_log_probabilities(folder, opened.pairs), "transformers gives them"
    except ImportError:
        logps = our_log_probabilities(read_marian(folder, opened.model), opened.pairs)
        how = "mt gives them when it reads the folder (transformers is not installed)"
    checks = [_same(opened, logps, how)]
    files = hugging_face_files(opened.about("float32", checks))
    return {**files, "mt.json": opened.mt_json("float32", checks)}, checks


def _write_ctranslate2(folder: Path, opened: _Opened, quantization: str) -> Written:
    for name, model_bytes in _tokenizer_files(opened.tokenizers).items():
        (folder / name).write_bytes(model_bytes)
    checks = _write_checked_ctranslate2(folder, opened, quantization)
    files = ctranslate2_files(opened.about(quantization, checks))
    return {**files, "mt.json": opened.mt_json(quantization, checks)}, checks


def _write_argos(folder: Path, opened: _Opened, quantization: str) -> Written:
    languages = (opened.config.data.src, opened.config.data.tgt)
    model = folder / "model"
    model.mkdir()
    checks = _write_checked_ctranslate2(model, opened, quantization)
    files = argos_files(opened.about(quantization, checks))
    write_argos(folder, model, opened.tokenizers.source.model_bytes, languages, files["README.md"])
    shutil.rmtree(model)
    return {**files, "mt.json": opened.mt_json(quantization, checks)}, checks


def _write_int8(folder: Path, opened: _Opened) -> list[str]:
    """Write a checkpoint with the weights of embeddings and linear layers in 8 bits, and compare what is read back."""
    decode = opened.config.decode.model_copy(update={"precision": "int8"})
    config = opened.config.model_copy(update={"decode": decode})
    weights = in_int8(opened.model.state_dict())
    save_checkpoint(folder, config, opened.checkpoint.tokenizers, weights, opened.checkpoint.state)
    if opened.shortlist.is_file():
        shutil.copyfile(opened.shortlist, folder / opened.shortlist.name)
    read = Translator(folder, device="cpu", decode={"beam": 1, "groups": 1, "sample": False})
    apart = difference(opened.logps, our_log_probabilities(read.models[0], opened.pairs))
    checks = [f"Log-probabilities of the pieces of {len(opened.pairs)} pairs differ by {apart.mean:.1e} on average."]
    return checks + _bleu_of_both(opened, lambda text: read(text[0], tag=text[2]), "int8")


def in_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a checkpoint in 8 bits stores them: matrices with the scales of their rows, all else as it is."""
    stored = dict[str, Tensor]()
    for name, weight in weights.items():
        if weight.ndim == 2 and name.endswith(".weight"):
            stored[name], stored[name + SCALE] = quantised(weight)
        else:
            stored[name] = weight
    return stored


def _tokenizer_files(tokenizers: Tokenizers) -> dict[str, bytes]:
    if tokenizers.is_joint:
        return {"sentencepiece.model": tokenizers.source.model_bytes}
    return {"source.spm": tokenizers.source.model_bytes, "target.spm": tokenizers.target.model_bytes}


def _write_checked_ctranslate2(folder: Path, opened: _Opened, quantization: str) -> list[str]:
    """Write the model; whatever type its weights are to have, it is compared in float32 first."""
    write_ctranslate2(folder, opened.model, opened.tokenizers, "float32")
    exact = CTranslate2Model(folder, opened.tokenizers)
    checks = [_same(opened, exact.log_probabilities(opened.pairs), "CTranslate2 gives them in float32")]
    if quantization != "float32":
        write_ctranslate2(folder, opened.model, opened.tokenizers, quantization)
        rounded = CTranslate2Model(folder, opened.tokenizers)
        apart = difference(opened.logps, rounded.log_probabilities(opened.pairs))
        checks.append(f"In {quantization} they differ by {apart.mean:.1e} on average.")
        longest = opened.about(quantization, []).longest
        checks += _bleu_of_both(
            opened, lambda text: rounded.greedy(source_ids(text, opened.tokenizers), longest), quantization
        )
    return checks


def _same(opened: _Opened, logps: LogProbabilities, how: str) -> str:
    """A sentence on how far the model and its copy are apart; raises MtError when that is too far."""
    pairs, apart = opened.pairs, difference(opened.logps, logps)
    apart.check(pairs)
    return (
        f"Log-probabilities of the pieces of {len(pairs)} pairs ({pairs.origin}) as {how} differ from mt's by at most "
        f"{apart.largest:.1e} (allowed: {TOLERANCE:.0e})."
    )


def _bleu_of_both(opened: _Opened, rounded: Callable[[Text], list[str]], quantization: str) -> list[str]:
    """A sentence on what rounding costs, where there is a validation set; without a beam, as searches differ."""
    if opened.text is None:
        return []
    (sources, references, tags), config = opened.text, opened.config
    greedy = config.decode.model_copy(update={"beam": 1, "sample": False})
    ours = Translator.of([opened.model], opened.tokenizers, greedy)(sources, tag=tags)
    before, after = (bleu(lines, references, lang=config.data.tgt).value for lines in (ours, rounded(opened.text)))
    return [f"BLEU of greedy translations of the validation set: {before:.2f} with mt, {after:.2f} in {quantization}."]
