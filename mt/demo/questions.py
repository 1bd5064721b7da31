"""Questions."""

from random import Random

from mt.demo import nouns, verbs
from mt.demo.chance import below, happens, pick
from mt.demo.clauses import (
    Clause,
    Pair,
    Predicate,
    be_clause,
    clause,
    english_question,
    english_statement,
    punctuated,
    verb_first,
    verb_second,
)
from mt.demo.declension import (
    FEMININE,
    HE,
    MASCULINE,
    POLITE_YOU,
    WHICH,
    YOU,
    NounPhrase,
    name_phrase,
    noun_phrase,
    polite_name,
)
from mt.demo.figures import TIMETABLE_TENSES, timetable
from mt.demo.parts import OCCASION_TENSES, TRIP_TENSES, acting, circumstances, doing, person, thing


def question(rng: Random) -> Pair:
    """A question to be answered with yes or no; the name of the person asked decides between "du" and "Sie"."""
    subject, name = (person(rng), None) if happens(rng, 0.6) else addressed(rng)
    if happens(rng, 0.2):
        predicate = acting(rng, subject, False, verbs.STATES)
        asked = clause(subject, predicate, "present")
    else:
        predicate = doing(rng, subject, False)
        asked = clause(subject, predicate, *circumstances(rng, False, verbs.QUESTION_MODALS))
    if subject is POLITE_YOU and {"you", "your"} & set(predicate.english.split()):
        return question(rng)  # the words for "you" in the predicate are all for "du"
    english, german = english_question(asked), verb_first(asked)
    if name:
        english, german = f"{english}, {name.subject}", f"{german}, {name.nominative}"
    return punctuated(english, german, "?")


def addressed(rng: Random) -> tuple[NounPhrase, NounPhrase | None]:
    """Draw a "you" and the name of the person it speaks to."""
    draw = rng.random()
    if draw < 0.4:
        return YOU, None
    if draw < 0.7:
        return YOU, name_phrase(*pick(rng, nouns.NAMES))
    return POLITE_YOU, polite_name(pick(rng, nouns.FAMILY_NAMES), pick(rng, (MASCULINE, FEMININE)))


def open_question(rng: Random) -> tuple[str, str, Clause]:
    """Draw a question word or phrase in both languages and the clause that goes with it."""
    match below(rng, 8):
        case 0:
            return "when", "wann", timetable(rng, pick(rng, TIMETABLE_TENSES), None)
        case 1:
            kinds = (nouns.FAMILY, *nouns.THINGS, nouns.ANIMALS)
            return "where", "wo", be_clause(thing(rng, kinds, definite=True), "", "")
        case 2:
            verb = pick(rng, (verbs.LIVE, verbs.WORK))
            return "where", "wo", clause(person(rng), Predicate(verb), "present")
        case 3:
            verb = pick(rng, (verbs.GO, verbs.DRIVE, verbs.FLY))
            return "where", "wohin", clause(person(rng), Predicate(verb), pick(rng, TRIP_TENSES))
        case 4:
            return question_about_object(rng)
        case 5:
            subject = thing(rng, (pick(rng, nouns.GOODS),), definite=True)
            return "how much", "wie viel", clause(subject, Predicate(verbs.COST), "present")
        case 6:
            return "how old", "wie alt", be_clause(person(rng), "", "")
        case _:
            subject = person(rng)
            tense = pick(rng, OCCASION_TENSES)
            return "why", "warum", clause(subject, doing(rng, subject, False), tense)


def question_about_object(rng: Random) -> tuple[str, str, Clause]:
    """Draw a question for the object of a verb."""
    frame = pick(rng, verbs.ACTIONS + verbs.DATIVE_ACTIONS)
    asked = clause(person(rng), Predicate(frame.verb, frame.verb.particle), pick(rng, OCCASION_TENSES))
    if nouns.FAMILY in frame.kinds:
        return "who", "wem" if frame.case == "dative" else "wen", asked
    kind = pick(rng, frame.kinds)
    noun = pick(rng, kind.nouns)
    if happens(rng, 0.5):
        return "what", "was", asked
    which = noun_phrase(WHICH, None, noun, plural=noun.english_plural != "" and happens(rng, 0.4))
    return which.object, which.accusative, asked


def question_with_question_word(rng: Random) -> Pair:
    """A question that asks for one part of the answer."""
    if happens(rng, 0.12):
        who = question_about_subject(rng)
        return punctuated(english_statement(who), verb_second(who), "?")
    english, german, asked = open_question(rng)
    return punctuated(english_question(asked, english), verb_second(asked, german), "?")


def question_about_subject(rng: Random) -> Clause:
    """Draw a clause whose subject is the question word "who"."""
    who = HE._replace(subject="who", nominative="wer")
    return clause(who, doing(rng, who, False), pick(rng, OCCASION_TENSES))
