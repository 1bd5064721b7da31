"""How good the model is on the validation set: loss, perplexity and BLEU."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from mt.config import Config
from mt.data.batches import plan_batches
from mt.data.corpus import Corpus
from mt.data.tokenizer import Tokenizer
from mt.evaluate.bleu import bleu
from mt.model.transformer import Transformer
from mt.train.batch import Batch, lengths_of, load_batch
from mt.translate.translator import Translator

SAMPLES = 4  # sentences shown at each validation, always the same


@dataclass(frozen=True)
class Validation:
    """The result of one validation."""

    loss: float  # nats per target token, no smoothing
    bleu: float
    samples: list[dict[str, str]]

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700))

    def __str__(self) -> str:
        return f"valid loss {self.loss:.3f}  perplexity {self.perplexity:.2f}  BLEU {self.bleu:.2f}"

    def record(self, update: int) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        return {
            "update": update,
            "valid_loss": self.loss,
            "valid_perplexity": self.perplexity,
            "valid_bleu": self.bleu,
            "samples": self.samples,
        }


def validate(
    model: Transformer,
    corpus: Corpus,
    text: tuple[list[str], list[str]],
    tokenizer: Tokenizer,
    config: Config,
    check: Callable[[int], None] = lambda count: None,
) -> Validation:
    """Loss of the references under the model, and BLEU of its greedy translations against them.

    check: called after each batch, to raise when the rest is not wanted.
    Greedy, because it is several times quicker than the beam and ranks checkpoints alike.
    """
    sources, references = text
    greedy = config.decode.model_copy(update={"beam": 1})
    was_training = model.training
    translations = Translator.of([model.eval()], tokenizer, greedy)(sources, check)
    model.train(was_training)
    samples = [
        {"source": source, "reference": reference, "translation": translation}
        for source, reference, translation in zip(sources[:SAMPLES], references, translations, strict=False)
    ]
    loss = mean_loss(model, corpus, config.batch.micro_tokens, check)
    return Validation(loss, bleu(translations, references, lang=config.data.tgt).value, samples)


@torch.inference_mode()
def mean_loss(
    model: Transformer, corpus: Corpus, max_tokens: int, check: Callable[[int], None] = lambda count: None
) -> float:
    """Cross-entropy per target token of a corpus, in nats, without smoothing or dropout."""
    lengths_N2 = lengths_of(corpus)
    was_training, total = model.training, 0.0
    model.eval()
    for rows in plan_batches(lengths_N2, max(max_tokens, int(lengths_N2.max())), seed=0, epoch=0):
        batch: Batch = load_batch(corpus, rows, model.device)
        memory = model.encode(batch.source_BS, batch.source_places_N)
        logits_NV = model.output(model.decode(batch.input_BT, memory, batch.target_places_N))
        total += float(F.cross_entropy(logits_NV, batch.targets_N, reduction="sum"))
        check(len(rows))
    model.train(was_training)
    return total / int(lengths_N2[:, 1].sum())
