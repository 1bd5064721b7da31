"""The configuration: frozen sections whose defaults are the paper's base model.

Order of precedence: defaults, then the YAML file, then `section.key=value` from the command line.
Section numbers in comments point into "Attention Is All You Need" (Vaswani et al., 2017).
Each key is marked Recipe, Noted or Free: whether it may change when a stopped run goes on.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mt.errors import ConfigError


class OnResume(Enum):
    """What happens when a run goes on with another value of a key."""

    REFUSED = "refused"  # it would be another run under the same name
    NOTED = "noted"  # figures before and after do not compare exactly, so it is said
    FREE = "free"  # the result is the same


T = TypeVar("T")
Recipe = Annotated[T, OnResume.REFUSED]
Noted = Annotated[T, OnResume.NOTED]
Free = Annotated[T, OnResume.FREE]


_PACKAGED = Path(__file__).parent / "configs"  # those that need nothing but the package


class Section(BaseModel):
    """What every section has in common: it cannot change, and knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        for key, value in self:
            if isinstance(value, int) and value >= 2**63:
                raise ValueError(f"{key}: {value:.3e} is too large")
        return self


class Input(Section):
    """One place to read sentence pairs from: exactly one of `prefix`, `src` + `tgt`, `pairs`, `dataset`, `demo`."""

    prefix: str | None = None  # PREFIX.en beside PREFIX.de (the config's languages), plain or compressed
    src: str | None = None  # a text file of source sentences, beside ...
    tgt: str | None = None  # ... a text file of their translations, line for line
    pairs: str | None = None  # one file of pairs: .tsv, .jsonl or .parquet, plain or compressed
    dataset: str | None = None  # a name on the Hugging Face hub, or a local folder in its layout
    config: str | None = None  # with `dataset`: its configuration, such as de-en
    split: str = "train"  # with `dataset` and `demo`: which split
    demo: int | None = Field(None, ge=1)  # this many pairs of the embedded demo grammar
    columns: tuple[str, ...] = ()  # with a .tsv: what its columns hold, such as [en, de]; else its header, or src, tgt
    quoted: bool = False  # with a .tsv: fields are quoted the way spreadsheets do it
    weight: float = Field(1.0, gt=0)  # how often an epoch sees each pair: 2 is twice, 0.5 a seeded half

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
        if (self.columns or self.quoted) and ".tsv" not in (self.pairs or "").lower():
            raise ValueError("columns and quoted describe a .tsv file: give it as pairs")
        return self


def _as_inputs(value: object) -> object:
    """Let an input be written as a path, a mapping, or a list of either."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_as_input(item) for item in items)


def _as_input(item: object) -> object:
    if not isinstance(item, str):
        return item
    suffixes = [part.lower() for part in Path(item).name.split(".")[1:]]
    is_table = any(suffix in ("tsv", "jsonl", "parquet") for suffix in suffixes[-2:])
    return {"pairs": item} if is_table else {"prefix": item}


Inputs = Annotated[tuple[Input, ...], BeforeValidator(_as_inputs)]


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
    src: Recipe[str] = "en"  # source language: what files, columns and fields of it are called
    tgt: Recipe[str] = "de"  # target language, likewise
    train: Recipe[Inputs] = (Input(dataset="wmt/wmt14", config="de-en", split="train"),)  # 5.1; one source or a list
    valid: Recipe[Inputs] = (
        Input(dataset="wmt/wmt14", config="de-en", split="validation"),
    )  # newstest2013; required beside an own data.train
    test: Free[Inputs] = (
        Input(dataset="wmt/wmt14", config="de-en", split="test"),
    )  # newstest2014; what mt evaluate scores by default
    vocab_size: Recipe[int] = Field(37_000, ge=16, le=65_536)  # 5.1: "a shared vocabulary of about 37000 tokens"
    tokenizer: Recipe[str | None] = None  # a tokenizer.model to use, not learn: with --init-from, the one of its data
    tokenizer_sample: Recipe[int] = Field(2_000_000, ge=1)  # sentences the subword model is trained on; bounds memory
    clean: CleanConfig = CleanConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_text_brings_its_own_splits(cls, values: Any) -> Any:
        """Never validate or score somebody's own text on the default news sets."""
        if isinstance(values, dict) and "train" in values:
            if not values.get("valid"):
                raise ValueError("data.train needs data.valid beside it: name the pairs to validate on")
            values = {"test": (), **values}
        return values

    @model_validator(mode="after")
    def _weights_are_for_training(self) -> Self:
        if any(source.weight != 1 for source in (*self.valid, *self.test)):
            raise ValueError("weight is for data.train alone: validation and test pairs count once")
        return self


