"""Sentences with numbers, clock times, dates and prices."""

from random import Random

from mt.demo import nouns, verbs
from mt.demo.chance import below, happens, pick
from mt.demo.clauses import Clause, Pair, Predicate, Time, be_clause, clause, punctuated, statement, with_front
from mt.demo.conjugation import WAS, WURDE, Tense
from mt.demo.declension import THE, THIS, noun_phrase
from mt.demo.numbers import english_number, german_number, price
from mt.demo.parts import (
    at_clock_time,
    from_table,
    on_date,
    person,
    random_clock_time,
    random_date,
    some_day,
    thing,
)
from mt.demo.times import PARTS_OF_DAY, PAST_TIMES, clock_time

TIMETABLE_TENSES: tuple[Tense, ...] = ("present", "present", "past", "future")


def random_number(rng: Random, digits: int) -> int:
    """Draw a number of up to so many digits, with more zeros among them than chance would give."""
    number = 0
    for _ in range(digits):
        number = number * 10 + (0 if happens(rng, 0.2) else below(rng, 10))
    return number


def number(rng: Random) -> Pair:
    """A number in words, by itself."""
    value = random_number(rng, pick(rng, (1, 2, 2, 3, 3, 4, 4)))
    return english_number(value), german_number(value)


def arithmetic(rng: Random) -> Pair:
    """A sum, as one says it."""
    first, second = below(rng, 100), below(rng, 100)
    if first < second:
        first, second = second, first
    if happens(rng, 0.5):
        english, german, result = "plus", "plus", first + second
    else:
        english, german, result = "minus", "minus", first - second
    return punctuated(
        f"{english_number(first)} {english} {english_number(second)} is {english_number(result)}",
        f"{german_number(first)} {german} {german_number(second)} ist {german_number(result)}",
    )


def quantity(rng: Random) -> Pair:
    """How many rooms the hotel has."""
    owner, english, german, least, most = pick(rng, nouns.QUANTITIES)
    count = least + below(rng, most - least)
    if count >= 1_000 and happens(rng, 0.6):
        count -= count % 1_000
    if count % 100 == 1:  # "hundertein Fenster" is a form that even Germans avoid
        count += 1
    adjective = pick(rng, nouns.QUANTITY_ADJECTIVES) if happens(rng, 0.4) else None
    subject = noun_phrase(pick(rng, (THE, THE, THIS)), adjective, owner)
    return punctuated(
        f"{subject.subject} has {english_number(count)} {english}",
        f"{subject.nominative} hat {german_number(count)} {german}",
    )


def age(rng: Random) -> Pair:
    """How old somebody is."""
    years = 2 + below(rng, 98)
    subject = person(rng)
    return statement(be_clause(subject, f"{english_number(years)} years old", f"{german_number(years)} Jahre alt"))


def clock(rng: Random) -> Pair:
    """What time it is."""
    english, german = random_clock_time(rng)
    return punctuated(f"it is {english}", f"es ist {german}")


def timetable(rng: Random, tense: Tense, time: Time | None) -> Clause:
    """When something leaves, arrives, starts, opens or closes."""
    draw = rng.random()
    if draw < 0.5:
        transport = noun_phrase(THE, None, pick(rng, nouns.LINES))
        english, german = pick(rng, tuple(nouns.CITIES.items()))
        if happens(rng, 0.5):
            verb, to_or_from = verbs.LEAVE, (f"to {english}", f"nach {german}")
        else:
            verb, to_or_from = verbs.ARRIVE, (f"from {english}", f"aus {german}")
        subject = transport._replace(
            subject=f"{transport.subject} {to_or_from[0]}", nominative=f"{transport.nominative} {to_or_from[1]}"
        )
    elif draw < 0.75:
        verb, subject = verbs.START, noun_phrase(THE, None, pick(rng, nouns.EVENTS))
    else:
        verb = pick(rng, (verbs.OPEN.verb, verbs.CLOSE.verb))
        subject = noun_phrase(THE, None, pick(rng, nouns.SHOPS))
    return clause(subject, Predicate(verb), tense, time=time)


def timetable_entry(rng: Random) -> Pair:
    """At what time the train leaves."""
    if happens(rng, 0.3):
        english_part, german_part, hours = pick(rng, PARTS_OF_DAY)
        english, german = clock_time(pick(rng, hours), 5 * below(rng, 12))
        time = Time(f"at {english} {english_part}", f"um {german} {german_part}")
    else:
        time = at_clock_time(rng)
    tense = pick(rng, TIMETABLE_TENSES)
    day = some_day(rng, tense == "past") if tense != "present" and happens(rng, 0.6) else None
    return with_front(timetable(rng, tense, time), day)


def calendar(rng: Random) -> Pair:
    """What day it is."""
    english, german = random_date(rng, "e")
    day = pick(rng, (("today is", "heute ist"), ("tomorrow is", "morgen ist"), ("yesterday was", "gestern war")))
    return punctuated(f"{day[0]} the {english}", f"{day[1]} der {german}")


def birth(rng: Random) -> Pair:
    """When somebody was born."""
    subject = person(rng)
    year = 1920 + below(rng, 105)
    if happens(rng, 0.3):
        english, german = f"in {year}", str(year)
    else:
        date = on_date(rng)
        english, german = f"{date.english} {year}", f"{date.german} {year}"
    return punctuated(
        f"{subject.subject} {WAS[subject.person]} born {english}",
        f"{subject.nominative} {WURDE[subject.person]} {german} geboren",
    )


def some_price(rng: Random, kind: nouns.Kind) -> tuple[str, str]:
    """Draw a price that a thing of this kind may have, mostly in figures."""
    if kind is nouns.VEHICLES:
        return price(100 * 500 * (1 + below(rng, 40)))
    cents = pick(rng, (20, 50, 80, 90))
    if kind in nouns.FOODS:
        return price(100 * (1 + below(rng, 9)) + cents)
    if happens(rng, 0.25):
        euros = 2 + below(rng, 98)
        return f"{english_number(euros)} euros", f"{german_number(euros)} Euro"
    return price(100 * (1 + below(rng, 99)) + cents)


def cost(rng: Random) -> Pair:
    """What something costs."""
    kind = pick(rng, nouns.GOODS)
    subject = thing(rng, (kind,), definite=True)
    english, german = some_price(rng, kind)
    return statement(clause(subject, Predicate(verbs.COST, english, new=german), "present"))


def payment(rng: Random) -> Pair:
    """What somebody paid for something."""
    kind = pick(rng, nouns.GOODS)
    bought = thing(rng, (kind,), definite=True)
    english, german = some_price(rng, kind)
    paid = Predicate(verbs.PAY, f"{english} for {bought.object}", new=german, last=f"für {bought.accusative}")
    return with_front(clause(person(rng), paid, "past"), from_table(rng, PAST_TIMES) if happens(rng, 0.2) else None)
