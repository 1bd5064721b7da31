"""The data section of the configuration: which text is read, which pairs are dropped, which vocabulary is learned."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_validator,
)

from mt.patterns import NUMBERED, checked_pattern
from mt.setting_types import Free, Recipe, Section


def _checked_symbol(symbol: str) -> str:
    """Refuse what could not be told from the text beside it, or from the pieces of every vocabulary."""
    special = symbol in ("<s>", "</s>", "<pad>", "<unk>") or re.fullmatch("<0x[0-9A-F]{2}>", symbol)
    if special or len(symbol) < 2 or symbol[0].isdigit() or not symbol.isprintable() or re.search(_NO_SYMBOL, symbol):
        raise ValueError(
            "a symbol has two characters or more, such as <bt>, no blanks or \u27e6\u27e7, no digit first, "
            "and is no special piece such as <s>"
        )
    return symbol


def _as_words(value: object) -> object:
    """A list of words may be written as a single one."""
    return (value,) if isinstance(value, str) else value


_NO_SYMBOL = "[\\s\u2581\ue000\u27e6\u27e7]"  # space, its mark, the escape, and the brackets of numbered symbols
Symbol = Annotated[str, AfterValidator(_checked_symbol)]
Symbols = Annotated[tuple[Symbol, ...], BeforeValidator(_as_words)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(checked_pattern)], ...], BeforeValidator(_as_words)]


Files = str | tuple[str, ...]  # a path, a URL, or a glob of either; or several of them


class Input(Section):
    """One place to read sentence pairs from: exactly one of `prefix`, `src` + `tgt`, `pairs`, `dataset`, `demo`."""

    prefix: Files | None = None  # PREFIX.en beside PREFIX.de (the config's languages), plain or compressed
    src: Files | None = None  # a text file of source sentences, beside ...
    tgt: Files | None = None  # ... a text file of their translations, line for line
    pairs: Files | None = None  # a file of pairs: .tsv, .jsonl or .parquet, plain or compressed
    dataset: str | None = None  # a name on the Hugging Face hub, or a local folder in its layout
    config: str | None = None  # with `dataset`: its configuration, such as de-en
    revision: str | None = None  # with `dataset`: a commit, tag or branch of it on the hub; else its newest
    stream: bool = False  # with `dataset`: read while it is fetched, without a copy on this machine's disk
    split: str = "train"  # with `dataset` and `demo`: which split
    demo: int | None = Field(None, ge=1)  # this many pairs of the embedded demo grammar
    columns: tuple[str, ...] = ()  # with a .tsv: what its columns hold, such as [en, de]; else its header, or src, tgt
    quoted: bool = False  # with a .tsv: fields are quoted the way spreadsheets do it
    weight: float = Field(1.0, gt=0)  # how often an epoch sees each pair: 2 is twice, 0.5 a seeded half
    tag: Symbol | None = None  # a symbol put before each source sentence, such as <bt>
    name: str | None = Field(None, min_length=1)  # what train.stages calls it; several inputs may share one

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        files = self.src is not None or self.tgt is not None
        if files and (self.src is None or self.tgt is None):
            raise ValueError("src and tgt go together: name both files")
        kinds = [
            self.prefix is not None,
            files,
            self.pairs is not None,
            self.dataset is not None,
            self.demo is not None,
        ]
        if sum(kinds) != 1:
            raise ValueError("give exactly one of prefix, src + tgt, pairs, dataset, demo")
        if (self.columns or self.quoted) and {".tsv"} != {table_kind(file) for file in listed(self.pairs)}:
            raise ValueError("columns and quoted describe a .tsv file: give it as pairs")
        if (self.revision or self.stream) and self.dataset is None:
            raise ValueError("revision and stream describe a data set of the hub: give it as dataset")
        if () in (self.prefix, self.src, self.tgt, self.pairs):
            raise ValueError("an empty list of files")
        return self


def name_of(entry: Input) -> str:
    """The name of an entry of data.train, data.valid or data.test in errors and reports."""
    if entry.dataset is not None:
        return " ".join(part for part in (entry.dataset, entry.config, entry.split) if part)
    if entry.demo is not None:
        return f"demo {entry.split}"
    first, *others = listed(entry.prefix or entry.pairs or entry.src)
    return f"{first} and {len(others)} more" if others else first


def listed(files: Files | None) -> tuple[str, ...]:
    """Files of a setting, where one may be written without a list."""
    return files if isinstance(files, tuple) else () if files is None else (files,)


def table_kind(file: str) -> str:
    """The suffix of a table of pairs (.tsv, .jsonl, .parquet), compressed or not; empty for other text."""
    name = file.split("?")[0] if "://" in file else file
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return next((suffix for suffix in reversed(suffixes) if suffix in (".tsv", ".jsonl", ".parquet")), "")


def _as_inputs(value: object) -> object:
    """Inputs may be written as a path, a mapping, or a list of both."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_as_input(item) for item in items)


