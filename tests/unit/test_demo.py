"""The demo corpus: its splits, its numbers and times against slow oracles, and its German against the grammar book."""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator

import pytest

from mt.demo import demo_pairs, nouns, verbs
from mt.demo.clauses import (
    Predicate,
    Time,
    clause,
    english_question,
    english_statement,
    verb_final,
    verb_first,
    verb_second,
    with_preposition,
)
from mt.demo.conjugation import (
    HABEN,
    HATTE,
    SEIN,
    WAR,
    WERDEN,
    Tense,
    Verb,
    english_present,
    german_present,
    gerund,
    infinitive_with_zu,
    modal,
    verb,
)
from mt.demo.declension import (
    BARE,
    HE,
    MANY,
    MASCULINE,
    MY,
    N_DECLENSION,
    NOT_A,
    SHE,
    SOME,
    THE,
    THEY,
    THIS,
    WE,
    WHICH,
    YOU,
    A,
    Adjective,
    Case,
    Determiner,
    I,
    Noun,
    NounPhrase,
    Person,
    in_case,
    name_phrase,
    noun,
    noun_phrase,
    polite_name,
    unchanging,
)
from mt.demo.numbers import english_number, english_ordinal, german_number, german_ordinal, price
from mt.demo.times import clock_time, date, span
from mt.errors import DataError

CASES: tuple[Case, ...] = ("nominative", "accusative", "dative")


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    return list(demo_pairs("train", 10_000, seed=1))


# Splits and seeds


def test_splits_share_no_sentence_in_either_language(pairs: list[tuple[str, str]]) -> None:
    valid, test = list(demo_pairs("valid", 500, seed=1)), list(demo_pairs("test", 500, seed=2))
    for one, other in itertools.combinations((pairs, valid, test), 2):
        for side in (0, 1):
            assert not {pair[side] for pair in one} & {pair[side] for pair in other}


def test_an_english_sentence_has_one_translation_whatever_the_seed() -> None:
    translations: dict[str, str] = {}
    for seed in range(5):
        for english, german in demo_pairs("train", 4_000, seed):
            assert translations.setdefault(english, german) == german


def test_pairs_are_distinct_and_as_many_as_asked_for(pairs: list[tuple[str, str]]) -> None:
    assert len(pairs) == 10_000
    assert len({english for english, _ in pairs}) == 10_000


def test_a_seed_always_gives_the_same_pairs_and_another_seed_others() -> None:
    first = list(demo_pairs("test", 300, seed=7))
    assert list(demo_pairs("test", 300, seed=7)) == first
    assert list(demo_pairs("test", 300, seed=8)) != first


def test_a_larger_corpus_begins_with_the_smaller_one(pairs: list[tuple[str, str]]) -> None:
    assert list(demo_pairs("train", 100, seed=1)) == pairs[:100]


def test_the_corpus_is_the_one_that_was_reviewed() -> None:
    text = "\n".join(f"{english}\t{german}" for english, german in demo_pairs("train", 1_000, seed=1))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "3d446f3cbb75b1f296cddb65717f8af430c379ae45e7905f3407ee7dd5e8f94d"
    )


@pytest.mark.parametrize(
    ("split", "count", "complaint"),
    [
        ("dev", 10, "no split dev"),
        ("train", 0, "not 0"),
        ("test", -1, "not -1"),
        ("valid", 10_000_000, "not 10,000,000"),
    ],
)
def test_an_impossible_request_is_refused_before_anything_is_drawn(split: str, count: int, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        demo_pairs(split, count, seed=1)


# Sentences as they look


def test_sentences_begin_with_a_capital_and_end_alike_in_both_languages(pairs: list[tuple[str, str]]) -> None:
    for english, german in pairs:
        if english[-1].isalpha():  # a number by itself
            assert english == english.lower()
            assert german[-1].isalpha()
        else:
            assert english[-1] == german[-1]
            assert english[-1] in ".?"
            assert english[0].isupper()
            assert german[0].isupper()


def test_words_are_parted_by_single_spaces(pairs: list[tuple[str, str]]) -> None:
    for text in itertools.chain.from_iterable(pairs):
        assert text == " ".join(text.split())
        assert not re.search(r"\s[.,?]", text)


def test_the_english_article_suits_the_sound_that_follows(pairs: list[tuple[str, str]]) -> None:
    for english, _ in pairs:
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiouh]", english), english


