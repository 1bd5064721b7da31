"""What a run says of its updates: lines of metrics.jsonl, lines for people, and an end when the loss is no number."""

import json
import math
from collections.abc import Callable
from typing import Any

from mt.checkpoint import resumable_checkpoints
from mt.config import Config
from mt.console import Console, duration
from mt.data.batches import Rows
from mt.data.prepared import Prepared
from mt.errors import MtError
from mt.files import write_whole
from mt.run_files import MetricsLog

# A mean loss this much above the lowest so far is worth a warning.
RISE = 1.2
# So many updates in a row, after warm-up, whose loss is above that of guessing: the run has diverged.
HOPELESS = 100


class DivergedError(MtError):
    """The loss or a gradient is no longer a number, or the loss stays above that of guessing."""


class Journal:
    """The updates since the last time of writing, written out when their losses must be known anyway."""

    def __init__(self, config: Config, prepared: Prepared, log: MetricsLog | None, console: Console) -> None:
        self.config = config
        self.prepared = prepared
        self.log = log  # None in all processes but the main one
        self.console = console
        self.show: Callable[[int, str], None] = lambda update, status: None  # of a progress bar
        self.lowest = math.inf  # mean loss between two times of writing
        self._stage: int | None = None  # of the last update
        self._hopeless = 0  # updates in a row whose loss was above that of guessing
        self._pending: list[tuple[dict[str, Any], Rows]] = []

    def add(self, record: dict[str, Any], rows: Rows) -> None:
        self._pending.append((record, rows))

    def write(self) -> None:
        """Raises DivergedError at an update whose loss or gradient is no number, or after HOPELESS of them."""
        if not self._pending:
            return
        records = []
        for pending, rows in self._pending:
            record = {name: value.item() if hasattr(value, "item") else value for name, value in pending.items()}
            if not math.isfinite(record["loss"] + record["gradient_norm"]):
                raise self._diverged(record, rows)
            self._look_for_hope(record)
            self._say_stage(record)
            records.append(record)
            if self.log is not None:
                self.log.write(record)
        if self.log is not None:
            self.log.flush()
        self._pending = []
        self._say(records)

    def add_validation(self, record: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(record)
            self.log.flush()

    def _say(self, records: list[dict[str, Any]]) -> None:
        tokens, seconds = sum(record["tokens"] for record in records), sum(record["seconds"] for record in records)
        loss = sum(record["loss"] * record["tokens"] for record in records) / tokens
        padding = sum(record["padding"] for record in records) / len(records)
        last, updates = records[-1], self.config.train.updates
        left = (updates - last["update"]) * seconds / len(records)
        status = f"loss {loss:.3f}  rate {last['rate']:.2e}  {tokens / seconds:,.0f} tokens/s  padding {padding:.1%}"
        speed = f"{tokens / seconds:,.0f} tok/s"
        self.show(last["update"], f"loss {loss:.3f} rate {last['rate']:.1e} {speed} pad {padding:.1%}")
        if not self.console.is_terminal:
            self.console.say(f"update {last['update']:,}/{updates:,}  {status}  {duration(left)} left")
        if loss > RISE * self.lowest and self.log is not None:
            self.console.warn(
                f"update {last['update']:,}: the loss has risen from {self.lowest:.3f} to {loss:.3f}; if it stays, "
                "try a lower optim.scale, a longer optim.warmup, or optim.clip_norm"
            )
        self.lowest = min(self.lowest, loss)

    def _say_stage(self, record: dict[str, Any]) -> None:
        stage = record.get("stage")
        if stage and self._stage not in (None, stage):
            weights = self.config.train.stages[stage - 1].weights
            changes = [f"weight of {name} {weight:g}" for name, weight in weights.items()]
            shown = ", ".join([*changes, f"rate {record['rate']:.2e}"])
            self.console.say(f"update {record['update']:,}: stage {stage} begins: {shown}")
        self._stage = stage

    def _look_for_hope(self, record: dict[str, Any]) -> None:
        """A run whose loss stays above that of guessing after warm-up will not come back."""
        guessing = math.log(len(self.prepared.tokenizers.target))
        above = record["loss"] > guessing and record["update"] > self.config.optim.warmup
        self._hopeless = self._hopeless + 1 if above else 0
        if self._hopeless == HOPELESS:
            raise DivergedError(
                f"update {record['update']:,}: the loss, now {record['loss']:.4g}, has been above that of guessing "
                f"({guessing:.2f}) for {HOPELESS} updates after warm-up;\n{self._advice()}"
            )

    def _advice(self) -> str:
        saved = resumable_checkpoints(self.config.train.dir)
        start = f"{saved[0]} is intact; " if saved else ""
        return f"{start}try a lower optim.scale, a longer optim.warmup, or optim.clip_norm, in a new train.dir"

    def _diverged(self, record: dict[str, Any], rows: Rows) -> DivergedError:
        """Name the batch, and keep its pairs beside the run for reading."""
        path = self.config.train.dir / "diverged.json"
        figures = {name: str(record[name]) for name in ("loss", "gradient_norm")}  # JSON has no NaN
        if self.log is not None:
            listing = {**record, **figures, "pairs": _pairs(self.prepared, rows)}
            write_whole(path, json.dumps(listing, indent=1, ensure_ascii=False) + "\n")
        shown = ", ".join(self.prepared.origin(sorted(rows)[:5]))
        return DivergedError(
            f"update {record['update']:,}: loss {record['loss']}, gradient norm {record['gradient_norm']} on the "
            f"{len(rows):,} training pairs {shown}{', ...' if len(rows) > 5 else ''} (all in {path});\n"
            f"{self._advice()}"
        )


def _pairs(prepared: Prepared, rows: Rows) -> list[dict[str, Any]]:
    """Training pairs as text, with the line each was read from."""
    pairs, tokenizers = prepared.train.take(rows), prepared.tokenizers
    sources, targets = (
        tokenizer.decode([ids.tolist() for ids in side])
        for tokenizer, side in ((tokenizers.source, pairs.source), (tokenizers.target, pairs.target))
    )
    return [
        {"origin": origin, "source": source, "target": target}
        for origin, source, target in zip(prepared.origin(rows), sources, targets, strict=True)
    ]
