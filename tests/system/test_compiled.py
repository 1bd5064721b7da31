"""What is compiled computes what plain layers do, with one graph for each kind of layer, wherever a run stands."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import first_batches, fork, losses_of_updates, started, statuses, with_settings
from torch._dynamo.utils import counters

from mt.checkpoint import load_checkpoint, resumable_checkpoints
from mt.config import Config
from mt.console import Console
from mt.data.batches import plan_batches
from mt.data.corpus import Corpus, Sentences
from mt.data.prepare import prepare
from mt.train.learner import make_learner
from mt.train.loop import train

pytestmark = pytest.mark.slow


def test_compiled_layers_have_the_losses_of_plain_ones(toy_config: Config) -> None:
    still = with_settings(
        toy_config, model={"encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}, optim={"warmup": 400}
    )
    found = []
    for compiled in (False, True):
        config = with_settings(still, train={"compile": compiled})
        learner, _, prepared = started(config)
        found.append(losses_of_updates(learner, prepared.train, first_batches(prepared.train, config)[:8]))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def random_sentences(lengths: list[int], random: np.random.Generator) -> Sentences:
    return Sentences.from_lists([random.integers(4, 300, length).tolist() for length in lengths])


def test_two_hundred_batches_of_two_epochs_need_a_graph_for_each_kind_of_layer_and_the_loss(toy_config: Config) -> None:
    """Among them single sentences, empty ones, batches without padding, and as many sentences as positions."""
    torch.compiler.reset()
    random = np.random.default_rng(1)
    source = [0, 1, 1, 16, 15, 14, *random.integers(1, 48, 300).tolist()]
    target = [0, 1, 15, 1, 15, 14, *random.integers(1, 48, 300).tolist()]
    corpus = Corpus(random_sentences(source, random), random_sentences(target, random))
    config = with_settings(toy_config, batch={"tokens": 100, "micro_tokens": 60}, train={"compile": True})
    before = counters["stats"]["unique_graphs"]
    learner = make_learner(config, 300, torch.device("cpu"))
    batches = [rows for epoch in (0, 1) for rows in plan_batches(corpus.lengths(), 100, config.seed, epoch)[:100]]
    losses = losses_of_updates(learner, corpus, [*batches, *np.arange(6)[:, None]])
    assert len(losses) >= 200
    assert np.isfinite(losses).all()
    assert counters["stats"]["unique_graphs"] - before == 3


def test_a_run_that_goes_on_in_another_epoch_is_the_uninterrupted_run_bit_for_bit(
    toy_config: Config, quiet: Console, tmp_path: Path
) -> None:
    """Each part compiles in a process of its own, and finds nothing that another has compiled."""
    prepare(toy_config, quiet)

    def part(name: str, cache: str, updates: int) -> None:
        run = with_settings(toy_config, train={"dir": tmp_path / name, "compile": True, "updates": updates})
        errors = tmp_path / "errors"
        child = fork(lambda: train(run, quiet), errors, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / cache))
        assert statuses([child], 1200) == [0], errors.read_text()

    part("straight", "first", 20)
    part("resumed", "first", 13)
    part("resumed", "second", 20)
    expected, found = (load_checkpoint(resumable_checkpoints(tmp_path / name)[0]) for name in ("straight", "resumed"))
    assert found.state["cursor"]["epoch"] > 0
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(weight, expected.weights[name]) for name, weight in found.weights.items())
