"""One update of the weights: its micro-batches dealt out, their gradients summed, the optimiser's step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt.data.feed import MicroBatches
from mt.device import is_out_of_memory
from mt.distributed import World
from mt.errors import MtError
from mt.train.learner import Learner
from mt.train.loss import load_batch
from mt.train.optim import set_rate
from mt.train.stop import Interrupted

DONE, AGAIN, STOP = range(3)  # what a process says after its passes; the highest counts


class OutOfMemoryError(MtError):
    """Not even one pair at a time fits into memory."""


def take_update(
    learner: Learner, batches: MicroBatches, update: int, stopping: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """One update of the weights, however its pairs are cut and whichever process has which.

    The loss is the mean over all target tokens of the update, so every token weighs the same.
    batches: what this process trains of the update.
    update: its number, from 1, which decides the rate and the dropout masks.
    stopping: asked before each pass; once it says yes in one process, Interrupted is raised in all of them, and the
    update left undone: the weights stay as they were.
    Returns the update's figures; those that are tensors are not waited for.
    """
    optimizer, config, exchange = learner.optimizer, learner.config, learner.exchange
    figures = accumulate(learner, batches, update, stopping)
    gradient_norm = exchange.norm()
    if config.optim.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(exchange.stepped, config.optim.clip_norm, gradient_norm)
    rate = set_rate(optimizer, update, config, batches.stage)
    optimizer.step()
    if exchange.shares is not None:
        exchange.shares.join()
    if learner.ema:
        # At first the average forgets sooner: it would otherwise stay near the random weights of the start.
        decay = min(config.train.ema, (1 + update) / (10 + update))
        torch._foreach_lerp_(learner.ema, [parameter.detach() for parameter in learner.model.parameters()], 1 - decay)
    return {
        **learner.loss.finish(figures),
        "rate": rate,
        **({"stage": batches.stage} if config.train.stages else {}),
        "tokens": batches.tokens,
        "padding": batches.padding,
        "gradient_norm": gradient_norm,
    }


def accumulate(
    learner: Learner, batches: MicroBatches, update: int, stopping: Callable[[], bool] = lambda: False
) -> dict[str, Tensor]:
    """Sum the gradients of all passes of all processes; returns the sums of the loss, and of what figures it has.

    A process whose memory does not suffice halves its passes, and all take theirs again: by then it may have sent a
    part of what it could not finish. What an update sees stays the same.
    stopping: as in `take_update`. Raises OutOfMemoryError when single pairs do not fit.
    """
    exchange, world = learner.exchange, learner.exchange.world
    while True:
        exchange.zero()
        figures = _fitting_passes(learner, batches.halved(learner.halvings), update, stopping)
        exchange.send_rest()
        # Said on the CPU: it has queued the work of a GPU long before that is done, so nothing waits for this.
        answer = world.max(STOP if stopping() else AGAIN if figures is None else DONE)
        exchange.wait()
        if answer == STOP:
            raise Interrupted("asked to stop")
        if answer == DONE and figures is not None:
            return _summed(figures, world)


def _fitting_passes(
    learner: Learner, batches: MicroBatches, update: int, stopping: Callable[[], bool]
) -> dict[str, Tensor] | None:
    """Add up the gradients of these passes; when memory does not suffice, None, and the next will be half as large."""
    try:
        return _accumulate_all(learner, batches, update, stopping)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, which would keep the failed pass's tensors alive.
    if all(len(pairs) == 1 for _, pairs in batches.passes):
        raise OutOfMemoryError("out of memory with a single pair of sentences: choose a smaller model")
    learner.halvings += 1
    if learner.model.device.type == "cuda":
        torch.cuda.empty_cache()  # so that passes of another size find room
    return None


def _accumulate_all(
    learner: Learner, batches: MicroBatches, update: int, stopping: Callable[[], bool]
) -> dict[str, Tensor]:
    device = learner.model.device
    total = {name: torch.zeros((), device=device) for name in ("loss", *learner.loss.figures)}
    for number, (index, pairs) in enumerate(batches.passes, 1):
        if stopping():
            break
        torch.manual_seed(dropout_seed(learner.config.seed, update, index))
        batch = load_batch(pairs, device, learner.model.compiled)
        loss, figures = learner.loss(learner.model, batch, learner.precision)
        loss = loss / batches.tokens
        if number == len(batches.passes):
            learner.exchange.send_while_passing()
        loss.backward()  # type: ignore[no-untyped-call]
        total["loss"] += loss.detach()
        for name, value in figures.items():
            total[name] += value.detach() / batches.tokens
    return total


def _summed(figures: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    if world.size == 1:
        return figures
    together = torch.stack(list(figures.values()))
    world.sum(together)
    return dict(zip(figures, together.unbind(), strict=True))


def dropout_seed(seed: int, update: int, micro_batch: int) -> int:
    """The seed of one forward pass: a function of its place in the run, so that there is no state to save."""
    return int(np.random.SeedSequence([seed, update, micro_batch]).generate_state(1, np.uint64)[0] >> 1)