def test_prepositions_are_contracted_with_articles_wherever_they_meet(pairs: list[tuple[str, str]]) -> None:
    for _, german in pairs:
        assert not re.search(r"\b(in|an) (dem|das)\b|\bzu de[mr]\b|\bvon dem\b", german), german


def every_verb(value: object) -> Iterator[Verb]:
    """Find the verbs in a table of the lexicon."""
    if isinstance(value, Verb):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from every_verb(part)


VERBS = [found for value in vars(verbs).values() for found in every_verb(value)]
MODALS = (*verbs.STATEMENT_MODALS, *verbs.NEGATIVE_MODALS, *verbs.QUESTION_MODALS)
PERSONS: tuple[Person, ...] = ("I", "you", "he", "they")
FINITE_FORMS = (
    {word.prefix + german_present(word, person) for word in VERBS for person in PERSONS}
    | {chosen.german[person] for chosen in MODALS for person in PERSONS}
    | {form for forms in (SEIN, WAR, HABEN, HATTE, WERDEN) for form in forms.values()}
)


def test_subordinate_clauses_follow_a_comma_and_end_in_their_finite_verb(pairs: list[tuple[str, str]]) -> None:
    seen = 0
    for _, german in pairs:
        for clause_text in re.findall(r", (?:weil|dass|obwohl|ob|wenn) ([^,.?]+)", german):
            assert clause_text.split()[-1] in FINITE_FORMS, german
            seen += 1
        assert not re.search(r"[^,] (?:weil|dass|obwohl|ob|wenn) ", german), german
    assert seen > 500


def test_after_a_subordinate_clause_the_main_clause_begins_with_its_finite_verb(pairs: list[tuple[str, str]]) -> None:
    unjoined = FINITE_FORMS | {german_present(word, person) for word in VERBS for person in PERSONS}
    opened = [german for _, german in pairs if re.match("Weil|Obwohl|Wenn", german)]
    assert len(opened) > 100
    for german in opened:
        assert german.split(", ")[1].split()[0] in unjoined, german


# Numbers, against slow readers written apart from the generator


GERMAN_WORTH = {
    "null": 0, "ein": 1, "eins": 1, "eine": 1, "zwei": 2, "drei": 3, "vier": 4, "fünf": 5, "sechs": 6, "sieben": 7,
    "acht": 8, "neun": 9, "zehn": 10, "elf": 11, "zwölf": 12, "dreizehn": 13, "vierzehn": 14, "fünfzehn": 15,
    "sechzehn": 16, "siebzehn": 17, "achtzehn": 18, "neunzehn": 19, "zwanzig": 20, "dreißig": 30, "vierzig": 40,
    "fünfzig": 50, "sechzig": 60, "siebzig": 70, "achtzig": 80, "neunzig": 90,
}  # fmt: skip

ENGLISH_WORTH = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip


def read_german(text: str) -> int:
    for name, worth in ((" Million", 1_000_000), ("tausend", 1_000), ("hundert", 100)):
        head, found, tail = text.partition(name)
        if found:
            tail = tail.removeprefix("en").strip()
            return read_german(head) * worth + (read_german(tail) if tail else 0)
    unit, found, tens = text.partition("und")
    return GERMAN_WORTH[unit] + GERMAN_WORTH[tens] if found else GERMAN_WORTH[text]


def read_english(text: str) -> int:
    total = group = 0
    for word in text.replace("-", " ").split():
        if word in ("million", "thousand"):
            total += group * {"million": 1_000_000, "thousand": 1_000}[word]
            group = 0
        elif word == "hundred":
            group *= 100
        elif word != "and":
            group += ENGLISH_WORTH[word]
    return total + group


SAMPLED_NUMBERS = [*range(10_000), *random.Random(0).sample(range(10_000, 10_000_000), 5_000)]