class ModelConfig(Section):
    """The Transformer (section 3; sizes from table 3)."""

    encoder_layers: Recipe[int] = Field(6, ge=1)  # 3.1, N
    decoder_layers: Recipe[int] = Field(6, ge=1)  # 3.1, N
    d_model: Recipe[int] = Field(512, ge=2)  # 3.1, width of every sublayer's output
    heads: Recipe[int] = Field(8, ge=1)  # 3.2.2, h; each has d_k = d_model / h
    d_ff: Recipe[int] = Field(2048, ge=1)  # 3.3, inner width of the feed-forward network
    dropout: Recipe[float] = Field(0.1, ge=0, lt=1)  # 5.4, residual dropout: sublayer outputs and embedding sums

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} cannot be divided among {self.heads} heads")
        if self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} must be even: positions come in sine and cosine pairs")
        return self

    def parameters(self, vocab_size: int) -> int:
        """The number of weights of a model of these sizes."""
        d, square = self.d_model, self.d_model**2 + self.d_model  # a linear layer from d to d, and its bias
        feed_forward = 2 * d * self.d_ff + self.d_ff + d
        encoder_layer = 4 * square + feed_forward + 2 * 2 * d
        decoder_layer = 8 * square + feed_forward + 3 * 2 * d
        return vocab_size * d + self.encoder_layers * encoder_layer + self.decoder_layers * decoder_layer


class BatchConfig(Section):
    """How sentences are grouped (section 5.1)."""

    tokens: Recipe[int] = Field(25_000, ge=16)  # per update over all processes, on each side, padding counted
    micro_tokens: Noted[int] = Field(8_192, ge=16)  # per forward pass; sets memory, not what an update sees
    multiple: Noted[int] = Field(1, ge=1)  # of passes in an update; 8: the same dropout masks on 1, 2, 4, 8 GPUs


class OptimConfig(Section):
    """Adam and its rate (section 5.3)."""

    beta1: Recipe[float] = Field(0.9, ge=0, lt=1)  # 5.3
    beta2: Recipe[float] = Field(0.98, ge=0, lt=1)  # 5.3
    eps: Recipe[float] = Field(1e-9, gt=0)  # 5.3
    schedule: Recipe[Literal["paper", "constant", "linear"]] = "paper"  # 5.3; with --init-from constant, unless given
    warmup: Recipe[int] = Field(4_000, ge=1)  # 5.3, updates in which the rate rises; with --init-from 100, unless given
    scale: Recipe[float] = Field(1.0, gt=0)  # the paper's rate is multiplied by this
    rate: Recipe[float] = Field(
        1e-4, gt=0
    )  # after the warm-up; constant keeps it, linear falls from it to 0 at train.updates
    clip_norm: Recipe[float] = Field(0.0, ge=0)  # a gradient of larger norm is scaled down to it; 0: never (paper)


