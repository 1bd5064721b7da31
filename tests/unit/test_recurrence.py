"""Recurrence in depth (Dehghani et al., 2018) and halting (Graves, 2016), beside the laws of all variants."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fork_world, statuses, with_settings
from torch import Tensor

from mt.config import Config, ModelConfig, TrainConfig
from mt.console import Console
from mt.data.corpus import Corpus, Sentences
from mt.data.feed import cut_batch
from mt.data.prepare import prepare
from mt.data.tokenizer import BOS
from mt.model.recurrence import Application, Ponder, Recurrence
from mt.model.teacher_forcing import make_batch
from mt.model.transformer import Transformer
from mt.run_files import read_metrics
from mt.train.learner import make_learner
from mt.train.loop import train
from mt.train.loss import make_loss, translation_loss
from mt.train.update import take_update

V, TIMES = 40, (4, 5)
CPU = torch.device("cpu")


def config_of(recurrence: str, **others: float) -> ModelConfig:
    sizes = {"d_model": 32, "heads": 4, "d_ff": 48, "encoder_layers": TIMES[0], "decoder_layers": TIMES[1]}
    return ModelConfig.model_validate({**sizes, "dropout": 0.2, "recurrence": recurrence, **others})


def new_model(recurrence: str, **others: float) -> Transformer:
    """Weights far enough from their start that positions halt at unlike steps."""
    torch.manual_seed(3)
    model = Transformer(config_of(recurrence, **others), V).double().eval()
    for name, parameter in model.named_parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
        if "halting.bias" in name:
            parameter.data -= 2.0
    return model


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(4, V, shape, generator=torch.Generator().manual_seed(seed))


def test_no_recurrence_is_one_application_less_its_step_encoding() -> None:
    """One layer applied once, with the step's encoding taken out, is the published model of one layer."""
    published, once = (
        Transformer(config_of(recurrence, encoder_layers=1, decoder_layers=1), V).double().eval()
        for recurrence in ("none", "fixed")
    )
    once.load_state_dict(published.state_dict())
    for recurrence in (once.encoder_recurrence, once.decoder_recurrence):
        assert recurrence is not None
        recurrence.steps_AD.zero_()
    source_BS, target_BT = random_ids(2, 6), random_ids(2, 5, seed=1)
    torch.testing.assert_close(once(source_BS, target_BT), published(source_BS, target_BT), rtol=0, atol=1e-12)


@torch.inference_mode()
def test_the_memory_is_projected_once_however_often_the_layer_is_applied() -> None:
    model = new_model("fixed")
    memory = model.encode(random_ids(2, 6))
    assert len(memory.keys) == len(memory.values) == len(model.decoder) == 1


@torch.no_grad()
def test_when_a_target_position_halts_depends_on_no_later_one() -> None:
    model, source_BS, target_BT = new_model("adaptive"), random_ids(1, 9), random_ids(1, 30, seed=1)
    changed_BT = torch.cat([target_BT[:, :15], random_ids(1, 15, seed=2)], dim=1)
    steps, changed = (model.attention_maps(source_BS, ids_BT).steps[1][0] for ids_BT in (target_BT, changed_BT))
    assert torch.equal(steps[:15], changed[:15])
    assert not torch.equal(steps[15:], changed[15:])


# --- Halting ------------------------------------------------------------------------------------------------------


def halting_with(chances: Sequence[Sequence[float]]) -> tuple[Recurrence, list[Application]]:
    """Applications after which positions halt with these chances: the states are [logit of the chance, application]."""
    recurrence = Recurrence(2, len(chances[0]), 0.99).double()
    assert recurrence.halting is not None
    recurrence.halting.weight.data, recurrence.halting.bias.data = torch.eye(2)[:1].double(), torch.zeros(1).double()
    logits = torch.tensor(chances, dtype=torch.float64).logit()
    states = [torch.stack([logits[:, n], torch.full((len(chances),), n + 1.0)], dim=1) for n in range(len(chances[0]))]
    return recurrence, [partial(torch.add, state, alpha=0) for state in states]


