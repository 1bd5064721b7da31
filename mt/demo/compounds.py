"""Sentences of more than one clause."""

from random import Random

from mt.demo import nouns, verbs
from mt.demo.chance import happens, pick
from mt.demo.clauses import (
    Clause,
    Pair,
    Predicate,
    Time,
    be_clause,
    clause,
    english_question,
    english_statement,
    punctuated,
    statement,
    verb_final,
    verb_first,
    verb_second,
    words,
)
from mt.demo.conjugation import DO, Tense, english_present
from mt.demo.declension import DEFINITE_ARTICLE, NEUTER, PLURAL, THE, NounPhrase, anaphor, noun_phrase
from mt.demo.figures import TIMETABLE_TENSES, timetable
from mt.demo.parts import OCCASION_TENSES, at_clock_time, condition, described, doing, person
from mt.demo.questions import open_question, question_about_subject

HYPOTHESIS_ADVERBS = (("always", "immer"), ("often", "oft"), ("sometimes", "manchmal"))
RELATIVE_TENSES: tuple[Tense, ...] = ("progressive", "past", "perfect")


def speaker(rng: Random) -> NounPhrase:
    """Draw a person for whom a pronoun can stand later; "das Kind" and "das Mädchen" have no safe one."""
    subject = person(rng)
    return subject if subject.gender != NEUTER else speaker(rng)


def with_subordinate(main: Clause, english: str, german: str, subordinate: Clause, first: bool) -> Pair:
    """Join a main clause with a subordinate one, the subordinate one first if asked for."""
    english = english_statement(subordinate, english)
    german = f"{german} {verb_final(subordinate)}"
    if first:
        return punctuated(f"{english}, {english_statement(main)}", f"{german}, {verb_first(main)}")
    return punctuated(f"{english_statement(main)} {english}", f"{verb_second(main)}, {german}")


def reason(rng: Random) -> Pair:
    """Why, or in spite of what, somebody does something."""
    subject, first = speaker(rng), happens(rng, 0.35)
    subordinate_subject, main_subject = (subject, anaphor(subject)) if first else (anaphor(subject), subject)
    english, german, negative, favourable = pick(
        rng,
        (
            ("because", "weil", False, True),
            ("because", "weil", True, False),
            ("although", "obwohl", False, False),
        ),
    )
    tense: Tense = "past" if happens(rng, 0.4) else "progressive"
    main = clause(main_subject, doing(rng, main_subject, negative), tense, negative=negative)
    return with_subordinate(main, english, german, condition(rng, subordinate_subject, tense, favourable), first)


def hypothesis(rng: Random) -> Pair:
    """What somebody does whenever, or will do if, something holds."""
    subject, first = speaker(rng), happens(rng, 0.5)
    subordinate_subject, main_subject = (subject, anaphor(subject)) if first else (anaphor(subject), subject)
    subordinate = condition(rng, subordinate_subject, "present", favourable=happens(rng, 0.5))
    predicate = doing(rng, main_subject, False)
    if happens(rng, 0.5):
        main = clause(main_subject, predicate, "present", time=Time(*pick(rng, HYPOTHESIS_ADVERBS), "verb"))
        return with_subordinate(main, "when", "wenn", subordinate, first)
    return with_subordinate(clause(main_subject, predicate, "future"), "if", "wenn", subordinate, first)


def report(rng: Random) -> Pair:
    """What somebody says or thinks."""
    english, german = pick(rng, tuple(verbs.REPORTING.items()))
    subject = speaker(rng)
    said = reported(rng, anaphor(subject) if happens(rng, 0.4) else person(rng))
    return punctuated(
        f"{subject.subject} {english_present(english, subject.person)} that {english_statement(said)}",
        f"{subject.nominative} {german[subject.person]}, dass {verb_final(said)}",
    )


def reported(rng: Random, subject: NounPhrase) -> Clause:
    """Draw a clause that may be said, believed or wondered about."""
    draw = rng.random()
    if draw < 0.2:
        return timetable(rng, pick(rng, TIMETABLE_TENSES), at_clock_time(rng))
    if draw < 0.35:
        return condition(rng, subject, "past" if happens(rng, 0.3) else "progressive", happens(rng, 0.5))
    negative = happens(rng, 0.2)
    return clause(subject, doing(rng, subject, negative), pick(rng, OCCASION_TENSES), negative=negative)


