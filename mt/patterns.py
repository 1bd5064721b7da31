"""What `data.protect` finds in a text: patterns with a name, and regular expressions; and what a text consists of."""

from collections.abc import Sequence

import regex

NUMBERED = tuple(f"\u27e6{number}\u27e7" for number in range(1, 11))  # the symbols that stand for what is found
SECONDS = 5.0  # that a pattern may take over a line; usual ones take microseconds

# Each is linear in the length of the text: no text of a user makes it slow.
BY_NAME = {
    "url": r"(?:https?|ftp)://[^\s<>\"]*[^\s<>\".,;:!?'()\[\]{}\u2019\u201c\u201d\u00bb]",
    "email": r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++",
    "markup": r"</?[A-Za-z][^<>]*+>|&(?:\w++|\#\d++);",
    "placeholder": r"\{\{[^{}]*+\}\}|\$?\{[\w.:-]*+\}|(?<![\w%])%(?:\(\w++\)|\d++\$)?[sdifg]\b",
    "number": r"(?<!\w)\d++(?!\w)",  # separators stay, as 1,000.5 is 1.000,5 elsewhere
}


class SlowPatternError(Exception):
    """A pattern took too long over a text."""


def checked_pattern(pattern: str) -> str:
    """Raise ValueError for what is neither the name of a pattern nor a regular expression that finds something."""
    if pattern in BY_NAME:
        return pattern
    if pattern.isalpha():
        raise ValueError(f"{pattern} is none of {', '.join(BY_NAME)}, and too plain for a regular expression")
    try:
        finds_nothing = regex.compile(pattern).fullmatch("") is not None
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern} is no regular expression: {error}") from None
    if finds_nothing:
        raise ValueError(f"{pattern} matches where there is nothing")
    return pattern


def find_all(patterns: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Where patterns match, in order: start and end; where two overlap, the one named first counts.

    Raises SlowPatternError.
    """
    taken, found = bytearray(len(text)), []
    for pattern in patterns:
        try:
            spans = [match.span() for match in _compiled(pattern).finditer(text, timeout=SECONDS)]
        except TimeoutError:
            shown = text if len(text) <= 60 else f"{text[:60]}..."
            limit = f"more than {SECONDS:g} seconds over one line"
            raise SlowPatternError(f"data.protect: {pattern} takes {limit}; write it in another way: {shown}") from None
        for start, end in spans:
            if start < end and taken.find(1, start, end) < 0:
                taken[start:end] = b"\1" * (end - start)
                found.append((start, end))
    return sorted(found)


def graphemes(text: str) -> list[str]:
    """What readers take for single characters: each with its marks, such as the parts of a Hindi syllable or a flag."""
    return [str(one) for one in regex.findall(r"\X", text)]


def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(BY_NAME.get(pattern, pattern))  # which remembers what it compiled
