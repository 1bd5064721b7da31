"""The verbs of the demo corpus, written as a dictionary gives their principal parts, and what each one goes with."""

from typing import NamedTuple

from mt.demo.conjugation import Verb, forms, modal, verb
from mt.demo.declension import Case
from mt.demo.nouns import (
    ANIMALS,
    ANYWHERE,
    AT_HOME,
    BOOKS,
    BUILDINGS,
    CLOTHES,
    DISHES,
    DRINKS,
    FAMILY,
    FOODS,
    FRUIT,
    FURNITURE,
    GOODS,
    LETTERS,
    LYING_THINGS,
    MACHINES,
    OPENINGS,
    OUTDOORS,
    PERSONS,
    READING,
    ROOMS,
    SHOPPING_PLACES,
    STANDING_THINGS,
    THINGS,
    TRANSPORT,
    VEHICLES,
    Kind,
)


class Frame(NamedTuple):
    """A verb with the kinds of object it takes and the German preposition and case that it governs."""

    verb: Verb
    kinds: tuple[Kind, ...]
    preposition: str = ""
    case: Case = "accusative"


def frame(english: str, german: str, *kinds: Kind, preposition: str = "", case: Case = "accusative") -> Frame:
    """Make a frame from the principal parts of its verb and the kinds of its object."""
    return Frame(verb(english, german), kinds, preposition, case)


BUY = frame("buy, bought, bought", "kaufen, kauft, hat gekauft", *GOODS)
COOK = frame("cook, cooked, cooked", "kochen, kocht, hat gekocht", DISHES)
OPEN = frame("open, opened, opened", "öffnen, öffnet, hat geöffnet", OPENINGS)
CLOSE = frame("close, closed, closed", "schließen, schließt, hat geschlossen", OPENINGS)
VISIT = frame("visit, visited, visited", "besuchen, besucht, hat besucht", *PERSONS)
MEET = frame("meet, met, met", "treffen, trifft, hat getroffen", *PERSONS)
PICK_UP = frame("pick up, picked, picked", "abholen, holt ab, hat abgeholt", *PERSONS)
WAIT_FOR = frame("wait for, waited, waited", "warten, wartet, hat gewartet", *PERSONS, TRANSPORT, preposition="auf")
KNOW = frame("know, knew, known", "kennen, kennt, hat gekannt", *PERSONS)
FIND = frame("find, found, found", "finden, findet, hat gefunden", *THINGS)
NEED = frame("need, needed, needed", "brauchen, braucht, hat gebraucht", *THINGS, MACHINES, VEHICLES)

ARRIVE = verb("arrive, arrived, arrived", "ankommen, kommt an, ist angekommen")
COME = verb("come, came, come", "kommen, kommt, ist gekommen")
COST = verb("cost, cost, cost", "kosten, kostet, hat gekostet")
DRIVE = verb("drive, drove, driven", "fahren, fährt, ist gefahren")
FLY = verb("fly, flew, flown", "fliegen, fliegt, ist geflogen")
GO = verb("go, went, gone", "gehen, geht, ist gegangen")
GO_FAR = verb("go, went, gone", "fahren, fährt, ist gefahren")
JUMP = verb("jump, jumped, jumped", "springen, springt, ist gesprungen")
LEAVE = verb("leave, left, left", "abfahren, fährt ab, ist abgefahren")
LIE = verb("lie, lay, lain", "liegen, liegt, hat gelegen")
LIVE = verb("live, lived, lived", "wohnen, wohnt, hat gewohnt")
PAY = verb("pay, paid, paid", "bezahlen, bezahlt, hat bezahlt")
PUT_DOWN = verb("put, put, put", "legen, legt, hat gelegt")
PUT_UPRIGHT = verb("put, put, put", "stellen, stellt, hat gestellt")
RAIN = verb("rain, rained, rained", "regnen, regnet, hat geregnet")
RUN = verb("run, ran, run", "laufen, läuft, ist gelaufen")
SIT = verb("sit, sat, sat", "sitzen, sitzt, hat gesessen")
SLEEP = verb("sleep, slept, slept", "schlafen, schläft, hat geschlafen")
SNOW = verb("snow, snowed, snowed", "schneien, schneit, hat geschneit")
STAND = verb("stand, stood, stood", "stehen, steht, hat gestanden")
START = verb("start, started, started", "anfangen, fängt an, hat angefangen")
WORK = verb("work, worked, worked", "arbeiten, arbeitet, hat gearbeitet")

