"""What learns: the weights, and all that changes with them from update to update."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from mt.config import Config
from mt.data.tokenizer import BOS, EOS, PAD
from mt.device import choose_precision
from mt.distributed import ALONE, World
from mt.model.attention import can_be_unpadded
from mt.model.teacher_forcing import make_batch
from mt.model.transformer import Transformer
from mt.train.exchange import GradientExchange
from mt.train.loss import Loss, make_loss
from mt.train.optim import load_optimizer, make_optimizer, optimizer_state


@dataclass
class Learner:
    """A model with its loss, optimiser and moving average: all that an update needs beside its batch."""

    config: Config  # sections model, optim and train, and the seed
    model: Transformer
    exchange: GradientExchange
    optimizer: torch.optim.Optimizer
    loss: Loss
    precision: torch.dtype  # of matrix products
    ema: list[Tensor] = field(default_factory=list)  # moving averages of the parameters; empty when off
    halvings: int = 0  # how often micro-batches had to be halved for want of memory; checkpoints keep it

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a checkpoint keeps: the weights one translates with, and by name what training needs beside them.

        With a moving average on, it is what one translates with; the weights in training then stand beside the
        optimiser's state, as `PARAMETER.raw`. Nothing is copied, unless each process has but a share of it: then all
        call this together.
        """
        state_of = optimizer_state if self.exchange.shares is None else self.exchange.shares.state
        weights, beside = self.model.state_dict(), state_of(self.optimizer, self.model)
        for (name, raw), average in zip(self.model.named_parameters(), self.ema, strict=bool(self.ema)):
            beside[f"{name}.raw"], weights[name] = raw.detach(), average
        return weights, beside

    def load(self, weights: Mapping[str, Tensor], beside: Mapping[str, Tensor] | None = None) -> None:
        """Put back what `state` gave; or begin with these weights, where nothing is given beside them.

        In a world of several the main process does so, and all follow it.
        """
        self.model.load_state_dict(weights)
        for parameter, average in zip(self.model.parameters(), self.ema, strict=bool(self.ema)):
            average.copy_(parameter.detach())
        if beside is not None:
            if self.exchange.shares is None:
                load_optimizer(self.optimizer, self.model, beside)
            for name, parameter in self.model.named_parameters() if self.ema else ():
                parameter.data.copy_(beside[f"{name}.raw"])

    def follow_main(self, beside: Mapping[str, Tensor] | None = None) -> None:
        """Take over what the main process has loaded; in it, `beside` is what was loaded beside the weights.

        So only the main process's machine needs to hold the run.
        """
        world, shares = self.exchange.world, self.exchange.shares
        world.broadcast_tensors([*(parameter.detach() for parameter in self.model.parameters()), *self.ema])
        if shares is None:
            world.broadcast_tensors([*optimizer_state(self.optimizer, self.model).values()])
        else:
            shares.load(self.optimizer, self.model, beside)

    def fitting_config(self) -> Config:
        """The config with micro-batches as small as memory has turned out to need them."""
        batch = self.config.batch
        smaller = batch.model_copy(update={"micro_tokens": max(1, batch.micro_tokens >> self.halvings)})
        return self.config.model_copy(update={"batch": smaller})

    @contextmanager
    def averaged(self) -> Iterator[Transformer]:
        """The model with the moving average in place of its weights, where that is on."""
        parameters = list(self.model.parameters()) if self.ema else []
        raw = [parameter.data for parameter in parameters]
        for parameter, average in zip(parameters, self.ema, strict=bool(self.ema)):
            parameter.data = average
        try:
            yield self.model
        finally:
            for parameter, data in zip(parameters, raw, strict=True):
                parameter.data = data


def make_learner(
    config: Config,
    vocabulary: int,
    device: torch.device,
    source_vocabulary: int | None = None,
    world: World = ALONE,
) -> Learner:
    """A learner before its first update, its weights drawn from the config's seed.

    source_vocabulary: as in Transformer. world: the processes that train together, each with a learner.
    """
    torch.manual_seed(config.seed)
    loss, precision = make_loss(config), choose_precision(config.train.precision, device)
    model = Transformer(
        config.model,
        vocabulary,
        source_vocabulary,
        compiled=config.train.compile,
        recompute=config.train.recompute,
        unpadded=not config.model.attention_dropout
        and can_be_unpadded(device, precision, config.model.d_model // config.model.heads),
        rounded=config.train.residual == "bfloat16",
    )
    model = model.to(device).train()
    parameters: Iterable[nn.Parameter] = model.parameters()
    if config.train.compile or world.size > 1:
        # Compiled now, on sentences that are always the same, so that a run is compiled alike wherever it stands: how
        # sums are cut into parts depends on the shapes that layers are first called with.
        rows = 2 + min(config.batch.micro_tokens, 8_192) // 40 if config.train.compile else 2  # pieces as in training
        order = order_of_gradients(model, loss, precision, rows)
        parameters = order if world.size > 1 else parameters
    exchange = GradientExchange(parameters, world, shard=config.train.shard == "optimizer")
    learner = Learner(
        config=config,
        model=model,
        exchange=exchange,
        optimizer=make_optimizer(model if exchange.shares is None else exchange.shares.parameters, config.optim),
        loss=loss,
        precision=precision,
    )
    if config.train.ema:
        learner.ema = [parameter.detach().clone() for parameter in model.parameters()]
    return learner


def order_of_gradients(model: Transformer, loss: Loss, precision: torch.dtype, rows: int) -> list[nn.Parameter]:
    """All parameters, in the order in which a backward pass over sentences of EOS finishes their gradients."""
    source_BS, target_BT = (np.full((rows, length), EOS) for length in (35, 38))
    for row in range(rows):
        source_BS[row, 20 + row % 16 :] = target_BT[row, 22 + row % 17 :] = PAD
    batch = make_batch(source_BS, target_BT, BOS, model.device)
    order: list[nn.Parameter] = []
    hooks = [
        parameter.register_post_accumulate_grad_hook(order.append)  # type: ignore[no-untyped-call]
        for parameter in model.parameters()
    ]
    # Sizes that are equal here are not always equal.
    with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        value, _ = loss(model, batch, precision)
        value.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return list(dict.fromkeys([*order, *model.parameters()]))
