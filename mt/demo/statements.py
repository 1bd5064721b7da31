"""Statements of one clause."""

from random import Random

from mt.demo import nouns, verbs
from mt.demo.chance import happens, pick
from mt.demo.clauses import (
    Pair,
    Predicate,
    Time,
    be_clause,
    clause,
    english_statement,
    punctuated,
    statement,
    verb_second,
    with_front,
    with_preposition,
    words,
)
from mt.demo.conjugation import HAVE, GermanGroup, Tense, gerund, infinitive_with_zu
from mt.demo.declension import IT, MANY, NO, PLURAL, POSSESSIVES, SOME, THE, THIS, A, noun_phrase
from mt.demo.figures import TIMETABLE_TENSES
from mt.demo.parts import (
    MINUTES_AND_HOURS,
    MONTHS_AND_YEARS,
    OCCASION_TENSES,
    TRIP_TENSES,
    acting,
    at_clock_time,
    circumstances,
    described,
    direction,
    doing,
    location,
    person,
    random_span,
    some_day,
    spot,
    thing,
    time_for,
    with_object,
)


def action(rng: Random) -> Pair:
    """What somebody does, did or will do."""
    negative = happens(rng, 0.25)
    modals = verbs.NEGATIVE_MODALS if negative else verbs.STATEMENT_MODALS
    tense, modal, time = circumstances(rng, negative, modals)
    subject = thing(rng, (nouns.PEOPLE,)) if not negative and happens(rng, 0.1) else person(rng)
    predicate = doing(rng, subject, negative)
    if time and time.position == "free" and happens(rng, 0.4):
        return with_front(clause(subject, predicate, tense, modal, None, negative), time)
    return statement(clause(subject, predicate, tense, modal, time, negative))


def favour(rng: Random) -> Pair:
    """What somebody does for somebody else."""
    frame = pick(rng, verbs.FAVOURS)
    done = with_object(frame, thing(rng, frame.kinds))
    subject, other = person(rng), thing(rng, (nouns.FAMILY,), definite=True)
    tense, modal, time = circumstances(rng, False, verbs.STATEMENT_MODALS)
    predicate = done._replace(english=f"{done.english} for {other.object}", last=f"für {other.accusative}")
    return statement(clause(subject, predicate, tense, modal, time))


def happening(rng: Random) -> Pair:
    """What happened to somebody."""
    negative, subject = happens(rng, 0.3), person(rng)
    tense: Tense = "past" if happens(rng, 0.65) else "perfect"
    time = time_for(rng, tense, negative) if happens(rng, 0.5) else None
    return statement(clause(subject, acting(rng, subject, negative, verbs.HAPPENINGS), tense, None, time, negative))


def state(rng: Random) -> Pair:
    """What somebody has, knows or needs."""
    negative, subject = happens(rng, 0.3), person(rng)
    return statement(clause(subject, acting(rng, subject, negative, verbs.STATES), "present", negative=negative))


def routine(rng: Random) -> Pair:
    """At what time somebody gets up."""
    verb = pick(rng, verbs.DAILY_ROUTINE)
    tense = pick(rng, TIMETABLE_TENSES)
    modal = pick(rng, verbs.STATEMENT_MODALS) if tense == "present" and happens(rng, 0.4) else None
    day = some_day(rng, tense == "past") if (tense != "present" or modal) and happens(rng, 0.6) else None
    return with_front(clause(person(rng), Predicate(verb, verb.particle), tense, modal, at_clock_time(rng)), day)


def errand(rng: Random) -> Pair:
    """Where somebody goes, and what for."""
    subject = person(rng)
    frame = pick(rng, verbs.ERRANDS)
    purpose = with_object(frame, thing(rng, frame.kinds))
    english, german = direction(rng, nouns.SHOPPING_PLACES if frame is verbs.BUY else nouns.IN_TOWN)
    verb = pick(rng, (verbs.GO, verbs.DRIVE))
    trip = clause(subject, Predicate(verb, english, last=german), pick(rng, TRIP_TENSES))
    return punctuated(
        f"{english_statement(trip)} to {frame.verb.base} {purpose.english}",
        f"{verb_second(trip)}, um {words(purpose.known, purpose.new)} {infinitive_with_zu(frame.verb)}",
    )


def residence(rng: Random) -> Pair:
    """Where somebody lives or comes from."""
    if happens(rng, 0.4):
        english, german = pick(rng, (*nouns.COUNTRIES.items(), *nouns.CITIES.items()))
        predicate = Predicate(verbs.COME, f"from {english}", last=f"aus {german}")
    else:
        predicate = living(rng)
    return statement(clause(person(rng), predicate, "present", negative=happens(rng, 0.2)))


