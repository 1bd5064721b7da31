"""Compiled layers compute what plain ones do."""

import pytest
from helpers import with_settings

from mt.config import Config
from mt.console import Console
from mt.data.batches import plan_batches
from mt.data.prepare import prepare
from mt.train.run import start_or_resume
from mt.train.update import take_update


@pytest.mark.slow
def test_compiled_layers_have_the_losses_of_plain_ones(toy_config: Config, quiet: Console) -> None:
    still = with_settings(
        toy_config, model={"encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}, optim={"warmup": 400}
    )
    found = []
    for compiled in (False, True):
        config = with_settings(still, train={"compile": compiled})
        run = start_or_resume(config, prepare(config, quiet), quiet)
        losses = []
        for rows in plan_batches(run.lengths_N2, 200, seed=1, epoch=0)[:8]:
            losses.append(float(take_update(run, rows)["loss"]))
            run.update += 1
        found.append(losses)
    assert found[1] == pytest.approx(found[0], rel=1e-5)
