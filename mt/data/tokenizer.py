"""Joint byte-pair encoding of both languages (section 5.1), and back to text. Only this module imports sentencepiece.

Encoding is lossless: text is not normalised, characters outside the vocabulary become bytes, and the mark U+2581,
which sentencepiece writes for a space, is escaped where the text itself contains it. So is text that looks like a
symbol: symbols are pieces that are never cut, and that no text can bring in.
"""

import hashlib
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import takewhile

import sentencepiece

from mt.errors import DataError

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SHOWN_TAGS = 20  # in an error
MOST_PIECES = 2**16  # a corpus keeps its ids in 16 bits

LONGEST_LEARNT = 4_192  # bytes of a line; sentencepiece learns nothing from longer ones, and does not say so

# The rarest characters, 0.01% of the sample, are written as bytes, so that they do not fill the vocabulary.
CHARACTER_COVERAGE = 0.9999

SPACE_MARK = "\u2581"  # what sentencepiece writes for a space
_ESCAPE = "\ue000"  # a private-use character, free for such purposes
_APART = _ESCAPE + "2"  # stands for nothing, between the first two characters of what looks like a symbol
_ESCAPED = {_ESCAPE + "0": _ESCAPE, _ESCAPE + "1": SPACE_MARK, _APART: ""}
_ESCAPES = {mark: code for code, mark in _ESCAPED.items() if mark}
_TO_UNESCAPE = re.compile(f"{_ESCAPE}[012]")
_IDENTITY = b"\x1a\x0e\n\x08identity\x12\x00 \x00"  # in a model that leaves text as it is, spaces too
_LIKE_TAG = re.compile(r"[^\w\s].*\w.*[^\w\s]|__.+__")  # a piece such as >>deu<< of another program's tokenizer


class Tokenizer:
    """Lines to piece ids and back: decode(encode(line)) is the line, for any Unicode text without a line feed.

    Made from the bytes of a sentencepiece model; raises DataError when they are not one, or when its ids do not fit.
    """

    def __init__(self, model_bytes: bytes) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
        except (RuntimeError, ValueError):
            raise DataError("the tokenizer cannot be read: not a sentencepiece model") from None
        model = self._processor
        special = (model.pad_id(), model.bos_id(), model.eos_id(), model.unk_id())
        if special != (PAD, BOS, EOS, UNK):
            raise DataError(
                f"the tokenizer's ids of pad, bos, eos and unk are {special}, but {PAD, BOS, EOS, UNK} are needed: "
                "train it with these, or leave data.tokenizer out to have one made"
            )
        if len(self) > MOST_PIECES:
            raise DataError(
                f"the tokenizer has {len(self):,} pieces, more than the {MOST_PIECES:,} that 16 bits number"
            )
        self.model_bytes = model_bytes
        self.symbols = self._find_symbols()
        self._marks = (_ESCAPE, SPACE_MARK, *self.symbols)  # what text cannot hold as it is
        self._to_escape = re.compile(f"(?={'|'.join(map(re.escape, self._marks))}).")

    def _find_symbols(self) -> dict[str, int]:
        """Ids of the symbols, which follow the piece of the escape; only tokenizers with symbols have that piece."""
        first = self._processor.piece_to_id(_ESCAPE) + 1
        if first != UNK + 2:
            return {}
        ids = takewhile(lambda index: not self.is_byte(index), range(first, len(self)))
        return {self._processor.id_to_piece(index): index for index in ids}

    def tag_id(self, tag: str) -> int:
        """The id of a tag: a symbol, or a piece such as `>>deu<<` in the vocabulary of another program's tokenizer.

        Raises DataError naming the tags there are.
        """
        known = self.symbols or {piece: index for piece, (index, _) in self.text_pieces.items() if _is_tag(piece)}
        if tag not in known:
            few = [*list(known)[:SHOWN_TAGS], *(["..."] if len(known) > SHOWN_TAGS else [])]
            raise DataError(f"the tokenizer has no symbol {tag}; it has {', '.join(few) or 'none'}")
        return known[tag]

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pieces and their scores: tokenizers with the same fingerprint encode in the same way."""
        processor = self._processor
        table = "\n".join(
            f"{piece}\t{processor.get_score(index):.6g}" + "\tunused" * processor.is_unused(index)
            for index, piece in enumerate(self.vocabulary)
        )
        return hashlib.sha256(table.encode()).hexdigest()

    @cached_property
    def vocabulary(self) -> list[str]:
        """The piece that each id stands for."""
        return [self._processor.id_to_piece(index) for index in range(len(self))]

    @cached_property
    def text_pieces(self) -> dict[str, tuple[int, float]]:
        """Id and score of each piece that BPE makes, that of highest score first: no byte, symbol or special piece."""
        first = UNK + 2 + len(self.symbols) if self.symbols else UNK + 1
        text = (index for index in range(first, len(self)) if not self.is_byte(index))
        return {self._processor.id_to_piece(index): (index, self._processor.get_score(index)) for index in text}

    @cached_property
    def is_bpe(self) -> bool:
        """Whether it is a BPE whose pieces stay within words, as those trained here are."""
        pieces = self.text_pieces
        whole_scores = all(score == int(score) for _, score in pieces.values())  # the order of merges, as BPE has it
        within_words = not any(SPACE_MARK in text[1:] for text in pieces)
        return whole_scores and within_words and {character for text in pieces for character in text} <= pieces.keys()

    @cached_property
    def cuts_words_alone(self) -> bool:
        """Whether a word's pieces do not depend on what stands beside it: a BPE that does not normalise."""
        return self.is_bpe and SPACE_MARK in self.text_pieces and _IDENTITY in self.model_bytes

    def encode(self, lines: list[str]) -> list[list[int]]:
        """The ids of each line, without BOS or EOS. Releases the GIL, so threads encode at the same time."""
        return self.cut(self.escaped(lines))

    def encode_with_symbols(self, lines: Iterable[Sequence[str]]) -> list[list[int]]:
        """The ids of lines given in parts: text, symbol, text, symbol, and so on."""
        return self.cut(self.escaped_around_symbols(lines))

    def escaped(self, lines: list[str]) -> list[str]:
        """The lines as `cut` takes them: nothing in them is a symbol."""
        text = "\n".join(lines)  # one look at all lines, as few hold anything to escape
        plain = not any(mark in text for mark in self._marks)
        return lines if plain else [self._escaped(line) for line in lines]

    def escaped_around_symbols(self, lines: Iterable[Sequence[str]]) -> list[str]:
        """Lines in parts, as `encode_with_symbols` has them, as `cut` takes them."""
        return ["".join(self._escaped(part) if at % 2 == 0 else part for at, part in enumerate(line)) for line in lines]

    def cut(self, escaped: list[str]) -> list[list[int]]:
        """The ids of escaped lines."""
        if len(escaped) == 1:  # a list goes to a thread of its own, which on a busy machine waits for a core
            return [self._processor.encode(escaped[0], out_type=int)]
        ids: list[list[int]] = self._processor.encode(escaped, out_type=int, num_threads=1)
        return ids

    def _escaped(self, text: str) -> str:
        if not any(mark in text for mark in self._marks):
            return text
        return self._to_escape.sub(lambda found: _ESCAPES.get(found[0], found[0] + _APART), text)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sentence up to its first EOS. A line feed becomes a space, so that each stays one line."""
        texts = [_text_ids(sentence) for sentence in ids]
        one = len(texts) == 1  # as in `cut`
        lines = [self._processor.decode(texts[0])] if one else self._processor.decode(texts, num_threads=1)
        return [_unescaped(line).replace("\n", " ") for line in lines]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces that ids stand for, for people to read."""
        return [self._processor.id_to_piece(int(index)) for index in ids]

    def is_byte(self, index: int) -> bool:
        """Whether an id stands for one byte of a character that has no piece of its own."""
        return bool(self._processor.is_byte(index))

    def starts_word(self, index: int) -> bool:
        """Whether a piece begins with the space before a word."""
        return str(self._processor.id_to_piece(index)).startswith(SPACE_MARK)


