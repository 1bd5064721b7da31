"""What training minimises: label-smoothed cross-entropy (section 5.4), without ever holding all logits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from mt.config import Config, TrainConfig
from mt.data.corpus import Corpus
from mt.data.tokenizer import BOS
from mt.model.layout import compilable
from mt.model.recurrence import Ponder
from mt.model.teacher_forcing import Batch, forced_output, make_batch, row_chunks
from mt.model.transformer import Transformer

Figures = dict[str, Tensor]  # what else is worth a place in metrics.jsonl, as sums like the loss


def load_batch(pairs: Corpus, device: torch.device, compiled: bool = False) -> Batch:
    """The pairs, padded, on `device`; compiled: for compiled layers."""
    source_BS, target_BT = (compilable(ids_BT) if compiled else ids_BT for ids_BT in pairs.padded())
    return make_batch(source_BS, target_BT, BOS, device)


@dataclass(frozen=True)
class Loss:
    """What a run minimises: a function that gives a sum over a batch's target tokens, and figures beside it."""

    function: Callable[[Transformer, Batch, torch.dtype], tuple[Tensor, Figures]]
    figures: tuple[str, ...] = ()  # their names
    finish: Callable[[Figures], Figures] = dict  # from an update's sums to the figures of metrics.jsonl

    def __call__(self, model: Transformer, batch: Batch, precision: torch.dtype) -> tuple[Tensor, Figures]:
        return self.function(model, batch, precision)


def make_loss(config: Config) -> Loss:
    """The loss that a run's settings ask for."""
    loss = _loss_of_targets(config.train)
    return _pondered(loss, config.train.ponder) if config.model.recurrence == "adaptive" else loss


def _loss_of_targets(config: TrainConfig) -> Loss:
    if config.consistency == "none":
        return Loss(partial(translation_loss, smoothing=config.label_smoothing))
    how = Consistency.rdrop if config.consistency == "rdrop" else Consistency.simcut
    weights = how(config.consistency_weight)
    return Loss(partial(consistent_loss, smoothing=config.label_smoothing, weights=weights), ("divergence",))


def translation_loss(
    model: Transformer, batch: Batch, precision: torch.dtype, smoothing: float, ponders: list[Ponder] | None = None
) -> tuple[Tensor, Figures]:
    """The smoothed cross-entropy of a batch's targets, products in `precision`; no figures beside it.

    ponders: see `forced_output`.
    """
    x_ND = forced_output(model, batch, precision, ponders).to(precision)
    output = model.output
    return smoothed_loss(x_ND, output.weight, batch.targets_N, smoothing, output.bias, model.compiled), {}


def smoothed_loss(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    smoothing: float,
    bias_V: Tensor | None = None,
    compiled: bool = False,
) -> Tensor:
    """Sum over positions of the cross-entropy to smoothed targets (section 5.4), in nats.

    weight_VD and bias_V: of the linear layer before the softmax.
    compiled: let torch.compile make one kernel of what stands between the products.
    The target distribution is (1 - smoothing) on the gold piece plus smoothing / V on every piece, gold included.
    Products and softmax run in the type of `x_ND`, what is summed over positions at least in float32.
    """
    loss: Tensor = _SmoothedLoss.apply(x_ND, weight_VD, bias_V, targets_N, smoothing, compiled)  # type: ignore[no-untyped-call]
    return loss


