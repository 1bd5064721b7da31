"""Clock times, dates and stretches of time, in English and German."""

from mt.demo.numbers import english_number, english_ordinal, german_number, german_ordinal

# Minutes past the full hour, what each language calls them, and how many hours on the named hour lies.
CLOCK_MINUTES = {
    5: ("five past", 0, "fünf nach", 0),
    10: ("ten past", 0, "zehn nach", 0),
    15: ("quarter past", 0, "Viertel nach", 0),
    20: ("twenty past", 0, "zwanzig nach", 0),
    25: ("twenty-five past", 0, "fünf vor halb", 1),
    30: ("half past", 0, "halb", 1),
    35: ("twenty-five to", 1, "fünf nach halb", 1),
    40: ("twenty to", 1, "zwanzig vor", 1),
    45: ("quarter to", 1, "Viertel vor", 1),
    50: ("ten to", 1, "zehn vor", 1),
    55: ("five to", 1, "fünf vor", 1),
}

# Each part of the day with the hours to which both languages surely count it.
PARTS_OF_DAY = (
    ("in the morning", "morgens", range(5, 10)),
    ("in the afternoon", "nachmittags", range(14, 18)),
    ("in the evening", "abends", range(18, 22)),
)

MONTHS = (
    ("January", "Januar", 31),
    ("February", "Februar", 28),
    ("March", "März", 31),
    ("April", "April", 30),
    ("May", "Mai", 31),
    ("June", "Juni", 30),
    ("July", "Juli", 31),
    ("August", "August", 31),
    ("September", "September", 30),
    ("October", "Oktober", 31),
    ("November", "November", 30),
    ("December", "Dezember", 31),
)

WEEKDAYS = {
    "Monday": "Montag",
    "Tuesday": "Dienstag",
    "Wednesday": "Mittwoch",
    "Thursday": "Donnerstag",
    "Friday": "Freitag",
    "Saturday": "Samstag",
    "Sunday": "Sonntag",
}
FREQUENCIES = {"always": "immer", "never": "nie", "often": "oft", "sometimes": "manchmal"}
HABITS = {
    "at the weekend": "am Wochenende",
    "every day": "jeden Tag",
    "every evening": "jeden Abend",
    "every morning": "jeden Morgen",
    "every week": "jede Woche",
    "in summer": "im Sommer",
    "in winter": "im Winter",
    **{f"on {english}s": f"{german.lower()}s" for english, german in WEEKDAYS.items()},
}
PAST_TIMES = {
    "last month": "letzten Monat",
    "last week": "letzte Woche",
    "last year": "letztes Jahr",
    "this morning": "heute Morgen",
    "yesterday": "gestern",
    "yesterday evening": "gestern Abend",
}
PRESENT_TIMES = {
    "now": "jetzt",
    "this evening": "heute Abend",
    "today": "heute",
    "tomorrow": "morgen",
}
FUTURE_TIMES = {
    "next month": "nächsten Monat",
    "next week": "nächste Woche",
    "next year": "nächstes Jahr",
    "soon": "bald",
    "tomorrow": "morgen",
    "tomorrow evening": "morgen Abend",
}

# English singular and plural; German dative singular with its article, and dative plural.
SPANS = (
    ("a minute", "minutes", "einer Minute", "Minuten"),
    ("an hour", "hours", "einer Stunde", "Stunden"),
    ("a day", "days", "einem Tag", "Tagen"),
    ("a week", "weeks", "einer Woche", "Wochen"),
    ("a month", "months", "einem Monat", "Monaten"),
    ("a year", "years", "einem Jahr", "Jahren"),
)


def clock_time(hour: int, minute: int) -> tuple[str, str]:
    """Tell the time on a twelve-hour clock; the minute is a multiple of five, the hour any from 0 to 23."""
    if minute == 0:
        named = named_hour(hour)
        return f"{english_number(named)} o'clock", "ein Uhr" if named == 1 else f"{german_number(named)} Uhr"
    english, english_hours, german, german_hours = CLOCK_MINUTES[minute]
    return (
        f"{english} {english_number(named_hour(hour + english_hours))}",
        f"{german} {german_number(named_hour(hour + german_hours))}",
    )


def named_hour(hour: int) -> int:
    """Give the number from 1 to 12 that names an hour."""
    return (hour - 1) % 12 + 1


def date(day: int, month: int, ending: str) -> tuple[str, str]:
    """Name a day of a month (1 to 12) without its article, the German ordinal with the given adjective ending."""
    english_month, german_month, _ = MONTHS[month - 1]
    return f"{english_ordinal(day)} of {english_month}", f"{german_ordinal(day)}{ending} {german_month}"


def span(count: int, unit: int) -> tuple[str, str]:
    """Name a number of minutes, hours, days, weeks, months or years (units 0 to 5), the German in the dative."""
    english_one, english_many, german_one, german_many = SPANS[unit]
    if count == 1:
        return english_one, german_one
    return f"{english_number(count)} {english_many}", f"{german_number(count)} {german_many}"
