"""Laws of teacher forcing: torch's log-softmax is the oracle; all logits together are never in memory."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mt.model.teacher_forcing
from mt.config import ModelConfig
from mt.data.corpus import Corpus, Sentences
from mt.data.tokenizer import BOS, EOS
from mt.model.inference import inference_model
from mt.model.teacher_forcing import Batch, forced_output, make_batch, target_log_probabilities
from mt.model.transformer import Transformer
from mt.train.loss import translation_loss
from mt.train.validation import mean_loss

V = 60
CONFIG = ModelConfig(d_model=16, heads=2, d_ff=32, encoder_layers=1, decoder_layers=1, dropout=0.1)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mt.model.teacher_forcing.CHUNK_ELEMENTS, "cpu", 8 * V)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(1)
    return Transformer(CONFIG, V).eval()


@pytest.fixture
def corpus() -> Corpus:
    """20 pairs of 1 to 12 pieces."""
    generator = torch.Generator().manual_seed(2)

    def sentences() -> Sentences:
        lengths = torch.randint(1, 13, (20,), generator=generator).tolist()
        return Sentences.from_lists([torch.randint(4, V, (n,), generator=generator).tolist() for n in lengths])

    return Corpus(sentences(), sentences())


def whole(corpus: Corpus) -> Batch:
    return make_batch(*corpus.padded(), BOS, CPU)


def plain_log_probabilities(model: Transformer, corpus: Corpus, impossible: tuple[int, ...] = ()) -> Tensor:
    """Sentence by sentence, from all logits."""
    found = []
    for row in range(len(corpus)):
        source_S, target_T = (torch.tensor(side[row].tolist()) for side in (corpus.source, corpus.target))
        assert target_T[-1] == EOS
        input_T = torch.cat([torch.tensor([BOS]), target_T[:-1]])
        logits_TV = model(source_S[None], input_T[None])[0].detach()
        logits_TV[:, list(impossible)] = -torch.inf
        found.append(logits_TV.log_softmax(-1).gather(1, target_T[:, None])[:, 0])
    return torch.cat(found)


@pytest.mark.parametrize("impossible", [(), (0, 1, 3)])
def test_log_probabilities_are_those_of_all_logits(
    model: Transformer, corpus: Corpus, impossible: tuple[int, ...]
) -> None:
    model = model.double()
    found = target_log_probabilities(model, whole(corpus), impossible=impossible)
    torch.testing.assert_close(found, plain_log_probabilities(model, corpus, impossible), rtol=0, atol=1e-12)


def test_training_validation_and_forced_scores_agree(model: Transformer, corpus: Corpus) -> None:
    logp_N = target_log_probabilities(model, whole(corpus))
    loss, _ = translation_loss(model, whole(corpus), torch.float32, smoothing=0.0)
    assert float(loss.detach()) == pytest.approx(-float(logp_N.sum()), rel=1e-6)
    assert mean_loss(model, corpus, 40) == pytest.approx(-float(logp_N.mean()), rel=1e-6)
    packed = inference_model(model, torch.float32)
    torch.testing.assert_close(target_log_probabilities(packed, whole(corpus)), logp_N, rtol=0, atol=1e-5)


class MostLogits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most rows of V columns that an operation gives."""

    rows = 0

    def __torch_dispatch__(self, operation: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        out = operation(*inputs, **(options or {}))
        wide = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.shape[-1:] == (V,)]
        self.rows = max([self.rows, *(leaf.numel() // V for leaf in wide)])
        return out


def test_all_logits_are_never_in_memory_together(model: Transformer, corpus: Corpus) -> None:
    for work in (mean_loss, lambda model, corpus, _: target_log_probabilities(model, whole(corpus))):
        with MostLogits() as most:  # type: ignore[no-untyped-call]
            work(model, corpus, 10_000)
        assert 8 <= most.rows <= CONFIG.d_model < len(whole(corpus).targets_N)  # a chunk; the embedding, transposed


def test_validation_is_in_the_precision_of_training(model: Transformer, corpus: Corpus) -> None:
    rough, exact = (mean_loss(model, corpus, 100, precision) for precision in (torch.bfloat16, torch.float32))
    assert rough != exact
    assert rough == pytest.approx(exact, rel=5e-3)


def test_validation_goes_on_in_halves_where_memory_does_not_suffice(model: Transformer, corpus: Corpus) -> None:
    """A layer that fails as an allocator does, as long as more than 3 sentences come together."""
    expected, refused = mean_loss(model, corpus, 10_000), []

    def refuse(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[1].sentences > 3:  # type: ignore[attr-defined]
            refused.append(inputs[1].sentences)  # type: ignore[attr-defined]
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model.encoder[0].register_forward_pre_hook(refuse)
    assert mean_loss(model, corpus, 10_000) == pytest.approx(expected, rel=1e-6)
    assert refused == [20, 10, 5, 5, 10, 5, 5]


@pytest.mark.parametrize("settings", [{}, {"norm": "pre"}, {"recurrence": "fixed"}, {"recurrence": "adaptive"}])
@pytest.mark.parametrize(("rounded", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_layers_hand_on_what_was_asked_for(settings: dict[str, Any], rounded: bool, dtype: torch.dtype) -> None:
    """With products in bfloat16; in float32 the setting changes nothing."""
    config = ModelConfig.model_validate({"d_model": 16, "heads": 2, "d_ff": 24, **settings})
    model, seen = Transformer(config, 30, rounded=rounded), set[torch.dtype]()
    for layer in [*model.encoder, *model.decoder]:
        layer.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    ids = np.array([[5, 6, 7, 3], [5, 3, 0, 0]])
    batch = make_batch(ids, ids, BOS, CPU)
    forced_output(model, batch, torch.bfloat16)
    assert seen == {dtype}
    seen.clear()
    forced_output(model, batch, torch.float32)
    assert seen == {torch.float32}