class _SmoothedLoss(torch.autograd.Function):
    """Linear layer, softmax, loss and their gradients in one pass over chunks of rows.

    The gradient is found beside the loss, so logits are neither kept nor computed again.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x_ND: Tensor,
        given_VD: Tensor,
        given_V: Tensor | None,
        targets_N: Tensor,
        smoothing: float,
        compiled: bool,
    ) -> Tensor:
        weight_VD = given_VD.to(x_ND.dtype)
        bias_V = None if given_V is None else given_V.to(x_ND.dtype)
        exact = torch.promote_types(x_ND.dtype, torch.float32)
        loss = torch.zeros((), dtype=exact, device=x_ND.device)
        gradient_ND, gradient_VD = torch.empty_like(x_ND), torch.zeros_like(given_VD)
        gradient_V = None if given_V is None else torch.zeros_like(given_V)
        V = weight_VD.size(0)
        for rows in row_chunks(x_ND, V):
            x_CD, targets_C1 = x_ND[rows], targets_N[rows, None]
            logits_CV = x_CD @ weight_VD.t() if bias_V is None else torch.addmm(bias_V, x_CD, weight_VD.t())
            gold_C1 = logits_CV.gather(1, targets_C1).to(exact)
            # d loss / d logits = softmax - target distribution, of which the uniform part comes after the loop.
            minus_gold_C1 = logits_CV.new_full(targets_C1.shape, smoothing - 1)
            of_chunk = _compiled_pass if compiled and len(x_CD) > 1 else _log_sum_and_gradient  # 1 needs its own graph
            log_sum_C1, gradient_CV = of_chunk(logits_CV, targets_C1, minus_gold_C1)
            loss += (log_sum_C1 - (1 - smoothing) * gold_C1).sum()
            gradient_ND[rows] = gradient_CV @ weight_VD
            gradient_VD += gradient_CV.t() @ x_CD
            if gradient_V is not None:
                gradient_V += gradient_CV.sum(dim=0, dtype=exact)
        # smoothing / V on every piece is smoothing times the mean logit, whose gradients are the same for all.
        mean_D, sum_D = given_VD.mean(dim=0).to(exact), x_ND.sum(dim=0, dtype=exact)
        loss -= smoothing * (sum_D @ mean_D)
        gradient_ND -= (smoothing * mean_D).to(x_ND.dtype)
        gradient_VD -= (smoothing / V * sum_D).to(given_VD.dtype)
        if given_V is not None and gradient_V is not None:
            loss -= smoothing * len(x_ND) * given_V.mean().to(exact)
            gradient_V -= smoothing / V * len(x_ND)
        ctx.save_for_backward(gradient_ND, gradient_VD, gradient_V)  # type: ignore[arg-type]  # None is kept as well
        return loss

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradient_ND, gradient_VD, gradient_V = ctx.saved_tensors  # type: ignore[attr-defined]
        bias = None if gradient_V is None else gradient_V * gradient
        return gradient_ND * gradient, gradient_VD * gradient, bias, None, None, None


def _log_sum_and_gradient(logits_CV: Tensor, targets_C1: Tensor, minus_gold_C1: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of each row's sum of exponentials; and its softmax, with `minus_gold_C1` added at the target."""
    exact = torch.promote_types(logits_CV.dtype, torch.float32)
    highest_C1 = logits_CV.amax(dim=1, keepdim=True).to(exact)
    softmax_CV = logits_CV.softmax(dim=1)
    log_sum_C1 = highest_C1 - softmax_CV.amax(dim=1, keepdim=True).to(exact).log()
    return log_sum_C1, _added_at(softmax_CV, targets_C1, minus_gold_C1)


