"""What models find for segments: by which search, within which bounds, among which pieces."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mt.config import DecodeConfig
from mt.data.protect import Encoder
from mt.data.tokenizer import BOS, EOS
from mt.device import is_out_of_memory
from mt.model.transformer import Transformer
from mt.translate.beam import BeamSearch, beam_search, penalty_of
from mt.translate.decoding import INT8_MULTIPLE, SCORED_MULTIPLE, Decoding, GreedyDecoding, pad, pad_sources
from mt.translate.sampling import Sampling, sample_search
from mt.translate.search import Bounds, Hypothesis, greedy_search
from mt.translate.segments import Segment
from mt.translate.shortlist import Lists, Shortlist


@dataclass(frozen=True)
class SegmentSearch:
    """The search that the settings ask for; `encoder` knows which symbols an output may have."""

    models: Sequence[Transformer]
    encoder: Encoder
    decode: DecodeConfig
    shortlist: Shortlist | None

    def __call__(self, segments: list[Segment], count: int, scored: bool) -> list[list[Hypothesis]]:
        """The `count` best of each segment, all searched for together; scored: False lets greedy search skip scores."""
        if self.shortlist is None:
            return self._found_among(None, segments, count, scored)
        sources, prefixes = zip(*((segment.ids, segment.prefix) for segment in segments), strict=True)
        lists = self.shortlist.lists(sources, prefixes, self._device)
        return lists.in_pieces(self._found_among(lists, segments, count, scored))

    def in_memory(self, segments: list[Segment], count: int, scored: bool) -> list[list[Hypothesis]]:
        """What is found for the segments together, or for halves of them where memory does not suffice."""
        try:
            return self(segments, count, scored)
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(segments) == 1:
                raise
        # Outside the handler, which would keep the failed search's tensors alive.
        half = len(segments) // 2
        parts = (segments[:half], segments[half:])
        return [found for part in parts for found in self.in_memory(part, count, scored)]

    def _found_among(
        self, lists: Lists | None, segments: list[Segment], count: int, scored: bool
    ) -> list[list[Hypothesis]]:
        """What is found for segments among the pieces of their lists, numbered as these; None: among all pieces."""
        decode, bounds = self.decode, self._bounds(segments, lists)
        multiple = SCORED_MULTIPLE if scored else INT8_MULTIPLE if decode.precision == "int8" else 1
        source_BS = pad_sources([segment.ids for segment in segments], multiple)
        if decode.beam == 1 and not decode.sample and not scored:
            found = greedy_search(GreedyDecoding(self.models, source_BS, 1, lists), bounds)
            return [[Hypothesis(ids, math.nan, math.nan)] for ids in found]
        decoding = Decoding(self.models, source_BS, count if decode.sample else decode.beam, lists)
        if decode.sample:
            seeds = [(decode.seed, segment.line, segment.part) for segment in segments]
            sampling = Sampling(decode.temperature, decode.top_k, decode.top_p)
            return sample_search(decoding, bounds, sampling, seeds, count)
        # Outputs with the same text are listed once, so the search must be exact for all that may fill the list.
        outputs = 1 if count == 1 else decode.beam
        penalty = penalty_of(decode.penalty, decode.alpha)
        how = BeamSearch(decode.beam, penalty, outputs, decode.groups, decode.diversity)
        return beam_search(decoding, bounds, how)

    def _bounds(self, segments: list[Segment], lists: Lists | None) -> Bounds:
        decode = self.decode
        most = decode.max_length or sys.maxsize
        # A prefix or a minimum length may exceed the maximum.
        longest = [
            max(min(len(segment.ids) + decode.max_extra, most), len(segment.prefix), decode.min_length) + 1
            for segment in segments
        ]
        has_prefix = any(segment.prefix for segment in segments)
        prefix_BP = pad([segment.prefix for segment in segments], -1).to(self._device) if has_prefix else None
        never_BV = self._never(segments)
        if lists is not None:
            prefix_BP = None if prefix_BP is None else lists.numbered(prefix_BP)
            never_BV = None if never_BV is None else never_BV.gather(1, lists.pieces_BL)
        return Bounds(BOS, EOS, longest, decode.min_length, prefix_BP, self._device, never_BV)

    def _never(self, segments: list[Segment]) -> torch.Tensor | None:
        """The symbols that are not in the source, which no output contains."""
        target = self.encoder.tokenizers.target
        if not target.symbols:
            return None
        never_BV = torch.zeros(len(segments), len(target), dtype=torch.bool)
        never_BV[:, list(target.symbols.values())] = torch.tensor([self.encoder.never(one.values) for one in segments])
        return never_BV.to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.models[0].device