def test_number_words_read_back_as_the_number() -> None:
    for number in SAMPLED_NUMBERS:
        assert read_german(german_number(number)) == number
        assert read_english(english_number(number)) == number


def test_a_german_number_below_a_million_is_one_word() -> None:
    assert all(" " not in german_number(number) for number in SAMPLED_NUMBERS if number < 1_000_000)


def test_english_puts_and_before_what_is_below_a_hundred_in_a_group() -> None:
    for number in SAMPLED_NUMBERS:
        has_and = english_number(number % 1_000).count(" and ") or (number >= 1_000 and 0 < number % 1_000 < 100)
        assert bool(has_and) == bool(re.search(r" and [a-z-]+$", english_number(number))), number


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (16, "sixteen", "sechzehn"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"),
        (100, "one hundred", "einhundert"),
        (101, "one hundred and one", "einhunderteins"),
        (777, "seven hundred and seventy-seven", "siebenhundertsiebenundsiebzig"),
        (1_000, "one thousand", "eintausend"),
        (21_001, "twenty-one thousand and one", "einundzwanzigtausendeins"),
        (101_000, "one hundred and one thousand", "einhunderteintausend"),
        (1_000_000, "one million", "eine Million"),
        (1_000_001, "one million and one", "eine Million eins"),
        (
            3_412_006,
            "three million four hundred and twelve thousand and six",
            "drei Millionen vierhundertzwölftausendsechs",
        ),
    ],
)
def test_numbers_are_written_as_in_the_grammar_book(number: int, english: str, german: str) -> None:
    assert english_number(number) == english
    assert german_number(number) == german


def test_ordinals_up_to_the_last_of_the_month() -> None:
    german = (
        "erst zweit dritt viert fünft sechst siebt acht neunt zehnt elft zwölft dreizehnt vierzehnt fünfzehnt "
        "sechzehnt siebzehnt achtzehnt neunzehnt zwanzigst einundzwanzigst zweiundzwanzigst dreiundzwanzigst "
        "vierundzwanzigst fünfundzwanzigst sechsundzwanzigst siebenundzwanzigst achtundzwanzigst neunundzwanzigst "
        "dreißigst einunddreißigst"
    )
    english = (
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third "
        "twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
    )
    assert " ".join(german_ordinal(day) for day in range(1, 32)) == german
    assert " ".join(english_ordinal(day) for day in range(1, 32)) == english


@pytest.mark.parametrize(
    ("cents", "english", "german"),
    [
        (1_250, "12.50 euros", "12,50 Euro"),
        (805, "8.05 euros", "8,05 Euro"),
        (2_000, "20 euros", "20 Euro"),
        (1_240_000, "12,400 euros", "12.400 Euro"),
    ],
)
def test_prices_trade_points_and_commas(cents: int, english: str, german: str) -> None:
    assert price(cents) == (english, german)


# Times


def read_german_clock(text: str) -> int:
    """Read minutes after twelve."""
    if text.endswith(" Uhr"):
        return 60 * (read_german(text.removesuffix(" Uhr")) % 12)
    *offset, hour = text.split()
    minutes = 60 * read_german(hour)
    if "halb" in offset:
        minutes -= 30
        offset.remove("halb")
    if offset:
        amount = 15 if offset[0] == "Viertel" else read_german(offset[0])
        minutes += amount if offset[1] == "nach" else -amount
    return minutes % 720


def read_english_clock(text: str) -> int:
    """Read minutes after twelve."""
    if text.endswith(" o'clock"):
        return 60 * (read_english(text.removesuffix(" o'clock")) % 12)
    amount, relation, hour = text.split()
    minutes = {"half": 30, "quarter": 15}.get(amount) or read_english(amount)
    return (60 * read_english(hour) + (minutes if relation == "past" else -minutes)) % 720


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize("minute", range(0, 60, 5))
def test_both_languages_tell_the_time_that_it_is(hour: int, minute: int) -> None:
    english, german = clock_time(hour, minute)
    assert read_english_clock(english) == read_german_clock(german) == (60 * hour + minute) % 720