class TrainConfig(Section):
    """The training run (sections 5.2, 5.4 and 6.1)."""

    dir: Free[Path] = Path("runs/base")  # where the run is kept
    updates: Noted[int] = Field(100_000, ge=1)  # 5.2; training ends here, or earlier by one of the next three
    epochs: Noted[int] = Field(0, ge=0)  # when the data have been seen this often; 0: no such end
    hours: Noted[float] = Field(0.0, ge=0)  # after this much training, all its sessions together; 0: no such end
    patience: Noted[int] = Field(0, ge=0)  # after this many validations in a row without a new best; 0: no such end
    best: Recipe[Literal["bleu", "loss"]] = "bleu"  # which figure of the validation decides what is best
    label_smoothing: Recipe[float] = Field(0.1, ge=0, lt=1)  # 5.4
    average: Noted[int] = Field(5, ge=1)  # 6.1: "averaging the last 5 checkpoints"
    ema: Recipe[float] = Field(0.0, ge=0, lt=1)  # decay of a moving average of the weights, saved as the model; 0: none
    bpe_dropout: Recipe[float] = Field(0.0, ge=0, lt=1)  # chance that a merge is skipped, in training only; 0: none
    checkpoint_every: Noted[int] = Field(1_500, ge=1)  # updates; each is validated; about the 10 minutes of section 6.1
    keep: Free[int] = Field(5, ge=1)  # newest checkpoints kept, beside the best
    keep_every: Free[int] = Field(0, ge=0)  # updates; checkpoints at its multiples are kept for good; 0: none
    log_every: Free[int] = Field(100, ge=1)  # updates
    tensorboard: Free[bool] = False  # write TensorBoard events beside metrics.jsonl; needs the tensorboard extra
    device: Noted[Literal["auto", "cpu", "cuda", "mps"]] = "auto"  # auto: cuda, else mps, else cpu
    precision: Recipe[Literal["auto", "float32", "bfloat16"]] = "auto"  # of products; weights stay float32
    compile: Noted[bool] = False  # fuse what is not a matrix product, for a GPU: a minute's compiling at each start
    deterministic: Noted[bool] = True  # on a GPU: the same bits each time, as on a CPU, so that resuming is exact
    recompute: Free[bool] = False  # compute activations again in the backward pass: less memory, a third more work

    @model_validator(mode="after")
    def _average_is_kept(self) -> Self:
        if self.keep < self.average:
            raise ValueError(f"keep {self.keep} is less than average {self.average}: what is averaged must be kept")
        return self


class DecodeConfig(Section):
    """Beam search (section 6.1)."""

    beam: Free[int] = Field(4, ge=1)  # 6.1, width; 1 is greedy
    penalty: Free[Literal["gnmt", "length", "none"]] = "gnmt"  # log-probability / ((5 + |Y|) / 6) ** alpha, or ...
    alpha: Free[float] = Field(0.6, ge=0)  # ... / |Y| ** alpha, or the log-probability as it is
    max_extra: Noted[int] = Field(50, ge=1)  # 6.1: output at most input length + 50
    max_length: Noted[int | None] = Field(None, ge=1)  # pieces; output at most this long as well
    min_length: Noted[int] = Field(0, ge=0)  # pieces
    groups: Free[int] = Field(1, ge=1)  # diverse beam search: the beam is cut into so many groups that ...
    diversity: Free[float] = Field(0.5, ge=0)  # ... pay this for each piece that an earlier group has just chosen
    sample: Noted[bool] = False  # draw each piece at random instead of searching for the best output
    temperature: Noted[float] = Field(1.0, gt=0)  # of sampling: below 1 is more careful, above 1 more varied
    top_k: Noted[int] = Field(0, ge=0)  # sample from the k likeliest pieces only; 0 means all
    top_p: Noted[float] = Field(1.0, gt=0, le=1)  # sample from the likeliest pieces that make up this probability
    seed: Noted[int] = Field(1, ge=0)  # of sampling
    long_lines: Noted[Literal["split", "cut"]] = "split"  # lines of more than `max_source` pieces: at sentence ends
    max_source: Noted[int] = Field(256, ge=1)  # pieces
    batch_tokens: Free[int] = Field(4_096, ge=1)  # source pieces decoded together, padding counted
    precision: Free[Literal["float32", "bfloat16"]] = "float32"  # of weights and products, in translate and evaluate
    alignment_layer: Free[int] = Field(0, ge=0)  # decoder layer that alignments are read from; 0: the one measured best

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.beam % self.groups:
            raise ValueError(f"a beam of {self.beam} cannot be cut into {self.groups} groups of one size")
        if self.sample and self.groups > 1:
            raise ValueError("sample and groups exclude each other: sampling has no beam")
        if self.max_length is not None and self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is more than max_length {self.max_length}")
        return self


