"""Train, run and score the Transformer of "Attention Is All You Need".

from mt import Translator
Translator("runs/multi30k")(["A man sleeps."])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mt.translate.translator import Translator

__all__ = ["Translator", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what needs torch when it is first asked for."""
    if name == "Translator":
        from mt.translate.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
