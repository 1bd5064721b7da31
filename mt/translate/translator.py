"""Lines in, lines out: tokenise, sort by length, decode in batches, put back in order."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mt.config import DecodeConfig
from mt.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from mt.model.transformer import Transformer
from mt.translate.search import Hypothesis, beam_search, greedy_search


class Translator:
    """A model with its tokenizer, ready to translate lines of text."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, decode: DecodeConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.decode = decode

    def __call__(self, lines: Sequence[str], advance: Callable[[int], None] = lambda count: None) -> list[str]:
        """One translation for each line; a blank line gives an empty one.

        advance: told of the number of lines just done.
        """
        results = [""] * len(lines)
        wanted = [index for index, line in enumerate(lines) if line.strip()]
        advance(len(lines) - len(wanted))
        sources = self.tokenizer.encode([lines[index] for index in wanted])
        for rows in decoding_batches([len(source) for source in sources], self.decode.batch_tokens):
            outputs = self.tokenizer.decode(self._translate_ids([sources[row] for row in rows]))
            for row, output in zip(rows, outputs, strict=True):
                # A line break inside a translation would shift every later line.
                results[wanted[row]] = output.replace("\n", " ")
            advance(len(rows))
        return results

    @torch.inference_mode()
    def _translate_ids(self, sources: list[list[int]]) -> list[list[int]]:
        device = self.model.embedding.weight.device
        was_training = self.model.training
        self.model.eval()
        state = _Decoding(self.model, pad([[*source, EOS] for source in sources]).to(device), self.decode.beam)
        limits_B = torch.tensor([len(source) + self.decode.max_extra + 1 for source in sources], device=device)
        if self.decode.beam == 1:
            outputs = greedy_search(state.step, state.select, limits_B, BOS, EOS)
        else:
            best: list[list[Hypothesis]] = beam_search(
                state.step, state.select, limits_B, BOS, EOS, self.decode.beam, self.decode.alpha
            )
            outputs = [hypotheses[0].ids for hypotheses in best]
        self.model.train(was_training)
        return outputs


class _Decoding:
    """The model in the middle of a search: its memory and its cache, as the two functions a search takes."""

    def __init__(self, model: Transformer, source_BS: Tensor, beam: int) -> None:
        self.model = model
        self.memory = model.encode(source_BS)
        self.cache = model.new_cache(source_BS.size(0) * beam)
        self.never = torch.tensor([PAD, BOS, UNK], device=source_BS.device)

    def step(self, ids_BW: Tensor) -> Tensor:
        logp_BWV = self.model.step(ids_BW, self.memory, self.cache).float().log_softmax(dim=-1)
        return logp_BWV.index_fill_(-1, self.never, float("-inf"))

    def select(self, sentences: Tensor, rows: Tensor) -> None:
        if len(sentences) < self.memory.keys[0].size(0):
            self.memory = self.memory.select(sentences)
        self.cache.select(rows)


def decoding_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Row numbers sorted by length, longest first, in batches of at most `max_tokens`, padding counted.

    The longest batch comes first, so that too little memory shows at once.
    """
    batches: list[list[int]] = []
    for row in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def pad(sequences: list[list[int]]) -> Tensor:
    """Rows of ids as one int64 tensor, padded at the end."""
    longest = max(len(ids) for ids in sequences)
    return torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in sequences], dtype=torch.int64)