def living(rng: Random) -> Predicate:
    """Draw where somebody lives."""
    if happens(rng, 0.5):
        english, german = pick(rng, tuple(nouns.CITIES.items()))
        return Predicate(verbs.LIVE, f"in {english}", last=f"in {german}")
    adjective = pick(rng, nouns.ROOMS.adjectives) if happens(rng, 0.6) else None
    home = noun_phrase(pick(rng, (A, A, THE, THIS, *POSSESSIVES)), adjective, pick(rng, nouns.ROOMS.nouns))
    return Predicate(verbs.LIVE, f"in {home.object}", last=with_preposition("in", home.dative))


def since(rng: Random) -> Pair:
    """For how long somebody has been doing something, which German says in the present."""
    subject, draw = person(rng), rng.random()
    if draw < 0.4:
        predicate, units = living(rng), MONTHS_AND_YEARS
    elif draw < 0.7:
        english, german = location(rng, nouns.BUILDINGS)
        predicate, units = Predicate(verbs.WORK, english, last=german), MONTHS_AND_YEARS
    else:
        frame = verbs.WAIT_FOR
        predicate, units = with_object(frame, thing(rng, frame.kinds, definite=True)), MINUTES_AND_HOURS
    english, german = random_span(rng, units)
    lasting = clause(subject, predicate, "present", time=Time(f"for {english}", f"seit {german}"))
    return statement(lasting._replace(statement_group=f"{HAVE[subject.person]} been {gerund(predicate.verb.base)}"))


def movement(rng: Random) -> Pair:
    """Where an animal runs or jumps."""
    verb, english, german, kinds = pick(rng, verbs.MOVEMENTS)
    subject, goal = thing(rng, (nouns.ANIMALS,), definite=True), thing(rng, kinds, definite=True)
    predicate = Predicate(verb, f"{english} {goal.object}", last=with_preposition(german, goal.accusative))
    return statement(clause(subject, predicate, pick(rng, OCCASION_TENSES), negative=happens(rng, 0.15)))


def position(rng: Random) -> Pair:
    """Where a thing lies or stands."""
    verb, kind = pick(rng, verbs.RESTING)
    english, german = spot(rng, "dative")
    predicate = Predicate(verb, english, last=german)
    return statement(clause(thing(rng, (kind,), definite=True), predicate, "progressive", negative=happens(rng, 0.15)))


def description(rng: Random) -> Pair:
    """What a person or thing is like."""
    subject, english, german = described(rng, pick(rng, nouns.DESCRIBED))
    return statement(be_clause(subject, english, german, past=happens(rng, 0.25)))


def introduction(rng: Random) -> Pair:
    """Who or what this is."""
    negative = happens(rng, 0.2)
    shown = thing(rng, (pick(rng, nouns.DESCRIBED),), negative)
    while shown.subject.startswith(("any ", "many ", "some ", "this ", "these ")):
        shown = thing(rng, (pick(rng, nouns.DESCRIBED),), negative)
    pronoun = "these" if shown.gender == PLURAL else "this"
    this = IT._replace(subject=pronoun, nominative="das", person=shown.person)
    introduced = be_clause(this, shown.subject, shown.nominative, negative=negative)
    if shown.negates:
        introduced = introduced._replace(middle_field=shown.nominative)
    return statement(introduced)


def there_is(rng: Random) -> Pair:
    """What there is in a town."""
    english, german = pick(rng, (*nouns.CITIES.items(), ("this town", "dieser Stadt"), ("the village", "dem Dorf")))
    place, german_place = f"in {english}", with_preposition("in", german)
    determiner = pick(rng, (A, A, A, NO, MANY, SOME, *nouns.NUMERALS))
    adjective = pick(rng, nouns.SIGHT_ADJECTIVES) if happens(rng, 0.5) else None
    sight = noun_phrase(determiner, adjective, pick(rng, nouns.SIGHTS), determiner.number == "plural")
    there = IT._replace(subject="there", person=sight.person)
    found = be_clause(there, words(sight.object, place), "")._replace(german_group=GermanGroup("gibt"))
    if happens(rng, 0.5):
        return statement(found._replace(middle_field=words(sight.accusative, german_place)))
    opened = found._replace(english_rest=sight.object, middle_field=sight.accusative)
    return punctuated(english_statement(opened, place), verb_second(opened, german_place))
