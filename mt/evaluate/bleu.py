"""Scores of translations against references: sacreBLEU's numbers, each with the signature that lets others repeat it.

References are given one list after another, each as long as the hypotheses: `scores(hypotheses, first, second)`.
`lang` is the language of the translations, such as de, where that matters to a metric.
"""

import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from importlib.metadata import version

from sacrebleu import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from mt.errors import DataError, UsageError


@dataclass(frozen=True)
class Score:
    """One metric over one test set; `mean` and `half_width` describe the bootstrap's 95% interval."""

    name: str
    value: float
    signature: str
    detail: str = ""  # of BLEU: n-gram precisions, brevity penalty, lengths in tokens
    mean: float | None = None
    half_width: float | None = None


def bleu(hypotheses: Sequence[str], *references: Sequence[str], lang: str = "") -> Score:
    """Corpus BLEU, cased, of detokenised text.

    Raises DataError when hypotheses and references differ in number.
    Source: Papineni et al. (2002) as computed by sacreBLEU (Post, 2018).
    """
    return _score("BLEU", bleu_metric(lang), hypotheses, references)


def scores(hypotheses: Sequence[str], *references: Sequence[str], confidence: int = 0, lang: str = "") -> list[Score]:
    """BLEU cased and lower-cased, chrF2 and TER, equal to what the sacrebleu command prints.

    `confidence` is the number of bootstrap resamples (1,000 is usual; 0 for none), drawn with sacreBLEU's seed.
    Raises DataError when hypotheses and references differ in number.
    """
    metrics = {
        "BLEU": bleu_metric(lang),
        "BLEU lower-cased": bleu_metric(lang, lowercase=True),
        "chrF2": CHRF(),
        "TER": TER(),
    }
    return [_score(name, metric, hypotheses, references, confidence) for name, metric in metrics.items()]


def paper_bleu(hypotheses: Sequence[str], *references: Sequence[str], lang: str) -> Score:
    """The tokenised, compound-split BLEU that "Attention Is All You Need" reports (table 2).

    About 0.7 to 1.0 above sacreBLEU on English-German, so it compares only with scores computed in this way.
    Raises UsageError when sacremoses is missing.
    Source: tensor2tensor's get_ende_bleu.sh.
    """
    _, tokenize = _moses(lang)
    return _tokenized_score(
        "paper BLEU (not comparable)",
        f"moses-{lang}-atat",
        lambda text: _split_compounds(tokenize(text)),
        hypotheses,
        references,
    )


def multi30k_bleu(hypotheses: Sequence[str], *references: Sequence[str], lang: str) -> Score:
    """The lower-cased, tokenised BLEU common in papers on Multi30k.

    It compares only with scores computed in this way. Raises UsageError when sacremoses is missing.
    Source: the data set's own preparation: lower-case, normalise punctuation, tokenise.
    """
    normalize, tokenize = _moses(lang)
    return _tokenized_score(
        "Multi30k BLEU (not comparable)",
        f"lc-norm-moses-{lang}",
        lambda text: tokenize(normalize(text.lower())),
        hypotheses,
        references,
    )


def exact_matches(hypotheses: Sequence[str], *references: Sequence[str]) -> float:
    """The share of lines, 0 to 1, that `is_exact`."""
    check_lengths(hypotheses, *references)
    hits = [is_exact(hypothesis, given) for hypothesis, *given in zip(hypotheses, *references, strict=True)]
    return sum(hits) / len(hits)


def is_exact(hypothesis: str, references: Sequence[str]) -> bool:
    """Whether a line equals one of its references but for outer white space."""
    return hypothesis.strip() in [reference.strip() for reference in references]


def sentence_chrf(hypotheses: Sequence[str], *references: Sequence[str]) -> list[float]:
    """chrF2 of each sentence alone, for looking at single sentences: 0 to 100."""
    metric = CHRF()
    return [
        float(metric.sentence_score(text, given).score) for text, *given in zip(hypotheses, *references, strict=True)
    ]


def check_lengths(hypotheses: Sequence[str], *references: Sequence[str]) -> None:
    """Raise DataError unless every reference list has a line for each hypothesis, and there is one at all."""
    if not hypotheses:
        raise DataError("there are no hypotheses to score")
    if not references:
        raise DataError("there are no references to score against")
    for number, reference in enumerate(references, 1):
        if len(reference) != len(hypotheses):
            which = f" in list {number}" if len(references) > 1 else ""
            raise DataError(
                f"{len(hypotheses):,} hypotheses but {len(reference):,} references{which}: "
                "they must match line for line"
            )


def missing_tokenizer(lang: str) -> str:
    """The sentence that names the packages BLEU of a language lacks; empty when none is missing."""
    try:
        bleu_metric(lang)
    except UsageError as error:
        return str(error)
    return ""


def character_bleu(hypotheses: Sequence[str], *references: Sequence[str]) -> Score:
    """BLEU by characters, for languages without spaces whose tokenizer is not installed."""
    return _score("BLEU by characters", BLEU(tokenize="char", force=True), hypotheses, references)


def bleu_metric(lang: str, lowercase: bool = False) -> BLEU:
    """BLEU with the tokenizer that sacreBLEU has for a language: 13a, but for Chinese, Japanese and Korean.

    Raises UsageError when that tokenizer needs a package that is not installed.
    """
    try:
        return BLEU(trg_lang=lang, lowercase=lowercase, force=True)  # force: no warning about tokenised text
    except (ImportError, RuntimeError):
        raise UsageError(f'BLEU of {lang} needs more packages: pip install "sacrebleu[{lang}]"') from None


def _score(
    name: str,
    metric: Metric,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    confidence: int = 0,
) -> Score:
    check_lengths(hypotheses, *references)
    plain = copy(metric)  # resampling changes the signature
    try:
        result = metric.corpus_score(hypotheses, references, n_bootstrap=max(confidence, 1))
    except TypeError:  # sacreBLEU's chrF fails on a resample without any text, as of a few lines, some of them empty
        return _score(name, plain, hypotheses, references)
    resampled = confidence > 1
    return Score(
        name=name,
        value=float(result.score),
        signature=metric.get_signature().format(),
        detail=result._verbose,
        mean=float(result._mean) if resampled else None,
        half_width=float(result._ci) if resampled else None,
    )


# --- BLEU on text tokenised beforehand, as papers before sacreBLEU report it --------------------------------------


def _tokenized_score(
    name: str,
    tokenizer: str,
    tokenize: Callable[[str], str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
) -> Score:
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    score = _score(
        name,
        metric,
        list(map(tokenize, hypotheses)),
        [list(map(tokenize, reference)) for reference in references],
    )
    signature = metric.get_signature()
    signature.update("tok", tokenizer)
    signature.update("sacremoses", version("sacremoses"))
    return replace(score, signature=signature.format())


def _split_compounds(text: str) -> str:
    # The second hyphen of a-b-c stays, as in the original: matches do not overlap, and the first one took the b.
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", text)


def _moses(lang: str) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Functions that normalise punctuation and that tokenise."""
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise UsageError(
            "tokenised BLEU needs the package sacremoses, the extra named paper: pip install sacremoses"
        ) from None
    normalizer, tokenizer = MosesPunctNormalizer(lang), MosesTokenizer(lang)
    return normalizer.normalize, lambda text: str(tokenizer.tokenize(text, return_str=True))
