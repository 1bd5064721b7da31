"""The nouns and adjectives of the demo corpus, written as a dictionary gives them.

A noun is "child, children": "das Kind, Kinder", or without plurals where it has none. An English word has one German
translation, wherever it stands, so that every sentence has one too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mt.demo.declension import (
    BARE,
    BARE_PLURAL,
    FEMININE,
    MANY,
    MASCULINE,
    POSSESSIVES,
    SOME,
    THE,
    THIS,
    A,
    Adjective,
    Determiner,
    Noun,
    noun,
    unchanging,
)
from mt.demo.numbers import english_number, german_number


class Kind(NamedTuple):
    """Nouns that go with the same adjectives, definite determiners and indefinite determiners."""

    nouns: tuple[Noun, ...]
    adjectives: tuple[Adjective, ...]
    definite: tuple[Determiner, ...]
    indefinite: tuple[Determiner, ...]


class Place(NamedTuple):
    """A place with its English preposition of location and its German ones of location and of direction."""

    noun: Noun
    adjectives: tuple[Adjective, ...]
    english: str
    location: str
    direction: str


ADJECTIVES = {
    "beautiful": "schön",
    "big": "groß",
    "black": "schwarz",
    "blue": "blau",
    "boring": "langweilig",
    "cheap": "billig",
    "clean": "sauber",
    "clever": "klug",
    "cold": "kalt",
    "dark": "dunkel",
    "expensive": "teuer",
    "famous": "berühmt",
    "fast": "schnell",
    "fresh": "frisch",
    "friendly": "freundlich",
    "funny": "lustig",
    "good": "gut",
    "green": "grün",
    "happy": "glücklich",
    "heavy": "schwer",
    "hot": "heiß",
    "hungry": "hungrig",
    "ill": "krank",
    "interesting": "interessant",
    "long": "lang",
    "modern": "modern",
    "new": "neu",
    "old": "alt",
    "quiet": "ruhig",
    "red": "rot",
    "rich": "reich",
    "short": "kurz",
    "small": "klein",
    "tall": "groß",
    "tired": "müde",
    "white": "weiß",
    "young": "jung",
}


def adjective(english: str) -> Adjective:
    """Look an adjective up."""
    return Adjective(english, ADJECTIVES[english])


def kind(
    nouns: dict[str, str],
    adjectives: str,
    definite: Sequence[Determiner] = (),
    indefinite: Sequence[Determiner] = (),
) -> Kind:
    """Make a kind from the dictionary entries of its nouns and the English of its adjectives."""
    return Kind(
        tuple(noun(english, german) for english, german in nouns.items()),
        tuple(adjective(english) for english in adjectives.split()),
        tuple(definite),
        tuple(indefinite),
    )


def places(adjectives: str, *rows: tuple[str, str, str, str, str]) -> tuple[Place, ...]:
    """Make places from the English of their adjectives and rows of dictionary entries and prepositions."""
    described = tuple(adjective(english) for english in adjectives.split())
    return tuple(Place(noun(english, german), described, *prepositions) for english, german, *prepositions in rows)


# What is new about a thing does not contradict what was already said.
OPPOSITES = {
    "big": ("small",),
    "boring": ("funny", "interesting"),
    "cheap": ("expensive",),
    "expensive": ("cheap",),
    "funny": ("boring",),
    "interesting": ("boring",),
    "long": ("short",),
    "new": ("old",),
    "old": ("new", "young"),
    "short": ("long",),
    "small": ("big",),
    "young": ("old",),
}
# Adverbs before an adjective; those of degree do not go with a colour.
DEGREES = {"": "", "not": "nicht", "quite": "ziemlich", "too": "zu", "very": "sehr"}
COLOURS = ("black", "blue", "green", "red", "white")

# Prepositions that take the dative where something is, and the accusative where it goes.
SPOTS = (("on", "auf"), ("under", "unter"), ("next to", "neben"), ("behind", "hinter"), ("in front of", "vor"))

WOMEN = ("Anna", "Eva", "Julia", "Lena", "Maria", "Sophie")
MEN = ("David", "Jan", "Martin", "Paul", "Peter", "Tom")
NAMES = tuple((name, FEMININE) for name in WOMEN) + tuple((name, MASCULINE) for name in MEN)
FAMILY_NAMES = ("Becker", "Schmidt", "Wagner", "Weber")

CITIES = {
    "Berlin": "Berlin",
    "Cologne": "Köln",
    "Hamburg": "Hamburg",
    "Munich": "München",
    "Paris": "Paris",
    "Vienna": "Wien",
}
COUNTRIES = {
    "Austria": "Österreich",
    "France": "Frankreich",
    "Germany": "Deutschland",
    "Italy": "Italien",
    "Poland": "Polen",
    "Spain": "Spanien",
}

# Owners with their German genitive; names in s or z would need an apostrophe.
OWNERS = tuple(unchanging(f"{name}'s", f"{name}s", definite=True) for name in ("Anna", "David", "Lena", "Paul"))
NUMERALS = tuple(unchanging(english_number(n), german_number(n), "plural") for n in range(2, 13))

COUNTED = (A, A, A, BARE_PLURAL, MANY, SOME, *NUMERALS[:4])
OWNED = (*POSSESSIVES, *OWNERS)
POINTED = (THE,) * 6 + (THIS, THIS)

FAMILY = kind(
    {
        "brother, brothers": "der Bruder, Brüder",
        "daughter, daughters": "die Tochter, Töchter",
        "father": "der Vater",
        "friend, friends": "der Freund, Freunde",
        "mother": "die Mutter",
        "neighbour, neighbours": "der Nachbar, Nachbarn",
        "sister, sisters": "die Schwester, Schwestern",
        "son, sons": "der Sohn, Söhne",
    },
    "old friendly clever funny",
    definite=POSSESSIVES,
)
PEOPLE = kind(
    {
        "doctor, doctors": "die Ärztin, Ärztinnen",
        "man, men": "der Mann, Männer",
        "student, students": "der Student, Studenten",
        "teacher, teachers": "der Lehrer, Lehrer",
        "woman, women": "die Frau, Frauen",
    },
    "old young friendly clever famous funny rich tall",
    definite=POINTED,
    indefinite=COUNTED,
)
CHILDREN = kind(
    {
        "boy, boys": "der Junge, Jungen",
        "child, children": "das Kind, Kinder",
        "girl, girls": "das Mädchen, Mädchen",
    },
    "clever friendly funny happy small",
    definite=POINTED,
    indefinite=COUNTED,
)
ANIMALS = kind(
    {
        "cat, cats": "die Katze, Katzen",
        "dog, dogs": "der Hund, Hunde",
        "horse, horses": "das Pferd, Pferde",
    },
    "old young beautiful big small black white",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
FRUIT = kind(
    {
        "apple, apples": "der Apfel, Äpfel",
        "cake, cakes": "der Kuchen, Kuchen",
        "egg, eggs": "das Ei, Eier",
        "tomato, tomatoes": "die Tomate, Tomaten",
    },
    "big small fresh cheap",
    definite=POINTED,
    indefinite=COUNTED,
)
DISHES = kind(
    {
        "meat": "das Fleisch",
        "rice": "der Reis",
        "soup": "die Suppe",
    },
    "cold expensive good hot fresh",
    definite=POINTED,
    indefinite=(BARE,),
)
GROCERIES = kind(
    {
        "bread": "das Brot",
        "cheese": "der Käse",
    },
    "cheap expensive good",
    definite=POINTED,
    indefinite=(BARE,),
)
DRINKS = kind(
    {
        "beer": "das Bier",
        "coffee": "der Kaffee",
        "milk": "die Milch",
        "tea": "der Tee",
        "water": "das Wasser",
    },
    "cold good hot",
    definite=POINTED,
    indefinite=(BARE,),
)
BOOKS = kind(
    {
        "book, books": "das Buch, Bücher",
        "newspaper, newspapers": "die Zeitung, Zeitungen",
    },
    "boring expensive good interesting new old",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
LETTERS = kind(
    {
        "email, emails": "die E-Mail, E-Mails",
        "letter, letters": "der Brief, Briefe",
        "story, stories": "die Geschichte, Geschichten",
    },
    "boring funny good interesting long short",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
CLOTHES = kind(
    {
        "coat, coats": "der Mantel, Mäntel",
        "dress, dresses": "das Kleid, Kleider",
        "hat, hats": "der Hut, Hüte",
        "shirt, shirts": "das Hemd, Hemden",
    },
    "beautiful black blue cheap clean expensive green new old red white",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
LYING_THINGS = kind(
    {
        "camera, cameras": "die Kamera, Kameras",
        "key, keys": "der Schlüssel, Schlüssel",
        "picture, pictures": "das Bild, Bilder",
    },
    "beautiful big cheap expensive new old small",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
STANDING_THINGS = kind(
    {
        "bottle, bottles": "die Flasche, Flaschen",
        "cup, cups": "die Tasse, Tassen",
        "suitcase, suitcases": "der Koffer, Koffer",
    },
    "big blue cheap clean expensive green heavy new old small",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
MACHINES = kind(
    {
        "computer, computers": "der Computer, Computer",
        "lamp, lamps": "die Lampe, Lampen",
        "radio, radios": "das Radio, Radios",
    },
    "big cheap expensive modern new old small",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
FURNITURE = kind(
    {
        "bed, beds": "das Bett, Betten",
        "chair, chairs": "der Stuhl, Stühle",
        "table, tables": "der Tisch, Tische",
    },
    "beautiful big expensive heavy modern new old small white",
    definite=POINTED,
    indefinite=COUNTED,
)
VEHICLES = kind(
    {
        "bicycle, bicycles": "das Fahrrad, Fahrräder",
        "car, cars": "das Auto, Autos",
    },
    "beautiful blue cheap expensive fast green modern new old red",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)
TRANSPORT = kind(
    {
        "bus, buses": "der Bus, Busse",
        "taxi, taxis": "das Taxi, Taxis",
        "train, trains": "der Zug, Züge",
    },
    "big modern new old",
    definite=(THE,),
)
OPENINGS = kind(
    {
        "door, doors": "die Tür, Türen",
        "window, windows": "das Fenster, Fenster",
    },
    "big heavy old small",
    definite=POINTED,
)
ROOMS = kind(
    {
        "flat, flats": "die Wohnung, Wohnungen",
        "house, houses": "das Haus, Häuser",
        "room, rooms": "das Zimmer, Zimmer",
    },
    "beautiful big dark expensive modern new old quiet small",
    definite=POINTED + OWNED,
    indefinite=COUNTED,
)

OUTDOORS = places(
    "beautiful big quiet small",
    ("beach, beaches", "der Strand, Strände", "on", "an", "an"),
    ("forest, forests", "der Wald, Wälder", "in", "in", "in"),
    ("park, parks", "der Park, Parks", "in", "in", "in"),
    ("village, villages", "das Dorf, Dörfer", "in", "in", "in"),
)
BUILDINGS = places(
    "beautiful big modern new old small",
    ("cinema, cinemas", "das Kino, Kinos", "in", "in", "in"),
    ("hotel, hotels", "das Hotel, Hotels", "in", "in", "zu"),
    ("market, markets", "der Markt, Märkte", "at", "auf", "auf"),
    ("museum, museums", "das Museum, Museen", "in", "in", "in"),
    ("office, offices", "das Büro, Büros", "in", "in", "in"),
    ("restaurant, restaurants", "das Restaurant, Restaurants", "in", "in", "in"),
    ("school, schools", "die Schule, Schulen", "in", "in", "zu"),
    ("station, stations", "der Bahnhof, Bahnhöfe", "at", "an", "zu"),
)

AT_HOME = places(
    "beautiful big new old small",
    ("garden, gardens", "der Garten, Gärten", "in", "in", "in"),
    ("kitchen, kitchens", "die Küche, Küchen", "in", "in", "in"),
)
ANYWHERE = (AT_HOME, OUTDOORS, BUILDINGS, BUILDINGS)
IN_TOWN = OUTDOORS + BUILDINGS
SHOPPING_PLACES = tuple(place for place in BUILDINGS if place.noun.english in ("market", "supermarket", "town"))
# What a town may or may not have.
SIGHT_ADJECTIVES = tuple(adjective(english) for english in ("beautiful", "big", "small"))
SIGHTS = tuple(place.noun for place in IN_TOWN if place.noun.english not in ("forest", "office", "town", "village"))

# What has opening hours.
SHOPS = (
    noun("bakery", "die Bäckerei"),
    noun("post office", "die Post"),
    noun("shop", "das Geschäft"),
)
# What runs to a timetable.
LINES = (noun("bus", "der Bus"), noun("train", "der Zug"))
TRAVEL = {
    "by bicycle": "mit dem Fahrrad",
    "by bus": "mit dem Bus",
    "by car": "mit dem Auto",
    "by taxi": "mit dem Taxi",
    "by train": "mit dem Zug",
}
EVENTS = (
    noun("concert, concerts", "das Konzert, Konzerte"),
    noun("exam, exams", "die Prüfung, Prüfungen"),
    noun("film, films", "der Film, Filme"),
    noun("party, parties", "die Party, Partys"),
)

PERSONS = (FAMILY, PEOPLE, CHILDREN)
FOODS = (FRUIT, DISHES, GROCERIES)
READING = (BOOKS, LETTERS)
THINGS = (BOOKS, CLOTHES, LYING_THINGS, STANDING_THINGS)
GOODS = (*FOODS, *THINGS, FURNITURE, MACHINES, VEHICLES)

# What can be described and introduced.
DESCRIBED = (*PERSONS, ANIMALS, FRUIT, *THINGS, FURNITURE, MACHINES, VEHICLES, ROOMS)

# What has how many of what, and from how many up to how many.
QUANTITIES = (
    (noun("book", "das Buch"), "pages", "Seiten", 50, 1_000),
    (noun("cinema", "das Kino"), "seats", "Plätze", 80, 900),
    (noun("hotel", "das Hotel"), "rooms", "Zimmer", 12, 500),
    (noun("house", "das Haus"), "windows", "Fenster", 4, 100),
    (noun("museum", "das Museum"), "pictures", "Bilder", 100, 9_000),
    (noun("school", "die Schule"), "pupils", "Schüler", 100, 3_000),
    (noun("village", "das Dorf"), "inhabitants", "Einwohner", 100, 5_000),
)
QUANTITY_ADJECTIVES = tuple(adjective(english) for english in ("big", "small", "old", "new"))
