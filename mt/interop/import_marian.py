"""`mt import`: a folder of Hugging Face's MarianMTModel, such as those of OPUS-MT, as a run of ours."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from mt.checkpoint import read_safetensors, save_checkpoint, step_name
from mt.config import Config, DecodeConfig, ModelConfig
from mt.config_file import dump_config
from mt.console import Console, counted
from mt.data.batches import Cursor
from mt.data.tokenizer import Tokenizer
from mt.data.vocabulary import Tokenizers
from mt.data_config import DataConfig
from mt.errors import DataError, UsageError
from mt.files import check_new, new_folder
from mt.interop.marian import ACTIVATIONS, from_marian
from mt.interop.pieces import SPECIAL, with_vocabulary
from mt.model.transformer import Transformer
from mt.run_files import CONFIG

SHOWN_TARGETS = 8
TIED = ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head")  # names of one matrix

# What a model of ours does; transformers' own default where a folder does not say it.
EXPECTED = {
    "model_type": (None, "marian"),
    "scale_embedding": (False, True),
    "normalize_before": (False, False),
    "normalize_embedding": (False, False),
    "add_final_layer_norm": (False, False),
    "share_encoder_decoder_embeddings": (True, True),
    "tie_word_embeddings": (True, True),
}


def import_marian(folder: Path, output: Path, console: Console) -> None:
    """Write the model of a folder as a run that translates, trains on with --init-from, and can be exported.

    Raises UsageError for a model that has no equal here, DataError for a damaged folder; then nothing is written.
    """
    check_new(output)
    _check_kind(folder)
    settings = _json(folder, "config.json")
    _refuse_foreign(settings, folder)
    numbers = _numbers(_vocabulary(folder, settings), settings, folder)
    tokenizers, dropped = _tokenizers(folder, numbers.names)
    tensors = read_safetensors(folder / "model.safetensors")
    embedding_VD, bias_V = _output(tensors, numbers, folder)
    config = _config(settings, folder, output, embedding_VD, has_bias=bool(bias_V.any()))
    renumbered = {**tensors, "model.shared.weight": embedding_VD, "final_logits_bias": bias_V[None]}
    weights = _weights(renumbered, config.model, folder)
    state = {
        "update": 0,
        "data": "",
        "cursor": asdict(Cursor()),
        "imported": {
            "folder": str(folder),
            "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        },
    }
    with new_folder(output) as partial:
        (partial / CONFIG).write_text(dump_config(config), encoding="utf-8")
        save_checkpoint(partial / "checkpoints" / step_name(0), config, tokenizers.files, weights, state)
    parameters = sum(weight.numel() for weight in weights.values())
    console.say(f"{output}: {counted(parameters, 'weight')}, {counted(len(tokenizers.source), 'piece')}")
    if dropped:
        console.say(f"{counted(dropped, 'piece')} of the tokenizers are not in vocab.json: text is cut without them")
    if targets := [name for name in numbers.names if name.startswith(">>") and name.endswith("<<")]:
        shown = ", ".join([*targets[:SHOWN_TARGETS], *(["..."] if len(targets) > SHOWN_TARGETS else [])])
        console.say(f"the language to translate to is a tag: mt translate --tag '{targets[0]}' ({shown})")


# --- What is refused ---------------------------------------------------------------------------------------------


def _check_kind(folder: Path) -> None:
    """Raise UsageError for what is no folder of this kind, with the way out."""
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder}: has no config.json: give the folder of a MarianMTModel, as downloaded from its hub"
        )
    if not (folder / "model.safetensors").is_file():
        raise UsageError(
            f"{folder}: has no model.safetensors. Pickled weights are never read: convert them once with transformers, "
            "MarianMTModel.from_pretrained(FOLDER).save_pretrained(NEW), and copy the other files beside them"
        )
    if (folder / "target_vocab.json").exists():
        raise UsageError(f"{folder}: has two vocabularies (target_vocab.json); only models with one can be imported")


def _refuse_foreign(settings: Mapping[str, Any], folder: Path) -> None:
    found = {key: settings.get(key, usual) for key, (usual, _) in EXPECTED.items()}
    problems = [
        f"{key} is {json.dumps(value)}, not {json.dumps(EXPECTED[key][1])}"
        for key, value in found.items()
        if value != EXPECTED[key][1]
    ]
    for name in ("attention_heads", "ffn_dim"):
        if settings.get(f"encoder_{name}") != settings.get(f"decoder_{name}"):
            problems.append(f"encoder and decoder differ in {name}")
    if settings.get("activation_function") not in (*ACTIVATIONS.values(), "silu"):
        problems.append(f"activation_function is {json.dumps(settings.get('activation_function'))}")
    if problems:
        raise UsageError(f"{folder}: is no model that mt has ({'; '.join(problems)}): use it with transformers")


# --- Pieces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbers:
    """Which piece of theirs each of our ids is; None for the padding of a model that begins outputs with its own."""

    theirs: list[int | None]
    names: list[str]

    def rows(self, values: Tensor) -> Tensor:
        """Their rows in our order; zeros where there is none."""
        found = values[[index or 0 for index in self.theirs]]
        found[[index is None for index in self.theirs]] = 0
        return found


def _vocabulary(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """The name of each piece of theirs."""
    ids = _json(folder, "vocab.json")
    names = {index: name for name, index in ids.items() if isinstance(index, int)}
    if len(names) != len(ids) or sorted(names) != list(range(len(ids))) or len(ids) != settings.get("vocab_size"):
        raise DataError(
            f"{folder / 'vocab.json'}: does not number {settings.get('vocab_size')} pieces from 0, as config.json says"
        )
    return [names[index] for index in range(len(names))]


def _numbers(vocabulary: list[str], settings: Mapping[str, Any], folder: Path) -> _Numbers:
    """Our order: the special pieces, then the others in their order."""
    pad, start, end = (settings.get(f"{name}_token_id") for name in ("pad", "decoder_start", "eos"))
    unknown = vocabulary.index("<unk>") if "<unk>" in vocabulary else None
    special = [None if pad == start else pad, start, end, unknown]
    given = special[1:] if pad == start else special
    if not all(_is_id(index, vocabulary) for index in given) or len(set(given)) < len(given):
        raise DataError(
            f"{folder / 'config.json'}: padding, start, end and <unk> have the ids {pad}, {start}, {end} and "
            f"{unknown}; they must be pieces of vocab.json, and differ but for the first two"
        )
    others = [index for index in range(len(vocabulary)) if index not in given]
    names = list(SPECIAL)
    for index in others:  # a piece that is called as one of ours gets a name of its own
        names.append(f"<{vocabulary[index]}>" if vocabulary[index] in SPECIAL else vocabulary[index])
    return _Numbers([*special, *others], names)


def _is_id(value: object, vocabulary: list[str]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(vocabulary)


def _tokenizers(folder: Path, names: list[str]) -> tuple[Tokenizers, int]:
    """Source and target tokenizer with the same ids, and how many pieces they had besides."""
    found = []
    for name in ("source.spm", "target.spm"):
        path = folder / name
        try:
            model, dropped = with_vocabulary(path.read_bytes(), names)
            found.append((Tokenizer(model), dropped))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    (source, left_out), (target, also_left_out) = found
    return Tokenizers(source, target), left_out + (0 if target.model_bytes == source.model_bytes else also_left_out)


# --- Settings and weights ----------------------------------------------------------------------------------------


def _config(settings: dict[str, Any], folder: Path, output: Path, embedding_VD: Tensor, has_bias: bool) -> Config:
    """The settings of the run: sizes and search as the folder says, languages if it says them."""
    activation = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"silu": "silu"}
    d_model = embedding_VD.size(1)
    if settings.get("d_model") != d_model:
        raise DataError(f"{folder}: config.json says d_model {settings.get('d_model')}, the weights have {d_model}")
    sizes = {
        "encoder_layers": settings.get("encoder_layers"),
        "decoder_layers": settings.get("decoder_layers"),
        "d_model": d_model,
        "heads": settings.get("encoder_attention_heads"),
        "d_ff": settings.get("encoder_ffn_dim"),
        "dropout": settings.get("dropout", 0.1),
        "attention_dropout": settings.get("attention_dropout", 0.0),
        "activation_dropout": settings.get("activation_dropout", 0.0),
        "activation": activation[settings["activation_function"]],
        "output_bias": has_bias,
    }
    search = settings | _json(folder, "generation_config.json", needed=False)
    decode = {"beam": search.get("num_beams", 4), "penalty": "length", "alpha": search.get("length_penalty", 1.0)}
    languages = _json(folder, "tokenizer_config.json", needed=False)
    data = {
        "dir": output / "data",  # where nothing is: the model comes without its text
        "src": str(languages.get("source_lang") or "src"),
        "tgt": str(languages.get("target_lang") or "tgt"),
        "test": (),
    }
    try:
        return Config(
            data=DataConfig.model_validate(data),
            model=ModelConfig.model_validate(sizes, strict=True),
            decode=DecodeConfig.model_validate(decode),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "sizes"
        raise DataError(f"{folder}: its settings make no model: {where}: {problem['msg']}") from None


def _output(tensors: Mapping[str, Tensor], numbers: _Numbers, folder: Path) -> tuple[Tensor, Tensor]:
    """The one embedding and the output's bias, their rows in our order."""
    path = folder / "model.safetensors"
    embeddings = [tensors[f"{name}.weight"] for name in TIED if f"{name}.weight" in tensors]
    if not embeddings:
        raise DataError(f"{path}: has no model.shared.weight, the embedding")
    embedding_VD, rows = embeddings[0], sum(index is not None for index in numbers.theirs)
    if any(not torch.equal(embedding_VD, other) for other in embeddings[1:]):
        raise UsageError(f"{path}: source, target and output have embeddings of their own; only one can be imported")
    bias_1V = tensors.get("final_logits_bias", torch.zeros(1, rows))
    if embedding_VD.dim() != 2 or len(embedding_VD) != rows or bias_1V.shape != (1, rows):
        shapes = f"{list(embedding_VD.shape)} and {list(bias_1V.shape)}"
        raise DataError(f"{path}: embedding and bias have shapes {shapes}, but vocab.json has {rows} pieces")
    return numbers.rows(embedding_VD), numbers.rows(bias_1V[0])


