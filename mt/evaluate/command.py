"""`mt evaluate`: find the test set, translate it or read the translations, score them, and say it all."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mt.checkpoint import find_checkpoint, load_checkpoint
from mt.console import Console
from mt.data.prepare import open_prepared
from mt.errors import DataError, UsageError
from mt.evaluate.bleu import Score, check_lengths, exact_matches, scores
from mt.evaluate.testsets import TestSet, load_testset, read_lines


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    ckpt: Path | None
    src: Path | None
    ref: Path | None
    testset: str | None
    data: Path | None
    hyp: Path | None
    output_file: Path | None
    beam: int | None
    alpha: float | None
    average: int | None
    device: str


@dataclass(frozen=True)
class Evaluation:
    """What was scored, and the scores."""

    testset: str
    system: str
    sentences: int
    scores: list[Score]
    exact: float  # share of lines equal to the reference, 0 to 1


def evaluate(request: Request, console: Console) -> Evaluation:
    """Score a model on a test set, or a file of translations against references.

    Raises UsageError when the request does not say what to score, DataError when line counts differ.
    """
    if (request.ckpt is None) == (request.hyp is None):
        raise UsageError("give either --ckpt, a model to score, or --hyp, a file of translations")
    if request.testset is not None and (request.src or request.ref):
        raise UsageError("give either --testset or --src and --ref")
    testset = _find_testset(request)
    if testset.sources:
        check_lengths(testset.sources, *testset.references)
    if request.hyp is not None:
        system, hypotheses = str(request.hyp), read_lines(request.hyp)
    else:
        system, hypotheses = _translate(request, testset, console)
    if request.output_file is not None:
        _write_lines(request.output_file, hypotheses)
    found = scores(hypotheses, *testset.references, confidence=1000)
    exact = exact_matches(hypotheses, testset.references[0])
    return Evaluation(testset.title, system, len(hypotheses), found, exact)


def _find_testset(request: Request) -> TestSet:
    src, tgt = _languages(request)
    if request.testset is not None:
        return load_testset(request.testset, src, tgt, request.data)
    if request.ref is not None:
        if request.hyp is None and request.src is None:
            raise UsageError("--ref needs --src beside it: the sentences to translate")
        sources = read_lines(request.src) if request.src is not None else []
        return TestSet(request.ref.name, f"{src}-{tgt}", str(request.ref), sources, (read_lines(request.ref),))
    if request.src is not None or request.ckpt is None:
        raise UsageError("--ref is missing: the translations to score against")
    return _own_testset(request.ckpt)


def _languages(request: Request) -> tuple[str, str]:
    if request.ckpt is None:
        return "en", "de"
    data = load_checkpoint(find_checkpoint(request.ckpt)).config.data
    return data.src, data.tgt


def _own_testset(ckpt: Path) -> TestSet:
    """The test set of the run's own config."""
    data = load_checkpoint(find_checkpoint(ckpt)).config.data
    sources, references = open_prepared(data.dir).text("test")
    if not sources:
        raise DataError(f"{data.dir}: the config names no data.test; give --src and --ref, or --testset")
    return TestSet("test", f"{data.src}-{data.tgt}", str(data.dir / "test"), sources, (references,))


def _translate(request: Request, testset: TestSet, console: Console) -> tuple[str, list[str]]:
    from mt.translate.job import open_translator

    assert request.ckpt is not None
    translator = open_translator(request.ckpt, request.device, request.beam, request.alpha, request.average, console)
    with console.track("translating", total=len(testset.sources)) as advance:
        hypotheses = translator(testset.sources, advance)
    decode = translator.decode
    how = f"beam {decode.beam}, alpha {decode.alpha:g}" if decode.beam > 1 else "greedy"
    averaged = f", average of {request.average}" if request.average else ""
    return f"{request.ckpt} ({how}{averaged})", hypotheses


def _write_lines(path: Path, lines: list[str]) -> None:
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def render(evaluation: Evaluation, as_json: bool) -> str:
    """The evaluation as a table for people or as one JSON object for programs."""
    if as_json:
        return json.dumps(_plain(evaluation), ensure_ascii=False, indent=1)
    width = max(len(score.name) for score in evaluation.scores)
    lines = [f"{evaluation.system} on {evaluation.testset}"]
    for score in evaluation.scores:
        interval = f" ± {score.half_width:.2f}" if score.half_width is not None else ""
        lines.append(f"{score.name:<{width}}  {score.value:6.2f}{interval}  {score.signature}")
    lines.append(f"{'exactly right':<{width}}  {evaluation.exact:6.1%} of {evaluation.sentences:,} lines")
    return "\n".join(lines)


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    return asdict(evaluation)