def _as_input(item: object) -> object:
    if not isinstance(item, str):
        return item
    return {"pairs": item} if table_kind(item) else {"prefix": item}


def _one_or_two_paths(value: object) -> object:
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(path, str) for path in value)
    if value is None or isinstance(value, str) or is_pair:
        return value
    raise ValueError("give the path of a tokenizer.model, or two in a list: of the source, of the target")


TokenizerPaths = Annotated[str | tuple[str, str] | None, BeforeValidator(_one_or_two_paths)]
Inputs = Annotated[tuple[Input, ...], BeforeValidator(_as_inputs)]

FIGURES = ("bleu", "loss")  # of a validation, that may decide which checkpoint is best
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _as_sets(value: object) -> object:
    """Named sets are a mapping, but one that is itself an input; anything else is one set, whose name is empty."""
    if not isinstance(value, dict) or any(key in Input.model_fields for key in value):
        return {"": value}
    if not value:
        raise ValueError("an empty mapping; give each set a name, such as {news: PREFIX, captions: PREFIX}")
    names = [str(name).lower() for name in value]
    for name, inputs in value.items():
        if not isinstance(name, str) or (name and not _SET_NAME.fullmatch(name)):
            raise ValueError(
                f"a set cannot be called {name!r}, as its folder has this name: take letters, digits, - and _"
            )
        if name in FIGURES:
            raise ValueError(f"{name}: a set cannot be called so, as train.best would mean the figure")
        if names.count(name.lower()) > 1:
            raise ValueError(f"{name}: two sets have this name, but for upper and lower case")
        if name and not inputs:
            raise ValueError(f"{name}: names no text")
    return value


def _without_empty_name(sets: object, plain: SerializerFunctionWrapHandler) -> Any:
    by_name = plain(sets)
    return by_name.get("", by_name)


# By name, in order; the name of a single set may be empty, and is then not written.
Sets = Annotated[dict[str, Inputs], BeforeValidator(_as_sets), WrapSerializer(_without_empty_name)]


class CleanConfig(Section):
    """Which training pairs are dropped, each counted by its reason; validation and test pairs all stay."""

    empty: Recipe[bool] = True  # nothing but white space on a side
    invalid_utf8: Recipe[bool] = True  # bytes that are not UTF-8; when kept, they become U+FFFD
    control: Recipe[bool] = True  # control characters other than a tab
    copies: Recipe[bool] = True  # source equals target
    duplicates: Recipe[bool] = True  # a pair that came before, in this or an earlier source
    max_pieces: Recipe[int] = Field(256, ge=1)  # longest side, in pieces and its EOS
    max_ratio: Recipe[float] = Field(4.0, ge=0)  # longer side to shorter, in pieces and their EOS; 0 allows any