def _weights(tensors: Mapping[str, Tensor], c: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """Our weights; raises DataError when the tensors are not those of a model of these sizes."""
    path = folder / "model.safetensors"
    known = {f"{name}.weight" for name in TIED} | {"final_logits_bias"}
    known |= {f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")}
    try:
        weights, used = from_marian(tensors, c)
    except KeyError as error:
        raise DataError(f"{path}: has no {error.args[0]}, which a model of these sizes has") from None
    except (IndexError, RuntimeError):
        raise DataError(f"{path}: weights have other shapes than config.json says") from None
    if unknown := tensors.keys() - used - known:
        raise DataError(f"{path}: has {min(unknown)}, which a model of these sizes has not")
    with torch.device("meta"):  # shapes alone
        model = Transformer(c, len(weights["embedding.weight"]))
    for name, expected in model.state_dict().items():
        if weights[name].shape != expected.shape:
            found, wanted = list(weights[name].shape), list(expected.shape)
            raise DataError(f"{path}: {name} would have shape {found}, but config.json says {wanted}")
        if not weights[name].isfinite().all():
            raise DataError(f"{path}: {name} has values that are no numbers")
    return weights


def _json(folder: Path, name: str, needed: bool = True) -> dict[str, Any]:
    path = folder / name
    if not needed and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: is damaged: no JSON") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: is damaged: no JSON object")
    return cast(dict[str, Any], content)
