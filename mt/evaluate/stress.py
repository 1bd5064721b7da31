"""`mt evaluate --stress`: test sets as they are and with each kind of noise in their sources, and what that costs."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from mt.console import Console
from mt.evaluate.bleu import Score, scores
from mt.evaluate.evaluation import find_models, find_testset, languages, tagged
from mt.evaluate.models import own_testsets, translate
from mt.evaluate.request import Request
from mt.evaluate.tables import stress_table
from mt.noise import KINDS, noisy
from mt.patterns import SlowPatternError, find_all

CLEAN = "as it is"
SEED = 1  # of the noise: the same for every model


@dataclass(frozen=True)
class Stressed:
    """The scores of a model on a test set with one kind of noise."""

    system: str
    testset: str
    noise: str
    changed: int  # lines
    scores: list[Score]


@dataclass(frozen=True)
class StressTest:
    """All results, each clean one before those with noise."""

    results: list[Stressed]

    def shown(self, as_json: bool) -> str:
        """A table for each model and test set, or one JSON object."""
        if as_json:
            return json.dumps(asdict(self), ensure_ascii=False, indent=1)
        groups: dict[tuple[str, str], list[Stressed]] = {}
        for one in self.results:
            groups.setdefault((one.testset, one.system), []).append(one)
        tables = [
            f"{testset}\n{system}\n" + stress_table([(one.noise, one.changed, one.scores) for one in group])
            for (testset, system), group in groups.items()
        ]
        return "\n\n".join(tables)


def stress_test(request: Request, console: Console) -> StressTest:
    """Score every model on the requested test set, else on all those of the last run, clean and with noise.

    Raises UsageError, DataError or CheckpointError as `evaluate` does.
    """
    models = find_models(request)
    languages(request, models)
    if request.testset is None and not request.ref:
        testsets = [tagged(testset, request) for testset in own_testsets(models[-1])]
    else:
        testsets = [find_testset(request, models)]
    results = []
    for testset in testsets:
        patterns = models[0].config.data.protect
        sources = {CLEAN: testset.sources} | {kind: with_noise(testset.sources, kind, patterns) for kind in KINDS}
        for model in models:
            for kind, lines in sources.items():
                console.say(f"{testset.name}: {kind}")
                translations = translate(model, replace(testset, sources=lines), request.device, console)
                found = scores(translations, *testset.references, lang=testset.target)
                changed = sum(line != before for line, before in zip(lines, testset.sources, strict=True))
                results.append(Stressed(model.name, testset.title, kind, changed, found))
    return StressTest(results)


def with_noise(lines: Sequence[str], kind: str, patterns: Sequence[str] = ()) -> list[str]:
    """Each line with its own draw of one kind of noise; what `data.protect` names stays as it is."""
    draws = (random.Random(f"{SEED} {kind} {number}").random for number in range(len(lines)))
    return ["".join(noisy(_parts(line, patterns), kind, draw)) for line, draw in zip(lines, draws, strict=True)]


def _parts(line: str, patterns: Sequence[str]) -> list[str]:
    """Text, protected text, text, and so on."""
    try:
        spans = find_all(patterns, line)
    except SlowPatternError:  # such a line is translated without protection
        spans = []
    borders = [0, *(border for span in spans for border in span), len(line)]
    return [line[start:end] for start, end in pairwise(borders)]