class Config(Section):
    """Everything a run depends on."""

    seed: Recipe[int] = Field(1, ge=0)  # every random choice comes from it
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file over the defaults and `section.key=value` overrides over both.

    The name of a file in mt/configs, such as `demo`, means that one, unless there is a file of this name.
    `data.dir` and `train.dir` default to data/STEM and runs/STEM, STEM being the file's name.
    Raises ConfigError naming every wrong key and value at once.
    """
    path = Path(path)
    packaged = _PACKAGED / f"{path.name}.yaml"
    if packaged.is_file() and str(path) == path.name and not path.is_file():
        path = packaged
    values, lines = _read_yaml(path)
    origins = {key: f"{path}:{line}" for key, line in lines.items()}
    _set_default(values, ("data", "dir"), f"data/{path.stem}")
    _set_default(values, ("train", "dir"), f"runs/{path.stem}")
    for override in overrides:
        key, value = _parse_override(override)
        _set(values, key, value, override)
        origins = {known: origin for known, origin in origins.items() if known[: len(key)] != key}
        origins[key] = f"override {override}"
    return _validated(values, origins, str(path))


def decode_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """What `decode.key=value` overrides set, by key; to be put over the decode section of a run.

    Raises ConfigError for a key of another section, an unknown one, or a value that its key cannot have.
    """
    values: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for override in overrides:
        key, value = _parse_override(override)
        if key[0] != "decode":
            raise ConfigError(
                f"override {override}: a trained model fixes {key[0]}; only decode.key=value can be given here"
            )
        _set(values, key, value, override)
        origins[key] = f"override {override}"
    values = _coerced(Config, values)
    try:
        Config.model_validate(values)
    except ValidationError as error:
        # Whether the keys fit together depends on those of the run.
        wrong = [dict(problem) for problem in error.errors() if len(problem["loc"]) > 1]
        if wrong:
            raise ConfigError("\n".join(_sentence(problem, origins, "decode") for problem in wrong)) from None
    decode: dict[str, Any] = values.get("decode", {})
    return decode


def parse_config(text: str, name: str) -> Config:
    """Read back what `dump_config` wrote; `name` is used in errors."""
    values, lines = _parse_yaml(text, name)
    return _validated(values, {key: f"{name}:{line}" for key, line in lines.items()}, name)


def dump_config(config: Config) -> str:
    """The whole configuration as YAML, each key written out."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def on_resume(section: type[Section] = Config, prefix: str = "") -> dict[str, OnResume]:
    """Each key of the configuration, such as `train.updates`, and its mark."""
    marks: dict[str, OnResume] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            marks |= on_resume(field.annotation, f"{prefix}{name}.")
        else:
            (marks[f"{prefix}{name}"],) = (mark for mark in field.metadata if isinstance(mark, OnResume))
    return marks


def changes(before: Config, after: Config, mark: OnResume) -> list[str]:
    """The differences between a run's configuration and the one it is to go on with, in the keys of a mark."""
    kinds = on_resume()
    return [line for line in differences(before, after) if kinds[line.partition(": ")[0]] is mark]


def differences(before: BaseModel, after: BaseModel) -> list[str]:
    """The keys two configurations disagree on, as `section.key: before -> after`; sources are not spelt out."""
    left, right = dict(_leaves(before.model_dump(mode="json"))), dict(_leaves(after.model_dump(mode="json")))
    keys = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    return [
        f"{key}: other sources" if isinstance(right.get(key), list) else f"{key}: {left.get(key)} -> {right.get(key)}"
        for key in keys
    ]


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


# --- YAML with line numbers -------------------------------------------------------------------------------------

Key = tuple[str | int, ...]
MOST_VALUES = 100_000  # in a config file: more is a mistake, or aliases of aliases


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; name a YAML file, or demo") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a config file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read as a config file: not UTF-8 text") from None
    return _parse_yaml(text, str(path))


def _parse_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Key, int]]:
    values, lines = _load_yaml(text, name)
    if values is None:
        raise ConfigError(f"{name}: is empty; write {{}} for the paper's base model, or begin with configs/base.yaml")
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: a config is a mapping of sections (data, model, batch, optim, train, decode)")
    return values, lines


def _load_yaml(text: str, name: str) -> tuple[Any, dict[Key, int]]:
    """The value that YAML text stands for, and the line of each key in it."""
    try:
        lines: dict[Key, int] = {}
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        for key, line in _node_lines(node, (), (), name):
            lines[key] = line
            if len(lines) > MOST_VALUES:
                raise ConfigError(
                    f"{name}: more than {MOST_VALUES:,} values, aliases counted as often as they are used"
                )
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply for a config") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None


