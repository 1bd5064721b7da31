"""From paths to models: which checkpoints a path means, their mean weights, and settings that fit them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mt.checkpoint import SCALE, Checkpoint, average_weights, in_float32, last_checkpoints, load_checkpoint
from mt.config import DecodeConfig
from mt.console import counted
from mt.data.vocabulary import Tokenizers
from mt.errors import CheckpointError, UsageError
from mt.model.inference import inference_model, int8_model, largest_exact_weight
from mt.model.transformer import Transformer
from mt.run_folder import choose_checkpoint


def chosen_checkpoints(path: Path, average: int | None) -> tuple[list[Path], str]:
    """The checkpoints to average, the newest last, and a name for their mean."""
    if average is None:
        choice = choose_checkpoint(path)
        return [choice.path], str(choice)
    checkpoints = last_checkpoints(path, average)
    return checkpoints, f"average of {counted(len(checkpoints), 'checkpoint')} up to {checkpoints[-1]}"


def fingerprint_of(checkpoints: Sequence[Path]) -> str:
    """A hash of checkpoints: their manifests hold the hash of every file."""
    manifests = b"".join((checkpoint / "MANIFEST.json").read_bytes() for checkpoint in checkpoints)
    return hashlib.sha256(manifests).hexdigest()


def open_checkpoint(checkpoints: Sequence[Path]) -> Checkpoint:
    """The newest of the checkpoints with the mean weights of all; those of one alone may be in 8 bits."""
    if len(checkpoints) == 1:
        return load_checkpoint(checkpoints[0], in_int8=True)
    return replace(load_checkpoint(checkpoints[-1]), weights=average_weights(checkpoints))


def open_model(checkpoints: Sequence[Path]) -> tuple[Checkpoint, Transformer]:
    """The newest of the checkpoints, and a model of their mean weights in evaluation mode."""
    checkpoint = open_checkpoint(checkpoints)
    model = _empty_model(checkpoint)
    return checkpoint, _filled(model, checkpoint, in_float32(checkpoint.weights)).eval()


def decoding_model(checkpoint: Checkpoint, precision: torch.dtype, device: torch.device) -> Transformer:
    """The model of a checkpoint, to decode in `precision`: weights in 8 bits go into it without ever being in 32."""
    model, weights = _empty_model(checkpoint), checkpoint.weights
    stored = {name: (weights[name], weights[name + SCALE]) for name in weights if name + SCALE in weights}
    if not (stored and precision == torch.int8 and largest_exact_weight()):
        return inference_model(_filled(model, checkpoint, in_float32(weights)).to(device), precision)
    given = {name: tensor for name, tensor in weights.items() if not name.endswith(SCALE)}
    matrices = {name: torch.empty_like(tensor, device="meta") for name, (tensor, _) in stored.items()}
    return int8_model(_filled(model, checkpoint, given | matrices), stored)


def _empty_model(checkpoint: Checkpoint) -> Transformer:
    """The model of a checkpoint without memory for its weights."""
    tokenizers = Tokenizers.read(checkpoint.tokenizers)
    with torch.device("meta"), _Undrawn():
        return Transformer(checkpoint.config.model, len(tokenizers.target), len(tokenizers.source))


class _Undrawn(TorchFunctionMode):
    """Leave out random weights: torch draws those of no memory with the help of its compiler, 400 modules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return None if func in _DRAWING else func(*args, **(kwargs or {}))


_DRAWING = {nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}


def _filled(model: Transformer, checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> Transformer:
    """The model with these weights, which are not copied."""
    try:
        model.requires_grad_(False).load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: the weights do not fit its config: {error}") from None
    return model


def refuse_other_vocabularies(tokenizers: Tokenizers, checkpoints: Sequence[Checkpoint]) -> None:
    """Raise CheckpointError when the models of an ensemble read or write other pieces."""
    for other in (Tokenizers.read(checkpoint.tokenizers) for checkpoint in checkpoints):
        for side in ("target", "source"):
            if getattr(other, side).fingerprint != getattr(tokenizers, side).fingerprint:
                raise CheckpointError(f"an ensemble needs models of one {side} tokenizer; these have several")


def decode_settings(base: DecodeConfig, changes: Mapping[str, object]) -> DecodeConfig:
    """The settings with some of them changed; raises UsageError naming each that is impossible."""
    try:
        return DecodeConfig.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        problems = [
            f"{'.'.join(('decode', *map(str, problem['loc'])))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise UsageError("\n".join(problems)) from None


def fitted(decode: DecodeConfig, longest: int | None, device: torch.device) -> DecodeConfig:
    """The settings with batches for the device, and so that no sentence with its EOS is longer than `longest`.

    Raises UsageError when decode.min_length asks for more.
    """
    batch_tokens = decode.batch_tokens or (32_000 if device.type == "cuda" else 4_096)
    decode = decode.model_copy(update={"batch_tokens": batch_tokens})
    if longest is None:
        return decode
    bounds = {"max_source": decode.max_source, "max_length": decode.max_length or longest}
    return decode_settings(decode, {name: min(bound, longest - 1) for name, bound in bounds.items()})
