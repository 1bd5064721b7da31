"""What a line of input holds and what its line of output says: text, a table with tabs, or JSON."""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from mt.console import counted
from mt.errors import UsageError
from mt.translate.plan import record_fields, table_field
from mt.translate.translator import PieceScores, Translation

Result = Translation | PieceScores


@dataclass(frozen=True)
class Results:
    """What a line of output tells: so many translations, and what of each; or the scores of a given translation."""

    n_best: int = 1
    scores: bool = False
    alignments: bool = False
    scoring: bool = False

    @property
    def names(self) -> list[str]:
        """What is told of each result."""
        if self.scoring:
            return ["log_probability", "score", "pieces", "piece_log_probabilities"]
        asked = {"translation": True, "score": self.scores, "alignment": self.alignments}
        return [name for name, is_asked in asked.items() if is_asked]

    def values(self, result: Result) -> dict[str, Any]:
        """What is told of this result, by name; logarithms rounded to 6 decimals."""
        if isinstance(result, Translation):
            told = {"translation": result.text, "score": round(result.score, 6), "alignment": result.alignment}
            return {name: told[name] for name in self.names}
        logps = [round(logp, 6) for logp in result.log_probabilities]
        values = (round(result.log_probability, 6), round(result.score, 6), result.pieces, logps)
        return dict(zip(self.names, values, strict=True))

    def record(self, results: Sequence[Result]) -> dict[str, Any]:
        """What is told of all of a line's results: of the best, by name, and with n_best the list of all."""
        new = self.values(results[0])
        if self.has_list:
            scored = Results(scores=True)
            new["n_best"] = [scored.values(result) for result in results]
        return new

    @property
    def has_list(self) -> bool:
        """Whether a record holds several translations."""
        return self.n_best > 1 and not self.scoring

    @property
    def record_names(self) -> list[str]:
        """The keys of a record."""
        return [*self.names, *(["n_best"] if self.has_list else [])]

    @property
    def columns(self) -> list[str]:
        ranks = [f"_{rank}" for rank in range(1, self.n_best + 1)] if self.has_list else [""]
        return [f"{name}{rank}" for rank in ranks for name in self.names]

    def cells(self, results: Sequence[Result]) -> list[str]:
        """One cell a column; empty where fewer translations were found than asked for."""
        cells = [_cell(value) for result in results for value in self.values(result).values()]
        return cells + [""] * (len(self.columns) - len(cells))


def _cell(value: str | float | Sequence[str | float]) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return value if isinstance(value, str) else " ".join(map(_cell, value))


def _row(cells: Sequence[str]) -> str:
    return "\t".join(cell.replace("\t", " ") for cell in cells)


class PlainText:
    """A line is text; its output the translation alone, or columns with tabs between them."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def text(self, line: str) -> str:
        """What is to be translated."""
        return line

    def render(self, line: str, results: Sequence[Result]) -> str:
        """The line of output."""
        cells = self._results.cells(results)
        return _row(cells) if len(cells) > 1 else cells[0]


class Table:
    """Unquoted columns with tabs between them; those of the output stand behind those of the input."""

    def __init__(self, field: str, results: Results) -> None:
        if field == "0":
            raise UsageError("--field 0: columns are counted from 1")
        self.has_header = not field.isdecimal()
        self._field, self._results = field, results
        self._index = -1 if self.has_header else int(field) - 1

    def header(self, line: str) -> str:
        """Read the line that names the columns; gives the one for the output."""
        names = line.split("\t")
        if self._field not in names:
            raise UsageError(f"--field {self._field}: the columns are {', '.join(names)}; name one, or give its number")
        self._index = names.index(self._field)
        return "\t".join([*names, *self._results.columns])

    def text(self, line: str) -> str:
        """What is to be translated; raises ValueError saying what the line lacks."""
        cells = line.split("\t")
        if line and len(cells) <= self._index:
            raise ValueError(f"has {counted(len(cells), 'column')}, so no column {self._index + 1}")
        return cells[self._index] if line else ""

    def render(self, line: str, results: Sequence[Result]) -> str:
        """The line of output."""
        return f"{line}\t{_row(self._results.cells(results))}"


class JsonLines:
    """A line is an object, which keeps its keys and gains: translation, and as asked score, alignment and n_best.

    A result whose key the object has already is written as mt_translation, mt_score and so on.
    """

    def __init__(self, fields: Sequence[str], results: Results) -> None:
        self._fields, self._results = fields, results

    def text(self, line: str) -> str:
        """What is to be translated; raises ValueError saying what is wrong with the line."""
        record = _object(line)
        texts = [text for text in (_value(record, field) for field in self._fields) if isinstance(text, str)]
        if not texts and line.strip():
            raise ValueError(f"has no text under {' or '.join(self._fields)}; name its key with --field")
        new_names(record, self._results)
        return texts[0].replace("\n", " ") if texts else ""

    def render(self, line: str, results: Sequence[Result]) -> str:
        """The line of output."""
        if not line.strip():
            return ""
        record, new = _object(line), self._results.record(results)
        names = new_names(record, self._results)
        return json.dumps({**record, **{names[key]: value for key, value in new.items()}}, ensure_ascii=False)


def new_names(taken: Container[str], results: Results) -> dict[str, str]:
    """The names of a record's values among keys that are there: with mt_ before those that are taken.

    Raises ValueError where both are.
    """
    names = {name: f"mt_{name}" if name in taken else name for name in results.record_names}
    if twice := [name for name, new in names.items() if name != new and new in taken]:
        raise ValueError(f"has the keys {twice[0]} and mt_{twice[0]} already; rename one of them")
    return names


LineFormat = PlainText | Table | JsonLines


def line_format(kind: str, field: str | None, language: str, results: Results, first: str = "") -> LineFormat:
    """The format of that name: text, tsv or jsonl.

    field: the column (a number from 1, or a name in the first line) or key that holds the text. None means the one
    named by the source `language`, as in prepare; a table whose `first` line has no such name is read from column 1.
    Raises UsageError for a field that cannot be.
    """
    if kind == "tsv":
        return Table(table_field(field, language, first), results)
    if kind == "jsonl":
        return JsonLines(record_fields(field, language), results)
    return PlainText(results)


def _object(line: str) -> dict[str, Any]:
    """The object on a line; none on a blank one."""
    try:
        record = json.loads(line.strip() or "{}", object_pairs_hook=_with_unique_keys)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    return record


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {key} twice")
        found[key] = value
    return found


def _value(record: dict[str, Any], field: str) -> Any:
    """What stands under a key, or under keys inside keys that dots part."""
    found: Any = record
    for key in field.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found
