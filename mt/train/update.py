"""One update of the weights: its micro-batches dealt out, their gradients summed, Adam's step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt.data.batches import Rows, micro_batches
from mt.data.corpus import Corpus
from mt.errors import MtError
from mt.model.transformer import Transformer
from mt.train.batch import load_batch
from mt.train.loss import smoothed_loss
from mt.train.memory import is_out_of_memory, release
from mt.train.optim import learning_rate
from mt.train.run import Run
from mt.train.stop import Interrupted


class OutOfMemoryError(MtError):
    """Not even one pair at a time fits into memory."""


Pieces = Sequence[tuple[int, Rows]]  # micro-batches and the numbers of their dropout seeds


def take_update(run: Run, rows: Rows, stopping: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """One update of the weights from the pairs of `rows`, however they are cut and whichever process has which.

    The loss is the mean over all target tokens of the update, so every token weighs the same.
    stopping: asked before each micro-batch; once it says yes in one process, Interrupted is raised in all of them, and
    the update left undone: the weights stay as they were.
    Returns the update's record; loss and gradient norm are tensors, not waited for.
    """
    config, update, lengths_N2 = run.config, run.update + 1, run.lengths_N2
    parameters = list(run.model.parameters())
    tokens = int(lengths_N2[rows, 1].sum())
    pieces = cut(run, rows)
    run.adam.zero_grad()
    loss = accumulate_own(run, run.world.share(pieces), tokens, stopping)
    if run.world.any(stopping()):
        raise Interrupted("asked to stop")
    sum_over_world(run, loss)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradient_norm = torch.nn.utils.get_total_norm(gradients)
    if config.optim.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.optim.clip_norm, gradient_norm)
    rate = config.optim.scale * learning_rate(update, config.model.d_model, config.optim.warmup)
    for group in run.adam.param_groups:
        group["lr"] = rate
    run.adam.step()
    if run.ema:
        # At first the average forgets sooner: it would otherwise stay near the random weights of the start.
        decay = min(config.train.ema, (1 + update) / (10 + update))
        torch._foreach_lerp_(run.ema, [parameter.detach() for parameter in parameters], 1 - decay)
    padded = sum(int(lengths_N2[piece].max(axis=0).sum()) * len(piece) for _, piece in pieces)
    return {
        "update": update,
        "epoch": run.cursor.epoch,
        "loss": loss,
        "rate": rate,
        "tokens": tokens,
        "padding": 1 - int(lengths_N2[rows].sum()) / padded,
        "gradient_norm": gradient_norm,
    }


def cut(run: Run, rows: Rows) -> Pieces:
    """The micro-batches of an update: equally many for each process, the same on all of them."""
    batch = run.config.batch
    parts = int(np.lcm(batch.multiple, run.world.size))
    pieces = micro_batches(rows, run.lengths_N2, batch.micro_tokens, parts)
    return [(index, piece) for index, piece in enumerate(pieces) if len(piece)]


def accumulate_own(run: Run, pieces: Pieces, tokens: int, stopping: Callable[[], bool] = lambda: False) -> Tensor:
    """Add the gradients of this process's micro-batches, halving them while memory does not suffice.

    What an update sees stays the same, so no other process needs to know.
    stopping: asked before each; once it says yes, the rest is left out.
    Returns their share of the loss. Raises OutOfMemoryError when single pairs do not fit.
    """
    while True:
        smaller = _halved(pieces, run.halvings)
        try:
            return _accumulate_all(run, smaller, tokens, stopping)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, which would keep the failed pass's tensors alive.
        if all(len(piece) == 1 for _, piece in smaller):
            raise OutOfMemoryError("out of memory with a single pair of sentences: choose a smaller model")
        run.halvings += 1
        run.adam.zero_grad()  # the pass may have failed halfway through its gradients
        release(run.device)


def _halved(pieces: Pieces, halvings: int) -> Pieces:
    if not halvings:
        return pieces
    parts = 2**halvings
    return [
        (index * parts + part, smaller)
        for index, piece in pieces
        for part, smaller in enumerate(np.array_split(piece, parts))
        if len(smaller)
    ]


def _accumulate_all(run: Run, pieces: Pieces, tokens: int, stopping: Callable[[], bool]) -> Tensor:
    config, corpus = run.config, run.prepared.train
    smoothing = config.train.label_smoothing
    loss = torch.zeros((), device=run.device)
    for index, rows in pieces:
        if stopping():
            break
        torch.manual_seed(dropout_seed(config.seed, run.update + 1, index))
        if config.train.bpe_dropout:
            # `tokens` stays the number of plain pieces, which all processes know, so this loss reads a little high.
            sampled = run.bpe_dropout.take(corpus, rows, run.cursor.epoch)
            loss += accumulate(run.model, sampled, np.arange(len(rows)), tokens, smoothing, run.precision)
        else:
            loss += accumulate(run.model, corpus, rows, tokens, smoothing, run.precision)
    return loss


def accumulate(
    model: Transformer, corpus: Corpus, rows: Rows, tokens: int, smoothing: float, precision: torch.dtype
) -> Tensor:
    """Add the gradient of these pairs' share of a loss over `tokens` tokens; returns that share."""
    batch = load_batch(corpus, rows, model.device)
    with torch.autocast(model.device.type, precision, enabled=precision != torch.float32):
        memory = model.encode(batch.source_BS, batch.source_places_N)
        x_ND = model.decode(batch.input_BT, memory, batch.target_places_N)
    loss = smoothed_loss(x_ND.to(precision), model.output.weight, batch.targets_N, smoothing) / tokens
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def dropout_seed(seed: int, update: int, micro_batch: int) -> int:
    """The seed of one forward pass: a function of its place in the run, so that there is no state to save."""
    return int(np.random.SeedSequence([seed, update, micro_batch]).generate_state(1, np.uint64)[0] >> 1)


def sum_over_world(run: Run, loss: Tensor) -> None:
    """Replace each gradient, and the loss, by its sum over all processes.

    One all-reduce of everything at once, rather than DistributedDataParallel: that would hide part of the exchange
    behind the last backward pass, but wants one forward method, the same number of passes in every process, and
    `no_sync` around forward and backward of all passes but the last. Here a process may have any number of them, and a
    pass that ran out of memory is taken again in halves, when hooks would have sent some of its gradients already.
    """
    if run.world.size == 1:
        return
    parameters = list(run.model.parameters())
    for parameter in parameters:
        if parameter.grad is None:  # a process without micro-batches
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.flatten()])
    run.world.sum(flat)
    *summed, total = torch.split(flat, [*(gradient.numel() for gradient in gradients), 1])
    torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(summed, gradients, strict=True)])
    loss.copy_(total[0])
