"""What a line of input holds and what its line of output says: text, a table with tabs, or JSON."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from mt.errors import UsageError
from mt.translate.translator import PieceScores, Translation

Result = Translation | PieceScores


class LineFormat(Protocol):
    """How a line is read, and written with its results."""

    has_header: bool

    def header(self, line: str) -> str:
        """Read the line that names the columns; gives the one for the output."""

    def text(self, line: str) -> str:
        """What is to be translated; raises ValueError saying what the line lacks."""

    def render(self, line: str, results: Sequence[Result]) -> str:
        """The line of output."""


def line_format(
    kind: str, field: str | None, n_best: int, scores: bool, alignments: bool = False, scoring: bool = False
) -> LineFormat:
    """The format of that name: text, tsv or jsonl.

    field: the column (a number from 1, or a name in the first line) or key that holds the text.
    scores, alignments: whether each translation's stands beside it.
    scoring: results are the scores of given translations.
    Raises UsageError for a field that cannot be.
    """
    columns = Columns(n_best, scores, alignments, scoring)
    if kind == "tsv":
        return Table(columns, field or "1")
    if kind == "jsonl":
        return JsonLines(field or "source", n_best, scores, alignments)
    if field is not None:
        raise UsageError(f"--field {field}: plain text has no fields; give --format tsv or jsonl where it has")
    return PlainText(columns)


class Columns:
    """Results as cells, always as many: each translation, its score and alignment, or what scoring one says."""

    def __init__(self, n_best: int, scores: bool, alignments: bool, scoring: bool) -> None:
        kinds = ["translation", *(["score"] if scores else []), *(["alignment"] if alignments else [])]
        ranks = [f"_{rank}" for rank in range(1, n_best + 1)] if n_best > 1 else [""]
        self.names = [f"{kind}{rank}" for rank in ranks for kind in kinds]
        if scoring:
            self.names = ["log_probability", "score", "pieces", "piece_log_probabilities"]
        self._scores, self._alignments = scores, alignments

    def cells(self, results: Sequence[Result]) -> list[str]:
        cells = [cell for result in results for cell in self._cells(result)]
        return cells + [""] * (len(self.names) - len(cells))

    def _cells(self, result: Result) -> list[str]:
        if isinstance(result, Translation):
            text = result.text.replace("\t", " ") if len(self.names) > 1 else result.text
            score = [f"{result.score:.6f}"] if self._scores else []
            return [text, *score, *([result.alignment] if self._alignments else [])]
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
            raise ValueError(f"has {len(cells)} columns, so no column {self._index + 1}")
        return cells[self._index] if line else ""

    def render(self, line: str, results: Sequence[Result]) -> str:
        cells = [cell.replace("\t", " ") for cell in self._columns.cells(results)]
        return "\t".join([line, *cells])


class JsonLines:
    """A line is an object, which gains keys: translation, and as asked score and n_best; its others stay."""

    has_header = False

    def __init__(self, field: str, n_best: int, scores: bool, alignments: bool) -> None:
        self._field, self._n_best, self._scores, self._alignments = field, n_best, scores, alignments

    def header(self, line: str) -> str:
        return line

    def text(self, line: str) -> str:
        found: Any = _object(line)
        for key in self._field.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if line.strip() and not isinstance(found, str):
            raise ValueError(f"has no text under {self._field}; name its key with --field")
        return found.replace("\n", " ") if found else ""

    def render(self, line: str, results: Sequence[Result]) -> str:
        record = json.dumps({**_object(line), **self._keys(results)}, ensure_ascii=False)
        return record if line.strip() else ""

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
        if self._scores:
            keys["score"] = round(best.score, 6)
        if self._alignments:
            keys["alignment"] = best.alignment
        if self._n_best > 1:
            found = [result for result in results if isinstance(result, Translation)]
            keys["n_best"] = [{"translation": one.text, "score": round(one.score, 6)} for one in found]
        return keys


def _object(line: str) -> dict[str, Any]:
    """The object on a line; none on a blank one."""
    try:
        record = json.loads(line.strip() or "{}")
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    return record