@pytest.mark.parametrize(
    ("hour", "minute", "english", "german"),
    [
        (7, 0, "seven o'clock", "sieben Uhr"),
        (13, 0, "one o'clock", "ein Uhr"),
        (7, 5, "five past seven", "fünf nach sieben"),
        (7, 15, "quarter past seven", "Viertel nach sieben"),
        (7, 25, "twenty-five past seven", "fünf vor halb acht"),
        (7, 30, "half past seven", "halb acht"),
        (7, 35, "twenty-five to eight", "fünf nach halb acht"),
        (8, 45, "quarter to nine", "Viertel vor neun"),
        (12, 30, "half past twelve", "halb eins"),
        (0, 50, "ten to one", "zehn vor eins"),
    ],
)
def test_clock_times_are_told_as_people_tell_them(hour: int, minute: int, english: str, german: str) -> None:
    assert clock_time(hour, minute) == (english, german)


def test_dates_and_spans_of_time() -> None:
    assert date(3, 5, "en") == ("third of May", "dritten Mai")
    assert date(31, 3, "e") == ("thirty-first of March", "einunddreißigste März")
    assert span(1, 5) == ("a year", "einem Jahr")
    assert span(3, 2) == ("three days", "drei Tagen")


# Noun phrases, against paradigms written out


GOOD, NEW = Adjective("good", "gut"), Adjective("new", "neu")
MAN, WOMAN, CHILD = (
    noun("man, men", "der Mann, Männer"),
    noun("woman, women", "die Frau, Frauen"),
    noun("child, children", "das Kind, Kinder"),
)
PARADIGMS = [
    (THE, MAN, False, "der gute Mann, den guten Mann, dem guten Mann"),
    (THE, WOMAN, False, "die gute Frau, die gute Frau, der guten Frau"),
    (THE, CHILD, False, "das gute Kind, das gute Kind, dem guten Kind"),
    (THE, MAN, True, "die guten Männer, die guten Männer, den guten Männern"),
    (A, MAN, False, "ein guter Mann, einen guten Mann, einem guten Mann"),
    (A, WOMAN, False, "eine gute Frau, eine gute Frau, einer guten Frau"),
    (A, CHILD, False, "ein gutes Kind, ein gutes Kind, einem guten Kind"),
    (NOT_A, MAN, False, "kein guter Mann, keinen guten Mann, keinem guten Mann"),
    (NOT_A, WOMAN, True, "keine guten Frauen, keine guten Frauen, keinen guten Frauen"),
    (BARE, MAN, False, "guter Mann, guten Mann, gutem Mann"),
    (BARE, WOMAN, False, "gute Frau, gute Frau, guter Frau"),
    (BARE, CHILD, False, "gutes Kind, gutes Kind, gutem Kind"),
    (BARE, MAN, True, "gute Männer, gute Männer, guten Männern"),
    (MY, MAN, False, "mein guter Mann, meinen guten Mann, meinem guten Mann"),
    (MY, WOMAN, False, "meine gute Frau, meine gute Frau, meiner guten Frau"),
    (MY, CHILD, True, "meine guten Kinder, meine guten Kinder, meinen guten Kindern"),
    (THIS, MAN, False, "dieser gute Mann, diesen guten Mann, diesem guten Mann"),
    (THIS, WOMAN, False, "diese gute Frau, diese gute Frau, dieser guten Frau"),
    (THIS, CHILD, False, "dieses gute Kind, dieses gute Kind, diesem guten Kind"),
    (WHICH, CHILD, True, "welche guten Kinder, welche guten Kinder, welchen guten Kindern"),
    (MANY, MAN, True, "viele gute Männer, viele gute Männer, vielen guten Männern"),
    (SOME, WOMAN, True, "einige gute Frauen, einige gute Frauen, einigen guten Frauen"),
    (unchanging("three", "drei"), MAN, True, "drei gute Männer, drei gute Männer, drei guten Männern"),
    (unchanging("Anna's", "Annas"), CHILD, False, "Annas gutes Kind, Annas gutes Kind, Annas gutem Kind"),
]


@pytest.mark.parametrize(("determiner", "head", "plural", "paradigm"), PARADIGMS)
def test_articles_and_adjectives_are_declined_as_in_the_grammar_book(
    determiner: Determiner, head: Noun, plural: bool, paradigm: str
) -> None:
    phrase = noun_phrase(determiner, GOOD, head, plural)
    assert ", ".join(in_case(phrase, case) for case in CASES) == paradigm


