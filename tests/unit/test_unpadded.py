"""Attention on rows without padding computes what attention in a padded rectangle does.

torch has the kernels for GPUs alone, so plain ones stand in for them here, under torch's own operator: what it is
called with, its gradients and its compilation are the real ones.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.attention.varlen  # defines the operator that gets kernels below
from torch import Tensor, library
from torch._dynamo.utils import counters

from mt.config import ModelConfig
from mt.data.tokenizer import BOS, EOS, PAD
from mt.model.attention import can_be_unpadded
from mt.model.layout import MULTIPLE, layout_of
from mt.model.teacher_forcing import Batch, make_batch
from mt.model.transformer import Transformer
from mt.train.loss import Consistency, consistent_loss, translation_loss

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "d_model": 16,
    "heads": 2,
    "d_ff": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "dropout": 0.0,
}
V = 30


def spans(starts_q: Tensor, starts_k: Tensor, longest: tuple[int, int]) -> list[tuple[slice, slice]]:
    """The rows of each sentence, having checked that no kernel would read or write beside them."""
    ends = starts_q.tolist(), starts_k.tolist()
    assert starts_q.dtype == starts_k.dtype == torch.int32
    assert len(ends[0]) == len(ends[1])
    found = [[slice(*pair) for pair in pairwise(side)] for side in ends]
    for side, most in zip(found, longest, strict=True):
        assert max(rows.stop - rows.start for rows in side) <= most
    return list(zip(*found, strict=True))


def weights_of(q_THK: Tensor, k_SHK: Tensor, causal: bool) -> Tensor:
    scores_HTS = torch.einsum("thk,shk->hts", q_THK, k_SHK) / q_THK.size(-1) ** 0.5
    if causal:
        scores_HTS = scores_HTS.masked_fill(torch.ones_like(scores_HTS[0], dtype=torch.bool).triu(1), float("-inf"))
    weights_HTS: Tensor = scores_HTS.softmax(-1)
    return weights_HTS


def plain_forward(
    q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor, max_q: int, max_k: int, causal: bool, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that belong to no sentence are left as they are: not a number."""
    out = torch.full_like(q, float("nan"))
    for rows, keys in spans(starts_q, starts_k, (max_q, max_k)):
        out[rows] = torch.einsum("hts,shk->thk", weights_of(q[rows], k[keys], causal), v[keys])
    return out, q.new_zeros(q.size(1), q.size(0), dtype=torch.float32), torch.zeros(2, dtype=torch.uint64)


def plain_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, _, starts_q, starts_k, max_q, max_k, causal, *_ = rest
    of_q, of_k, of_v = (torch.full_like(x, float("nan")) for x in (q, k, v))
    scale = q.size(-1) ** -0.5
    for rows, keys in spans(starts_q, starts_k, (max_q, max_k)):
        weights_HTS = weights_of(q[rows], k[keys], causal)
        of_weights_HTS = torch.einsum("thk,shk->hts", gradient[rows], v[keys])
        mean_HT1 = (gradient[rows] * out[rows]).sum(-1).t()[:, :, None]
        of_scores_HTS = weights_HTS * (of_weights_HTS - mean_HT1) * scale
        of_q[rows] = torch.einsum("hts,shk->thk", of_scores_HTS, k[keys])
        of_k[keys] = torch.einsum("hts,thk->shk", of_scores_HTS, q[rows])
        of_v[keys] = torch.einsum("hts,thk->shk", weights_HTS, gradient[rows])
    return of_q, of_k, of_v


library.register_kernel("torch_attn::_varlen_attn", "cpu", plain_forward)
library.register_kernel("torch_attn::_varlen_attn_backward", "cpu", plain_backward)


def batch_of(lengths: list[tuple[int, int]], seed: int = 1) -> Batch:
    random = np.random.default_rng(seed)
    sides = []
    for side in zip(*lengths, strict=True):
        ids_BT = np.full((len(side), max(side)), PAD)
        for row, length in enumerate(side):
            ids_BT[row, :length] = [*random.integers(4, V, length - 1), EOS]
        sides.append(ids_BT)
    return make_batch(sides[0], sides[1], BOS, CPU)


def model_of(settings: dict[str, Any], unpadded: bool, **how: bool) -> Transformer:
    torch.manual_seed(1)
    return Transformer(ModelConfig.model_validate({**SIZES, **settings}), V, unpadded=unpadded, **how)


def loss_and_gradients(model: Transformer, batch: Batch, consistent: bool = False) -> list[Tensor]:
    model.zero_grad()
    if consistent:
        loss, _ = consistent_loss(model, batch, torch.float32, 0.1, Consistency.rdrop(1.0))
    else:
        loss, _ = translation_loss(model, batch, torch.float32, 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


RAGGED = [(3, 7), (1, 1), (6, 2), (4, 5)]
BATCHES = {"ragged": RAGGED, "one sentence": [(4, 6)], "no padding": [(5, 3)] * 4, "long": [(90, 3), (2, 101)]}


@pytest.mark.parametrize(
    "settings",
    [{}, {"positions": "rotary"}, {"norm": "pre", "positions": "learned"}, {"recurrence": "adaptive"}],
    ids=str,
)
@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
def test_losses_and_gradients_are_those_of_padded_attention(
    settings: dict[str, Any], lengths: list[tuple[int, int]]
) -> None:
    """Also with recomputed layers, and in two passes at once."""
    batch = batch_of(lengths)
    expected = loss_and_gradients(model_of(settings, unpadded=False).double(), batch)
    for recompute in (False, True):
        found = loss_and_gradients(model_of(settings, unpadded=True, recompute=recompute).double(), batch)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    expected, found = (
        loss_and_gradients(model_of(settings, unpadded).double(), batch, consistent=True) for unpadded in (False, True)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_without_gradients_attention_works_in_the_rectangle() -> None:
    batch, (padded, unpadded) = batch_of(RAGGED), (model_of({}, unpadded) for unpadded in (False, True))
    with torch.no_grad():
        of_both = [model(batch.source_BS, batch.input_BT) for model in (padded, unpadded)]
    assert torch.equal(*of_both)


def test_every_row_is_in_one_span_and_no_span_is_longer_than_said() -> None:
    for pieces in (1, 62, 63, 64, 126, 130):
        ids = torch.full((2, pieces), 7)
        ids[0, 1:] = PAD
        layout = layout_of(ids, unpadded=True)
        assert layout.spans is not None
        assert layout.places_N is not None
        starts, longest = layout.spans
        assert starts.tolist() == [0, 1, 1 + pieces, len(layout.places_N)]
        assert 2 <= len(layout.places_N) - layout.pieces <= MULTIPLE + 1 <= longest
        assert longest >= pieces


def test_it_is_for_gpus_that_have_the_kernels() -> None:
    assert not can_be_unpadded(CPU, torch.bfloat16, 64)


@pytest.mark.slow
def test_compiled_layers_need_one_graph_of_each_kind() -> None:
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    plain, compiled = (model_of({}, unpadded=True, compiled=compiled) for compiled in (False, True))
    with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        loss_and_gradients(compiled, batch_of([(20 + row % 3, 22) for row in range(9)]))
    for number, lengths in enumerate(BATCHES.values()):
        batch = batch_of(lengths, seed=number)
        torch.testing.assert_close(
            loss_and_gradients(compiled, batch), loss_and_gradients(plain, batch), rtol=1e-4, atol=1e-5
        )
    assert counters["stats"]["unique_graphs"] - before == 3  # encoder layer, decoder layer, loss
