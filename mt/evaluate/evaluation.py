"""`mt evaluate`: find the test set, translate it or read the translations, score them, compare them, say it all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.console import Console, counted
from mt.errors import DataError, UsageError, WriteError
from mt.evaluate.analysis import Analysis, analyse
from mt.evaluate.bleu import Score, check_lengths, exact_matches, multi30k_bleu, paper_bleu, scores
from mt.evaluate.request import Request
from mt.evaluate.significance import Comparison, Difference, compare, largest_differences
from mt.evaluate.tables import analysis_table, comparison_table, difference_table, score_dicts, score_table
from mt.evaluate.testsets import PAIR, TestSet, load_testset, read_testset
from mt.files import read_lines, write_whole

if TYPE_CHECKING:
    from mt.evaluate.models import Candidate  # brings torch, which scoring a file does not need

_RESAMPLES = 1_000  # of the bootstrap


@dataclass(frozen=True)
class System:
    """Translations of the test set and who made them; `run` is the run directory that was asked about, if one was."""

    name: str
    translations: list[str]
    run: Path | None = None


@dataclass(frozen=True)
class Result:
    """What is said about one system."""

    system: str
    scores: list[Score]
    exact: float  # share of lines equal to a reference, 0 to 1
    analysis: Analysis | None


@dataclass(frozen=True)
class Contrast:
    """The sentences in which a system differs most from the first one."""

    system: str
    gains: list[Difference]
    losses: list[Difference]


@dataclass(frozen=True)
class Evaluation:
    """All that is said about systems on one test set; comparisons and contrasts are to the first system."""

    testset: str
    sentences: int
    references: int
    results: list[Result]
    comparisons: list[Comparison]
    contrasts: list[Contrast]

    def shown(self, as_json: bool) -> str:
        """Tables for people, or one JSON object for programs."""
        if as_json:
            return json.dumps(asdict(self), ensure_ascii=False, indent=1)
        parts = [f"{self.testset}{f', {self.references} references' if self.references > 1 else ''}"]
        parts += [_result_text(result, self.sentences) for result in self.results]
        if self.comparisons:
            parts.append(comparison_table(self.comparisons))
        first = self.results[0].system
        parts += [difference_table(one.gains, one.losses, first, one.system) for one in self.contrasts]
        return "\n\n".join(parts)


def _result_text(result: Result, sentences: int) -> str:
    exact = f"exactly right: {result.exact:.1%} of {counted(sentences, 'line')}"
    analysis = f"\n\n{analysis_table(result.analysis)}" if result.analysis is not None else ""
    return f"{result.system}\n{score_table(result.scores)}\n{exact}{analysis}"


def evaluate(request: Request, console: Console) -> Evaluation:
    """Score every system that was asked for, and compare them when there are several.

    The scores of a run go into its scores.json as well.
    Raises UsageError, DataError or CheckpointError when something asked for is not there or does not fit.
    """
    models = _find_models(request)
    testset = find_testset(request, models)
    _scores(["x"], (["x"],), request, testset.target)  # a missing package is said before a model translates
    systems = _systems(request, models, testset, console)
    results = [_result(system, testset, request) for system in systems]
    for system, result in zip(systems, results, strict=True):
        if system.run is not None:
            found = score_dicts(result.scores, testset.title, system.name)
            add_records(system.run / "scores.json", found, ("testset", "system", "name"), console)
    translations = {system.name: system.translations for system in systems}
    return Evaluation(
        testset=testset.title,
        sentences=len(testset.references[0]),
        references=len(testset.references),
        results=results,
        comparisons=compare(translations, *testset.references, lang=testset.target) if len(systems) > 1 else [],
        contrasts=[_contrast(systems[0], system, testset) for system in systems[1:]],
    )


# --- The test set and the systems ----------------------------------------------------------------------------------


def _find_models(request: Request) -> "list[Candidate]":
    if not request.ckpt:
        return []
    from mt.evaluate.models import find_model

    return [find_model(path, request.decode, request.average) for path in request.ckpt]


def find_testset(request: Request, models: "Sequence[Candidate]") -> TestSet:
    """The test set asked for, else the first model's own.

    Raises UsageError when the languages of the request and of the models differ.
    """
    pair = _languages(request, models)
    if request.testset is not None:
        src, tgt = (pair or PAIR).split("-")
        return load_testset(request.testset, src, tgt, request.data)
    if request.ref:
        return read_testset(request.src, request.ref, pair)
    from mt.evaluate.models import own_testset

    return own_testset(models[0])


def _languages(request: Request, models: "Sequence[Candidate]") -> str:
    pair = request.langs or ""
    for model in models:
        its = f"{model.config.data.src}-{model.config.data.tgt}"
        if pair not in ("", its):
            raise UsageError(f"{model.path} translates {its}, not {pair}")
        pair = its
    return pair


def _systems(request: Request, models: "Sequence[Candidate]", testset: TestSet, console: Console) -> list[System]:
    """Files first, as they were named, then models; every one has a line for each reference."""
    systems = [System(str(path), read_lines(path)) for path in request.hyp]
    for system in systems:  # before any model translates for minutes
        _check(system, testset)
    if models:
        from mt.evaluate.models import translate

        for model in models:
            run = model.path if model.path == model.run else None
            systems.append(System(model.name, translate(model, testset.sources, request.device, console), run))
    if request.output is not None:
        write_whole(request.output, "".join(f"{line}\n" for line in systems[0].translations))
    return systems


def _check(system: System, testset: TestSet) -> None:
    try:
        check_lengths(system.translations, *testset.references)
    except DataError as error:
        raise DataError(f"{system.name}: {error}") from None


# --- What is said about them ---------------------------------------------------------------------------------------


def _result(system: System, testset: TestSet, request: Request) -> Result:
    hypotheses, references, sources, lang = system.translations, testset.references, testset.sources, testset.target
    found = _scores(hypotheses, references, request, lang)
    analysis = analyse(hypotheses, *references, sources=sources, lang=lang) if request.analysis else None
    return Result(system.name, found, exact_matches(hypotheses, *references), analysis)


def _scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]], request: Request, lang: str) -> list[Score]:
    found = scores(hypotheses, *references, confidence=_RESAMPLES, lang=lang)
    if request.paper_bleu:
        found.append(paper_bleu(hypotheses, *references, lang=lang))
    if request.multi30k_bleu:
        found.append(multi30k_bleu(hypotheses, *references, lang=lang))
    return found


def _contrast(first: System, system: System, testset: TestSet) -> Contrast:
    texts = first.translations, system.translations, *testset.references
    return Contrast(system.name, *largest_differences(*texts, sources=testset.sources))


# --- What a run directory keeps of them: lists of objects, which `mt report` reads -----------------------------------


def add_records(path: Path, new: Sequence[dict[str, Any]], identity: Sequence[str], console: Console) -> None:
    """Add records to those in a file, in place of earlier ones that agree with a new one in the keys of `identity`.

    Warns when that cannot be done: a result that took long to get must not be lost over its record.
    """
    names = {_name(record, identity) for record in new}
    try:
        kept = [record for record in _records(path) if _name(record, identity) not in names]
        write_whole(path, json.dumps([*kept, *new], ensure_ascii=False, indent=1) + "\n")
    except (DataError, WriteError) as error:
        console.warn(f"{error}; mt report will not show this result")


def _name(record: dict[str, Any], identity: Sequence[str]) -> tuple[Any, ...]:
    return tuple(record.get(key) for key in identity)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise DataError(f"{path}: not a list of records")
    return found
