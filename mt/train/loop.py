"""The training run (section 5), from its first update or from wherever it stopped."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt.checkpoint import (
    AVERAGED,
    Checkpoint,
    average_weights,
    last_checkpoints,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    resumable_checkpoints,
    save_checkpoint,
    step_name,
    stop_name,
)
from mt.config import Config, differences, dump_config
from mt.console import Console
from mt.data.batches import Cursor, Lengths, Rows, batches_from, micro_batches
from mt.data.corpus import Corpus
from mt.data.prepare import Prepared, prepare
from mt.device import choose_device, choose_precision, settle
from mt.errors import CheckpointError, MtError
from mt.model.transformer import Transformer
from mt.train.batch import lengths_of, load_batch
from mt.train.loss import smoothed_loss
from mt.train.metrics import MetricsLog
from mt.train.optim import learning_rate, load_adam, make_adam, stored_adam
from mt.train.stop import Interrupted, StopRequest
from mt.train.validation import Validation, validate


class DivergedError(MtError):
    """The loss or a gradient is no longer a number."""


@dataclass
class Run:
    """A training run between two updates: all that a checkpoint keeps."""

    config: Config
    prepared: Prepared
    model: Transformer
    adam: torch.optim.Adam
    device: torch.device
    update: int = 0  # updates done
    cursor: Cursor = field(default_factory=Cursor)  # the next batch
    best_bleu: float = -1.0
    best_update: int | None = None

    @property
    def folder(self) -> Path:
        return self.config.train.dir


def train(config: Config, console: Console) -> None:
    """Train until `train.updates`, going on from the newest good checkpoint of the run directory if there is one.

    Raises Interrupted after a stop that was asked for, DivergedError when the loss is no longer a number.
    """
    prepared = prepare(config, console)
    run = start_or_resume(config, prepared, console)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    log = MetricsLog(run.folder / "metrics.jsonl", run.update)
    try:
        _run_updates(run, log, console)
        _average_last(run, log, console)
    finally:
        log.close()
    console.say(f"done: {run.update:,} updates; translate with  mt translate --ckpt {run.folder}")


def start_or_resume(config: Config, prepared: Prepared, console: Console) -> Run:
    """A new run, or the state of the newest good checkpoint in its directory."""
    device = choose_device(config.train.device)
    settle()
    torch.manual_seed(config.seed)
    model = Transformer(config.model, len(prepared.tokenizer)).to(device).train()
    run = Run(config, prepared, model, make_adam(model, config.optim), device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.say(
        f"model: {parameters:,} parameters; {len(prepared.train):,} pairs; "
        f"{device.type}, {choose_precision(config.train.precision, device)}".replace("torch.", "")
    )
    checkpoint = _newest_good(run.folder, console)
    if checkpoint is not None:
        _resume(run, checkpoint)
        console.say(f"resuming from {checkpoint.path} at update {run.update:,}")
    return run


def _newest_good(folder: Path, console: Console) -> Checkpoint | None:
    for path in (found := resumable_checkpoints(folder)):
        try:
            return load_checkpoint(path, resume=True)
        except CheckpointError as error:
            console.warn(f"{error}")
    if found:
        raise CheckpointError(
            f"{folder}: none of its {len(found)} checkpoints is whole; name a new train.dir to start again"
        )
    return None


def _resume(run: Run, checkpoint: Checkpoint) -> None:
    """Put everything back as it was. Raises CheckpointError naming each setting that no longer fits."""
    old, new = checkpoint.config, run.config
    fixed = {name: (getattr(old, name), getattr(new, name)) for name in ("model", "batch", "optim")}
    changed = [f"{name}.{line}" for name, pair in fixed.items() for line in differences(*pair)]
    for name in ("label_smoothing", "precision"):
        if (before := getattr(old.train, name)) != (after := getattr(new.train, name)):
            changed.append(f"train.{name}: {before} -> {after}")
    if old.seed != new.seed:
        changed.append(f"seed: {old.seed} -> {new.seed}")
    if checkpoint.state["data"] != run.prepared.fingerprint:
        changed.append(f"data: what {new.data.dir} holds is not what the run began with")
    if changed:
        raise CheckpointError(
            f"{checkpoint.path} cannot go on with other settings ({'; '.join(changed)}): "
            "put them back, or name a new train.dir"
        )
    run.model.load_state_dict(checkpoint.weights)
    load_adam(run.adam, run.model, checkpoint.optimizer)
    state = checkpoint.state
    run.update, run.cursor = state["update"], Cursor(**state["cursor"])
    run.best_bleu, run.best_update = state["best_bleu"], state["best_update"]


# --- Updates ----------------------------------------------------------------------------------------------------


def _run_updates(run: Run, log: MetricsLog, console: Console) -> None:
    config, settings = run.config, run.config.train
    lengths_N2 = lengths_of(run.prepared.train)
    batches = batches_from(lengths_N2, config.batch.tokens, config.seed, run.cursor)
    pending: list[dict[str, Any]] = []
    start = time.perf_counter()
    with StopRequest() as stop, console.bar("training", settings.updates, run.update) as show:
        while run.update < settings.updates:
            rows, next_cursor = next(batches)
            record = take_update(run, rows, lengths_N2)
            run.update, run.cursor = run.update + 1, next_cursor
            now = time.perf_counter()
            pending.append({**record, "seconds": now - start})
            start = now
            at_checkpoint = run.update % settings.checkpoint_every == 0 or run.update == settings.updates
            if at_checkpoint or stop.requested or run.update % settings.log_every == 0:
                _write_out(pending, log, console, show, settings.updates)
                pending = []
            if at_checkpoint:
                _checkpoint(run, log, console)
                start = time.perf_counter()
            elif stop.requested:
                save_run(run, stop_name(run.update))
            if stop.requested:
                raise Interrupted(f"stopped at update {run.update:,}; the same command goes on from there")


def take_update(run: Run, rows: Rows, lengths_N2: Lengths) -> dict[str, Any]:
    """One update of the weights from the pairs of `rows`, however they are cut into micro-batches.

    The loss is the mean over all target tokens of the update, so every token weighs the same.
    Returns the update's record; loss and gradient norm are tensors, not waited for.
    """
    config, update = run.config, run.update + 1
    tokens = int(lengths_N2[rows, 1].sum())
    pieces = micro_batches(rows, lengths_N2, config.batch.micro_tokens)
    rate = config.optim.scale * learning_rate(update, config.model.d_model, config.optim.warmup)
    precision = choose_precision(config.train.precision, run.device)
    run.adam.zero_grad()
    loss = torch.zeros((), device=run.device)
    for index, piece in enumerate(pieces):
        torch.manual_seed(dropout_seed(config.seed, update, index))
        loss += accumulate(run.model, run.prepared.train, piece, tokens, config.train.label_smoothing, precision)
    gradient_norm = torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
    for group in run.adam.param_groups:
        group["lr"] = rate
    run.adam.step()
    padded = sum(int(lengths_N2[piece].max(axis=0).sum()) * len(piece) for piece in pieces)
    return {
        "update": update,
        "epoch": run.cursor.epoch,
        "loss": loss,
        "rate": rate,
        "tokens": tokens,
        "padding": 1 - int(lengths_N2[rows].sum()) / padded,
        "gradient_norm": gradient_norm,
    }


def accumulate(
    model: Transformer, corpus: Corpus, rows: Rows, tokens: int, smoothing: float, precision: torch.dtype
) -> Tensor:
    """Add the gradient of these pairs' share of a loss over `tokens` tokens; returns that share."""
    device = model.embedding.weight.device
    batch = load_batch(corpus, rows, device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        x_BTD = model.decode(batch.input_BT, model.encode(batch.source_BS))
    x_ND = x_BTD.flatten(0, 1)[batch.positions_N].to(precision)
    loss = smoothed_loss(x_ND, model.embedding.weight, batch.targets_N, smoothing) / tokens
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def dropout_seed(seed: int, update: int, micro_batch: int) -> int:
    """The seed of one forward pass: a function of its place in the run, so that there is no state to save."""
    return int(np.random.SeedSequence([seed, update, micro_batch]).generate_state(1, np.uint64)[0] >> 1)


def _write_out(pending: list[dict[str, Any]], log: MetricsLog, console: Console, show: Any, updates: int) -> None:
    """Write the updates since the last time, now that their losses must be known anyway.

    Raises DivergedError at the first that is not a number.
    """
    for record in pending:
        record["loss"], record["gradient_norm"] = float(record["loss"]), float(record["gradient_norm"])
        if not np.isfinite([record["loss"], record["gradient_norm"]]).all():
            raise DivergedError(
                f"update {record['update']:,}: loss {record['loss']}, gradient norm {record['gradient_norm']}; "
                "the last checkpoint is intact; try a lower optim.scale or a longer optim.warmup"
            )
        log.write(record)
    log.flush()
    tokens, seconds = sum(record["tokens"] for record in pending), sum(record["seconds"] for record in pending)
    loss = sum(record["loss"] * record["tokens"] for record in pending) / tokens
    padding = sum(record["padding"] for record in pending) / len(pending)
    last = pending[-1]
    left = (updates - last["update"]) * seconds / len(pending)
    status = f"loss {loss:.3f}  rate {last['rate']:.2e}  {tokens / seconds:,.0f} tokens/s  padding {padding:.1%}"
    show(last["update"], status)
    if not console.is_terminal:
        console.say(f"update {last['update']:,}/{updates:,}  {status}  {duration(left)} left")


def duration(seconds: float) -> str:
    """Seconds as people say them: 1 h 05 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


# --- Checkpoints ------------------------------------------------------------------------------------------------


def _checkpoint(run: Run, log: MetricsLog, console: Console) -> None:
    """Validate, remember the best, save, and remove what is no longer needed."""
    result = _validate(run)
    if result.bleu > run.best_bleu:
        run.best_bleu, run.best_update = result.bleu, run.update
    log.write(result.record(run.update))
    log.flush()
    save_run(run, step_name(run.update))
    prune_checkpoints(run.folder, run.config.train.keep, run.best_update)
    console.say(f"update {run.update:,}: {result}  (best {run.best_bleu:.2f} at {run.best_update:,})")


def _validate(run: Run) -> Validation:
    prepared, config = run.prepared, run.config
    text = prepared.text("valid")
    return validate(run.model, prepared.valid, text, prepared.tokenizer, config.decode, config.batch.micro_tokens)


def save_run(run: Run, name: str) -> None:
    """Write all that going on needs as checkpoint `name`."""
    state = {
        "update": run.update,
        "cursor": asdict(run.cursor),
        "best_bleu": run.best_bleu,
        "best_update": run.best_update,
        "data": run.prepared.fingerprint,
    }
    weights, optimizer = run.model.state_dict(), stored_adam(run.adam, run.model)
    path = run.folder / "checkpoints" / name
    save_checkpoint(path, run.config, run.prepared.tokenizer.model_bytes, weights, state, optimizer)


def _average_last(run: Run, log: MetricsLog, console: Console) -> None:
    """Write the average of the last checkpoints (section 6.1) as one more, without the optimiser."""
    count = min(run.config.train.average, len(list_checkpoints(run.folder)))
    if count < 2:
        return
    run.model.load_state_dict(average_weights(last_checkpoints(run.folder, count)))
    result = _validate(run)
    state = {"update": run.update, "averaged": count, "data": run.prepared.fingerprint}
    path = run.folder / "checkpoints" / AVERAGED
    save_checkpoint(path, run.config, run.prepared.tokenizer.model_bytes, run.model.state_dict(), state)
    log.write({**result.record(run.update), "averaged": count})
    console.say(f"average of the last {count} checkpoints: {result}")
