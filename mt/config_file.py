"""A configuration as YAML: read with the line of each key, changed by `section.key=value`, and written.

Every mistake is reported at once, in a sentence with its line and the nearest valid key.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mt.config import Config, Stage
from mt.data_config import Input
from mt.errors import ConfigError
from mt.setting_types import Section

Key = tuple[str | int, ...]
MOST_VALUES = 100_000  # in a config file: more is a mistake, or aliases of aliases

_PACKAGED = Path(__file__).parent / "configs"  # those that need nothing but the package


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
    values, origins = _parse_yaml(_read(path), str(path))
    for section, folder in (("data", "data"), ("train", "runs")):
        if isinstance(keys := _section(values, section), dict):
            keys.setdefault("dir", f"{folder}/{path.stem}")
    for override in overrides:
        _apply(override, values, origins)
    return _validated(values, origins, str(path))


def decode_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """What `decode.key=value` overrides set, by key; to be put over the decode section of a run.

    Raises ConfigError for a key of another section, an unknown one, or a value that its key cannot have.
    """
    values: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for override in overrides:
        section = _apply(override, values, origins)[0]
        if section != "decode":
            raise ConfigError(
                f"override {override}: a trained model fixes {section}; only decode.key=value can be given here"
            )
    values = _coerced(Config, values)
    try:
        Config.model_validate(values)
    except ValidationError as error:
        # Whether settings fit together is checked later, with those of the run.
        wrong = [problem for problem in error.errors() if len(problem["loc"]) > 1]
        if wrong:
            raise ConfigError("\n".join(_sentence(problem, origins, "decode") for problem in wrong)) from None
    decode: dict[str, Any] = values.get("decode", {})
    return decode


def parse_config(text: str, name: str) -> Config:
    """Read back what `dump_config` wrote; `name` is used in errors."""
    return _validated(*_parse_yaml(text, name), name)


def dump_config(config: Config) -> str:
    """The whole configuration as YAML, each key written out."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


# --- YAML with line numbers -------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; name a YAML file, or demo") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a config file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read as a config file: not UTF-8 text") from None


def _parse_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Key, str]]:
    """The sections of a config, and where each key stands, such as `my.yaml:7`."""
    values, origins = _load_yaml(text, name)
    if values is None:
        raise ConfigError(f"{name}: is empty; write {{}} for the paper's base model, or begin with configs/base.yaml")
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: a config is a mapping of sections (data, model, batch, optim, train, decode)")
    return values, origins


def _load_yaml(text: str, name: str) -> tuple[Any, dict[Key, str]]:
    """The value that YAML text stands for, and where each key of it stands."""
    # libyaml, which PyYAML need not have, takes a quarter of the time; what is nested 10,000 deep may end its process.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if len(text) < 4_000 else yaml.SafeLoader
    try:
        origins: dict[Key, str] = {}
        node = yaml.compose(text, Loader=loader)
        for key, line in _node_lines(node, (), (), name):
            origins[key] = f"{name}:{line}"
            if len(origins) > MOST_VALUES:
                raise ConfigError(
                    f"{name}: more than {MOST_VALUES:,} values, aliases counted as often as they are used"
                )
        return yaml.load(text, Loader=loader), origins
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
    """The line of every key. Raises ConfigError for a key given twice and for a value that contains itself."""
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


def _apply(override: str, values: dict[str, Any], origins: dict[Key, str]) -> Key:
    """Put an override over the values; gives its key."""
    name, equals, text = override.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise ConfigError(f"override {override!r} is not of the form section.key=value, such as train.updates=1000")
    try:
        value = _load_yaml(text, f"override {name}")[0]
    except ConfigError:
        value = text
    for depth, part in enumerate(key[:-1], 1):
        values = _section(values, part)
        if not isinstance(values, dict):
            raise ConfigError(f"override {override}: {'.'.join(key[:depth])} is not a section; set it whole")
    values[key[-1]] = value
    for replaced in [known for known in origins if known[: len(key)] == key]:
        del origins[replaced]
    origins[key] = f"override {override}"
    return key


def _section(values: dict[str, Any], name: str) -> Any:
    """What a key holds; a section without keys is YAML's null."""
    if values.get(name) is None:
        values[name] = {}
    return values[name]


# --- Validation: every error at once, in sentences ---------------------------------------------------------------


def _validated(values: Mapping[str, Any], origins: Mapping[Key, str], name: str) -> Config:
    values = {key: {} if value is None else value for key, value in values.items()}
    try:
        return Config.model_validate(_coerced(Config, values))
    except ValidationError as error:
        problems = dict.fromkeys(_sentence(problem, origins, name) for problem in error.errors())
        raise ConfigError("\n".join(problems)) from None


def _coerced(model: type[BaseModel], values: Any) -> Any:
    """The values with what PyYAML misreads corrected by the declared type: `1e-9` as text, `no` as False."""
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


def _sentence(problem: ErrorDetails, origins: Mapping[Key, str], name: str) -> str:
    path: Key = tuple(part for part in problem["loc"] if part != "")  # a single set of pairs has no name
    message = problem["msg"].removeprefix("Value error, ")
    key, _, rest = message.partition(": ")
    parts = (int(part) if part.isdigit() else part for part in key.split("."))
    if (deeper := (*path, *parts)) in origins:  # what a section says of one of its keys
        path, message = deeper, rest
    if not path:  # settings of several sections that do not fit
        return f"{name}: {message}"
    above = [origins[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in origins]
    below = [origin for key, origin in origins.items() if key[: len(path)] == path]
    where = [*above, *below, name][0]
    dotted = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return f"{where}: {dotted}: unknown key{_nearest(path)}"
    message = message[0].lower() + message[1:]
    given = problem.get("input")
    shown = f" (got {repr(given)[:60]})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {dotted}: {message}{shown}"


def _nearest(path: Key) -> str:
    """A hint at the valid key most like the last of `path`: here, else in another section."""
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
    """The keys of the section, or of the input, at this path."""
    model: type[BaseModel] = Config
    for part in path:
        kind = model.model_fields[part].annotation if isinstance(part, str) and part in model.model_fields else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
        else:
            kinds: dict[str | int, type[Section]] = {"data": Input, "train": Stage}
            return list(kinds[path[0]].model_fields) if path[0] in kinds and len(path) > 1 else []
    return list(model.model_fields)