def _node_lines(
    node: yaml.Node | None, key: Key, around: tuple[yaml.Node, ...], name: str
) -> Iterator[tuple[Key, int]]:
    """The line of every key; what PyYAML lets pass is an error: a key given twice, an alias of what is around it."""
    if node in around:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: {'.'.join(map(str, key))} contains itself")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            word, line = str(key_node.value), key_node.start_mark.line + 1
            if word in seen:
                raise ConfigError(f"{name}:{line}: {word} is given twice")
            seen.add(word)
            yield (*key, word), line
            yield from _node_lines(value_node, (*key, word), (*around, node), name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*key, index), item.start_mark.line + 1
            yield from _node_lines(item, (*key, index), (*around, node), name)


def _parse_override(override: str) -> tuple[tuple[str, ...], object]:
    name, equals, text = override.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise ConfigError(f"override {override!r} is not of the form section.key=value, such as train.updates=1000")
    try:
        return key, _load_yaml(text, f"override {name}")[0]
    except ConfigError:
        return key, text


def _set(values: dict[str, Any], key: Sequence[str], value: object, override: str) -> None:
    for depth, part in enumerate(key[:-1], 1):
        inner = values.setdefault(part, {})
        if inner is None:
            inner = values[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override}: {'.'.join(key[:depth])} is not a section; set it whole")
        values = inner
    values[key[-1]] = value


def _set_default(values: dict[str, Any], key: tuple[str, str], value: str) -> None:
    section = values.setdefault(key[0], {})
    if section is None:
        section = values[key[0]] = {}
    if isinstance(section, dict):
        section.setdefault(key[1], value)


# --- Validation: every error at once, in sentences ---------------------------------------------------------------


def _validated(values: Mapping[str, Any], origins: Mapping[Key, str], name: str) -> Config:
    values = {key: {} if value is None else value for key, value in values.items()}
    try:
        return Config.model_validate(_coerced(Config, values))
    except ValidationError as error:
        problems = dict.fromkeys(_sentence(dict(problem), origins, name) for problem in error.errors())
        raise ConfigError("\n".join(problems)) from None


def _coerced(model: type[BaseModel], values: Any) -> Any:
    """PyYAML reads `1e-9` as text and `no` as False: put both right by the declared type."""
    if not isinstance(values, dict):
        return values
    result: dict[Any, Any] = {}
    for key, value in values.items():
        kind = model.model_fields[key].annotation if key in model.model_fields else None
        if isinstance(kind, type) and issubclass(kind, Section):
            result[key] = _coerced(kind, value)
        elif isinstance(value, bool) and kind is not bool:
            result[key] = "yes" if value else "no"  # Norwegian is a language, and yes is no number
        elif isinstance(value, str) and kind is int:
            result[key] = _whole_number(value)
        else:
            result[key] = value
    return result


def _whole_number(text: str) -> int | str:
    try:
        return int(float(text)) if float(text).is_integer() else text
    except ValueError:
        return text


def _sentence(problem: dict[str, Any], origins: Mapping[Key, str], name: str) -> str:
    path: Key = tuple(part for part in problem["loc"])
    above = [origins[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in origins]
    below = [origin for key, origin in origins.items() if key[: len(path)] == path]
    where = [*above, *below, name][0]
    dotted = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return f"{where}: {dotted}: unknown key{_nearest(path)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = problem.get("input")
    shown = f" (got {repr(given)[:60]})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {dotted}: {message}{shown}"


def _nearest(path: Key) -> str:
    """Suggest the valid key most like the last of `path`, wherever it lives."""
    word = str(path[-1])
    siblings = _fields_at(path[:-1])
    close = difflib.get_close_matches(word, siblings, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    homes = [f"{section}.{word}" for section in Config.model_fields if word in _fields_at((section,))]
    if homes:
        return f"; did you mean {homes[0]}?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _fields_at(path: Key) -> list[str]:
    model: type[BaseModel] = Config
    for part in path:
        kind = model.model_fields[part].annotation if isinstance(part, str) and part in model.model_fields else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
        else:
            return list(Input.model_fields) if path[0] == "data" and len(path) > 1 else []
    return list(model.model_fields)