def indirect_question(rng: Random) -> Pair:
    """What somebody does not know."""
    if happens(rng, 0.45):
        question_word, german_question_word, asked = "whether", "ob", reported(rng, person(rng))
    elif happens(rng, 0.15):
        question_word, german_question_word, asked = "", "", question_about_subject(rng)
    else:
        question_word, german_question_word, asked = open_question(rng)
    english = words(question_word, english_statement(asked))
    german = words(german_question_word, verb_final(asked))
    if happens(rng, 0.3):
        opening = pick(rng, (("do you know", "weißt du"), ("can you tell me", "kannst du mir sagen")))
        return punctuated(f"{opening[0]} {english}", f"{opening[1]}, {german}", "?")
    subject = person(rng)
    knows = verbs.REPORTING["know"][subject.person]
    return punctuated(
        f"{subject.subject} {DO[subject.person]} not know {english}", f"{subject.nominative} {knows} nicht, {german}"
    )


def relative_clause_of_subject(rng: Random) -> Pair:
    """A person told from others by what that person does."""
    kind = pick(rng, (nouns.PEOPLE, nouns.PEOPLE, nouns.CHILDREN))
    noun = pick(rng, kind.nouns)
    who = noun_phrase(THE, None, noun, happens(rng, 0.3))
    relative = who._replace(subject="who", nominative=DEFINITE_ARTICLE["nominative"][who.gender])
    told = clause(relative, doing(rng, relative, False), pick(rng, RELATIVE_TENSES))
    english, german = english_statement(told), verb_final(told)
    if happens(rng, 0.4):
        subject = person(rng)
        known = Predicate(verbs.KNOW.verb, f"{who.object} {english}", known=f"{who.accusative}, {german}")
        return statement(clause(subject, known, "present"))
    adjective = pick(rng, kind.adjectives)
    extended = who._replace(subject=f"{who.subject} {english}", nominative=f"{who.nominative}, {german},")
    return statement(be_clause(extended, adjective.english, adjective.german))


def relative_clause_of_object(rng: Random) -> Pair:
    """A thing told from others by what somebody does with it."""
    frame = pick(rng, [frame for frame in verbs.ACTIONS if nouns.FAMILY not in frame.kinds])
    kind = pick(rng, frame.kinds)
    noun = pick(rng, kind.nouns)
    what = noun_phrase(THE, None, noun, plural=noun.english_plural != "" and happens(rng, 0.3))
    told = clause(person(rng), Predicate(frame.verb, frame.verb.particle), pick(rng, RELATIVE_TENSES))
    english = f"{what.subject} that {english_statement(told)}"
    german = f"{what.nominative}, {DEFINITE_ARTICLE['accusative'][what.gender]} {verb_final(told)},"
    adjective = pick(rng, kind.adjectives)
    extended = what._replace(subject=english, nominative=german)
    return statement(be_clause(extended, adjective.english, adjective.german))


def reference(rng: Random) -> Pair:
    """A thing, and a pronoun for it that takes its gender in German."""
    what, english, german = described(rng, pick(rng, (*nouns.THINGS, nouns.MACHINES)))
    pronoun = anaphor(what)
    frame, modal, negative = pick(
        rng, ((verbs.FIND, verbs.CAN, True), (verbs.NEED, None, False), (verbs.NEED, None, True))
    )
    predicate = Predicate(frame.verb, "them" if what.gender == PLURAL else "it", known=pronoun.accusative)
    then = clause(person(rng), predicate, "present", modal, negative=negative)
    if happens(rng, 0.5):
        where = be_clause(what, "", "")
        first = punctuated(english_question(where, "where"), verb_second(where, "wo"), "?")
        second = statement(then)
        return f"{first[0]} {second[0]}", f"{first[1]} {second[1]}"
    what_like = be_clause(what, english, german)
    return punctuated(
        f"{english_statement(what_like)}, but {english_statement(then)}",
        f"{verb_second(what_like)}, aber {verb_second(then)}",
    )
