"""How good the model is on the validation sets: loss, perplexity and BLEU."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from mt.config import Config
from mt.data.batches import Rows, plan_batches
from mt.data.corpus import Corpus
from mt.data.prepared import Prepared, Text
from mt.data.vocabulary import Tokenizers
from mt.device import choose_precision, is_out_of_memory
from mt.distributed import ALONE, World
from mt.evaluate.bleu import bleu, character_bleu, missing_tokenizer
from mt.model.teacher_forcing import target_log_probabilities
from mt.model.transformer import Transformer
from mt.train.loss import load_batch
from mt.train.stop import Interrupted
from mt.train.update import OutOfMemoryError
from mt.translate.alignment import best_alignment_layer
from mt.translate.translator import Translator

Check = Callable[[int], None]
T = TypeVar("T")

SAMPLES = 4  # sentences shown at each validation, always the same


@dataclass(frozen=True)
class Validation:
    """The result of one validation: on the set that decides what is best, and beside it on every named set."""

    loss: float  # nats per target token, no smoothing
    bleu: float
    samples: list[dict[str, str]]
    alignment_layer: int | None = None  # see best_alignment_layer
    name: str = ""  # of the set; empty where there is but one
    sets: "Mapping[str, Validation]" = field(default_factory=dict)  # by name, this one too; none where there is but one

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700))

    def __str__(self) -> str:
        if self.sets:
            return "; ".join(map(str, self.sets.values()))
        what = f"valid {self.name} loss" if self.name else "valid loss"
        return f"{what} {self.loss:.3f}, perplexity {self.perplexity:.2f}, BLEU {self.bleu:.2f}"

    def record(self, update: int) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        sets = {name: one.figures() for name, one in self.sets.items()}
        return {"update": update, **self.figures(), **({"sets": sets} if sets else {})}

    def figures(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of one set."""
        return {
            "valid_loss": self.loss,
            "valid_perplexity": self.perplexity,
            "valid_bleu": self.bleu,
            "samples": self.samples,
        }


def validate_sets(
    model: Transformer, prepared: Prepared, config: Config, world: World, check: Check = lambda count: None
) -> Validation:
    """Validate on every validation set, one after the other; `world` and `check` as in `validate`.

    The main process alone looks which layer aligns best.
    """
    tokenizers = prepared.tokenizers
    results = {
        folder: validate(model, prepared.valid[folder], prepared.text(folder), tokenizers, config, world, check)
        for folder in config.data.valid_folders
    }
    deciding, _ = config.best
    layer = best_alignment_layer(model, prepared.valid[deciding], prepared.word_model) if world.is_main else None
    names = {folder: folder.removeprefix("valid").removeprefix("/") for folder in results}
    sets = {names[folder]: replace(result, name=names[folder]) for folder, result in results.items() if names[folder]}
    return replace(results[deciding], alignment_layer=layer, name=names[deciding], sets=sets)


def validate(
    model: Transformer,
    corpus: Corpus,
    text: Text,
    tokenizers: Tokenizers,
    config: Config,
    world: World,
    check: Check = lambda count: None,
) -> Validation:
    """Loss of the references under the model, and BLEU of its greedy translations against them.

    Processes share the batches, and all get the result that one would get.
    check: called after each batch; Interrupted, raised in one process, is raised in all once their shares are done.
    Greedy, because it is several times quicker than the beam and ranks checkpoints alike.
    """
    (sources, references, tags), tgt = text, config.data.tgt
    greedy = config.decode.model_copy(update={"beam": 1, "sample": False})
    was_training = model.training
    translator = Translator.of([model.eval()], tokenizers, greedy, config.data.protect)
    translations = _translations(translator, sources, tags, world, check)
    model.train(was_training)
    samples = [
        {"source": source, "reference": reference, "translation": translation}
        for source, reference, translation in zip(sources[:SAMPLES], references, translations, strict=False)
    ]
    precision = choose_precision(config.train.precision, model.device)
    loss = mean_loss(model, corpus, config.batch.micro_tokens, precision, world, check)
    by_characters = missing_tokenizer(tgt)  # of which the run was warned at its start
    score = character_bleu(translations, references) if by_characters else bleu(translations, references, lang=tgt)
    return Validation(loss, score.value, samples)


def _translations(
    translator: Translator, sources: list[str], tags: Sequence[str | None], world: World, check: Check
) -> list[str]:
    batches = translator.decoded_together(sources, tags)
    rows = sorted(row for number, batch in enumerate(batches) if world.owns(number) for row in batch)
    # The batches of these lines alone are again those of all lines, so each is translated as in one process.
    found = _shared(
        world,
        lambda: dict(
            zip(rows, translator([sources[row] for row in rows], check, [tags[row] for row in rows]), strict=True)
        ),
    )
    return [found.get(row, "") for row in range(len(sources))]


def mean_loss(
    model: Transformer,
    corpus: Corpus,
    max_tokens: int,
    precision: torch.dtype = torch.float32,
    world: World = ALONE,
    check: Check = lambda count: None,
) -> float:
    """Cross-entropy per target token of a corpus, in nats, without smoothing or dropout.

    precision: of matrix products.
    world: the processes that share the batches; all get the same bits as one would.
    check: called after each batch with its number of pairs.
    Raises OutOfMemoryError when a single pair does not fit.
    """
    lengths_N2 = corpus.lengths()
    plan = plan_batches(lengths_N2, max(max_tokens, int(lengths_N2.max())), seed=0, epoch=0)

    def own_share() -> dict[int, float]:
        found = {}
        for number, rows in enumerate(plan):
            if world.owns(number):
                found[number] = _summed_loss(model, corpus, rows, precision)
                check(len(rows))
        return found

    was_training = model.training
    model.eval()
    losses = _shared(world, own_share)
    model.train(was_training)
    return sum(losses[number] for number in range(len(plan))) / int(lengths_N2[:, 1].sum())


def _shared(world: World, own_share: Callable[[], dict[int, T]]) -> dict[int, T]:
    """What all processes find together, by number; raises Interrupted in all when one of them is interrupted."""
    try:
        found = [*own_share().items()]
    except Interrupted:
        found = None
    parts = world.gather(found)
    if any(part is None for part in parts):
        raise Interrupted("asked to stop")
    return {number: value for part in parts for number, value in part or ()}


def _summed_loss(model: Transformer, corpus: Corpus, rows: Rows, precision: torch.dtype) -> float:
    """The loss of some pairs together, in halves where memory does not suffice."""
    try:
        logp_N = target_log_probabilities(model, load_batch(corpus.take(rows), model.device), precision)
        return -float(logp_N.cpu().sum(dtype=torch.float64))  # Apple's GPUs have no float64
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, which would keep the failed pass's tensors alive.
    if len(rows) == 1:
        raise OutOfMemoryError("out of memory with a single pair of sentences: choose a smaller model")
    return sum(_summed_loss(model, corpus, half, precision) for half in np.array_split(rows, 2))