def _added_at(x_CV: Tensor, piece_C1: Tensor, added_C1: Tensor) -> Tensor:
    """`x_CV`, with something added to one number of each row.

    Sums of two numbers have but one order. So not in deterministic mode, in which torch would sort, and wait for a GPU
    to copy strides to it.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    if deterministic:
        torch.use_deterministic_algorithms(False)
    try:
        return x_CV.scatter_add_(1, piece_C1, added_C1)
    finally:
        if deterministic:
            torch.use_deterministic_algorithms(True)


def _in_one_pass(logits_CV: Tensor, targets_C1: Tensor, minus_gold_C1: Tensor) -> tuple[Tensor, Tensor]:
    """The same, written so that torch.compile makes one kernel of it."""
    exact_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    highest_C1 = exact_CV.amax(dim=1, keepdim=True)
    log_sum_C1 = highest_C1 + (exact_CV - highest_C1).exp().sum(dim=1, keepdim=True).log()
    is_target_CV = torch.arange(logits_CV.size(1), device=logits_CV.device) == targets_C1
    gradient_CV = (exact_CV - log_sum_C1).exp() + torch.where(is_target_CV, minus_gold_C1, 0)
    return log_sum_C1, gradient_CV.to(logits_CV.dtype)


def _compiled_pass(logits_CV: Tensor, targets_C1: Tensor, minus_gold_C1: Tensor) -> tuple[Tensor, Tensor]:
    """The same in one kernel, for any number of rows but one; a GPU reads each row from memory once."""
    torch._dynamo.mark_static(logits_CV, 1)  # where the length of rows is known, they are read in wide steps
    return _compiled()(logits_CV, targets_C1, minus_gold_C1)


@cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(_in_one_pass, dynamic=True, fullgraph=True)


# --- Consistency: two passes over a batch should give the same probabilities -------------------------------------

CUTOFF = 0.05  # share of pieces that SimCut hides (Gao et al., 2022)


@dataclass(frozen=True)
class Consistency:
    """What counts how much in the loss of a piece, p and q being its probabilities in the first and second pass."""

    first: float  # the cross-entropy of p
    second: float  # ... and of q
    forward: float  # the divergence KL(p || q)
    backward: float  # ... and KL(q || p)
    cutoff: float = 0.0  # share of pieces, on both sides, that the second pass does not see

    @staticmethod
    def rdrop(weight: float) -> "Consistency":
        """Two passes that differ in dropout (Liang et al., 2021), halved to compare with the plain loss."""
        return Consistency(1 / 2, 1 / 2, weight / 4, weight / 4)

    @staticmethod
    def simcut(weight: float) -> "Consistency":
        """A second pass without some pieces (Gao et al., 2022)."""
        return Consistency(1, 0, weight, 0, CUTOFF)


def consistent_loss(
    model: Transformer,
    batch: Batch,
    precision: torch.dtype,
    smoothing: float,
    weights: Consistency,
    ponders: list[Ponder] | None = None,
) -> tuple[Tensor, Figures]:
    """The loss of a batch beside itself: smoothed cross-entropy, and how far its two passes diverge.

    Beside it stands that divergence, KL(p || q), unweighted.
    ponders: see `forced_output`.
    """
    x_MD = forced_output(model, twice(batch, weights.cutoff), precision, ponders).to(precision)  # M = 2N
    output = model.output
    loss, divergence = _ConsistentLoss.apply(  # type: ignore[no-untyped-call]
        x_MD, output.weight, output.bias, batch.targets_N, smoothing, weights
    )
    return loss, {"divergence": divergence}


def twice(batch: Batch, cutoff: float = 0.0) -> Batch:
    """The batch beside itself; in its second half, so large a share of the pieces is hidden at random."""

    def both(ids_BT: Tensor, places_N: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        hidden_BT = None
        if cutoff:
            hidden_BT = torch.rand(2 * len(ids_BT), ids_BT.size(1), device=ids_BT.device) < cutoff
            hidden_BT[: len(ids_BT)] = False
        return ids_BT.repeat(2, 1), torch.cat([places_N, places_N + ids_BT.numel()]), hidden_BT

    source_BS, source_places_N, source_hidden_BS = both(batch.source_BS, batch.source_places_N)
    input_BT, target_places_N, input_hidden_BT = both(batch.input_BT, batch.target_places_N)
    return Batch(
        source_BS,
        source_places_N,
        input_BT,
        target_places_N,
        batch.targets_N.repeat(2),
        source_hidden_BS,
        input_hidden_BT,
    )


class _ConsistentLoss(torch.autograd.Function):
    """As _SmoothedLoss, over rows of which the second half repeats the first: both of a piece are in one chunk."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x_MD: Tensor,
        given_VD: Tensor,
        given_V: Tensor | None,
        targets_N: Tensor,
        smoothing: float,
        weights: Consistency,
    ) -> tuple[Tensor, Tensor]:
        weight_VD = given_VD.to(x_MD.dtype)
        exact = torch.promote_types(x_MD.dtype, torch.float32)
        loss, divergence = torch.zeros(2, dtype=exact, device=x_MD.device)
        gradient_MD, gradient_VD = torch.empty_like(x_MD), torch.zeros_like(given_VD)
        gradient_V = None if given_V is None else torch.zeros_like(given_V)
        N, V = len(targets_N), len(weight_VD)
        x_2ND, gradient_2ND = x_MD.view(2, N, -1), gradient_MD.view(2, N, -1)
        for rows in row_chunks(x_2ND[0], 2 * V):
            x_2CD, targets_C1 = x_2ND[:, rows], targets_N[rows, None]
            logits_2CV = (x_2CD @ weight_VD.t()).to(exact)
            if given_V is not None:
                logits_2CV += given_V
            logp_CV, logq_CV = logits_2CV.log_softmax(dim=2)
            p_CV, q_CV = logp_CV.exp(), logq_CV.exp()
            ratio_CV = logp_CV - logq_CV
            forward_C1, backward_C1 = (p_CV * ratio_CV).sum(1, keepdim=True), -(q_CV * ratio_CV).sum(1, keepdim=True)
            for part, logs_CV in ((weights.first, logp_CV), (weights.second, logq_CV)):
                gold = logs_CV.gather(1, targets_C1).sum()
                loss -= part * ((1 - smoothing) * gold + smoothing / V * logs_CV.sum())
            loss += weights.forward * forward_C1.sum() + weights.backward * backward_C1.sum()
            divergence += forward_C1.sum()
            gold_C1 = p_CV.new_full(targets_C1.shape, 1 - smoothing)
            target_CV = _added_at(torch.full_like(p_CV, smoothing / V), targets_C1, gold_C1)
            gradient_2CV = torch.stack(
                [
                    weights.first * (p_CV - target_CV)
                    + weights.forward * p_CV * (ratio_CV - forward_C1)
                    + weights.backward * (p_CV - q_CV),
                    weights.second * (q_CV - target_CV)
                    + weights.forward * (q_CV - p_CV)
                    - weights.backward * q_CV * (ratio_CV + backward_C1),
                ]
            )
            if gradient_V is not None:
                gradient_V += gradient_2CV.sum(dim=(0, 1))
            gradient_2CV = gradient_2CV.to(x_MD.dtype)
            gradient_2ND[:, rows] = gradient_2CV @ weight_VD
            gradient_VD += gradient_2CV.flatten(0, 1).t() @ x_2CD.flatten(0, 1)
        ctx.save_for_backward(gradient_MD, gradient_VD, gradient_V)  # type: ignore[arg-type]  # None is kept as well
        ctx.mark_non_differentiable(divergence)
        return loss, divergence

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _SmoothedLoss.backward(ctx, gradient)