# What somebody does with something; every tense sounds natural.
ACTIONS = (
    frame("bring, brought, brought", "mitbringen, bringt mit, hat mitgebracht", *FOODS, DRINKS),
    BUY,
    frame("call, called, called", "anrufen, ruft an, hat angerufen", FAMILY),
    CLOSE,
    COOK,
    frame("drink, drank, drunk", "trinken, trinkt, hat getrunken", DRINKS),
    frame("eat, ate, eaten", "essen, isst, hat gegessen", *FOODS),
    frame("invite, invited, invited", "einladen, lädt ein, hat eingeladen", *PERSONS),
    frame("look for, looked, looked", "suchen, sucht, hat gesucht", *PERSONS, ANIMALS, *THINGS),
    MEET,
    OPEN,
    PICK_UP,
    frame("read, read, read", "lesen, liest, hat gelesen", *READING),
    frame("repair, repaired, repaired", "reparieren, repariert, hat repariert", FURNITURE, MACHINES, VEHICLES),
    frame("sell, sold, sold", "verkaufen, verkauft, hat verkauft", FURNITURE, MACHINES, VEHICLES),
    VISIT,
    frame("wash, washed, washed", "waschen, wäscht, hat gewaschen", CLOTHES, VEHICLES),
    frame("write, wrote, written", "schreiben, schreibt, hat geschrieben", LETTERS),
)
DATIVE_ACTIONS = (
    frame("answer, answered, answered", "antworten, antwortet, hat geantwortet", *PERSONS, case="dative"),
    frame("follow, followed, followed", "folgen, folgt, ist gefolgt", *PERSONS, case="dative"),
    frame("help, helped, helped", "helfen, hilft, hat geholfen", *PERSONS, case="dative"),
    frame("thank, thanked, thanked", "danken, dankt, hat gedankt", *PERSONS, case="dative"),
)
PREPOSITIONAL_ACTIONS = (
    frame("dream of, dreamt, dreamt", "träumen, träumt, hat geträumt", *PERSONS, preposition="von", case="dative"),
    frame("talk to, talked, talked", "sprechen, spricht, hat gesprochen", *PERSONS, preposition="mit", case="dative"),
    frame("think of, thought, thought", "denken, denkt, hat gedacht", *PERSONS, preposition="an"),
    WAIT_FOR,
)
# What somebody does for somebody else, and what people go somewhere to do.
FAVOURS = (BUY, COOK)
ERRANDS = (BUY, MEET, PICK_UP, VISIT)
# The first object is a person in the dative, the second one of these.
GIVING = (
    frame("give, gave, given", "geben, gibt, hat gegeben", FRUIT, *THINGS),
    frame("send, sent, sent", "schicken, schickt, hat geschickt", *READING),
    frame("show, showed, shown", "zeigen, zeigt, hat gezeigt", *READING, LYING_THINGS, ROOMS),
)
# What happens to somebody without being done; not said of what is under way.
HAPPENINGS = (
    FIND,
    frame("forget, forgot, forgotten", "vergessen, vergisst, hat vergessen", *THINGS),
    frame("lose, lost, lost", "verlieren, verliert, hat verloren", LYING_THINGS, CLOTHES),
    frame("see, saw, seen", "sehen, sieht, hat gesehen", *PERSONS, ANIMALS),
)
# What holds for a while; said in the simple present.
STATES = (
    frame("have, had, had", "haben, hat, hat gehabt", ANIMALS, CLOTHES, LYING_THINGS, MACHINES, VEHICLES),
    KNOW,
    frame("love, loved, loved", "lieben, liebt, hat geliebt", FAMILY),
    NEED,
    frame("understand, understood, understood", "verstehen, versteht, hat verstanden", *PERSONS),
)
# What somebody does somewhere, and in which of the groups of places.
STAYING = (
    (verb("dance, danced, danced", "tanzen, tanzt, hat getanzt"), ANYWHERE),
    (verb("play, played, played", "spielen, spielt, hat gespielt"), (OUTDOORS, AT_HOME)),
    (verb("shop, shopped, shopped", "einkaufen, kauft ein, hat eingekauft"), (SHOPPING_PLACES,)),
    (verb("sing, sang, sung", "singen, singt, hat gesungen"), ANYWHERE),
    (SLEEP, (OUTDOORS, AT_HOME)),
    (verb("wait, waited, waited", "warten, wartet, hat gewartet"), ANYWHERE),
    (WORK, (AT_HOME, BUILDINGS)),
)
# What somebody does at a certain time.
DAILY_ROUTINE = (
    verb("come back, came, come", "zurückkommen, kommt zurück, ist zurückgekommen"),
    verb("fall asleep, fell, fallen", "einschlafen, schläft ein, ist eingeschlafen"),
    verb("get up, got, got", "aufstehen, steht auf, ist aufgestanden"),
    verb("wake up, woke, woken", "aufwachen, wacht auf, ist aufgewacht"),
    verb("watch television, watched, watched", "fernsehen, sieht fern, hat ferngesehen"),
)

