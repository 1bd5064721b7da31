"""Verbs: their principal parts, and the finite and closing parts of a verb group in both languages."""

import re
from typing import Literal, NamedTuple

from mt.demo.declension import Person

Tense = Literal["present", "progressive", "past", "perfect", "future"]
Forms = dict[Person, str]


def forms(written: str) -> Forms:
    """Read the four forms of a verb."""
    first, second, third, plural = written.split()
    return {"I": first, "you": second, "he": third, "they": plural}


BE = forms("am are is are")
WAS = forms("was were was were")
HAVE = forms("have have has have")
DO = forms("do do does do")

SEIN = forms("bin bist ist sind")
WAR = forms("war warst war waren")
HABEN = forms("habe hast hat haben")
HATTE = forms("hatte hattest hatte hatten")
WERDEN = forms("werde wirst wird werden")
WURDE = forms("wurde wurdest wurde wurden")

# English modal verbs that need no "do" in questions and before "not".
MODAL_AUXILIARIES = {"can", "may", "must", "should", "would"}

# One vowel letter and one consonant at the end of a short word: get, getting.
DOUBLES_LAST_LETTER = re.compile("[^aeiou]*[aeiou][^aeiouwxy]")


class Verb(NamedTuple):
    """A verb with the forms that others are made of; "get up" has a particle, and "aufstehen" a separable prefix."""

    base: str
    past: str
    past_participle: str
    particle: str
    infinitive: str
    prefix: str
    third_person: str
    auxiliary: Forms
    partizip: str


class Modal(NamedTuple):
    """A modal verb, its English split into the verb and what links it to an infinitive: "want" and "to"."""

    english: str
    link: str
    german: Forms


class GermanGroup(NamedTuple):
    """A finite verb, and the separable prefix, participle or infinitive that closes its clause."""

    finite: str
    closing: str = ""
    separable: bool = False


def verb(english: str, german: str) -> Verb:
    """Read a verb from principal parts such as "get up, got, got" and "aufstehen, steht auf, ist aufgestanden".

    German infinitives must end in -en.
    """
    base, past, past_participle = english.split(", ")
    base, _, particle = base.partition(" ")
    infinitive, present, perfect = german.split(", ")
    third_person, _, prefix = present.partition(" ")
    auxiliary, partizip = perfect.split()
    return Verb(
        base,
        past,
        past_participle,
        particle,
        infinitive,
        prefix,
        third_person,
        SEIN if auxiliary == "ist" else HABEN,
        partizip,
    )


def modal(english: str, german: str) -> Modal:
    """Read a modal verb from English such as "want to" and the German "ich", "du" and "wir" forms."""
    first_word, _, link = english.partition(" ")
    singular, second, plural = german.split(", ")
    return Modal(first_word, link, {"I": singular, "you": second, "he": singular, "they": plural})


def english_present(base: str, person: Person) -> str:
    """Conjugate an English verb in the simple present."""
    if person != "he":
        return base
    if base == "have":
        return "has"
    if base.endswith(("s", "sh", "ch", "x", "o")):
        return base + "es"
    return base[:-1] + "ies" if re.search("[^aeiou]y$", base) else base + "s"


def gerund(base: str) -> str:
    """Give the English form in -ing."""
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if re.search("[^eo]e$", base):
        return base[:-1] + "ing"
    return base + (base[-1] if DOUBLES_LAST_LETTER.fullmatch(base) else "") + "ing"


def german_present(verb: Verb, person: Person) -> str:
    """Conjugate a German verb in the present, without its separable prefix."""
    infinitive = verb.infinitive.removeprefix(verb.prefix)
    if person == "you":
        stem = verb.third_person.removesuffix("t")
        return verb.third_person if stem.endswith(("s", "ß", "z")) else stem + "st"
    return {"I": infinitive[:-1], "he": verb.third_person, "they": infinitive}[person]


def infinitive_with_zu(verb: Verb) -> str:
    """Give the German infinitive with "zu", which goes inside a separable verb."""
    return f"{verb.prefix}zu{verb.infinitive.removeprefix(verb.prefix)}" if verb.prefix else f"zu {verb.infinitive}"


def english_group(verb: Verb, tense: Tense, modal: Modal | None, person: Person, support: bool) -> tuple[str, str]:
    """Give the English auxiliary and main verb; "support" asks for "do", which questions and "not" need."""
    if modal:
        if modal.english in MODAL_AUXILIARIES:
            return modal.english, f"{modal.link} {verb.base}".lstrip()
        auxiliary, main = supported(modal.english, person, support)
        return auxiliary, f"{main} {modal.link} {verb.base}"
    match tense:
        case "present":
            return supported(verb.base, person, support)
        case "progressive":
            return BE[person], gerund(verb.base)
        case "past":
            return ("did", verb.base) if support else ("", verb.past)
        case "perfect":
            return HAVE[person], verb.past_participle
        case "future":
            return "will", verb.base


def supported(base: str, person: Person, support: bool) -> tuple[str, str]:
    """Give the English simple present with or without "do"."""
    return (DO[person], base) if support else ("", english_present(base, person))


def german_group(verb: Verb, tense: Tense, modal: Modal | None, person: Person) -> GermanGroup:
    """Give the German finite verb and what closes the clause; both English past tenses become the perfect."""
    if modal:
        return GermanGroup(modal.german[person], verb.infinitive)
    match tense:
        case "past" | "perfect":
            return GermanGroup(verb.auxiliary[person], verb.partizip)
        case "future":
            return GermanGroup(WERDEN[person], verb.infinitive)
        case "present" | "progressive":
            return GermanGroup(german_present(verb, person), verb.prefix, separable=bool(verb.prefix))
