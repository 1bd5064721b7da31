"""Clauses: what goes with a verb, and the word orders that each language gives it."""

from typing import Literal, NamedTuple

from mt.demo.conjugation import (
    BE,
    DO,
    HABEN,
    HATTE,
    HAVE,
    SEIN,
    WAR,
    WAS,
    GermanGroup,
    Modal,
    Tense,
    Verb,
    english_group,
    german_group,
)
from mt.demo.declension import NounPhrase

Pair = tuple[str, str]

CONTRACTIONS = {
    "an dem": "am",
    "an das": "ans",
    "in dem": "im",
    "in das": "ins",
    "von dem": "vom",
    "zu dem": "zum",
    "zu der": "zur",
}


class Time(NamedTuple):
    """An adverbial of time; one that is free may open the sentence, others keep to the verb or the end in English."""

    english: str
    german: str
    position: Literal["free", "end", "verb"] = "free"


class Predicate(NamedTuple):
    """A verb with what belongs to it.

    The English follows the verb as it is. The German is kept apart: known objects come before an adverbial of time, new
    objects after it, and places, directions and objects with a preposition last, after "nicht".
    """

    verb: Verb
    english: str = ""
    known: str = ""
    new: str = ""
    last: str = ""
    negates: bool = False


class Clause(NamedTuple):
    """A clause in both languages before its word order is settled.

    The English has its finite verb group for a statement, and split into auxiliary and main verb for a question.
    """

    subject: NounPhrase
    statement_group: str
    auxiliary: str
    main_verb: str
    english_rest: str
    german_group: GermanGroup
    middle_field: str


def words(*parts: str) -> str:
    """Join the parts that are not empty."""
    return " ".join(filter(None, parts))


def with_preposition(preposition: str, phrase: str) -> str:
    """Put a German preposition before a phrase, contracted with the definite article where that is usual."""
    article, _, rest = phrase.partition(" ")
    contraction = CONTRACTIONS.get(f"{preposition} {article}")
    return f"{contraction} {rest}" if contraction and rest else f"{preposition} {phrase}"


def clause(
    subject: NounPhrase,
    predicate: Predicate,
    tense: Tense,
    modal: Modal | None = None,
    time: Time | None = None,
    negative: bool = False,
) -> Clause:
    """Build a clause from a subject and a predicate."""
    verb, person = predicate.verb, subject.person
    auxiliary, main_verb = english_group(verb, tense, modal, person, support=True)
    plain_auxiliary, plain_verb = english_group(verb, tense, modal, person, support=False)
    adverb = time.english if time and time.position == "verb" else ""
    return Clause(
        subject,
        words(negated(auxiliary), main_verb) if negative else words(plain_auxiliary, adverb, plain_verb),
        auxiliary,
        words(adverb, main_verb),
        words(predicate.english, time.english if time and not adverb else ""),
        german_group(verb, tense, modal, person),
        words(
            predicate.known,
            time.german if time else "",
            predicate.new,
            "nicht" if negative and not predicate.negates else "",
            predicate.last,
        ),
    )


def negated(auxiliary: str) -> str:
    """Add "not" to an English auxiliary."""
    return "cannot" if auxiliary == "can" else f"{auxiliary} not"


def be_clause(subject: NounPhrase, english: str, german: str, past: bool = False, negative: bool = False) -> Clause:
    """Build a clause with "be" and what follows it."""
    finite = (WAS if past else BE)[subject.person]
    german_finite = (WAR if past else SEIN)[subject.person]
    return Clause(
        subject,
        negated(finite) if negative else finite,
        finite,
        "",
        english,
        GermanGroup(german_finite),
        words("nicht" if negative else "", german),
    )


def have_clause(subject: NounPhrase, english: str, german: str, past: bool = False) -> Clause:
    """Build a clause with "have", whose German past is the preterite."""
    finite = "had" if past else HAVE[subject.person]
    german_finite = (HATTE if past else HABEN)[subject.person]
    return Clause(subject, finite, DO[subject.person], "have", english, GermanGroup(german_finite), german)


def english_statement(clause: Clause, front: str = "") -> str:
    """Order an English statement, perhaps with an adverbial before it."""
    return words(front, clause.subject.subject, clause.statement_group, clause.english_rest)


def english_question(clause: Clause, front: str = "") -> str:
    """Order an English question, perhaps after a question word."""
    return words(front, clause.auxiliary, clause.subject.subject, clause.main_verb, clause.english_rest)


def verb_second(clause: Clause, front: str = "") -> str:
    """Order a German main clause; whatever opens it, the subject or something else, the finite verb comes second."""
    group = clause.german_group
    subject = clause.subject.nominative
    opening = (front, group.finite, subject) if front else (subject, group.finite)
    return words(*opening, clause.middle_field, group.closing)


def verb_first(clause: Clause) -> str:
    """Order a German question without a question word, or a main clause after a subordinate one."""
    group = clause.german_group
    return words(group.finite, clause.subject.nominative, clause.middle_field, group.closing)


def verb_final(clause: Clause) -> str:
    """Order a German subordinate clause: the finite verb goes to the end, and a separable one is joined again."""
    group = clause.german_group
    end = group.closing + group.finite if group.separable else words(group.closing, group.finite)
    return words(clause.subject.nominative, clause.middle_field, end)


def punctuated(english: str, german: str, mark: str = ".") -> Pair:
    """Make sentences: a capital letter at the beginning and a mark at the end."""
    return english[0].upper() + english[1:] + mark, german[0].upper() + german[1:] + mark


def statement(clause: Clause) -> Pair:
    """Make a statement that opens with its subject."""
    return punctuated(english_statement(clause), verb_second(clause))


def with_front(clause: Clause, time: Time | None) -> Pair:
    """Make a statement, opened by an adverbial of time if there is one."""
    if not time:
        return statement(clause)
    return punctuated(english_statement(clause, time.english), verb_second(clause, time.german))
