"""What goes wrong in a run: it is found, named, survived where it can be, and never costs the last good checkpoint."""

import json
import math
import os
import resource
import signal
from contextlib import closing
from pathlib import Path

import pytest
import torch
from helpers import first_batches, fork, started, statuses, wait_until, with_settings

from mt.checkpoint import AVERAGED, load_checkpoint, resumable_checkpoints, step_name, stop_name
from mt.config import Config, DecodeConfig, ModelConfig
from mt.console import Console
from mt.data.feed import cut_batch
from mt.data.prepare import prepare
from mt.data.prepared import Prepared
from mt.data.vocabulary import Tokenizers
from mt.device import is_out_of_memory
from mt.distributed import World
from mt.errors import DataError, UsageError
from mt.model.transformer import Transformer
from mt.run_files import MetricsLog, read_metrics
from mt.run_folder import training_lock
from mt.train.journal import DivergedError, Journal
from mt.train.learner import Learner
from mt.train.loop import take_updates, train
from mt.train.progress import Progress
from mt.train.saving import CheckpointWriter
from mt.train.stop import Interrupted, StopRequest
from mt.train.update import accumulate
from mt.translate.segments import segments_of
from mt.translate.translator import Translator


def test_the_batch_of_a_loss_that_is_no_number_is_named(toy_config: Config, quiet: Console) -> None:
    with pytest.raises(DivergedError, match=r"update \d+: loss .* training pairs \S*train:\d+, \S*train:\d+"):
        train(with_settings(toy_config, optim={"scale": 1e30}, train={"log_every": 1}), quiet)
    listing = json.loads((toy_config.train.dir / "diverged.json").read_text())
    assert len(listing["pairs"]) > 2
    for pair in listing["pairs"]:
        prefix, line = pair["origin"].rsplit(":", 1)
        for language, side in (("en", "source"), ("de", "target")):
            assert Path(f"{prefix}.{language}").read_text().split("\n")[int(line) - 1] == pair[side]
    updates = [record["update"] for record in read_metrics(toy_config.train.dir / "metrics.jsonl")]
    assert updates == list(range(1, listing["update"]))


def test_a_checkpoint_is_called_intact_only_where_there_is_one(toy_config: Config, quiet: Console) -> None:
    with pytest.raises(DivergedError) as diverged:
        train(with_settings(toy_config, optim={"scale": 1e30}), quiet)
    assert "intact" not in str(diverged.value)


def test_a_loss_that_stays_above_that_of_guessing_is_divergence(toy_config: Config, quiet: Console) -> None:
    """It stays finite: layer norms keep even huge weights from overflowing."""
    settings = {"updates": 1_000, "checkpoint_every": 50, "log_every": 10}
    wild = with_settings(toy_config, optim={"scale": 1_000.0}, train=settings)
    with pytest.raises(DivergedError, match=r"update 110: .* above that of guessing \(5\.77\)") as diverged:
        train(wild, quiet)
    assert "step-00000100 is intact" in str(diverged.value)


def test_one_damaged_older_checkpoint_does_not_stop_the_average(
    toy_config: Config, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_settings(toy_config, train={"average": 3, "keep": 3})
    train(with_settings(config, train={"updates": 8}), quiet)
    damaged = toy_config.train.dir / "checkpoints" / step_name(4) / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    train(config, quiet)
    assert "left out of the average" in capsys.readouterr().err
    averaged = load_checkpoint(toy_config.train.dir / "checkpoints" / AVERAGED)
    assert (averaged.state["update"], averaged.state["averaged"]) == (12, 2)


def test_a_damaged_average_is_made_again(toy_config: Config, quiet: Console) -> None:
    train(toy_config, quiet)
    weights = toy_config.train.dir / "checkpoints" / AVERAGED / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"damaged")
    train(toy_config, quiet)
    assert weights.read_bytes() == good


