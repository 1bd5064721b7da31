"""Noise as people make it: text in one case, without its end mark, or with slips of the keys. Text in, text out.

For training (`train.noise`) and for tests (`mt evaluate --stress`). A line comes in parts, the first and the last
of them text: text, symbol, text, and so on. Symbols, which stand for what is to be copied, stay as they are.
"""

from collections.abc import Callable, Sequence

from mt.patterns import graphemes

KINDS = ("lower case", "upper case", "no end mark", "typos")
TYPOS = 0.03  # of the letters that have another one after them
END_MARKS = ".!?\u2026\u3002\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4\u0589\u1362\u17d4\u104b"

Draw = Callable[[], float]  # the next random number, in [0, 1)


def noisy(parts: Sequence[str], kind: str, draw: Draw) -> list[str]:
    """The parts of a line with one of KINDS; they stay as they are where it has nothing to change."""
    if kind == "no end mark":
        return [*parts[:-1], _without_end_mark(parts[-1], alone=len(parts) == 1)]
    change: dict[str, Callable[[str], str]] = {
        "lower case": str.lower,
        "upper case": str.upper,
        "typos": lambda text: _with_typos(text, draw),
    }
    return [part if index % 2 else change[kind](part) for index, part in enumerate(parts)]


def _without_end_mark(text: str, alone: bool) -> str:
    """Without what ends the sentence; a line that is nothing else stays."""
    shorter = text.rstrip().rstrip(END_MARKS).rstrip()
    return text if shorter == text.rstrip() or (alone and not shorter) else shorter


def _with_typos(text: str, draw: Draw) -> str:
    """Each letter but the last of a word is, with probability TYPOS, left out, written twice, or swapped or replaced.

    A letter is a grapheme with all its marks; it is swapped with the next one, and replaced by another of the text.
    """
    written = graphemes(text)
    letters = [one for one in written if one[0].isalpha()]
    result, place = [], 0
    while place < len(written):
        here, following = written[place], written[place + 1 : place + 2]
        if not (here[0].isalpha() and following and following[0][0].isalpha()) or draw() >= TYPOS:
            result.append(here)
        else:
            slip = int(draw() * 4)
            if slip == 0:
                result += [*following, here]
                place += 1
            elif slip == 1:
                result += [here, here]
            elif slip == 2:
                result.append(letters[int(draw() * len(letters))])
        place += 1
    return "".join(result)