def test_halting_by_hand() -> None:
    """Position 0 halts at once; 1 after 0.3 + 0.5 + 0.2; 2 never; 3 at the second, when 0.6 + 0.7 exceed 0.99."""
    chances = [[0.995, 0.5, 0.5, 0.5], [0.3, 0.5, 0.2, 0.5], [0.1, 0.1, 0.1, 0.1], [0.6, 0.7, 0.1, 0.1]]
    recurrence, applications = halting_with(chances)
    x_ND = torch.zeros(4, 2, dtype=torch.float64)
    out_ND, ponder = recurrence(x_ND, x_ND, applications)
    assert ponder.steps_N.tolist() == [1, 3, 4, 2]
    expected = [1.0, 0.2, 0.7, 0.4]
    torch.testing.assert_close(ponder.remainder_N, torch.tensor(expected).double(), rtol=0, atol=1e-7)
    means = [1 * 1.0, 1 * 0.3 + 2 * 0.5 + 3 * 0.2, (1 + 2 + 3) * 0.1 + 4 * 0.7, 1 * 0.6 + 2 * 0.4]
    torch.testing.assert_close(out_ND[:, 1], torch.tensor(means).double(), rtol=0, atol=1e-7)


def test_the_weights_of_a_positions_states_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    recurrence, applications = halting_with(torch.rand(200, 7, generator=generator).clamp(0.01, 0.6).tolist())

    def keeping_ones(apply: Application, x_ND: Tensor) -> Tensor:
        return torch.stack([apply(x_ND)[:, 0], torch.ones(200)], dim=1)

    ones = [partial(keeping_ones, apply) for apply in applications]
    out_ND, ponder = recurrence(torch.zeros(200, 2).double(), torch.zeros(200, 2).double(), ones)
    torch.testing.assert_close(out_ND[:, 1], torch.ones(200).double(), rtol=0, atol=1e-12)
    assert len(ponder.steps_N.unique()) > 3
    assert (ponder.remainder_N > 0).all()


@torch.no_grad()
def test_a_halted_position_is_seen_by_others_as_it_was() -> None:
    """What goes into the next application is its last state, with the encodings of position and step."""
    recurrence, applications = halting_with([[0.999, 0.5, 0.5], [0.1, 0.1, 0.1]])
    seen: list[Tensor] = []

    def watched(apply: Application, x_ND: Tensor) -> Tensor:
        seen.append(x_ND)
        return apply(x_ND)

    zeros_ND = torch.zeros(2, 2).double()
    recurrence(zeros_ND, zeros_ND, [partial(watched, apply) for apply in applications])
    states = [x_ND - step_D for x_ND, step_D in zip(seen, recurrence.steps_AD, strict=True)]
    torch.testing.assert_close(states[2][0], states[1][0], rtol=0, atol=1e-12)
    assert (states[2][1] - states[1][1]).abs().max() > 0.5


# --- The ponder cost ----------------------------------------------------------------------------------------------


def batch_of(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]):  # type: ignore[no-untyped-def]
    source_BS, target_BT = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(pair[side]) for pair in pairs], batch_first=True).numpy()
        for side in (0, 1)
    )
    return make_batch(source_BS, target_BT, BOS, CPU)


PAIRS = [(random_ids(9).tolist(), random_ids(4, seed=1).tolist()), (random_ids(3).tolist(), random_ids(8).tolist())]


@torch.no_grad()
def test_the_ponder_cost_is_steps_and_remainders_of_both_sides() -> None:
    model, batch = new_model("adaptive"), batch_of(PAIRS)
    free, _ = translation_loss(model, batch, torch.float32, smoothing=0.1)
    loss, figures = make_loss(Config(model=model.config, train=TrainConfig(ponder=0.3)))(model, batch, torch.float32)
    cost, steps = 0.0, {"encoder": 0, "decoder": 0}
    for source, target in PAIRS:
        ponders: list[Ponder] = []
        memory = model.encode(torch.tensor([source]), ponders=ponders)
        model.decode(torch.tensor([[BOS, *target[:-1]]]), memory, ponders=ponders)
        for side, ponder in zip(steps, ponders, strict=True):
            cost += 0.3 * (sum(ponder.steps_N.tolist()) + sum(ponder.remainder_N.tolist()))
            steps[side] += int(ponder.steps_N.sum())
    assert float(loss - free) == pytest.approx(cost, abs=1e-10)
    assert float(figures["ponder"]) == pytest.approx(cost, abs=1e-10)
    assert {side: int(figures[f"{side}_steps"]) for side in steps} == steps
    assert (int(figures["encoder_pieces"]), int(figures["decoder_pieces"])) == (9 + 3, 4 + 8)