def test_a_run_directory_taken_away_ends_the_run(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    endless = with_settings(toy_config, train={"updates": 1_000_000, "checkpoint_every": 1_000_000})
    prepare(endless, quiet)
    child = fork(lambda: train(endless, quiet), tmp_path / "errors")
    wait_until(lambda: read_metrics(endless.train.dir / "metrics.jsonl"))
    endless.train.dir.rename(tmp_path / "elsewhere")
    assert statuses([child]) == [1]
    assert "removed while the run went on" in (tmp_path / "errors").read_text()
    assert not endless.train.dir.exists()


def test_damaged_data_are_found_before_the_first_update(toy_config: Config, quiet: Console) -> None:
    prepared = prepare(toy_config, quiet)
    ids = prepared.dir / "train" / "target.ids.npy"
    prepared.lock.close()
    ids.write_bytes(ids.read_bytes()[:-2] + b"\x07\x00")
    with pytest.raises(DataError, match=r"target\.ids\.npy"):
        train(toy_config, quiet)
    assert not (toy_config.train.dir / "metrics.jsonl").exists()


def test_a_loss_that_rises_is_warned_of(
    toy_config: Config, quiet: Console, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, quiet)
    journal = Journal(toy_config, prepare(toy_config, quiet), log, quiet)
    record = {"tokens": 100, "seconds": 1.0, "padding": 0.0, "rate": 0.1, "gradient_norm": 1.0}
    for update, loss in enumerate((5.0, 3.0, 3.1, 4.0), 1):
        journal.add({**record, "update": update, "loss": loss}, torch.arange(2).numpy())
        journal.write()
    assert capsys.readouterr().err.count("warning") == 1
    assert math.isclose(journal.lowest, 3.0)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Triton Error [CUDA]: out of memory",
        "MPS backend out of memory (MPS allocated: 17.82 GB, other allocations: 1.10 GB, max allowed: 18.13 GB).",
        "Invalid buffer size: 12.50 GB",
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ...",
    ],
)
def test_memory_runs_out_in_many_words(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_other_errors_are_not_taken_for_too_little_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_memory_that_runs_out_halves_the_micro_batches_and_not_the_update(toy_config: Config, tmp_path: Path) -> None:
    """In a process allowed too little address space for the whole batch at once; the loss is the same."""
    config = with_settings(
        toy_config,
        model={"dropout": 0.0, "d_ff": 50_000},
        batch={"tokens": 700, "micro_tokens": 700},
    )
    learner, _, prepared = started(config)
    batches = cut_batch(prepared.train, first_batches(prepared.train, config)[0], config.batch)
    result = tmp_path / "result.json"

    def work() -> None:
        allow_more_address_space(150 * 2**20)
        loss = accumulate(learner, batches, update=1)["loss"]
        result.write_text(json.dumps({"loss": float(loss), "halvings": learner.halvings}))

    assert statuses([fork(work, tmp_path / "errors")]) == [0], (tmp_path / "errors").read_text()
    found = json.loads(result.read_text())
    assert found["halvings"] > 0
    assert found["loss"] == pytest.approx(float(accumulate(learner, batches, update=1)["loss"]), rel=1e-5)


def test_memory_that_runs_out_halves_what_is_translated_together(toy_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    tokenizers = Tokenizers.read(load_checkpoint(resumable_checkpoints(toy_run)[0]).tokenizers)
    sizes = ModelConfig(d_model=16, heads=2, d_ff=50_000, encoder_layers=1, decoder_layers=1)
    model = Transformer(sizes, len(tokenizers.target)).eval()
    translator = Translator.of([model], tokenizers, DecodeConfig(beam=1, max_extra=1, max_length=2))
    lines, result = ["the old man sleeps in the garden ."] * 200 + ["a dog"], tmp_path / "result.json"

    def work() -> None:
        (segment,) = segments_of(lines[:1], translator.encoder, translator.decode)
        allow_more_address_space(100 * 2**20)
        with pytest.raises(RuntimeError):
            translator._search([segment] * 200, 1, scored=False)
        result.write_text(json.dumps(translator(lines)))

    assert statuses([fork(work, tmp_path / "errors")]) == [0], (tmp_path / "errors").read_text()
    assert json.loads(result.read_text()) == translator(lines)


def allow_more_address_space(amount: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + amount, used + amount))


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_full_disk_never_costs_the_last_good_checkpoint(
    toy_config: Config, tmp_path: Path, quiet: Console, rehearsed: bool
) -> None:
    """A limit on the size of files stands for the disk: it lets through half of what a checkpoint needs."""
    short = with_settings(toy_config, train={"updates": 4})
    train(short, quiet)
    (good,) = resumable_checkpoints(toy_config.train.dir)
    half = (good / "optimizer.safetensors").stat().st_size // 2

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))
        if rehearsed:
            train(toy_config, quiet)
        take_all_updates(*started(toy_config))

    assert statuses([fork(work, tmp_path / "errors")]) == [1]
    assert f"the same command goes on from {good.name}" in (tmp_path / "errors").read_text()
    assert load_checkpoint(good, resume=True).state["update"] == 4
    train(toy_config, quiet)
    updates = [r["update"] for r in read_metrics(toy_config.train.dir / "metrics.jsonl") if "loss" in r]
    assert updates == list(range(1, 13))