def train_tokenizer(sentences: Iterable[str], vocab_size: int, symbols: Sequence[str] = ()) -> Tokenizer:
    """Learn the joint BPE vocabulary (Sennrich et al., 2016) from the sentences of both languages.

    symbols: pieces of the vocabulary that are never cut.
    The same sentences in the same order give the same tokenizer. All of them are held in memory.
    Raises DataError when `vocab_size` is too large or too small for them.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(part for sentence in sentences for part in _learnable(sentence)),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=CHARACTER_COVERAGE,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            user_defined_symbols=[_ESCAPE, *symbols] if symbols else [],
            num_threads=8,  # fixed: it is written into the model, whose bytes should not depend on the machine
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(_training_failure(str(error), vocab_size)) from None
    return Tokenizer(model.getvalue())


def _learnable(sentence: str) -> list[str]:
    """The sentence; a document in parts that sentencepiece learns from, cut at spaces where there are any."""
    characters = LONGEST_LEARNT // 4  # of up to 4 bytes
    if len(sentence) <= characters or len(sentence.encode()) <= LONGEST_LEARNT:
        return [sentence]
    return textwrap.wrap(sentence, characters, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)


def _training_failure(message: str, vocab_size: int) -> str:
    if found := re.search(r"too high.*<= (\d+)", message):
        return f"data.vocab_size {vocab_size} is too high for this text: set it to {found[1]} or less"
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return f"data.vocab_size {vocab_size} is too low for the characters of this text: set it to {found[1]} or more"
    if "sentences_.empty" in message:
        return "the tokenizer has no text to learn from: no training sentence is left"
    return f"the tokenizer could not be trained: {message}"


def _is_tag(piece: str) -> bool:
    return SPACE_MARK not in piece and _LIKE_TAG.fullmatch(piece) is not None


def _unescaped(line: str) -> str:
    return _TO_UNESCAPE.sub(lambda found: _ESCAPED[found[0]], line) if _ESCAPE in line else line


def _text_ids(sentence: Sequence[int]) -> list[int]:
    ids = [int(index) for index in sentence]
    if EOS in ids:
        ids = ids[: ids.index(EOS)]
    return [index for index in ids if index > UNK]