@torch.no_grad()
def test_two_passes_cost_as_much_as_one() -> None:
    """Without dropout, the passes of consistency training ponder alike."""
    model, batch, costs = new_model("adaptive"), batch_of(PAIRS), []
    for kind in ("none", "rdrop"):
        config = Config(model=model.config, train=TrainConfig.model_validate({"consistency": kind}))
        loss = make_loss(config)
        _, figures = loss(model, batch, torch.float32)
        assert set(figures) == set(loss.figures)
        costs.append(float(figures["ponder"]))
    assert costs[1] == pytest.approx(costs[0], rel=1e-12)


def test_gradients_of_the_ponder_cost_are_finite_differences() -> None:
    model, batch = new_model("adaptive"), batch_of(PAIRS)

    def cost() -> Tensor:
        return make_loss(Config(model=model.config))(model, batch, torch.float32)[1]["ponder"]

    torch.autograd.backward(cost())
    names = ("encoder_recurrence.halting.weight", "decoder_recurrence.halting.bias", "encoder.0.feed_forward.w1.bias")
    for name in names:
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        index = int(parameter.grad.abs().argmax())
        gradient, values = float(parameter.grad.flatten()[index]), parameter.data.view(-1)
        values[index] += 1e-6
        above = float(cost().detach())
        values[index] -= 2e-6
        below = float(cost().detach())
        values[index] += 1e-6
        assert gradient != 0
        assert (above - below) / 2e-6 == pytest.approx(gradient, rel=1e-5), name


def test_a_dearer_step_makes_positions_halt_sooner() -> None:
    def steps_after_training(ponder: float) -> float:
        config = Config(model=config_of("adaptive"), train=TrainConfig(ponder=ponder, precision="float32"))
        learner = make_learner(config, V, CPU)
        for side in ("encoder", "decoder"):  # all applications at first
            torch.nn.init.constant_(learner.model.get_parameter(f"{side}_recurrence.halting.bias"), -1.5)
        corpus = Corpus(*(Sentences.from_lists([list(pair[side]) for pair in PAIRS]) for side in (0, 1)))
        found = 0.0
        for update in range(1, 31):
            figures = take_update(learner, cut_batch(corpus, np.arange(2), config.batch), 400 + 10 * update)
            found = float(figures["encoder_steps"] + figures["decoder_steps"])
        return found

    assert steps_after_training(3.0) < steps_after_training(0.0)


def test_metrics_have_the_mean_steps_of_a_piece() -> None:
    config = Config(model=config_of("adaptive"), train=TrainConfig(precision="float32"))
    loss = make_loss(config)
    _, figures = loss(make_learner(config, V, CPU).model.eval(), batch_of(PAIRS), torch.float32)
    found = loss.finish(figures)
    assert set(found) == {"ponder", "encoder_steps", "decoder_steps"}
    assert 1 <= float(found["encoder_steps"]) <= TIMES[0]
    assert float(found["encoder_steps"]) == pytest.approx(float(figures["encoder_steps"]) / (9 + 3))


def test_two_processes_train_the_run_that_one_trains(toy_config: Config, tmp_path: Path, quiet: Console) -> None:
    model = {"recurrence": "adaptive", "encoder_layers": 3, "decoder_layers": 3}
    config = with_settings(toy_config, model=model, batch={"multiple": 2}, train={"bpe_dropout": 0.1})
    prepare(config, quiet)
    one, two = (with_settings(config, train={"dir": tmp_path / name}) for name in ("one", "two"))
    train(one, quiet)
    assert statuses(fork_world(2, lambda: train(two, quiet))) == [0, 0]
    left, right = ([r for r in read_metrics(run.train.dir / "metrics.jsonl") if "loss" in r] for run in (one, two))
    for name in ("loss", "ponder", "encoder_steps", "decoder_steps"):
        assert [r[name] for r in left] == pytest.approx([r[name] for r in right], rel=2e-5), name
    assert all(1 <= r["encoder_steps"] <= 3 for r in left)
