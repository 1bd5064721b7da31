"""The parts that sentences are put together from, drawn at random: persons, things, times and predicates."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from mt.demo import nouns, verbs
from mt.demo.chance import below, happens, pick
from mt.demo.clauses import Clause, Predicate, Time, be_clause, clause, have_clause, with_preposition, words
from mt.demo.conjugation import Modal, Tense
from mt.demo.declension import (
    IT,
    NOT_A,
    NOT_ANY,
    PRONOUNS,
    THE,
    WE,
    A,
    Case,
    I,
    NounPhrase,
    in_case,
    name_phrase,
    noun_phrase,
    pair_of_names,
)
from mt.demo.nouns import Kind, Place
from mt.demo.times import (
    FREQUENCIES,
    FUTURE_TIMES,
    HABITS,
    MONTHS,
    PAST_TIMES,
    PRESENT_TIMES,
    WEEKDAYS,
    clock_time,
    date,
    span,
)
from mt.demo.verbs import Frame

# Tenses as often as they are to occur.
STATEMENT_TENSES: tuple[Tense, ...] = (
    *("progressive",) * 6,
    *("past",) * 5,
    *("present",) * 3,
    *("perfect",) * 2,
    *("future",) * 2,
)

# Units of spans that suit what is waited for, what is planned, what is past, and where somebody lives.
MINUTES_AND_HOURS = (0, 1)
HOURS_AND_LONGER = (1, 2, 3, 4)
DAYS_AND_LONGER = (2, 3, 4, 5)
MONTHS_AND_YEARS = (4, 5)

# Tenses for a single occasion, which sound natural without an adverbial of time.
OCCASION_TENSES: tuple[Tense, ...] = ("progressive", "progressive", "past", "perfect", "future")
TRIP_TENSES: tuple[Tense, ...] = ("progressive", "past", "future")


class Circumstances(NamedTuple):
    """Tense, modal verb and adverbial of time, which have to fit each other."""

    tense: Tense
    modal: Modal | None
    time: Time | None


def circumstances(
    rng: Random, negative: bool, modals: Sequence[Modal], tenses: Sequence[Tense] = STATEMENT_TENSES
) -> Circumstances:
    """Draw a tense with a time that fits it, or a modal verb."""
    if happens(rng, 0.2):
        return Circumstances("present", pick(rng, modals), near_time(rng) if happens(rng, 0.4) else None)
    tense = pick(rng, tenses)
    if negative and tense == "present":
        tense = "progressive"
    # A simple present without an adverbial would often read like a past: "I read the book."
    timed = tense == "present" or happens(rng, 0.5)
    return Circumstances(tense, None, time_for(rng, tense, negative) if timed else None)


def time_for(rng: Random, tense: Tense, negative: bool) -> Time:
    """Draw an adverbial of time that fits a tense."""
    match tense:
        case "present":
            return habit(rng)
        case "progressive":
            return near_time(rng)
        case "past":
            return past_time(rng)
        case "perfect":
            return Time("yet", "noch", "end") if negative else Time("already", "schon", "verb")
        case "future":
            return future_time(rng)


def from_table(rng: Random, table: dict[str, str]) -> Time:
    """Draw an adverbial from a table."""
    return Time(*pick(rng, tuple(table.items())))


def habit(rng: Random) -> Time:
    """Draw how often, or on which days, something is done."""
    if happens(rng, 0.5):
        return Time(*pick(rng, tuple(FREQUENCIES.items())), "verb")
    return from_table(rng, HABITS)


def near_time(rng: Random) -> Time:
    """Draw a time for what is under way or planned."""
    if happens(rng, 0.65):
        return from_table(rng, PRESENT_TIMES)
    return on_weekday(rng) if happens(rng, 0.6) else at_clock_time(rng)


def past_time(rng: Random) -> Time:
    """Draw a time in the past."""
    draw = rng.random()
    if draw < 0.5:
        return from_table(rng, PAST_TIMES)
    if draw < 0.65:
        return on_weekday(rng)
    if draw < 0.85:
        english, german = random_span(rng, DAYS_AND_LONGER)
        return Time(f"{english} ago", f"vor {german}")
    return around_event(rng)


def future_time(rng: Random) -> Time:
    """Draw a time in the future."""
    draw = rng.random()
    if draw < 0.4:
        return from_table(rng, FUTURE_TIMES)
    if draw < 0.55:
        return on_weekday(rng)
    if draw < 0.7:
        english, german = random_span(rng, HOURS_AND_LONGER)
        return Time(f"in {english}", f"in {german}")
    return on_date(rng) if draw < 0.85 else around_event(rng)


def on_weekday(rng: Random) -> Time:
    """Draw a day of the week."""
    english, german = pick(rng, tuple(WEEKDAYS.items()))
    return Time(f"on {english}", f"am {german}")


def some_day(rng: Random, past: bool) -> Time:
    """Draw a day in the past, or one that is still to come."""
    if happens(rng, 0.5):
        return on_weekday(rng)
    return Time("yesterday", "gestern") if past else Time("tomorrow", "morgen")


def on_date(rng: Random) -> Time:
    """Draw a date without a year."""
    english, german = random_date(rng, "en")
    return Time(f"on the {english}", f"am {german}")


def around_event(rng: Random) -> Time:
    """Draw a time before or after an event."""
    event = noun_phrase(THE, None, pick(rng, nouns.EVENTS))
    english, german = pick(rng, (("before", "vor"), ("after", "nach")))
    return Time(f"{english} {event.object}", f"{german} {event.dative}")


def at_clock_time(rng: Random) -> Time:
    """Draw a time of the clock."""
    english, german = random_clock_time(rng)
    return Time(f"at {english}", f"um {german}")


def random_clock_time(rng: Random) -> tuple[str, str]:
    """Draw a time of the clock, in steps of five minutes."""
    return clock_time(below(rng, 12), 5 * below(rng, 12))


def random_date(rng: Random, ending: str) -> tuple[str, str]:
    """Draw a day and month, the German ordinal with the given ending."""
    month = 1 + below(rng, 12)
    return date(1 + below(rng, MONTHS[month - 1][2]), month, ending)


def random_span(rng: Random, units: Sequence[int]) -> tuple[str, str]:
    """Draw a stretch of time in one of these units."""
    return span(1 + below(rng, 10), pick(rng, units))


def person(rng: Random) -> NounPhrase:
    """Draw a person or persons that the hearer knows."""
    draw = rng.random()
    if draw < 0.4:
        return pick(rng, PRONOUNS)
    if draw < 0.68:
        return name_phrase(*pick(rng, nouns.NAMES))
    if draw < 0.72:
        return pair_of_names(pick(rng, nouns.WOMEN), pick(rng, nouns.MEN))
    return thing(rng, (nouns.FAMILY,) if draw < 0.85 else (nouns.PEOPLE, nouns.PEOPLE, nouns.CHILDREN), definite=True)


def thing(rng: Random, kinds: Sequence[Kind], negative: bool = False, definite: bool = False) -> NounPhrase:
    """Draw a person, animal or thing with determiner and perhaps adjective; in a negative clause "a" becomes "kein"."""
    kind = pick(rng, kinds)
    noun = pick(rng, kind.nouns)
    adjective = pick(rng, kind.adjectives) if happens(rng, 0.33) else None
    if definite or not kind.indefinite or happens(rng, 0.55):
        determiner = pick(rng, kind.definite)
    elif negative:
        determiner = NOT_A if noun.english_plural else NOT_ANY
    else:
        determiner = pick(rng, kind.indefinite)
    plural = determiner.number == "plural" or (
        determiner.number == "both" and noun.english_plural != "" and happens(rng, 0.3)
    )
    return noun_phrase(determiner, adjective, noun, plural)


def person_as_object(rng: Random, kinds: Sequence[Kind], subject: NounPhrase, negative: bool) -> NounPhrase:
    """Draw an object, sometimes a pronoun or a name where the verb takes persons."""
    if nouns.FAMILY in kinds and happens(rng, 0.35):
        if happens(rng, 0.4):
            return name_phrase(*pick(rng, [name for name in nouns.NAMES if name[0] not in subject.subject]))
        return other_pronoun(rng, subject)
    return thing(rng, kinds, negative)


def other_pronoun(rng: Random, subject: NounPhrase) -> NounPhrase:
    """Draw a pronoun for somebody else than the subject, so that it needs no reflexive form."""
    own = (I, WE) if subject in (I, WE) else (subject,)
    return pick(rng, [pronoun for pronoun in PRONOUNS if pronoun not in own])


def with_object(frame: Frame, phrase: NounPhrase) -> Predicate:
    """Give a verb its object."""
    particle = frame.verb.particle
    english = words(particle, phrase.object)
    if phrase.pronoun and particle == "up":
        english = words(phrase.object, particle)
    german = in_case(phrase, frame.case)
    if frame.preposition:
        return Predicate(frame.verb, english, last=with_preposition(frame.preposition, german))
    if phrase.definite:
        return Predicate(frame.verb, english, known=german)
    return Predicate(frame.verb, english, new=german, negates=phrase.negates)


def doing(rng: Random, subject: NounPhrase, negative: bool) -> Predicate:
    """Draw what somebody does, of any sort."""
    draw = rng.random()
    if draw < 0.43:
        return acting(rng, subject, negative, verbs.ACTIONS)
    if draw < 0.57:
        return acting(rng, subject, negative, verbs.DATIVE_ACTIONS)
    if draw < 0.68:
        frame = pick(rng, verbs.PREPOSITIONAL_ACTIONS)
        return with_object(frame, thing(rng, frame.kinds, definite=negative))
    if draw < 0.8:
        return giving(rng, subject, negative)
    if draw < 0.88:
        return staying(rng)
    if draw < 0.95:
        return going(rng)
    return putting(rng)


def acting(rng: Random, subject: NounPhrase, negative: bool, frames: Sequence[Frame]) -> Predicate:
    """Draw one of these verbs and an object for it."""
    frame = pick(rng, frames)
    return with_object(frame, person_as_object(rng, frame.kinds, subject, negative))


def giving(rng: Random, subject: NounPhrase, negative: bool) -> Predicate:
    """Draw what somebody gives, sends or shows to somebody."""
    frame = pick(rng, verbs.GIVING)
    receiver = other_pronoun(rng, subject) if happens(rng, 0.4) else thing(rng, nouns.PERSONS, definite=True)
    gift = thing(rng, frame.kinds, negative)
    return Predicate(
        frame.verb,
        words(receiver.object, gift.object),
        known=receiver.dative,
        new=gift.accusative,
        negates=gift.negates,
    )


def staying(rng: Random) -> Predicate:
    """Draw what somebody does at a place."""
    verb, places = pick(rng, verbs.STAYING)
    english, german = location(rng, pick(rng, places))
    return Predicate(verb, words(verb.particle, english), last=german)


def going(rng: Random) -> Predicate:
    """Draw where somebody goes, and perhaps with whom or by what means."""
    draw = rng.random()
    if draw < 0.2:
        english, german = pick(rng, tuple(nouns.CITIES.items()))
        by, means = pick(rng, tuple(nouns.TRAVEL.items()))
        return Predicate(verbs.GO_FAR, f"to {english} {by}", last=f"{means} nach {german}")
    if draw < 0.35:
        english, german = pick(rng, (*nouns.CITIES.items(), *nouns.COUNTRIES.items()))
        verb, english, german = pick(rng, (verbs.FLY, verbs.DRIVE)), f"to {english}", f"nach {german}"
    elif draw < 0.45:
        verb, english, german = pick(rng, (verbs.GO, verbs.DRIVE)), "home", "nach Hause"
    elif draw < 0.6:
        verb, (english, german) = verbs.DRIVE, direction(rng, nouns.IN_TOWN)
    else:
        verb, (english, german) = verbs.GO, direction(rng, pick(rng, nouns.ANYWHERE))
    if happens(rng, 0.25):
        companion = thing(rng, (nouns.FAMILY,), definite=True)
        return Predicate(verb, f"{english} with {companion.object}", last=f"mit {companion.dative} {german}")
    return Predicate(verb, english, last=german)


def putting(rng: Random) -> Predicate:
    """Draw what somebody puts somewhere; what lies is "gelegt", what stands is "gestellt"."""
    verb, kinds = pick(
        rng,
        (
            (verbs.PUT_DOWN, (nouns.BOOKS, nouns.LYING_THINGS)),
            (verbs.PUT_UPRIGHT, (nouns.STANDING_THINGS,)),
        ),
    )
    moved = thing(rng, kinds, definite=True)
    english, german = spot(rng, "accusative")
    return Predicate(verb, f"{moved.object} {english}", known=moved.accusative, last=german)


def spot(rng: Random, case: Case) -> tuple[str, str]:
    """Draw a spot on, under or near a piece of furniture; the case tells rest from movement."""
    english, german = pick(rng, nouns.SPOTS)
    furniture = thing(rng, (nouns.FURNITURE,), definite=True)
    return f"{english} {furniture.object}", with_preposition(german, in_case(furniture, case))


def place_phrase(rng: Random, place: Place) -> NounPhrase:
    """Describe a place, known or new."""
    adjective = pick(rng, place.adjectives) if happens(rng, 0.25) else None
    return noun_phrase(A if adjective and happens(rng, 0.4) else THE, adjective, place.noun)


def location(rng: Random, places: Sequence[Place]) -> tuple[str, str]:
    """Draw one of these places as where something happens."""
    place = pick(rng, places)
    phrase = place_phrase(rng, place)
    return f"{place.english} {phrase.object}", with_preposition(place.location, phrase.dative)


def direction(rng: Random, places: Sequence[Place]) -> tuple[str, str]:
    """Draw one of these places as somewhere to go."""
    place = pick(rng, places)
    phrase = place_phrase(rng, place)
    german = phrase.dative if place.direction == "zu" else phrase.accusative
    return f"to {phrase.object}", with_preposition(place.direction, german)


def condition(rng: Random, subject: NounPhrase, tense: Tense, favourable: bool) -> Clause:
    """Draw a state of the subject or the weather that speaks for or against doing something."""
    past = tense == "past"
    draw = rng.random()
    if draw < 0.4:
        english = pick(rng, ("happy", "ill", "tired")) if favourable else pick(rng, ("hungry", "ill", "tired"))
        well = favourable and english != "happy"
        return be_clause(subject, english, nouns.ADJECTIVES[english], past, negative=well)
    if draw < 0.65:
        possessions = (("money", "Geld"), ("time", "Zeit"))
        english, german = pick(
            rng, possessions if favourable else (("no money", "kein Geld"), ("no time", "keine Zeit"))
        )
        return have_clause(subject, english, german, past)
    if draw < 0.8 and not past and not favourable:
        modal, verb = pick(rng, verbs.DUTIES)
        return clause(subject, Predicate(verb), "present", modal)
    if draw < 0.9:
        return clause(IT, Predicate(pick(rng, (verbs.RAIN, verbs.SNOW))), tense)
    english = pick(rng, ("cold", "hot"))
    return be_clause(IT, english, nouns.ADJECTIVES[english], past)


def described(rng: Random, kind: nouns.Kind) -> tuple[NounPhrase, str, str]:
    """Draw a person or thing and an adjective that says something new about it."""
    subject = thing(rng, (kind,), definite=True)
    said = set(subject.subject.split())
    fitting = [new for new in kind.adjectives if not said & {new.english, *nouns.OPPOSITES.get(new.english, ())}]
    adjective = pick(rng, fitting)
    degrees = tuple(nouns.DEGREES.items())
    english, german = pick(rng, degrees[:2] if adjective.english in nouns.COLOURS else degrees)
    return subject, words(english, adjective.english), words(german, adjective.german)