# --- What steps cost a model with halting -------------------------------------------------------------------------


def _pondered(loss: Loss, weight: float) -> Loss:
    counts = ("encoder_steps", "encoder_pieces", "decoder_steps", "decoder_pieces")
    function = partial(pondered_loss, function=loss.function, weight=weight)
    return Loss(function, (*loss.figures, "ponder", *counts), _mean_steps)


def pondered_loss(
    model: Transformer,
    batch: Batch,
    precision: torch.dtype,
    function: Callable[..., tuple[Tensor, Figures]],
    weight: float,
) -> tuple[Tensor, Figures]:
    """The loss of `function` plus `weight` times steps and remainder of each piece, of source and target.

    That is the ponder cost of Graves (2016), section 2.1. Beside it stand that cost, weighed, and the numbers of steps
    and pieces.
    """
    ponders: list[Ponder] = []
    loss, figures = function(model, batch, precision, ponders=ponders)
    passes = len(ponders[1].steps_N) / len(batch.targets_N)  # through which the model was sent with the batch
    cost = weight / passes * torch.cat([steps_N + remainder_N for steps_N, remainder_N in ponders]).sum()
    figures = {**figures, "ponder": cost}
    for side, (steps_N, _) in zip(("encoder", "decoder"), ponders, strict=True):
        figures |= {f"{side}_steps": steps_N.sum(), f"{side}_pieces": torch.ones_like(steps_N).sum()}
    return loss + cost, figures


def _mean_steps(figures: Figures) -> Figures:
    """The figures with the mean steps of a piece on each side."""
    means = {f"{side}_steps": figures[f"{side}_steps"] / figures[f"{side}_pieces"] for side in ("encoder", "decoder")}
    return {name: value for name, value in {**figures, **means}.items() if not name.endswith("_pieces")}
