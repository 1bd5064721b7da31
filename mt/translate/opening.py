"""From paths to models: which checkpoints a path means, their mean weights, and settings that fit them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError

from mt.checkpoint import Checkpoint, average_weights, last_checkpoints, load_checkpoint
from mt.config import DecodeConfig
from mt.console import counted
from mt.data.vocabulary import Tokenizers
from mt.errors import CheckpointError, UsageError
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


def open_model(checkpoints: list[Path]) -> tuple[Checkpoint, Transformer]:
    """The newest of the checkpoints, and a model of their mean weights in evaluation mode."""
    checkpoint = load_checkpoint(checkpoints[-1])
    weights = checkpoint.weights if len(checkpoints) == 1 else average_weights(checkpoints)
    tokenizers = Tokenizers.read(checkpoint.tokenizers)
    model = Transformer(checkpoint.config.model, len(tokenizers.target), len(tokenizers.source))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: the weights do not fit its config: {error}") from None
    return checkpoint, model.eval()


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
