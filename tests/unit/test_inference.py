"""Laws of models that only decode: the same products, only quicker."""

import pytest
import torch

from mt.config import ModelConfig
from mt.device import choose_precision
from mt.errors import UsageError
from mt.model.inference import (
    LARGEST,
    PLAIN,
    Int8Linear,
    decoding_warning,
    inference_model,
    largest_exact_weight,
    quantised,
)
from mt.model.transformer import Transformer

CONFIG = ModelConfig(d_model=32, heads=2, d_ff=64, encoder_layers=2, decoder_layers=2)


def twins(dtype: torch.dtype, config: ModelConfig = CONFIG) -> tuple[Transformer, Transformer]:
    """A plain model and a packed one of the same weights."""
    models = [Transformer(config, vocab_size=100) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    plain = models[0].eval().to(torch.float32 if dtype == torch.int8 else dtype)
    return plain, inference_model(models[1], dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.int8, 0.2)])
@pytest.mark.parametrize("sentences", [1, 3, 200])
def test_a_packed_model_computes_the_same_for_any_number_of_rows(
    dtype: torch.dtype, tolerance: float, sentences: int
) -> None:
    plain, packed = twins(dtype)
    source_BS, target_BT = torch.randint(4, 100, (sentences, 7)), torch.randint(4, 100, (sentences, 5))
    with torch.inference_mode():
        torch.testing.assert_close(
            packed(source_BS, target_BT), plain(source_BS, target_BT), rtol=tolerance, atol=tolerance
        )


def test_every_linear_layer_is_packed_and_no_weight_kept_twice_but_the_embedding_or_learns_on() -> None:
    plain, packed = twins(torch.float32)
    assert not [name for name, module in packed.named_modules() if isinstance(module, torch.nn.Linear)]
    assert not any(parameter.requires_grad for parameter in packed.parameters())
    kept = {name for name, _ in packed.named_parameters()}
    assert kept == {name for name, _ in plain.named_parameters() if "norm" in name or name == "embedding.weight"}


# --- 8 bits ------------------------------------------------------------------------------------------------------

needs_int8 = pytest.mark.skipif(not largest_exact_weight(), reason="torch has no exact products of 8 bits here")


@needs_int8
@pytest.mark.parametrize("outputs", [10, PLAIN // 300 + 1], ids=["few weights", "many"])
@pytest.mark.parametrize("has_bias", [True, False])
@torch.inference_mode()
def test_a_layer_in_8_bits_is_plain_arithmetic_of_whole_numbers_for_each_row_alone(
    outputs: int, has_bias: bool
) -> None:
    weight, bias = torch.randn(outputs, 300), torch.randn(outputs) if has_bias else None
    x = torch.randn(41, 300) * torch.logspace(-3, 3, 41)[:, None]
    whole_weight, weight_scale = quantised(weight)
    layer, most = Int8Linear(whole_weight, weight_scale, bias), largest_exact_weight()
    whole_weight, weight_scale = (whole_weight * (most / LARGEST)).round(), weight_scale * (LARGEST / most)
    row_scale = x.abs().amax(1, keepdim=True) / LARGEST
    sums = (x / row_scale).round().long() @ whole_weight.long().T
    expected = sums.double() * row_scale.double() * weight_scale[:, 0].double() + (0 if bias is None else bias)
    together = layer(x)
    torch.testing.assert_close(together.double(), expected, rtol=1e-5, atol=1e-5)
    for rows in (slice(0, 1), slice(3, 10), slice(25, 41)):
        assert torch.equal(layer(x[rows]), together[rows])


@torch.inference_mode()
def test_no_weight_is_off_by_more_than_half_a_step_and_rows_of_zeros_stay_zeros() -> None:
    weight = torch.randn(50, 30)
    weight[7] = 0
    whole, scale = quantised(weight)
    assert ((whole * scale - weight).abs() <= scale * 0.5001).all()
    if largest_exact_weight():
        assert torch.equal(Int8Linear(whole, scale, torch.ones(50))(torch.zeros(2, 30)), torch.ones(2, 50))


@needs_int8
def test_a_model_in_8_bits_keeps_its_norms_and_biases_alone_in_float32() -> None:
    plain, packed = twins(torch.int8)
    assert {name for name, _ in packed.named_parameters()} == {
        name for name, _ in plain.named_parameters() if "norm" in name
    }
    assert packed.dtype == torch.float32
    assert packed.vocab_size == plain.vocab_size


def test_who_cannot_have_8_bits_is_told() -> None:
    assert bool(decoding_warning("int8", torch.device("cpu"))) == (not largest_exact_weight())
    with pytest.raises(UsageError, match="int8 is for CPUs, and this is cuda: take bfloat16, or --device cpu"):
        choose_precision("int8", torch.device("cuda"))
