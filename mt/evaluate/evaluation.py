"""`mt evaluate`: find the test set, translate it or read translations, score and compare them, show the results."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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

OUTPUTS = "outputs"  # the folder of a run that keeps its output lines, a file for each test set
_RESAMPLES = 1_000  # of the bootstrap


@dataclass(frozen=True)
class System:
    """Translations of the test set; `run` is the run directory they come from, where `--ckpt` names one."""

    name: str
    translations: list[str]
    run: Path | None = None


@dataclass(frozen=True)
class Result:
    """The results of one system."""

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
    """All results on one test set; comparisons and contrasts are with the first system."""

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
    """Score every system of a request, and compare them when there are several.

    The scores of a run are also written into its scores.json, and its output lines into its folder `outputs`.
    Raises UsageError, DataError or CheckpointError when something requested is missing or does not fit.
    """
    models = find_models(request)
    return evaluate_on(find_testset(request, models), request, models, console)


def evaluate_on(testset: TestSet, request: Request, models: "Sequence[Candidate]", console: Console) -> Evaluation:
    """Score the models and files of a request on one test set."""
    _scores(["x"], (["x"],), request, testset.target)  # names a missing package before a model translates for minutes
    systems = _systems(request, models, testset, console)
    results = [_result(system, testset, request) for system in systems]
    for system, result in zip(systems, results, strict=True):
        if system.run is not None:
            found = score_dicts(result.scores, testset.title, system.name)
            add_records(system.run / "scores.json", found, ("testset", "system", "name"), console)
            _keep_outputs(system.run / OUTPUTS, system, testset, console)
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


def find_models(request: Request) -> "list[Candidate]":
    if not request.ckpt:
        return []
    from mt.evaluate.models import find_model

    return [find_model(path, request.decode, request.average) for path in request.ckpt]


def find_testset(request: Request, models: "Sequence[Candidate]") -> TestSet:
    """The requested test set, else the first model's own; with the requested tag before its sources.

    Raises UsageError when the languages of the request and of the models differ, or the model has several of its own.
    """
    return tagged(_find_testset(request, models), request)


def tagged(testset: TestSet, request: Request) -> TestSet:
    """The test set with the requested tag before its sources."""
    return testset if request.tag is None else replace(testset, tags=(request.tag,) * len(testset.sources))


def _find_testset(request: Request, models: "Sequence[Candidate]") -> TestSet:
    pair = languages(request, models)
    if request.ref:
        return read_testset(request.src, request.ref, pair)
    if models and request.data is None and (own := _own_testset(request, models)) is not None:
        return own
    src, tgt = (pair or PAIR).split("-")
    return load_testset(request.testset or "", src, tgt, request.data)


def _own_testset(request: Request, models: "Sequence[Candidate]") -> TestSet | None:
    """The set that a run's config gives the requested name, the last run's first; without a request the first run's."""
    from mt.evaluate.models import own_folder, own_testset

    if request.testset is not None:
        found = [(model, folder) for model in models if (folder := own_folder(model, request.testset))]
        return own_testset(*found[-1]) if found else None
    if "test" not in models[0].config.data.splits:
        names = ", ".join(models[0].config.data.test)
        raise UsageError(f"{models[0].path}: its data.test has the sets {names}: name one (--testset), or --all-sets")
    return own_testset(models[0], "test")


def languages(request: Request, models: "Sequence[Candidate]") -> str:
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
        try:
            check_lengths(system.translations, *testset.references)
        except DataError as error:
            raise DataError(f"{system.name}: {error}") from None
    if models:
        from mt.evaluate.models import translate

        for model in models:
            run = model.path if model.path == model.run else None
            systems.append(System(model.name, translate(model, testset, request.device, console), run))
    if request.output is not None:
        write_whole(request.output, "".join(f"{line}\n" for line in systems[0].translations))
    return systems


# --- Results -------------------------------------------------------------------------------------------------------


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


# --- Records in a run directory, which `mt report` reads -------------------------------------------


def add_records(path: Path, new: Sequence[dict[str, Any]], identity: Sequence[str], console: Console) -> None:
    """Add records to those in a file, in place of earlier ones that agree with a new one in the keys of `identity`.

    Only warns when that fails: a result that took minutes must not be lost because its record cannot be written.
    """
    replaced = [[record.get(key) for key in identity] for record in new]
    try:
        kept = [record for record in _records(path) if [record.get(key) for key in identity] not in replaced]
        write_whole(path, json.dumps([*kept, *new], ensure_ascii=False, indent=1) + "\n")
    except (DataError, WriteError) as error:
        console.warn(f"{error}; mt report will not show this result")


def _keep_outputs(folder: Path, system: System, testset: TestSet, console: Console) -> None:
    """Keep what a run made of a test set, beside what it is judged by; the next time on the same text replaces it."""
    text = {"sources": testset.sources, "references": testset.references}
    key = hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]
    names = {"testset": testset.title, "system": system.name, "language": testset.target}
    record = {**names, **text, "outputs": system.translations}
    try:
        write_whole(folder / f"{key}.json", json.dumps(record, ensure_ascii=False, indent=0) + "\n")
    except WriteError as error:
        console.warn(f"{error}; mt report will not compare these outputs")


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise DataError(f"{path}: not a list of records")
    return found
