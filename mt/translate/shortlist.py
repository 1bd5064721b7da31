"""Shortlists: the target pieces that a source can need, so that the output layer computes only these.

A table says which target pieces translate each source piece, by IBM model 1 over the training pairs. A sentence may be
translated with those of its pieces, its pieces themselves (names are copied), the most frequent pieces, and bytes where
it has some. A search numbers the pieces of each sentence by their place in its own list, so it never sees another.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mt.checkpoint import read_config, read_state, read_tensors, write_tensors
from mt.console import Console, counted
from mt.data.corpus import Integers
from mt.data.prepared import Prepared, open_prepared
from mt.data.tokenizer import PAD, UNK
from mt.data.vocabulary import Tokenizers
from mt.data.word_model import estimate_word_model
from mt.device import up_to_kernel_size
from mt.errors import DataError, UsageError
from mt.run_folder import find_checkpoint, folder_of
from mt.translate.search import Hypothesis

FILE = "shortlist.safetensors"  # in a run directory
MOST_CELLS = 50_000_000  # of the word model: a minute, and about a gigabyte

# torch sums a row in as many parts as its vectors have places, and then these, so a row filled up with zeros has the
# same sum, unless it was shorter than a vector.
MULTIPLE = 16


# --- Making one ---------------------------------------------------------------------------------------------------


def make_shortlist(run: Path, best: int, frequent: int, takes_all: bool, console: Console) -> None:
    """`mt shortlist`: learn a table from the pairs that a run was trained on, and write it into the run.

    takes_all: from all pairs, in memory that grows with them, not from a sample.
    Raises CheckpointError for what is no run, DataError when its prepared data are gone or are others.
    """
    checkpoint, folder = find_checkpoint(run), folder_of(run)
    where, begun_with = read_config(checkpoint).data.dir, read_state(checkpoint).get("data")
    prepared = open_prepared(where)
    if prepared.fingerprint != begun_with:
        raise DataError(f"{where}: not the data that {folder} was trained on; prepare those, or train on these")
    console.say(f"learning from {counted(len(prepared.train), 'pair')} of {where}")
    best_SC, frequent_F = learnt(prepared, best, frequent, sys.maxsize if takes_all else MOST_CELLS)
    tensors = {"best_SC": torch.from_numpy(best_SC).int(), "frequent_F": torch.from_numpy(frequent_F).int()}
    write_tensors(folder / FILE, tensors, _fingerprints(prepared.tokenizers))
    console.say(f"{folder / FILE}: written; mt translate --ckpt {run} decode.shortlist=yes uses it")


def learnt(prepared: Prepared, best: int, frequent: int, most_cells: int) -> tuple[Integers, Integers]:
    """The `best` target pieces of each source piece that are not among the `frequent` ones; and those."""
    tokenizers, target_ids = prepared.tokenizers, prepared.train.target.ids
    counts_V = np.bincount(target_ids, minlength=len(tokenizers.target))
    frequent_F = np.argsort(-counts_V, kind="stable")[:frequent]
    words = estimate_word_model(prepared.train, most_cells, most_rows=None).without(frequent_F)
    return words.best(len(tokenizers.source), best, PAD), frequent_F


def _fingerprints(tokenizers: Tokenizers) -> dict[str, str]:
    return {side: getattr(tokenizers, side).fingerprint for side in ("source", "target")}


# --- Using it -----------------------------------------------------------------------------------------------------


def open_shortlist(setting: str, run: Path, tokenizers: Tokenizers) -> "Shortlist | None":
    """What decode.shortlist names: none, that of the run, or a file.

    Raises UsageError where there is none, or it is another model's; CheckpointError where it is damaged.
    """
    if setting == "no":
        return None
    path = folder_of(run) / FILE if setting == "yes" else Path(setting)
    if not path.is_file():
        raise UsageError(f"decode.shortlist: there is no {path}; make it with mt shortlist {folder_of(run)}")
    tensors, about = read_tensors(path)
    if not _fingerprints(tokenizers).items() <= about.items():
        raise UsageError(f"decode.shortlist: {path} is for a model with other tokenizers; mt shortlist RUN makes one")
    table = (tensors["best_SC"].long().numpy(), tensors["frequent_F"].long().numpy())
    return Shortlist(tokenizers, *table, about["sha256"])


class Shortlist:
    """Which target pieces a source may be translated with."""

    def __init__(self, tokenizers: Tokenizers, best_SC: Integers, frequent_F: Integers, sha256: str = "") -> None:
        source, target = tokenizers.source, tokenizers.target
        ids = {piece: index for index, piece in enumerate(target.vocabulary)}
        itself_S = np.array([ids.get(piece, PAD) for piece in source.vocabulary])
        self.sha256 = sha256
        self._table_SC = np.column_stack([itself_S, best_SC])
        self._always = np.concatenate([np.arange(UNK + 1), frequent_F])
        self._source_bytes, self._target_bytes = (
            np.array([index for index in range(len(side)) if side.is_byte(index)], dtype=np.int64)
            for side in (source, target)
        )
        self._target_size = len(target)

    def lists(
        self, sources: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]], device: torch.device
    ) -> "Lists":
        """The pieces of each sentence: of sources, in pieces without EOS, whose outputs begin with prefixes."""
        may_be_BV = np.zeros((len(sources), self._target_size), dtype=bool)
        may_be_BV[:, self._always] = True
        for may_be_V, source, prefix in zip(may_be_BV, sources, prefixes, strict=True):
            may_be_V[self._table_SC[source]] = True
            may_be_V[list(prefix)] = True
            if np.isin(source, self._source_bytes).any():
                may_be_V[self._target_bytes] = True
        pieces_U = np.flatnonzero(may_be_BV.any(axis=0))
        sizes_B = may_be_BV.sum(axis=1)
        is_place_BL = np.arange(-(-sizes_B.max() // MULTIPLE) * MULTIPLE) < sizes_B[:, None]
        pieces_BL = np.zeros(is_place_BL.shape, dtype=np.int64)
        pieces_BL[is_place_BL] = np.nonzero(may_be_BV)[1]
        places_BL = np.searchsorted(pieces_U, pieces_BL)
        size = min(up_to_kernel_size(len(pieces_U)), self._target_size)  # as kernels are kept for each
        arrays = (pieces_BL, places_BL, np.pad(pieces_U, (0, size - len(pieces_U)), constant_values=PAD))
        return Lists(*(torch.from_numpy(array).to(device) for array in arrays))


@dataclass(frozen=True)
class Lists:
    """The pieces that each sentence of a batch may be translated with.

    In ascending order, so special pieces keep their numbers; with PAD, which no output contains, after shorter lists.
    """

    pieces_BL: Tensor
    places_BL: Tensor  # where they are in pieces_U
    pieces_U: Tensor  # of all sentences; PAD up to a size for which kernels are kept

    def select(self, rows: Tensor) -> "Lists":
        """The lists of these sentences."""
        return replace(self, pieces_BL=self.pieces_BL[rows], places_BL=self.places_BL[rows])

    def own(self, logits_BWU: Tensor) -> Tensor:
        """To each sentence the logits of its pieces, logits_BWL."""
        return logits_BWU.gather(2, self.places_BL[:, None].expand(-1, logits_BWU.size(1), -1))

    def numbered(self, pieces_BP: Tensor) -> Tensor:
        """Pieces by their place in the sentence's list; -1 stays as it is."""
        is_it_BPL = self.pieces_BL[:, None] == pieces_BP[:, :, None]
        return is_it_BPL.int().argmax(dim=2).masked_fill(pieces_BP < 0, -1)

    def in_pieces(self, found: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """Hypotheses whose ids are places in lists, in pieces."""
        pieces_BL = self.pieces_BL.tolist()
        return [
            [replace(output, ids=[pieces_L[place] for place in output.ids]) for output in outputs]
            for pieces_L, outputs in zip(pieces_BL, found, strict=True)
        ]