@pytest.mark.parametrize(
    ("german", "inflected"),
    [("teuer", "teure"), ("dunkel", "dunkle"), ("müde", "müde"), ("sauber", "saubere"), ("schwer", "schwere")],
)
def test_adjective_stems_lose_an_unstressed_e(german: str, inflected: str) -> None:
    assert noun_phrase(THE, Adjective("-", german), WOMAN).nominative == f"die {inflected} Frau"


@pytest.mark.parametrize(
    ("entry", "singular", "plural"),
    [
        ("der Hund, Hunde", "der Hund, den Hund, dem Hund", "die Hunde, die Hunde, den Hunden"),
        (
            "der Nachbar, Nachbarn",
            "der Nachbar, den Nachbarn, dem Nachbarn",
            "die Nachbarn, die Nachbarn, den Nachbarn",
        ),
        ("der Junge, Jungen", "der Junge, den Jungen, dem Jungen", "die Jungen, die Jungen, den Jungen"),
        ("die Stadt, Städte", "die Stadt, die Stadt, der Stadt", "die Städte, die Städte, den Städten"),
        ("das Auto, Autos", "das Auto, das Auto, dem Auto", "die Autos, die Autos, den Autos"),
        ("das Mädchen, Mädchen", "das Mädchen, das Mädchen, dem Mädchen", "die Mädchen, die Mädchen, den Mädchen"),
        ("der Vogel, Vögel", "der Vogel, den Vogel, dem Vogel", "die Vögel, die Vögel, den Vögeln"),
    ],
)
def test_nouns_are_declined_in_both_numbers(entry: str, singular: str, plural: str) -> None:
    for is_plural, paradigm in ((False, singular), (True, plural)):
        phrase = noun_phrase(THE, None, noun("x, xs", entry), is_plural)
        assert ", ".join(in_case(phrase, case) for case in CASES) == paradigm


def test_english_noun_phrases_take_a_or_an_and_their_plurals() -> None:
    apple = noun("apple, apples", "der Apfel, Äpfel")
    assert noun_phrase(A, None, apple).subject == "an apple"
    assert noun_phrase(A, NEW, apple).subject == "a new apple"
    assert noun_phrase(THIS, NEW, apple, plural=True).subject == "these new apples"
    assert noun_phrase(NOT_A, None, apple, plural=True).object == "any apples"


def test_herr_is_declined_and_frau_is_not() -> None:
    assert polite_name("Weber", gender=0)[2:5] == ("Herr Weber", "Herrn Weber", "Herrn Weber")
    assert polite_name("Weber", gender=1)[2:5] == ("Frau Weber", "Frau Weber", "Frau Weber")


@pytest.mark.parametrize(
    ("preposition", "phrase", "contracted"),
    [
        ("in", "dem Haus", "im Haus"),
        ("in", "das alte Haus", "ins alte Haus"),
        ("in", "der Stadt", "in der Stadt"),
        ("an", "dem See", "am See"),
        ("zu", "der Schule", "zur Schule"),
        ("zu", "dem Bahnhof", "zum Bahnhof"),
        ("von", "dem Mann", "vom Mann"),
        ("auf", "dem Tisch", "auf dem Tisch"),
        ("für", "das Kind", "für das Kind"),
        ("zu", "diesem Hotel", "zu diesem Hotel"),
    ],
)
def test_some_prepositions_are_contracted_with_the_article(preposition: str, phrase: str, contracted: str) -> None:
    assert with_preposition(preposition, phrase) == contracted


# Verbs


CALL = verb("call, called, called", "anrufen, ruft an, hat angerufen")
GET_UP = verb("get up, got, got", "aufstehen, steht auf, ist aufgestanden")
READ = verb("read, read, read", "lesen, liest, hat gelesen")
DRIVE = verb("drive, drove, driven", "fahren, fährt, ist gefahren")


