"""What a line of input holds and what its line of output says: text, a table with tabs, or JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mt.console import counted
from mt.errors import UsageError
from mt.translate.translator import PieceScores, Translation

Result = Translation | PieceScores

_SCORING = ("log_probability", "score", "pieces", "piece_log_probabilities")  # said of a translation that was given


class LineFormat(Protocol):
    """How a line is read, and written with its results."""

    has_header: bool

    def header(self, line: str) -> str:
        """Read the line that names the columns; gives the one for the output."""

    def text(self, line: str) -> str:
        """What is to be translated; raises ValueError saying what the line lacks."""

    def render(self, line: str, results: Sequence[Result]) -> str:
        """The line of output."""


@dataclass(frozen=True)
class Results:
    """What stands on a line of output: so many translations, and what is said of each."""

    n_best: int = 1
    scores: bool = False
    alignments: bool = False
    scoring: bool = False  # not translations, but the scores of given ones


def line_format(kind: str, field: str | None, language: str, results: Results, first: str = "") -> LineFormat:
    """The format of that name: text, tsv or jsonl.

    field: the column (a number from 1, or a name in the first line) or key that holds the text. None means the one
    named by the source `language`, as in prepare; a table whose `first` line has no such name is read from column 1.
    Raises UsageError for a field that cannot be.
    """
    if kind == "tsv":
        return Table(Columns(results), field or (language if language in first.split("\t") else "1"))
    if kind == "jsonl":
        return JsonLines((field,) if field else (language, f"translation.{language}", "source"), results)
    return PlainText(Columns(results))


class Columns:
    """Results as cells, always as many: each translation, its score and alignment, or what scoring one says."""

    def __init__(self, results: Results) -> None:
        kinds = ["translation", *(["score"] if results.scores else []), *(["alignment"] if results.alignments else [])]
        ranks = [f"_{rank}" for rank in range(1, results.n_best + 1)] if results.n_best > 1 else [""]
        self.names = [f"{kind}{rank}" for rank in ranks for kind in kinds]
        if results.scoring:
            self.names = list(_SCORING)
        self._results = results

    def cells(self, results: Sequence[Result]) -> list[str]:
        cells = [cell for result in results for cell in self._cells(result)]
        return cells + [""] * (len(self.names) - len(cells))

    def _cells(self, result: Result) -> list[str]:
        if isinstance(result, Translation):
            text = result.text.replace("\t", " ") if len(self.names) > 1 else result.text
            score = [f"{result.score:.6f}"] if self._results.scores else []
            return [text, *score, *([result.alignment] if self._results.alignments else [])]
        logps = " ".join(f"{logp:.6f}" for logp in result.log_probabilities)
        pieces = " ".join(result.pieces).replace("\t", " ")
        return [f"{result.log_probability:.6f}", f"{result.score:.6f}", pieces, logps]


class PlainText:
    """A line is text; its output the translation alone, or columns with tabs between them."""

    has_header = False

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def header(self, line: str) -> str:
        return line

    def text(self, line: str) -> str:
        return line

    def render(self, line: str, results: Sequence[Result]) -> str:
        return "\t".join(self._columns.cells(results))


class Table:
    """Unquoted columns with tabs between them; those of the output stand behind those of the input."""

    def __init__(self, columns: Columns, field: str) -> None:
        if field == "0":
            raise UsageError("--field 0: columns are counted from 1")
        self.has_header = not field.isdecimal()
        self._columns, self._field = columns, field
        self._index = -1 if self.has_header else int(field) - 1

    def header(self, line: str) -> str:
        names = line.split("\t")
        if self._field not in names:
            raise UsageError(f"--field {self._field}: the columns are {', '.join(names)}; name one, or give its number")
        self._index = names.index(self._field)
        return "\t".join([*names, *self._columns.names])

    def text(self, line: str) -> str:
        cells = line.split("\t")
        if line and len(cells) <= self._index:
            raise ValueError(f"has {counted(len(cells), 'column')}, so no column {self._index + 1}")
        return cells[self._index] if line else ""

    def render(self, line: str, results: Sequence[Result]) -> str:
        cells = [cell.replace("\t", " ") for cell in self._columns.cells(results)]
        return "\t".join([line, *cells])


class JsonLines:
    """A line is an object, which keeps its keys and gains: translation, and as asked score, alignment and n_best.

    A result whose key the object has already is written as mt_translation, mt_score and so on.
    """

    has_header = False

    def __init__(self, fields: Sequence[str], results: Results) -> None:
        self._fields, self._results = fields, results
        kinds = {"score": results.scores, "alignment": results.alignments, "n_best": results.n_best > 1}
        self._names = (
            _SCORING if results.scoring else ("translation", *(kind for kind, asked in kinds.items() if asked))
        )

    def header(self, line: str) -> str:
        return line

    def text(self, line: str) -> str:
        record = _object(line)
        texts = [text for text in (_value(record, field) for field in self._fields) if isinstance(text, str)]
        if not texts and line.strip():
            raise ValueError(f"has no text under {' or '.join(self._fields)}; name its key with --field")
        if taken := [name for name in self._names if name in record and f"mt_{name}" in record]:
            raise ValueError(f"has the keys {taken[0]} and mt_{taken[0]} already; rename one of them")
        return texts[0].replace("\n", " ") if texts else ""

    def render(self, line: str, results: Sequence[Result]) -> str:
        if not line.strip():
            return ""
        record = _object(line)
        new = {f"mt_{key}" if key in record else key: value for key, value in self._keys(results).items()}
        return json.dumps({**record, **new}, ensure_ascii=False)

    def _keys(self, results: Sequence[Result]) -> dict[str, Any]:
        best = results[0]
        if isinstance(best, PieceScores):
            return {
                "log_probability": round(best.log_probability, 6),
                "score": round(best.score, 6),
                "pieces": best.pieces,
                "piece_log_probabilities": [round(logp, 6) for logp in best.log_probabilities],
            }
        keys: dict[str, Any] = {"translation": best.text}
        if self._results.scores:
            keys["score"] = round(best.score, 6)
        if self._results.alignments:
            keys["alignment"] = best.alignment
        if self._results.n_best > 1:
            found = [result for result in results if isinstance(result, Translation)]
            keys["n_best"] = [{"translation": one.text, "score": round(one.score, 6)} for one in found]
        return keys


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
