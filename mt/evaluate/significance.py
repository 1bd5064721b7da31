"""Whether one system is better than another or only luckier: paired tests, and the sentences that differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sacrebleu import CHRF
from sacrebleu.significance import PairedTest, Result

from mt.evaluate.bleu import bleu_metric, sentence_chrf


@dataclass(frozen=True)
class SystemResult:
    """One system's score under one metric; the p-values are None for the baseline."""

    system: str
    value: float
    mean: float  # of the bootstrap resamples
    half_width: float  # of their 95% interval
    p_bootstrap: float | None
    p_randomization: float | None


@dataclass(frozen=True)
class Comparison:
    """Systems under one metric, the baseline first."""

    metric: str
    systems: tuple[SystemResult, ...]
    bootstrap_signature: str
    randomization_signature: str


@dataclass(frozen=True)
class Difference:
    """One sentence translated by two systems, with chrF2 of each; lines count from 1."""

    line: int
    source: str | None
    reference: str
    baseline: str
    system: str
    baseline_chrf: float
    system_chrf: float


def compare(
    systems: Mapping[str, Sequence[str]],
    *references: Sequence[str],
    lang: str = "",
    resamples: int = 1_000,
    trials: int = 10_000,
) -> list[Comparison]:
    """Test every system against the first by paired bootstrap and by approximate randomisation, in BLEU and chrF2.

    A p-value is the probability of a difference this large if the two systems were equally good.
    TER is left out: its alignment takes minutes.
    Source: Koehn (2004) and Riezler and Maxwell (2005), as computed by sacreBLEU with its seed.
    """
    bootstrap_signatures, bootstrap = _paired_test("bs", systems, references, lang, resamples)
    randomization_signatures, randomization = _paired_test("ar", systems, references, lang, trials)
    equal = [list(hypotheses) == list(next(iter(systems.values()))) for hypotheses in systems.values()]
    return [
        Comparison(
            metric=metric,
            systems=tuple(map(_system_result, systems, bootstrap[metric], randomization[metric], equal)),
            bootstrap_signature=bootstrap_signatures[metric],
            randomization_signature=randomization_signatures[metric],
        )
        for metric in bootstrap
    ]


def largest_differences(
    baseline: Sequence[str],
    system: Sequence[str],
    *references: Sequence[str],
    sources: Sequence[str] = (),
    count: int = 5,
) -> tuple[list[Difference], list[Difference]]:
    """The sentences whose chrF2 the system raised most, and those it lowered most, largest first."""
    before, after = sentence_chrf(baseline, *references), sentence_chrf(system, *references)
    differences = [
        Difference(
            line=row + 1,
            source=sources[row] if sources else None,
            reference=references[0][row],
            baseline=baseline[row],
            system=system[row],
            baseline_chrf=before[row],
            system_chrf=after[row],
        )
        for row in range(len(system))
    ]
    by_gain = sorted(differences, key=lambda difference: difference.baseline_chrf - difference.system_chrf)
    gains = [one for one in by_gain[:count] if one.system_chrf > one.baseline_chrf]
    losses = [one for one in by_gain[::-1][:count] if one.system_chrf < one.baseline_chrf]
    return gains, losses


def _paired_test(
    kind: str, systems: Mapping[str, Sequence[str]], references: Sequence[Sequence[str]], lang: str, samples: int
) -> tuple[dict[str, str], dict[str, list[Result]]]:
    metrics = {"BLEU": bleu_metric(lang), "chrF2": CHRF()}
    test = PairedTest(list(systems.items()), metrics, references, test_type=kind, n_samples=samples)
    signatures, columns = test()
    results = {name: [one for one in columns[name] if isinstance(one, Result)] for name in metrics}
    return {name: signature.format() for name, signature in signatures.items()}, results


def _system_result(system: str, bootstrap: Result, randomization: Result, equal: bool) -> SystemResult:
    return SystemResult(
        system=system,
        value=float(bootstrap.score),
        mean=float(bootstrap.mean or 0),  # sacreBLEU's results carry numpy floats, which json refuses
        half_width=float(bootstrap.ci or 0),
        p_bootstrap=_p_value(bootstrap, equal),
        p_randomization=_p_value(randomization, equal),
    )


def _p_value(result: Result, equal: bool) -> float | None:
    """None for the baseline; 1 for equal systems, where sacreBLEU, which counts larger differences, says about 0."""
    if result.p_value is None:
        return None
    return 1.0 if equal else float(result.p_value)