# Animals' movements: verb, prepositions that take the accusative, and what they move over, through or onto.
MOVEMENTS = (
    (JUMP, "onto", "auf", (FURNITURE,)),
    (JUMP, "over", "über", (FURNITURE,)),
    (RUN, "into", "in", (ROOMS,)),
    (RUN, "around", "um", (FURNITURE, ROOMS)),
)
# Where things are found: each kind with the verb that says so.
RESTING = (
    (LIE, BOOKS),
    (LIE, LYING_THINGS),
    (STAND, STANDING_THINGS),
    (SIT, ANIMALS),
    (LIE, ANIMALS),
)

# Reporting verbs in German for "ich", "du", "er" and "wir".
REPORTING = {
    "believe": forms("glaube glaubst glaubt glauben"),
    "hope": forms("hoffe hoffst hofft hoffen"),
    "know": forms("weiß weißt weiß wissen"),
    "say": forms("sage sagst sagt sagen"),
    "think": forms("denke denkst denkt denken"),
}

# German modal verbs in the "ich", "du" and "wir" forms.
CAN = modal("can", "kann, kannst, können")
STATEMENT_MODALS = (
    CAN,
    modal("have to", "muss, musst, müssen"),
    modal("may", "darf, darfst, dürfen"),
    modal("must", "muss, musst, müssen"),
    modal("should", "sollte, solltest, sollten"),
    modal("want to", "will, willst, wollen"),
    modal("would like to", "möchte, möchtest, möchten"),
)
# What somebody has to do or wants to do instead of something else.
DUTIES = (
    (modal("have to", "muss, musst, müssen"), WORK),
    (modal("must", "muss, musst, müssen"), WORK),
    (modal("want to", "will, willst, wollen"), SLEEP),
)
# "Must not" forbids, which German says with "dürfen".
NEGATIVE_MODALS = (
    CAN,
    modal("have to", "muss, musst, müssen"),
    modal("must", "darf, darfst, dürfen"),
    modal("should", "sollte, solltest, sollten"),
    modal("want to", "will, willst, wollen"),
)
QUESTION_MODALS = (
    CAN,
    modal("have to", "muss, musst, müssen"),
    modal("may", "darf, darfst, dürfen"),
    modal("want to", "will, willst, wollen"),
    modal("would like to", "möchte, möchtest, möchten"),
)