@pytest.mark.parametrize(
    ("entry", "conjugated"),
    [
        ("kaufen, kauft, hat gekauft", "kaufe kaufst kauft kaufen"),
        ("lesen, liest, hat gelesen", "lese liest liest lesen"),
        ("schließen, schließt, hat geschlossen", "schließe schließt schließt schließen"),
        ("tanzen, tanzt, hat getanzt", "tanze tanzt tanzt tanzen"),
        ("waschen, wäscht, hat gewaschen", "wasche wäschst wäscht waschen"),
        ("arbeiten, arbeitet, hat gearbeitet", "arbeite arbeitest arbeitet arbeiten"),
        ("einladen, lädt ein, hat eingeladen", "lade lädst lädt laden"),
        ("haben, hat, hat gehabt", "habe hast hat haben"),
    ],
)
def test_german_verbs_are_conjugated_from_their_principal_parts(entry: str, conjugated: str) -> None:
    word = verb("-, -, -", entry)
    assert " ".join(german_present(word, person) for person in PERSONS) == conjugated


@pytest.mark.parametrize(
    ("base", "third", "in_ing"),
    [
        ("have", "has", "having"),
        ("go", "goes", "going"),
        ("wash", "washes", "washing"),
        ("carry", "carries", "carrying"),
        ("buy", "buys", "buying"),
        ("lie", "lies", "lying"),
        ("write", "writes", "writing"),
        ("get", "gets", "getting"),
        ("visit", "visits", "visiting"),
        ("see", "sees", "seeing"),
    ],
)
def test_english_verbs_are_spelt_with_their_endings(base: str, third: str, in_ing: str) -> None:
    assert english_present(base, "he") == third
    assert gerund(base) == in_ing


def test_zu_goes_inside_a_separable_verb() -> None:
    assert infinitive_with_zu(CALL) == "anzurufen"
    assert infinitive_with_zu(READ) == "zu lesen"


# Word order


MUST = modal("must", "muss, musst, müssen")
WANT_TO = modal("want to", "will, willst, wollen")
TODAY = Time("today", "heute")
ANNA = name_phrase("Anna", gender=1)
CALL_HIM = Predicate(CALL, "him", known="ihn")
READ_A_BOOK = Predicate(READ, "a book", new="ein Buch")
DRIVE_TO_BERLIN = Predicate(DRIVE, "to Berlin", last="nach Berlin")


@pytest.mark.parametrize(
    ("subject", "predicate", "tense", "english", "second", "final"),
    [
        (I, CALL_HIM, "progressive", "I am calling him", "ich rufe ihn an", "ich ihn anrufe"),
        (SHE, CALL_HIM, "perfect", "she has called him", "sie hat ihn angerufen", "sie ihn angerufen hat"),
        (WE, CALL_HIM, "future", "we will call him", "wir werden ihn anrufen", "wir ihn anrufen werden"),
        (YOU, READ_A_BOOK, "past", "you read a book", "du hast ein Buch gelesen", "du ein Buch gelesen hast"),
        (HE, READ_A_BOOK, "present", "he reads a book", "er liest ein Buch", "er ein Buch liest"),
        (
            THEY,
            DRIVE_TO_BERLIN,
            "past",
            "they drove to Berlin",
            "sie sind nach Berlin gefahren",
            "sie nach Berlin gefahren sind",
        ),
        (SHE, Predicate(GET_UP, "up"), "past", "she got up", "sie ist aufgestanden", "sie aufgestanden ist"),
        (SHE, Predicate(GET_UP, "up"), "progressive", "she is getting up", "sie steht auf", "sie aufsteht"),
    ],
)
def test_the_finite_verb_is_second_or_last_and_separable_verbs_part_and_join(
    subject: NounPhrase, predicate: Predicate, tense: Tense, english: str, second: str, final: str
) -> None:
    built = clause(subject, predicate, tense)
    assert english_statement(built) == english
    assert verb_second(built) == second
    assert verb_final(built) == final


def test_something_else_in_front_sends_the_german_subject_behind_the_verb() -> None:
    built = clause(ANNA, READ_A_BOOK, "past")
    assert english_statement(built, "yesterday") == "yesterday Anna read a book"
    assert verb_second(built, "gestern") == "gestern hat Anna ein Buch gelesen"


