"""Noun phrases: articles, adjective endings and nouns in three cases, and the personal pronouns."""

from typing import Literal, NamedTuple

Case = Literal["nominative", "accusative", "dative"]
Number = Literal["singular", "plural", "both"]
Person = Literal["I", "you", "he", "they"]  # the four forms a verb can take; "we" and polite "Sie" go with "they"
Endings = dict[Case, tuple[str, str, str, str]]

# The four columns of every table of endings.
MASCULINE, FEMININE, NEUTER, PLURAL = range(4)
GENDERS = {"der": MASCULINE, "die": FEMININE, "das": NEUTER}

DEFINITE_ARTICLE: Endings = {
    "nominative": ("der", "die", "das", "die"),
    "accusative": ("den", "die", "das", "die"),
    "dative": ("dem", "der", "dem", "den"),
}
STRONG: Endings = {
    "nominative": ("er", "e", "es", "e"),
    "accusative": ("en", "e", "es", "e"),
    "dative": ("em", "er", "em", "en"),
}
MIXED: Endings = {
    "nominative": ("er", "e", "es", "en"),
    "accusative": ("en", "e", "es", "en"),
    "dative": ("en", "en", "en", "en"),
}
WEAK: Endings = {
    "nominative": ("e", "e", "e", "en"),
    "accusative": ("en", "e", "e", "en"),
    "dative": ("en", "en", "en", "en"),
}
EIN: Endings = {
    "nominative": ("", "e", "", "e"),
    "accusative": ("en", "e", "", "e"),
    "dative": ("em", "er", "em", "en"),
}
UNCHANGING: Endings = {
    "nominative": ("", "", "", ""),
    "accusative": ("", "", "", ""),
    "dative": ("", "", "", ""),
}

# Masculine nouns of the n-declension take their plural form everywhere but in the nominative singular.
N_DECLENSION = {"Junge", "Kollege", "Nachbar", "Polizist", "Student", "Tourist"}


