"""Laws that hold for every variant of the model: each setting alone, and the pairs that touch each other.

A variant is a line of VARIANTS. The oracle is tests/plain_transformer.py, in float64.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fork_world, statuses
from plain_transformer import PlainTransformer
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mt.config import BatchConfig, Config, ModelConfig, OptimConfig, TrainConfig
from mt.config_file import load_config
from mt.data.corpus import Corpus, Sentences
from mt.data.feed import cut_batch
from mt.data.tokenizer import BOS, EOS, PAD
from mt.distributed import ALONE, World, joined
from mt.errors import ConfigError
from mt.model.attention import AttentionMaps, scaled_dot_product_attention
from mt.model.dropout import Dropout
from mt.model.inference import inference_model
from mt.model.transformer import Transformer, training_flops
from mt.train.learner import Learner, make_learner
from mt.train.loss import load_batch, translation_loss
from mt.train.update import take_update
from mt.translate.beam import BeamSearch, beam_search, gnmt_penalty
from mt.translate.decoding import Decoding, GreedyDecoding, decoding_batches, pad_sources
from mt.translate.search import Bounds, Hypothesis, greedy_search

SIZES: dict[str, Any] = {"d_model": 16, "heads": 2, "d_ff": 24, "encoder_layers": 1, "decoder_layers": 2}
V, SOURCE_V = 30, 25

Settings = dict[str, Any]
VARIANTS: dict[str, Settings] = {
    "published": {},
    "learned": {"positions": "learned", "max_positions": 48},
    "rotary": {"positions": "rotary"},
    "pre": {"norm": "pre"},
    "gelu": {"activation": "gelu"},
    "silu": {"activation": "silu"},
    "swiglu": {"activation": "swiglu"},
    "decoder": {"embeddings": "decoder"},
    "separate": {"embeddings": "separate"},
    "bias": {"output_bias": True},
    "attention dropout": {"attention_dropout": 0.3},
    "activation dropout": {"activation_dropout": 0.3},
    "learned, pre": {"positions": "learned", "max_positions": 48, "norm": "pre"},
    "rotary, pre": {"positions": "rotary", "norm": "pre"},
    "gelu, pre": {"activation": "gelu", "norm": "pre"},
    "swiglu, pre": {"activation": "swiglu", "norm": "pre"},
    "decoder, bias": {"embeddings": "decoder", "output_bias": True},
    "separate, bias": {"embeddings": "separate", "output_bias": True},
    "swiglu, activation dropout": {"activation": "swiglu", "activation_dropout": 0.3},
    "universal": {"recurrence": "fixed", "encoder_layers": 3},
    "halting": {"recurrence": "adaptive", "halt_threshold": 0.9, "encoder_layers": 4, "decoder_layers": 3},
    "universal, rotary, pre": {"recurrence": "fixed", "positions": "rotary", "norm": "pre"},
    "halting, learned, pre, swiglu": {
        "recurrence": "adaptive",
        "positions": "learned",
        "max_positions": 48,
        "norm": "pre",
        "activation": "swiglu",
        "encoder_layers": 3,
    },
    "halting, rotary, separate": {
        "recurrence": "adaptive",
        "encoder_layers": 2,
        "positions": "rotary",
        "embeddings": "separate",
    },
    "all at once": {
        "positions": "rotary",
        "norm": "pre",
        "activation": "swiglu",
        "embeddings": "separate",
        "output_bias": True,
        "attention_dropout": 0.3,
        "activation_dropout": 0.2,
        "dropout": 0.2,
    },
}

every_variant = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


def config_of(settings: Settings) -> ModelConfig:
    return ModelConfig.model_validate(SIZES | settings)


def source_vocabulary(config: ModelConfig) -> int | None:
    return None if config.embeddings == "tied" else SOURCE_V


def new_model(settings: Settings, dtype: torch.dtype = torch.float64) -> Transformer:
    torch.manual_seed(3)
    config = config_of(settings)
    model = Transformer(config, V, source_vocabulary(config)).to(dtype).eval()
    for parameter in model.parameters():  # biases and norms away from 0 and 1, so that a swap would show
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def plain(model: Transformer) -> PlainTransformer:
    return PlainTransformer(model.config, dict(model.named_parameters()))


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(4, SOURCE_V, shape, generator=torch.Generator().manual_seed(seed))


def random_lines(count: int, longest: int, seed: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(4, SOURCE_V, random.integers(1, longest + 1)).tolist() for _ in range(count)]


def random_corpus(count: int, longest: int = 9) -> Corpus:
    return Corpus(*(Sentences.from_lists(random_lines(count, longest, seed)) for seed in (1, 2)))


# --- What is computed ---------------------------------------------------------------------------------------------


@every_variant
def test_the_logits_are_those_of_the_plain_model(settings: Settings) -> None:
    model = new_model(settings)
    source_BS, target_BT = random_ids(2, 6), random_ids(2, 5, seed=1)
    source_BS[1, 4:] = PAD
    oracle = plain(model)
    with torch.no_grad():
        expected = [
            oracle.logits(ids[ids != PAD].tolist(), target_BT[row].tolist()) for row, ids in enumerate(source_BS)
        ]
        torch.testing.assert_close(model(source_BS, target_BT), torch.stack(expected), rtol=0, atol=1e-10)


@every_variant
@pytest.mark.filterwarnings("ignore:In CPU autocast")  # which has no float64, and is not on
def test_loss_and_gradients_are_those_of_the_plain_model(settings: Settings) -> None:
    model, pairs = new_model(settings), random_corpus(3, longest=5)
    loss, _ = translation_loss(model, load_batch(pairs, model.device), torch.float64, smoothing=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    oracle = plain(model)
    logits = [
        oracle.logits(pairs.source[row].tolist(), [BOS, *pairs.target[row].tolist()[:-1]]) for row in range(len(pairs))
    ]
    target_N = torch.from_numpy(pairs.target.ids.astype(np.int64))
    expected = F.cross_entropy(torch.cat(logits), target_N, label_smoothing=0.1, reduction="sum")
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=0, atol=1e-10, msg=name)


@every_variant
def test_a_logit_depends_on_all_earlier_targets_and_no_later_one(settings: Settings) -> None:
    _, gradient_TD = embedding_gradients(new_model(settings), random_ids(1, 5), random_ids(1, 8), position=3)
    assert (gradient_TD[:4].abs().amax(dim=1) > 0).all()
    assert gradient_TD[4:].abs().max() == 0


@every_variant
def test_a_logit_depends_on_its_whole_source_and_on_no_neighbour_or_padding(settings: Settings) -> None:
    model, source_BS = new_model(settings), random_ids(2, 6)
    source_BS[0, 4:] = PAD
    gradient_ND, _ = embedding_gradients(model, source_BS, random_ids(2, 3), position=2)
    assert (gradient_ND[:4].abs().amax(dim=1) > 0).all()
    assert gradient_ND[4:].abs().max() == 0
    table = model.embedding if model.source_embedding is None else model.source_embedding
    assert table.weight.grad is not None
    assert table.weight.grad[PAD].abs().max() == 0


def embedding_gradients(model: Transformer, source: Tensor, target: Tensor, position: int) -> list[Tensor]:
    """The gradient of one logit of sentence 0 with respect to each embedded piece of both sides, two of [N, D]."""
    embedded: list[Tensor] = []

    def remember(module: nn.Module, inputs: object, x: Tensor) -> None:
        x.retain_grad()
        embedded.append(x)

    model.embedding_dropout.register_forward_hook(remember)
    model(source, target)[0, position, 7].backward()
    return [x.grad for x in embedded if x.grad is not None]


@every_variant
@torch.inference_mode()
def test_attention_maps_are_weights_and_asking_for_them_changes_nothing(settings: Settings) -> None:
    model, source_BS, target_BT = new_model(settings), random_ids(2, 6), random_ids(2, 4, seed=1)
    source_BS[1, 3:] = PAD
    maps = model.attention_maps(source_BS, target_BT)
    asked = model.decode(target_BT, model.encode(source_BS, maps=AttentionMaps()), maps=AttentionMaps())
    torch.testing.assert_close(asked, model.decode(target_BT, model.encode(source_BS)), rtol=0, atol=1e-12)
    c = model.config
    assert [len(each) for each in (maps.encoder, maps.decoder, maps.cross)] == [
        *(c.encoder_layers, c.decoder_layers, c.decoder_layers),
    ]
    for weights_BHTS in (*maps.encoder, *maps.decoder, *maps.cross):
        torch.testing.assert_close(weights_BHTS.sum(-1), torch.ones_like(weights_BHTS[..., 0]))
    assert all(weights_BHTS[1, ..., 3:].max() == 0 for weights_BHTS in (*maps.encoder, *maps.cross))
    assert all(weights_BHTT.triu(1).max() == 0 for weights_BHTT in maps.decoder)


@every_variant
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.15), (torch.int8, 0.15)])
@torch.inference_mode()
def test_a_packed_model_computes_the_same(settings: Settings, dtype: torch.dtype, tolerance: float) -> None:
    model, packed = new_model(settings, torch.float32), inference_model(new_model(settings, torch.float32), dtype)
    source_BS, target_BT = random_ids(3, 7), random_ids(3, 5, seed=1)
    source_BS[1, 4:] = PAD
    kept = [name for name, parameter in packed.named_parameters() if parameter.ndim == 2]
    tables = {"embedding.weight", "source_embedding.weight", "positions.table_TD"}
    assert set(kept) <= tables or dtype == torch.bfloat16  # which not every CPU can pack
    difference = (packed(source_BS, target_BT) - model(source_BS, target_BT)).abs().max()
    assert difference < tolerance * model(source_BS, target_BT).abs().max()


# --- Decoding -----------------------------------------------------------------------------------------------------


@every_variant
@torch.inference_mode()
def test_decoding_with_the_cache_gives_the_logits_of_decoding_without(settings: Settings) -> None:
    model, source_BS, target_BWT = new_model(settings), random_ids(2, 6), random_ids(2, 3, 20, seed=1)
    source_BS[1, 3:] = PAD
    memory, cache = model.encode(source_BS), model.new_cache(2, 3)
    # Longer than the cache starts with.
    steps = [model.step(target_BWT[:, :, position], memory, cache) for position in range(20)]
    expected_NTV = model(source_BS.repeat_interleave(3, 0), target_BWT.flatten(0, 1))
    torch.testing.assert_close(torch.stack(steps, dim=2).flatten(0, 1), expected_NTV, rtol=0, atol=1e-10)


@every_variant
def test_greedy_search_finds_what_a_beam_of_one_finds(settings: Settings) -> None:
    model, sources = new_model(settings), random_lines(20, 9, seed=5)
    source_BS = pad_sources(sources)
    bounds = Bounds(BOS, EOS, [len(source) + 5 for source in sources])
    greedy = greedy_search(GreedyDecoding([model], source_BS, 1), bounds)
    beam = beam_search(Decoding([model], source_BS, 1), bounds, BeamSearch(1, gnmt_penalty(0)))
    assert greedy == [found[0].ids for found in beam]
    assert len({tuple(ids) for ids in greedy}) > 2


@every_variant
def test_what_200_sentences_become_depends_on_no_neighbour(settings: Settings) -> None:
    model, sources = new_model(settings), random_lines(200, 12, seed=6)
    together, apart = (found_in_batches(model, sources, size) for size in (10_000, 40))
    assert [found.ids for found in together] == [found.ids for found in apart]
    assert [found.score for found in together] == pytest.approx([found.score for found in apart], abs=1e-12)


def found_in_batches(model: Transformer, sources: list[list[int]], max_tokens: int) -> list[Hypothesis]:
    """The best output of each source, with a beam of 2."""
    results: dict[int, Hypothesis] = {}
    for rows in decoding_batches([len(source) for source in sources], max_tokens):
        batch = [sources[row] for row in rows]
        bounds = Bounds(BOS, EOS, [len(source) + 5 for source in batch])
        found = beam_search(Decoding([model], pad_sources(batch), 2), bounds, BeamSearch(2, gnmt_penalty(0.6)))
        results |= {row: outputs[0] for row, outputs in zip(rows, found, strict=True)}
    return [results[row] for row in range(len(sources))]


# --- Training -----------------------------------------------------------------------------------------------------

PAIRS = random_corpus(60)
UPDATES = 4


def new_learner(settings: Settings, world: World = ALONE, **train: Any) -> Learner:
    config = Config(
        model=config_of({"dropout": 0.1} | settings),
        batch=BatchConfig(tokens=150, micro_tokens=80, multiple=2),
        optim=OptimConfig(warmup=40),
        train=TrainConfig(precision="float32", **train),
    )
    return make_learner(config, V, torch.device("cpu"), source_vocabulary(config.model), world)


def trained(learner: Learner, first: int = 1, last: int = UPDATES) -> list[float]:
    """The losses of updates `first` to `last`, each on 15 of the pairs."""
    losses, world = [], learner.exchange.world
    for update in range(first, last + 1):
        rows = np.arange(15 * (update - 1), 15 * update)
        passes = cut_batch(PAIRS, rows, learner.config.batch, world.rank, world.size)
        losses.append(float(take_update(learner, passes, update)["loss"]))
    return losses


@every_variant
def test_a_resumed_run_has_the_bytes_of_one_that_never_stopped(settings: Settings) -> None:
    whole, before, after = (new_learner(settings) for _ in range(3))
    losses = trained(whole)
    first = trained(before, last=2)
    stored = [load(save({name: value.contiguous() for name, value in part.items()})) for part in before.state()]
    after.load(*stored)
    assert first + trained(after, first=3) == losses
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, after.model.state_dict()[name]), name


@every_variant
def test_recomputed_activations_give_the_same_losses(settings: Settings) -> None:
    assert trained(new_learner(settings, recompute=True)) == trained(new_learner(settings))


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    alone = {name: trained(new_learner(settings)) for name, settings in VARIANTS.items()}

    def work() -> None:
        with joined(torch.device("cpu")) as world:
            for name, settings in VARIANTS.items():
                assert trained(new_learner(settings, world)) == pytest.approx(alone[name], rel=1e-5), name

    children = fork_world(2, work, tmp_path / "errors")
    assert statuses(children) == [0, 0], (tmp_path / "errors").read_text()


@pytest.mark.slow
def test_compiled_layers_have_the_losses_of_plain_ones() -> None:
    """Of the variant that joins most; compiling takes long."""
    still = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}  # compiled, masks are others
    settings = VARIANTS["halting, learned, pre, swiglu"] | still
    learners = [new_learner(settings, compile=compiled) for compiled in (False, True)]
    expected, found = map(trained, learners)
    assert found == pytest.approx(expected, rel=1e-5)


@every_variant
def test_the_operations_counted_are_torchs_own(settings: Settings) -> None:
    pairs = Corpus(*(Sentences.from_lists([[5] * (length - 1) for _ in range(3)]) for length in (7, 11)))
    learner = new_learner(settings)
    with FlopCounterMode(display=False) as counter:
        take_update(learner, cut_batch(pairs, np.arange(3), BatchConfig()), update=1)
    assert training_flops(learner.config.model, V, np.array([[7, 11]] * 3)) == counter.get_total_flops()


@every_variant
def test_dropout_is_where_the_settings_say(settings: Settings) -> None:
    """A mask for each embedding sum and each sublayer; on request, for each attention, each feed-forward network."""
    model = new_model({"dropout": 0.1} | settings).train()
    applied: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda module, inputs, x: applied.append(x))
    model(random_ids(1, 4), random_ids(1, 3))
    c = model.config
    attention, activation = bool(c.attention_dropout), bool(c.activation_dropout)
    expected = 2 + 2 * c.encoder_layers + 3 * c.decoder_layers
    expected += attention * (c.encoder_layers + 2 * c.decoder_layers)
    expected += activation * (c.encoder_layers + c.decoder_layers)
    assert len(applied) == expected


@pytest.mark.parametrize("length", [30, 200], ids=["plain products", "where else the kernel is fused"])
def test_attention_dropout_drops_weights_and_scales_up_the_others(length: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, length, 8)
    v = torch.eye(length).expand(1, 2, length, length)  # so that what comes out is the weights
    weights, dropped = (
        scaled_dot_product_attention(q, k, v, causal=True, dropout=dropout) for dropout in (None, Dropout(0.25).train())
    )
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], weights[kept] / 0.75)
    assert kept.sum() / (weights != 0).sum() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(weights, scaled_dot_product_attention(q, k, v, causal=True, dropout=Dropout(0.25).eval()))


# --- What was there before, and what cannot be --------------------------------------------------------------------


def test_the_published_model_has_the_weights_that_checkpoints_before_the_variants_have() -> None:
    own = ["self_attention.qkv", "self_attention.out", "after_self_attention.norm"]
    cross = [*(f"cross_attention.{name}" for name in ("q", "kv", "out")), "after_cross_attention.norm"]
    forward = ["feed_forward.w1", "feed_forward.w2", "after_feed_forward.norm"]
    layers = [("encoder.0", [*own, *forward]), *((f"decoder.{n}", [*own, *cross, *forward]) for n in (0, 1))]
    expected = [f"{layer}.{name}" for layer, names in layers for name in names]
    weights = [f"{name}.{kind}" for name in expected for kind in ("weight", "bias")]
    assert list(new_model({}).state_dict()) == ["embedding.weight", *weights]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            "{d_model: 18, heads: 6, positions: rotary}",
            "heads of 3 dimensions must be even: rotary positions turn pairs",
        ),
        ("{d_model: 15, heads: 3}", "d_model 15 must be even: positions come in sine and cosine pairs"),
        (
            "{d_model: 15, heads: 3, positions: learned, recurrence: fixed}",
            "d_model 15 must be even: steps come in sine and cosine pairs",
        ),
        ("{recurrence: deep}", "model.recurrence"),
        ("{recurrence: adaptive, halt_threshold: 1}", "model.halt_threshold"),
        ("{norm: both}", "model.norm"),
        ("{activation: tanh}", "model.activation"),
        ("{attention_dropout: 1}", "model.attention_dropout"),
        ("{embeddings: apart}", "model.embeddings"),
        ("{positions: learned, max_positions: 0}", "model.max_positions"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(tmp_path: Path, settings: str, problem: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"model: {settings}\n")
    with pytest.raises(ConfigError, match=problem) as error:
        load_config(path)
    assert len(str(error.value).splitlines()) == 1


def test_learned_positions_need_no_even_width() -> None:
    ModelConfig(d_model=15, heads=3, positions="learned")
