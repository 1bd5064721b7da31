"""Laws of packing: what leaves the padding out comes back in its place, gradients too."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mt.config import ModelConfig
from mt.model.attention import scaled_dot_product_attention
from mt.model.layout import MULTIPLE, PAD, additive_mask, layout_of, whole_layout
from mt.model.transformer import Transformer

LENGTHS = (3, 5, 1, 4)


def ragged_ids() -> Tensor:
    sentences = [torch.arange(4, 4 + length) for length in LENGTHS]
    return torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=PAD)


def test_rows_are_the_real_pieces_sentence_by_sentence() -> None:
    layout = layout_of(ragged_ids())
    assert layout.places_N is not None
    ids_N = ragged_ids().flatten()[layout.places_N[: layout.pieces]]
    assert ids_N.tolist() == [4 + t for length in LENGTHS for t in range(length)]
    position_N = layout.positions(torch.device("cpu"))[: layout.pieces]
    assert position_N.tolist() == [t for length in LENGTHS for t in range(length)]


def test_rows_are_filled_up_so_that_their_number_comes_back() -> None:
    layout = layout_of(ragged_ids())
    assert layout.places_N is not None
    assert layout.pieces == sum(LENGTHS)
    assert len(layout.places_N) == MULTIPLE


def test_the_mask_is_true_at_real_pieces() -> None:
    layout = layout_of(ragged_ids())
    assert layout.mask is not None
    assert layout.mask[:, 0, 0].sum(dim=1).tolist() == list(LENGTHS)
    assert torch.equal(layout.mask[:, 0, 0], ragged_ids() != PAD)


def test_packing_undoes_padding() -> None:
    layout, x_ND = layout_of(ragged_ids()), torch.randn(sum(LENGTHS), 6)
    x_BTD = layout.pad(x_ND)
    assert x_BTD.shape == (4, 5, 6)
    assert torch.equal(layout.pack(x_BTD)[: layout.pieces], x_ND)


def test_gradients_find_their_way_through_both_and_none_comes_from_padding() -> None:
    layout, real_BT1 = layout_of(ragged_ids()), (ragged_ids() != PAD)[:, :, None]
    x_ND = torch.randn(MULTIPLE, 3, dtype=torch.float64, requires_grad=True)
    x_BTD = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x_ND: layout.pad(x_ND) * real_BT1, x_ND)
    assert torch.autograd.gradcheck(lambda x_BTD: layout.pack(x_BTD)[: layout.pieces], x_BTD)


def test_known_places_need_not_be_looked_for() -> None:
    looked, known = layout_of(ragged_ids()), layout_of(ragged_ids(), (ragged_ids() != PAD).flatten().nonzero()[:, 0])
    x_ND = torch.randn(sum(LENGTHS), 2)
    assert torch.equal(looked.pad(x_ND), known.pad(x_ND))


def test_without_padding_nothing_moves() -> None:
    layout, x_ND = layout_of(torch.full((2, 3), 7)), torch.randn(6, 4)
    assert layout == whole_layout(2, 3)
    assert layout.pad(x_ND).data_ptr() == layout.pack(layout.pad(x_ND)).data_ptr() == x_ND.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_computes_the_same_with_a_mask_that_is_added(dtype: torch.dtype) -> None:
    mask = layout_of(ragged_ids()).mask
    assert mask is not None
    bias = additive_mask(mask, dtype)
    assert bias.shape == mask.shape
    assert all(stride % 16 == 0 for stride in bias.stride()[:-1])
    q_BHTK, k_BHTK, v_BHTK = torch.randn(3, 4, 2, 5, 8, dtype=dtype)
    for attend in (torch.nn.functional.scaled_dot_product_attention, scaled_dot_product_attention):
        assert torch.equal(attend(q_BHTK, k_BHTK, v_BHTK, bias), attend(q_BHTK, k_BHTK, v_BHTK, mask))


def test_other_devices_than_the_cpu_turn_a_mask_once_for_all_calls() -> None:
    """All layers of a stack get the same tensor, and it is no mask of True and False."""
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.nn.functional.scaled_dot_product_attention and args[3] is not None:
                seen.append(args[3])
            return function(*args, **(kwargs or {}))

    sizes = ModelConfig(d_model=16, heads=2, d_ff=32, encoder_layers=3, decoder_layers=3)
    model, ids = Transformer(sizes, 30).to("meta"), ragged_ids()
    places = (ids != PAD).flatten().nonzero()[:, 0].to("meta")
    with Watch():
        memory = model.encode(ids.to("meta"), places)
        model.decode(ids.to("meta"), memory, places)
        cache = model.new_cache(len(LENGTHS), 2)
        for _ in range(2):
            model.step(torch.zeros(len(LENGTHS), 2, dtype=torch.int64, device="meta"), memory, cache)
    assert {mask.dtype for mask in seen} == {torch.float32}
    of_encoder, of_decoder, own = seen[:3], [*seen[3:6], *seen[7::2]], seen[6::2]
    assert len(seen) == 3 + 3 + 2 * 6
    assert [len({id(mask) for mask in masks}) for masks in (of_encoder, of_decoder, own)] == [1, 1, 2]
