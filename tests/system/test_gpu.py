"""What holds on a CPU holds on a GPU. All of these need one and are skipped without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import first_batches, losses_of_updates, started, with_settings
from torch.nn.attention import SDPBackend, sdpa_kernel

from mt import Translator
from mt.checkpoint import load_checkpoint, resumable_checkpoints
from mt.config import Config
from mt.console import Console
from mt.data.feed import cut_batch
from mt.device import repeat_exactly
from mt.train.loop import train
from mt.train.update import take_update

pytestmark = pytest.mark.gpu

DEVICE = "cuda"


@pytest.fixture(autouse=True)
def _leave_no_mode_on() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


def losses(config: Config, updates: int = 20) -> list[float]:
    """Of that many updates, as many as the toy language has in three epochs."""
    learner, _, prepared = started(config)
    batches = [rows for epoch in range(3) for rows in first_batches(prepared.train, config, epoch)]
    return losses_of_updates(learner, prepared.train, batches[:updates])


def still(config: Config, **train: object) -> Config:
    """Without dropout, whose masks differ between a CPU, a GPU and compiled layers, and at a rate that is not wild."""
    return with_settings(config, model={"dropout": 0.0}, optim={"warmup": 400}, train=train)


def test_training_has_the_losses_of_the_cpu(toy_config: Config) -> None:
    gpu, cpu = (losses(still(toy_config, device=device)) for device in (DEVICE, "cpu"))
    assert gpu == pytest.approx(cpu, rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_bfloat16_follows_float32(toy_config: Config, compiled: bool) -> None:
    """Each loss of twenty updates within one in a hundred."""
    exact = losses(still(toy_config, device=DEVICE))
    rough = losses(still(toy_config, device=DEVICE, precision="bfloat16", compile=compiled))
    assert rough == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    toy_config: Config, tmp_path: Path, quiet: Console, compiled: bool
) -> None:
    """With dropout, bfloat16 and the stop in the middle of an epoch."""
    settings = {"device": DEVICE, "precision": "bfloat16", "compile": compiled}
    straight = with_settings(toy_config, train={"dir": tmp_path / "straight", **settings})
    train(straight, quiet)
    resumed = with_settings(toy_config, train={"dir": tmp_path / "resumed", **settings})
    train(with_settings(resumed, train={"updates": 5}), quiet)
    train(resumed, quiet)
    expected, found = (load_checkpoint(resumable_checkpoints(c.train.dir)[0]) for c in (straight, resumed))
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(weight, expected.weights[name]) for name, weight in found.weights.items())


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_an_update_never_waits_for_the_gpu(toy_config: Config, compiled: bool) -> None:
    """In deterministic mode, in which torch has other kernels."""
    repeat_exactly(torch.device(DEVICE))
    config = with_settings(
        toy_config,
        optim={"clip_norm": 1.0},
        train={"device": DEVICE, "precision": "bfloat16", "ema": 0.9, "compile": compiled},
    )
    learner, _, prepared = started(config)
    updates = [cut_batch(prepared.train, rows, config.batch) for rows in first_batches(prepared.train, config)]
    for batches in updates:  # kernels are loaded, layers compiled
        take_update(learner, batches, update=1)
    torch.cuda.set_sync_debug_mode("error")
    for batches in updates:
        take_update(learner, batches, update=1)


@pytest.mark.parametrize("attention_dropout", [0.0, 0.1])
def test_attention_needs_none_but_fused_kernels(toy_config: Config, attention_dropout: float) -> None:
    """With dropout of its weights, attention is padded."""
    config = with_settings(toy_config, train={"device": DEVICE, "precision": "bfloat16"})
    config = with_settings(config, model={"attention_dropout": attention_dropout})
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        losses(config, updates=3)


@pytest.mark.parametrize("settings", [{}, {"positions": "rotary"}], ids=["published", "rotary"])
def test_attention_without_padding_has_the_losses_of_padded_attention(
    toy_config: Config, settings: dict[str, str]
) -> None:
    config = with_settings(still(toy_config, device=DEVICE, precision="bfloat16"), model={"dropout": 0.0, **settings})
    found = []
    for unpadded in (True, False):
        learner, _, prepared = started(config)
        assert learner.model.unpadded
        learner.model.unpadded = unpadded
        found.append(losses_of_updates(learner, prepared.train, first_batches(prepared.train, config)))
    assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_out_of_memory_halves_the_passes_and_changes_no_loss(toy_config: Config) -> None:
    config = with_settings(still(toy_config, device=DEVICE), batch={"tokens": 10**6, "micro_tokens": 10**6})
    learner, _, prepared = started(config)
    other, _, _ = started(config)
    (rows,) = first_batches(prepared.train, config)
    batches = cut_batch(prepared.train, rows.repeat(400), config.batch)  # some 300,000 pieces
    expected = float(take_update(other, batches, update=1)["loss"])
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 500 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        record = take_update(learner, batches, update=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert learner.halvings > 0
    assert float(record["loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
def test_translations_in_float32_are_the_cpus(toy_run: Path, toy_text: Path, beam: int) -> None:
    lines = (toy_text / "test.en").read_text(encoding="utf-8").splitlines()
    gpu, cpu = (Translator(toy_run, device=device, decode={"beam": beam})(lines) for device in (DEVICE, "cpu"))
    assert gpu == cpu
