"""Where a model looks while it translates: attention weights with their words, as data and as word alignments."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mt.data.clean import valid_unicode
from mt.data.tokenizer import BOS, EOS, Tokenizer
from mt.errors import UsageError
from mt.files import write_whole
from mt.model.inspection import AttentionMaps, attention_maps
from mt.translate.attention_page import attention_page
from mt.translate.translator import Translator

SHOWN = 100  # sentences whose weights are written; every layer and head of a long sentence is a lot


@dataclass(frozen=True)
class Attention:
    """The weights of one sentence pair. Row t of the target's maps is the step that makes target piece t."""

    source: str
    target: str
    source_pieces: list[str]  # EOS last
    target_pieces: list[str]  # those made; EOS last
    input_pieces: list[str]  # those the decoder has read at each step: BOS, then the target
    maps: AttentionMaps

    def record(self, with_self: bool) -> dict[str, object]:
        """The weights as nested lists by layer, head and row, rounded to 4 decimals."""
        maps: dict[str, Tensor] = {"cross": self.maps.cross_LHTS}
        if with_self:
            maps |= {"encoder_self": self.maps.encoder_LHSS, "decoder_self": self.maps.decoder_LHTT}
        return {
            "source": self.source,
            "target": self.target,
            "source_pieces": self.source_pieces,
            "target_pieces": self.target_pieces,
            "input_pieces": self.input_pieces,
            **{name: (weights.double() * 10_000).round().div(10_000).tolist() for name, weights in maps.items()},
        }


def attention_of(translator: Translator, source: str, target: str) -> Attention:
    """The attention weights with which a model makes `target` of `source`.

    Raises UsageError for an ensemble, whose models each look elsewhere.
    """
    if len(translator.models) > 1:
        raise UsageError("attention is that of one model: give one --ckpt")
    (model,), tokenizer = translator.models, translator.tokenizer
    source, target = valid_unicode(source), valid_unicode(target)
    source_ids, target_ids = tokenizer.encode([source, target])
    device = model.embedding.weight.device
    maps = attention_maps(
        model, torch.tensor([*source_ids, EOS], device=device), torch.tensor([BOS, *target_ids], device=device)
    )
    pieces = tokenizer.pieces(target)
    source_pieces = [*tokenizer.pieces(source), "</s>"]
    return Attention(source, target, source_pieces, [*pieces, "</s>"], ["<s>", *pieces], maps)


def alignment(translator: Translator, source: str, target: str) -> str:
    """Which word of `source` each word of `target` comes from, as Pharaoh's 0-0 1-2: source word, target word.

    Words are what spaces divide, counted from 0. Each target word takes the source word with the most cross-attention,
    mean over heads, of the last layer but one, which aligns best (Garg et al., 2019).
    """
    if not source.strip() or not target.strip():
        return ""
    source, target = valid_unicode(source), valid_unicode(target)
    maps_LHTS = attention_of(translator, source, target).maps.cross_LHTS
    weights_TS = maps_LHTS[max(len(maps_LHTS) - 2, 0)].mean(dim=0)
    source_words, target_words = (_words(translator.tokenizer, text) for text in (source, target))
    links = []
    for target_word, target_pieces in enumerate(target_words):
        rows_S = weights_TS[target_pieces].mean(dim=0)
        weights = [float(rows_S[pieces].sum()) for pieces in source_words]
        links.append((max(range(len(weights)), key=weights.__getitem__), target_word))
    return " ".join(f"{source_word}-{target_word}" for source_word, target_word in links)


def _words(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """Which pieces make up each word."""
    words: list[list[int]] = []
    at_start = True
    for index, piece in enumerate(tokenizer.pieces(text)):
        at_start = at_start or piece.startswith("\u2581")
        if piece.strip("\u2581"):
            if at_start:
                words.append([])
            words[-1].append(index)
            at_start = False
    return words


def write_attention(translator: Translator, pairs: Sequence[tuple[str, str]], path: Path, with_self: bool) -> None:
    """Write the weights of sentence pairs as JSON, or as a page to look at when the name ends in .html.

    Raises DataError when the file cannot be written.
    """
    records = [attention_of(translator, source, target).record(with_self) for source, target in pairs]
    as_page = path.suffix.lower() in (".html", ".htm")
    write_whole(path, attention_page(records) if as_page else json.dumps(records, ensure_ascii=False) + "\n")
