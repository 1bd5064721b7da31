"""`mt report`: the page of one run, or one page that compares several, with tests of whether their outputs differ."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mt.config_changes import differing
from mt.errors import UsageError
from mt.evaluate.bleu import missing_tokenizer, sentence_chrf
from mt.evaluate.evaluation import OUTPUTS
from mt.evaluate.report import read_run, settings_of, write_report
from mt.evaluate.significance import Comparison, compare
from mt.files import check_target, read_json, write_whole
from mt.pages.compare_page import Contest, Sample, SharedTest, Tested, compare_page
from mt.pages.report_page import report_page
from mt.pages.run_record import RunRecord

MOST = 8  # runs that a page can tell apart by colour
_SHOWN = 8  # sentences of a test set
_ELSEWHERE = ("train.dir", "data.dir")  # where runs and data lie is no difference between them
_OURS = "\u00b7 mt report</title>"

Outputs = dict[str, Any]  # what `mt evaluate` keeps of a run on a test set


def write_page(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of a run into it, or that of several runs into compare.html here; or either into `output`.

    Raises UsageError for too many runs, or where `output` is another's file; DataError when a folder is no run.
    """
    if len(folders) == 1 and output is None:
        return write_report(folders[0])
    if len(folders) > MOST:
        raise UsageError(f"{len(folders)} runs: one page compares at most {MOST}; name fewer")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice; name each once")
    path = output or Path("compare.html")
    check_target(path)
    if path.is_file() and not _is_ours(path):
        raise UsageError(f"{path}: is there, and is no page of mt report; name another file with -o")
    runs = _named(folders)
    write_whole(path, report_page(runs[0]) if len(runs) == 1 else compare_page(_contest(folders, runs)))
    return path


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _OURS in file.read(10_000)
    except OSError:
        return False


def _named(folders: Sequence[Path]) -> list[RunRecord]:
    """The runs, by the names of their folders; by the paths given where two folders have one name."""
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    is_clear = len(set(names)) == len(names)
    return [run if is_clear else replace(run, name=str(folder)) for run, folder in zip(runs, folders, strict=True)]


def _contest(folders: Sequence[Path], runs: Sequence[RunRecord]) -> Contest:
    configs = [settings_of(folder)[0] for folder in folders]
    known = [index for index, config in enumerate(configs) if config is not None]
    found = differing([config for config in configs if config is not None]) if known else {}
    settings = {
        key: [values[known.index(index)] if index in known else "?" for index in range(len(runs))]
        for key, values in found.items()
        if key not in _ELSEWHERE
    }
    return Contest(runs, settings, _shared_tests(folders))


# --- Outputs of the same test set ----------------------------------------------------------------------------------


def _shared_tests(folders: Sequence[Path]) -> list[SharedTest]:
    """The test sets of which at least two runs keep their outputs; files of one name have one text."""
    kept: dict[str, dict[int, Outputs]] = {}
    for index, folder in enumerate(folders):
        for path in sorted((folder / OUTPUTS).glob("*.json")):
            if _is_whole(found := read_json(path)):
                kept.setdefault(path.name, {})[index] = found
    return [_shared_test(by_run) for by_run in kept.values() if len(by_run) > 1]


def _is_whole(found: Any) -> bool:
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("testset", "language")):
        return False
    references = found.get("references")
    columns = [found.get("sources"), found.get("outputs"), *(references if isinstance(references, list) else [None])]
    are_lists = len(columns) > 2 and all(isinstance(lines, list) and len(lines) == len(columns[0]) for lines in columns)
    return are_lists and all(isinstance(line, str) for lines in columns for line in lines)


def _shared_test(by_run: dict[int, Outputs]) -> SharedTest:
    first = next(iter(by_run.values()))
    sources, references = first["sources"], first["references"]
    outputs = {index: found["outputs"] for index, found in by_run.items()}
    by_name = {str(index): lines for index, lines in outputs.items()}
    missing = missing_tokenizer(first["language"])
    comparisons = [] if missing else compare(by_name, *references, lang=first["language"])
    chrf = [sentence_chrf(lines, *references) for lines in outputs.values()]
    spread = [max(values) - min(values) for values in zip(*chrf, strict=True)]
    most = sorted((row for row in range(len(sources)) if spread[row]), key=lambda row: -spread[row])[:_SHOWN]
    return SharedTest(
        title=first["testset"],
        systems=[str(found.get("system", "")) for found in by_run.values()],
        metrics={one.metric: _tested(one) for one in comparisons},
        signatures=[f"{one.metric}: {one.bootstrap_signature}; {one.randomization_signature}" for one in comparisons],
        problem=missing,
        samples=[
            Sample(
                f"line {row + 1:,}", sources[row], references[0][row], {i: lines[row] for i, lines in outputs.items()}
            )
            for row in most
        ],
    )


def _tested(comparison: Comparison) -> list[Tested]:
    return [
        Tested(int(one.system), one.value, one.mean, one.half_width, one.p_bootstrap, one.p_randomization)
        for one in comparison.systems
    ]
