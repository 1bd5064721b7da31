"""Lines that are translated together: what is to be translated, what is found, and the lines of output."""

from collections.abc import Callable, Sequence

from mt.data.lines import refuse_giant
from mt.errors import DataError
from mt.translate.alignment import only_model, with_alignments
from mt.translate.formats import LineFormat, Result
from mt.translate.plan import Job
from mt.translate.translator import Translator


def check_model(translator: Translator, job: Job) -> str:
    """A warning about what the model and the job lack of each other, if anything.

    Raises UsageError where the model cannot give what is asked, DataError for a tag that it does not know.
    """
    if job.alignments or job.attention is not None:
        only_model(translator)
    if job.tag is not None:
        translator.tokenizers.source.tag_id(job.tag)
    elif translator.needs_tag:
        return "all training text of this model has a tag before its sources; give --tag to put one before lines"
    return ""


def texts_of(form: LineFormat, lines: Sequence[str], name: str, first: int) -> list[str]:
    """What is to be translated of lines, the first of which has that number.

    Raises DataError naming the file and the line that has no text, or too long a one.
    """
    return [_text(form, line, f"{name}:{number}") for number, line in enumerate(lines, first)]


def _text(form: LineFormat, line: str, where: str) -> str:
    refuse_giant(line, where)
    try:
        return form.text(line)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def results_of(
    translator: Translator,
    job: Job,
    texts: Sequence[str],
    first: int,
    beside: Sequence[str] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> Sequence[Sequence[Result]]:
    """What the job asks of each text: translations, best first, or the scores of a given one.

    beside: for each text what its translation has to start with, or the translation to score; none for neither.
    """
    if job.score_ref is not None:
        return [[found] for found in translator.score(texts, beside, advance, first, job.tag)]
    scored = job.scores or job.n_best > 1
    found = translator.n_best(texts, job.n_best, first, beside, advance, scored, job.tag)
    return with_alignments(translator, list(texts), found, job.tag) if job.alignments else found


def notes_of(results: Sequence[Sequence[Result]], name: str, first: int) -> list[str]:
    """Where something was done to a line that a person should know, each with file and line."""
    noted = [(number, getattr(found[0], "note", "")) for number, found in enumerate(results, first)]
    return [f"{name}:{number}: {note}" for number, note in noted if note]


def rendered(form: LineFormat, lines: Sequence[str], results: Sequence[Sequence[Result]]) -> str:
    """The lines of output."""
    return "".join(f"{form.render(line, found)}\n" for line, found in zip(lines, results, strict=True))