def take_all_updates(learner: Learner, progress: Progress, prepared: Prepared) -> None:
    """What `train` does after the rehearsal."""
    config, folder = learner.config, learner.config.train.dir
    with (
        training_lock(folder),
        StopRequest() as stop,
        CheckpointWriter(folder, prepared.tokenizers.files) as writer,
        closing(MetricsLog(folder / "metrics.jsonl", progress.update, Console(quiet=True))) as log,
    ):
        journal = Journal(config, prepared, log, Console(quiet=True))
        take_updates(learner, progress, prepared, writer, World(), journal, stop)


def test_metrics_that_cannot_be_written_end_the_run_in_a_sentence(
    toy_config: Config, tmp_path: Path, quiet: Console
) -> None:
    config = with_settings(toy_config, train={"updates": 100_000, "checkpoint_every": 100_000, "log_every": 1})
    prepare(config, quiet)

    def work() -> None:
        # More than the rehearsal's files need, less than the metrics of all these updates.
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
        train(config, quiet)

    assert statuses([fork(work, tmp_path / "errors")]) == [1]
    assert "metrics.jsonl: cannot be written: File too large" in (tmp_path / "errors").read_text()


def test_a_second_trainer_of_a_run_directory_is_refused(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    prepare(toy_config, quiet)
    with training_lock(toy_config.train.dir):
        second = fork(lambda: train(toy_config, quiet), tmp_path / "errors")
        assert statuses([second]) == [UsageError.exit_status]
    assert f"another run is training here (process {os.getpid()} on" in (tmp_path / "errors").read_text()
    train(toy_config, quiet)


def test_a_start_on_a_full_disk_ends_in_a_sentence_that_promises_nothing(toy_config: Config, tmp_path: Path) -> None:
    def work() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # a file may begin, but not grow
        try:
            with training_lock(toy_config.train.dir):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)  # for the message

    assert statuses([fork(work, tmp_path / "errors")]) == [1]
    message = (tmp_path / "errors").read_text()
    assert message == f"mt: {toy_config.train.dir / '.lock'}: cannot be written: File too large\n"


def test_what_a_killed_run_left_half_written_is_cleared_away(toy_config: Config, quiet: Console) -> None:
    half = toy_config.train.dir / "checkpoints" / f".{step_name(4)}.partial"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    train(with_settings(toy_config, train={"updates": 1}), quiet)
    assert not half.exists()


def test_a_second_ctrl_c_ends_the_process_at_once_and_a_second_sigterm_does_not(tmp_path: Path) -> None:
    """Schedulers send SIGTERM to a process and to its parent, which passes it on."""

    def work() -> None:
        with StopRequest() as stop:
            (tmp_path / f"{os.getpid()} works").touch()
            wait_until(lambda: stop.requested)
            (tmp_path / f"{os.getpid()} has heard").touch()
            wait_until((tmp_path / f"{os.getpid()} may go").exists)

    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
        child = fork(work)
        for state in ("works", "has heard"):
            wait_until((tmp_path / f"{child} {state}").exists)
            os.kill(child, number)
        (tmp_path / f"{child} may go").touch()
        assert statuses([child]) == [status]


def test_a_stop_during_a_validation_leaves_it_for_later(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    """The run is saved without it, and validates first when it goes on; the result is the uninterrupted one's."""
    straight = with_settings(toy_config, train={"dir": tmp_path / "straight", "updates": 6})
    train(straight, quiet)
    config = with_settings(toy_config, train={"updates": 6})
    learner, progress, prepared = started(config)
    stop_at_first_validation(learner)
    with pytest.raises(Interrupted):
        take_all_updates(learner, progress, prepared)
    (checkpoint,) = resumable_checkpoints(config.train.dir)
    assert checkpoint.name == stop_name(4)
    train(config, quiet)
    left, right = (read_metrics(folder / "metrics.jsonl") for folder in (config.train.dir, straight.train.dir))
    timeless = [[{k: v for k, v in r.items() if k != "seconds"} for r in records] for records in (left, right)]
    assert timeless[0] == timeless[1]


def stop_at_first_validation(learner: Learner) -> None:
    """Ask for a stop once the model is seen in evaluation mode."""

    def ask(module: torch.nn.Module, inputs: object, output: object) -> None:
        if not module.training:
            os.kill(os.getpid(), signal.SIGTERM)

    learner.model.embedding_dropout.register_forward_hook(ask)
