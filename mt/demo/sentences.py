"""The patterns of the demo corpus, each a function that makes a sentence pair, and how often each occurs."""

import re
from collections.abc import Callable
from random import Random

from mt.demo import nouns
from mt.demo.chance import pick
from mt.demo.clauses import Pair
from mt.demo.compounds import (
    hypothesis,
    indirect_question,
    reason,
    reference,
    relative_clause_of_object,
    relative_clause_of_subject,
    report,
)
from mt.demo.figures import (
    age,
    arithmetic,
    birth,
    calendar,
    clock,
    cost,
    number,
    payment,
    quantity,
    timetable_entry,
)
from mt.demo.questions import question, question_with_question_word
from mt.demo.statements import (
    action,
    description,
    errand,
    favour,
    happening,
    introduction,
    movement,
    position,
    residence,
    routine,
    since,
    state,
    there_is,
)

# How often each pattern is drawn, in parts of the sum of them all.
PATTERNS: tuple[tuple[Callable[[Random], Pair], int], ...] = (
    (number, 7),
    (arithmetic, 3),
    (quantity, 4),
    (age, 3),
    (clock, 2),
    (timetable_entry, 4),
    (calendar, 2),
    (birth, 3),
    (cost, 2),
    (payment, 2),
    (action, 20),
    (favour, 2),
    (happening, 3),
    (state, 4),
    (routine, 3),
    (errand, 2),
    (residence, 2),
    (since, 2),
    (movement, 1),
    (position, 2),
    (description, 3),
    (introduction, 2),
    (there_is, 2),
    (question, 6),
    (question_with_question_word, 6),
    (reason, 4),
    (hypothesis, 3),
    (report, 3),
    (indirect_question, 3),
    (relative_clause_of_subject, 2),
    (relative_clause_of_object, 2),
    (reference, 2),
)
PATTERNS_BY_SHARE = tuple(pattern for pattern, share in PATTERNS for _ in range(share))

PERSONS_NAMED = frozenset(
    [name for name, _ in nouns.NAMES]
    + [english for kind in nouns.PERSONS for noun in kind.nouns for english in (noun.english, noun.english_plural)]
)


def sentence_pair(rng: Random) -> Pair:
    """Draw an English sentence and its German translation."""
    while True:
        english, german = pick(rng, PATTERNS_BY_SHARE)(rng)
        if not names_somebody_twice(english):
            return english, german


def names_somebody_twice(english: str) -> bool:
    """Tell whether a person is named twice, which sounds like a slip: "Anna is calling Anna's brother." """
    persons = [word for word in re.findall("[A-Za-z]+", english) if word in PERSONS_NAMED]
    return len(set(persons)) < len(persons)
