"""Numbers in words, ordinals and prices, in English and German."""

# fmt: off
ENGLISH_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
ENGLISH_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

GERMAN_SMALL = (
    "null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
    "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
)
GERMAN_TENS = ("", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")
# fmt: on

ENGLISH_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
GERMAN_IRREGULAR_ORDINALS = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}


def english_number(number: int) -> str:
    """Write a whole number from 0 to 9,999,999 in British English words."""
    if number < 20:
        return ENGLISH_SMALL[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return f"{ENGLISH_TENS[tens]}-{ENGLISH_SMALL[unit]}" if unit else ENGLISH_TENS[tens]
    for size, name in ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred")):
        if number >= size:
            count, rest = divmod(number, size)
            head = f"{english_number(count)} {name}"
            break
    if not rest:
        return head
    return f"{head} and {english_number(rest)}" if rest < 100 else f"{head} {english_number(rest)}"


def german_number(number: int) -> str:
    """Write a whole number from 0 to 9,999,999 in German words, as one counts."""
    millions, rest = divmod(number, 1_000_000)
    tail = german_combining_number(rest) if rest or not millions else ""
    if rest % 100 == 1:
        tail += "s"
    if not millions:
        return tail
    head = "eine Million" if millions == 1 else f"{german_combining_number(millions)} Millionen"
    return f"{head} {tail}".rstrip()


def german_combining_number(number: int) -> str:
    """Write a number below a million as it stands inside a longer word: "ein", not "eins"."""
    if number < 20:
        return GERMAN_SMALL[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return f"{GERMAN_SMALL[unit]}und{GERMAN_TENS[tens]}" if unit else GERMAN_TENS[tens]
    size, name = (1_000, "tausend") if number >= 1_000 else (100, "hundert")
    count, rest = divmod(number, size)
    return german_combining_number(count) + name + (german_combining_number(rest) if rest else "")


def english_ordinal(number: int) -> str:
    """Write the ordinal of a number from 1 to 99: "third", "twenty-first"."""
    head, hyphen, last = english_number(number).rpartition("-")
    regular = last.removesuffix("y") + "ieth" if last.endswith("y") else last + "th"
    return head + hyphen + ENGLISH_IRREGULAR_ORDINALS.get(last, regular)


def german_ordinal(number: int) -> str:
    """Write the stem of the ordinal of a number from 1 to 99, to take adjective endings: "dritt", "zwanzigst"."""
    if number in GERMAN_IRREGULAR_ORDINALS:
        return GERMAN_IRREGULAR_ORDINALS[number]
    return german_combining_number(number) + ("t" if number < 20 else "st")


def price(cents: int) -> tuple[str, str]:
    """Write a price of more than one euro in English and German figures, cents shown only when there are any."""
    euros, rest = divmod(cents, 100)
    english = f"{euros:,}.{rest:02d}" if rest else f"{euros:,}"
    german = english.translate(str.maketrans(".,", ",."))
    return f"{english} euros", f"{german} Euro"