class Noun(NamedTuple):
    """A noun in both languages; the plurals are empty where the noun has none."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: int


class Determiner(NamedTuple):
    """An article or its like: both English forms, the German stem, its endings, and those of an adjective after it."""

    english: str
    english_plural: str
    german: str
    endings: Endings
    adjective_endings: Endings
    number: Number = "both"
    definite: bool = False


class Adjective(NamedTuple):
    """An adjective in both languages, uninflected."""

    english: str
    german: str


class NounPhrase(NamedTuple):
    """A noun phrase or pronoun as English subject and object and in three German cases."""

    subject: str
    object: str
    nominative: str
    accusative: str
    dative: str
    person: Person
    gender: int
    definite: bool = True
    pronoun: bool = False
    negates: bool = False  # with "kein", so that its clause needs no "nicht"


def noun(english: str, german: str) -> Noun:
    """Read a noun from its dictionary entries, such as "child, children" and "das Kind, Kinder"."""
    english_singular, _, english_plural = english.partition(", ")
    german_singular, _, german_plural = german.partition(", ")
    article, german_singular = german_singular.split()
    return Noun(english_singular, english_plural, german_singular, german_plural, GENDERS[article])


def unchanging(english: str, german: str, number: Number = "both", definite: bool = False) -> Determiner:
    """Make a determiner that keeps its form in both languages, such as a number or a name with "'s"."""
    return Determiner(english, english, german, UNCHANGING, STRONG, number, definite)


def possessive(english: str, german: str) -> Determiner:
    """Make a possessive, which is declined like "ein"."""
    return Determiner(english, english, german, EIN, MIXED, definite=True)


THE = Determiner("the", "the", "", DEFINITE_ARTICLE, WEAK, definite=True)
THIS = Determiner("this", "these", "dies", STRONG, WEAK, definite=True)
WHICH = Determiner("which", "which", "welch", STRONG, WEAK, definite=True)
A = Determiner("a", "", "ein", EIN, MIXED, "singular")
NOT_A = Determiner("a", "any", "kein", EIN, MIXED)
NOT_ANY = Determiner("any", "any", "kein", EIN, MIXED)
NO = Determiner("no", "no", "kein", EIN, MIXED)
BARE = unchanging("", "")
BARE_PLURAL = unchanging("", "", "plural")
MANY = Determiner("", "many", "viel", STRONG, STRONG, "plural")
SOME = Determiner("", "some", "einig", STRONG, STRONG, "plural")

MY = possessive("my", "mein")
YOUR = possessive("your", "dein")
HIS = possessive("his", "sein")
HER = possessive("her", "ihr")
OUR = possessive("our", "unser")
THEIR = possessive("their", "ihr")
POSSESSIVES = (MY, YOUR, HIS, HER, OUR, THEIR)


def personal_pronoun(english: str, german: str, person: Person, gender: int) -> NounPhrase:
    """Read a personal pronoun from its forms, such as "he him" and "er ihn ihm"."""
    subject, object_ = english.split()
    nominative, accusative, dative = german.split()
    return NounPhrase(subject, object_, nominative, accusative, dative, person, gender, pronoun=True)


I = personal_pronoun("I me", "ich mich mir", "I", MASCULINE)  # noqa: E741
YOU = personal_pronoun("you you", "du dich dir", "you", MASCULINE)
HE = personal_pronoun("he him", "er ihn ihm", "he", MASCULINE)
SHE = personal_pronoun("she her", "sie sie ihr", "he", FEMININE)
IT = personal_pronoun("it it", "es es ihm", "he", NEUTER)
WE = personal_pronoun("we us", "wir uns uns", "they", PLURAL)
THEY = personal_pronoun("they them", "sie sie ihnen", "they", PLURAL)
POLITE_YOU = personal_pronoun("you you", "Sie Sie Ihnen", "they", PLURAL)
PRONOUNS = (I, YOU, HE, SHE, WE, THEY)


def in_case(phrase: NounPhrase, case: Case) -> str:
    """Give the German of a noun phrase in a case."""
    return {"nominative": phrase.nominative, "accusative": phrase.accusative, "dative": phrase.dative}[case]


def adjective_stem(german: str) -> str:
    """Give the form to which endings are added: "teuer" loses an e before them, "müde" its last one."""
    if german.endswith(("el", "euer")):
        return german[:-2] + german[-1]
    return german.removesuffix("e")


def noun_form(noun: Noun, case: Case, plural: bool) -> str:
    """Decline a German noun."""
    if plural:
        return noun.german_plural + ("n" if case == "dative" and not noun.german_plural.endswith(("n", "s")) else "")
    return noun.german_plural if noun.german in N_DECLENSION and case != "nominative" else noun.german


def with_article_a(english: str) -> str:
    """Put the right indefinite article before English words."""
    return f"an {english}" if english[0] in "aeiou" else f"a {english}"


def noun_phrase(determiner: Determiner, adjective: Adjective | None, noun: Noun, plural: bool = False) -> NounPhrase:
    """Put a determiner, perhaps an adjective, and a noun together."""
    column = PLURAL if plural else noun.gender
    english = f"{adjective.english} " if adjective else ""
    english += noun.english_plural if plural else noun.english
    article = determiner.english_plural if plural else determiner.english
    if article == "a":
        english = with_article_a(english)
    elif article:
        english = f"{article} {english}"
    return NounPhrase(
        english,
        english,
        german_phrase(determiner, adjective, noun, "nominative", column),
        german_phrase(determiner, adjective, noun, "accusative", column),
        german_phrase(determiner, adjective, noun, "dative", column),
        "they" if plural else "he",
        column,
        determiner.definite,
        negates=determiner.german == "kein",
    )


def german_phrase(determiner: Determiner, adjective: Adjective | None, noun: Noun, case: Case, column: int) -> str:
    """Decline a determiner, an adjective and a noun together."""
    article = determiner.german + determiner.endings[case][column]
    phrase = f"{article} " if article else ""
    if adjective:
        phrase += f"{adjective_stem(adjective.german)}{determiner.adjective_endings[case][column]} "
    return phrase + noun_form(noun, case, column == PLURAL)


def name_phrase(name: str, gender: int) -> NounPhrase:
    """Make a noun phrase of a name that reads the same in both languages."""
    return NounPhrase(name, name, name, name, name, "he", gender)


def pair_of_names(first: str, second: str) -> NounPhrase:
    """Join two names."""
    english, german = f"{first} and {second}", f"{first} und {second}"
    return NounPhrase(english, english, german, german, german, "they", PLURAL)


def polite_name(name: str, gender: int) -> NounPhrase:
    """Make a noun phrase of a family name with Mr or Mrs; "Herr" is declined."""
    if gender == MASCULINE:
        return NounPhrase(f"Mr {name}", f"Mr {name}", f"Herr {name}", f"Herrn {name}", f"Herrn {name}", "he", gender)
    return NounPhrase(f"Mrs {name}", f"Mrs {name}", f"Frau {name}", f"Frau {name}", f"Frau {name}", "he", gender)


def anaphor(phrase: NounPhrase) -> NounPhrase:
    """Give the pronoun that refers back to a noun phrase in German, and the English one for a person."""
    return phrase if phrase.pronoun else (HE, SHE, IT, THEY)[phrase.gender]