def test_known_objects_come_before_the_time_and_new_ones_after_it() -> None:
    assert verb_second(clause(ANNA, CALL_HIM, "progressive", time=TODAY)) == "Anna ruft ihn heute an"
    assert verb_second(clause(ANNA, READ_A_BOOK, "progressive", time=TODAY)) == "Anna liest heute ein Buch"
    assert verb_second(clause(ANNA, DRIVE_TO_BERLIN, "progressive", time=TODAY)) == "Anna fährt heute nach Berlin"


def test_a_modal_verb_sends_the_infinitive_to_the_end() -> None:
    must = clause(ANNA, CALL_HIM, "present", MUST, TODAY)
    assert english_statement(must) == "Anna must call him today"
    assert verb_second(must) == "Anna muss ihn heute anrufen"
    assert verb_final(must) == "Anna ihn heute anrufen muss"
    assert english_statement(clause(ANNA, CALL_HIM, "present", WANT_TO)) == "Anna wants to call him"


def test_questions_put_the_finite_verb_first_and_english_ones_take_do() -> None:
    assert english_question(clause(ANNA, CALL_HIM, "past")) == "did Anna call him"
    assert verb_first(clause(ANNA, CALL_HIM, "past")) == "hat Anna ihn angerufen"
    assert english_question(clause(YOU, READ_A_BOOK, "present", WANT_TO)) == "do you want to read a book"
    assert verb_first(clause(YOU, READ_A_BOOK, "present", WANT_TO)) == "willst du ein Buch lesen"
    assert english_question(clause(ANNA, READ_A_BOOK, "progressive"), "why") == "why is Anna reading a book"


def test_nicht_follows_objects_and_precedes_places_and_kein_replaces_it() -> None:
    no_book = Predicate(READ, "a book", new="kein Buch", negates=True)
    for predicate, english, german in (
        (CALL_HIM, "Anna is not calling him today", "Anna ruft ihn heute nicht an"),
        (DRIVE_TO_BERLIN, "Anna is not driving to Berlin today", "Anna fährt heute nicht nach Berlin"),
        (no_book, "Anna is not reading a book today", "Anna liest heute kein Buch"),
    ):
        built = clause(ANNA, predicate, "progressive", time=TODAY, negative=True)
        assert english_statement(built) == english
        assert verb_second(built) == german


def test_must_not_forbids_and_need_not_does_not() -> None:
    german = {chosen.english: chosen.german["he"] for chosen in verbs.NEGATIVE_MODALS}
    assert german["must"] == "darf"
    assert german["have"] == "muss"


# The lexicon


KINDS = [value for value in vars(nouns).values() if isinstance(value, nouns.Kind)]
PLACES = nouns.OUTDOORS + nouns.BUILDINGS + nouns.AT_HOME


def test_an_english_noun_has_one_german_noun() -> None:
    german: dict[str, tuple[str, int]] = {}
    listed = [word for kind in KINDS for word in kind.nouns] + [place.noun for place in PLACES]
    for word in (*listed, *nouns.SHOPS, *nouns.LINES, *nouns.EVENTS, *(row[0] for row in nouns.QUANTITIES)):
        assert german.setdefault(word.english, (word.german, word.gender)) == (word.german, word.gender)
    assert len(german) > 80


def test_nouns_that_may_be_counted_have_plurals() -> None:
    counted = [kind for kind in KINDS if any(determiner.number == "plural" for determiner in kind.indefinite)]
    assert len(counted) > 3
    for kind in counted:
        assert all(word.english_plural and word.german_plural for word in kind.nouns)


def test_masculine_nouns_in_e_are_known_to_the_n_declension() -> None:
    men = [word for kind in KINDS for word in kind.nouns if word.gender == MASCULINE and word.german.endswith("e")]
    weak = {word.german for word in men if word.german_plural.endswith("en")}
    assert weak
    assert weak <= set(N_DECLENSION)


def test_names_take_a_plain_s_in_the_german_genitive() -> None:
    assert not [name for name, _ in nouns.NAMES if name.endswith(("s", "ß", "x", "z"))]
