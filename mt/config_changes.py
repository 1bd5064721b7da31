"""Where configurations differ: what may change when a run goes on, and what sets runs apart."""

from collections.abc import Callable, Iterator, Sequence

from pydantic import BaseModel

from mt.config import Config
from mt.data_config import Input, name_of
from mt.setting_types import OnResume, Section


def on_resume(section: type[Section] = Config, prefix: str = "") -> dict[str, OnResume]:
    """The mark of each key, such as `train.updates`."""
    marks: dict[str, OnResume] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            marks |= on_resume(field.annotation, f"{prefix}{name}.")
        else:
            (marks[f"{prefix}{name}"],) = (mark for mark in field.metadata if isinstance(mark, OnResume))
    return marks


def changes(before: Config, after: Config, mark: OnResume) -> list[str]:
    """The differences between a run's configuration and the one it is to go on with, in keys with this mark."""
    kinds = on_resume()
    return [line for line in differences(before, after) if kinds[line.partition(": ")[0]] is mark]


def differences(before: BaseModel, after: BaseModel) -> list[str]:
    """Where two configurations differ, as `section.key: before -> after`; inputs are not written out.

    The order of named sets counts, as the first one decides what is best.
    """
    left, right = dict(_leaves(before.model_dump(mode="json"))), dict(_leaves(after.model_dump(mode="json")))
    keys = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    return [
        f"{key}: other sources" if _names_inputs(key) else f"{key}: {left.get(key)} -> {right.get(key)}" for key in keys
    ]


def differing(configs: Sequence[Config]) -> dict[str, list[str]]:
    """The keys in which configurations differ, each with its value in every one of them; sources by their names."""
    found = [dict(_leaves(config.model_dump(mode="json"))) for config in configs]
    keys = dict.fromkeys(key for leaves in found for key in leaves)
    shown = {}
    for key in keys:
        values = [leaves.get(key) for leaves in found]
        if all(value == values[0] for value in values):
            continue
        if not _names_inputs(key):
            shown[key] = [str(value) for value in values]
        else:
            names = [_sources(config, key, name_of) for config in configs]
            shown[key] = names if len(set(names)) > 1 else [_sources(config, key, _in_full) for config in configs]
    return shown


def _sources(config: Config, key: str, shown: Callable[[Input], str]) -> str:
    """The sources of a split; those of named sets after the names."""
    parts = []
    for folder, inputs in config.data.splits.items():
        split, _, name = folder.partition("/")
        if f"data.{split}" == key and inputs:
            parts.append((f"{name}: " if name else "") + ", ".join(map(shown, inputs)))
    return "; ".join(parts) or "none"


def _in_full(source: Input) -> str:
    return " ".join(f"{key}={value}" for key, value in source.model_dump(exclude_defaults=True).items())


def _names_inputs(key: str) -> bool:
    return key in ("data.train", "data.valid", "data.test")


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and not _names_inputs(prefix):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, list(value.items()) if isinstance(value, dict) else value
