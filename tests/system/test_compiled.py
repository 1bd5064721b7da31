"""Compiled layers compute what plain ones do."""

import pytest
from helpers import first_batches, losses_of_updates, started, with_settings

from mt.config import Config


@pytest.mark.slow
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