class DataConfig(Section):
    """Text in, token ids out (section 5.1)."""

    dir: Free[Path] = Path("data/base")  # where prepared data lie
    store: Free[str | None] = None  # address or folder; prepared data are fetched from it into data.dir
    src: Recipe[str] = "en"  # source language: what files, columns and fields of it are called
    tgt: Recipe[str] = "de"  # target language, likewise
    train: Recipe[Inputs] = (Input(dataset="wmt/wmt14", config="de-en", split="train"),)  # 5.1; one source or a list
    valid: Recipe[Sets] = Field(
        {"": (Input(dataset="wmt/wmt14", config="de-en", split="validation"),)}
    )  # newstest2013; required beside an own data.train; several sets by name, such as {news: ..., captions: ...}
    test: Free[Sets] = Field(
        {"": (Input(dataset="wmt/wmt14", config="de-en", split="test"),)}
    )  # newstest2014; what mt evaluate scores by default; several sets likewise
    vocab: Recipe[Literal["joint", "separate"]] = "joint"  # 5.1: shared; separate: one learnt for each language
    vocab_size: Recipe[int] = Field(37_000, ge=16, le=65_536)  # 5.1: "about 37000 tokens"; of separate ones, each
    tokenizer: Recipe[TokenizerPaths] = None  # a tokenizer.model to use, not learn, or two: [of source, of target]
    tokenizer_sample: Recipe[int] = Field(2_000_000, ge=1)  # sentences a subword model is trained on; bounds memory
    symbols: Recipe[Symbols] = ()  # pieces that are never cut and that no text makes, such as tags for later
    protect: Recipe[Patterns] = ()  # url, email, markup, placeholder, number, regular expressions: put back as they are
    processes: Free[int] = Field(0, ge=0)  # that prepare a large corpus; 0: as many as cores; the result is the same
    seed: Recipe[int] = Field(
        1, ge=0
    )  # of what preparing draws; apart from that of training, so that runs can share data
    clean: CleanConfig = CleanConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_text_brings_its_own_splits(cls, values: Any) -> Any:
        """Never validate or score somebody's own text on the default news sets."""
        if isinstance(values, dict) and "train" in values:
            if not values.get("valid") and values.get("valid") != {}:  # which has an error of its own
                raise ValueError("data.train needs data.valid beside it: name the pairs to validate on")
            values = {"test": (), **values}
        return values

    @model_validator(mode="after")
    def _weights_are_for_training(self) -> Self:
        held_out = (*self.inputs("valid"), *self.inputs("test"))
        if any(source.weight != 1 for source in held_out):
            raise ValueError("weight is for data.train alone: validation and test pairs count once")
        if any(source.name is not None for source in held_out):
            raise ValueError("name is for data.train alone: validation and test sets are named as {NAME: PREFIX}")
        return self

    @model_validator(mode="after")
    def _tags_of_tests_are_learned(self) -> Self:
        """Test sets may change when a run goes on, so they bring no symbols."""
        unknown = {source.tag for source in self.inputs("test")} - {None, *self.all_symbols}
        if unknown and self.tokenizer is None:
            raise ValueError(f"data.test has the tag {min(map(str, unknown))}, which data.symbols has to name")
        return self

    @property
    def all_symbols(self) -> list[str]:
        """The symbols that a tokenizer is trained with: those named, the tags of the text, the numbered ones."""
        tags = [source.tag for source in (*self.train, *self.inputs("valid")) if source.tag is not None]
        return list(dict.fromkeys([*self.symbols, *tags, *(NUMBERED if self.protect else ())]))

    @property
    def splits(self) -> dict[str, tuple[Input, ...]]:
        """All inputs by the folder of their prepared data: train, valid, test; of named sets valid/NAME, test/NAME."""
        sets = [("valid", self.valid), ("test", self.test)]
        held_out = {
            f"{split}/{name}" if name else split: inputs for split, named in sets for name, inputs in named.items()
        }
        return {"train": self.train, **held_out}

    @property
    def valid_folders(self) -> list[str]:
        """Those of `splits` that hold validation sets."""
        return [folder for folder in self.splits if folder.startswith("valid")]

    def inputs(self, split: str) -> list[Input]:
        """Those of train, valid or test; of named sets all together."""
        return [source for folder, inputs in self.splits.items() if folder.startswith(split) for source in inputs]
