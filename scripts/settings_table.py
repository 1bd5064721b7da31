#!/usr/bin/env python3
"""Write the table of all settings into configs/README.md, from the definitions in the package and their comments.

scripts/settings_table.py            # after a change of mt/config.py or mt/data_config.py
scripts/settings_table.py --check    # exit status 1 when the table does not match
"""

import ast
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = [ROOT / "mt" / name for name in ("config.py", "data_config.py")]
PAGE = ROOT / "configs" / "README.md"
BEGIN, END = "<!-- settings: written by scripts/settings_table.py -->\n", "<!-- end of settings -->\n"
Section = tuple[ast.ClassDef, dict[int, str]]  # a definition, and the comments of its file by line
ON_RESUME = {"Recipe": "refused", "Noted": "said", "Free": "free"}


def table() -> str:
    """The settings as a Markdown table, in the order of their definition."""
    sections = {name: section for path in CONFIGS for name, section in sections_of(path)}
    head = "| key | default | when a run goes on | meaning |\n|---|---|---|---|\n"
    return head + "".join(rows(sections, "Config", ""))


def sections_of(path: Path) -> Iterator[tuple[str, Section]]:
    """Each class of a file by name, with the comments of the whole file."""
    with tokenize.open(path) as file:
        comments = {
            token.start[0]: token.string.removeprefix("# ")
            for token in tokenize.generate_tokens(file.readline)
            if token.type == tokenize.COMMENT
        }
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from ((node.name, (node, comments)) for node in tree.body if isinstance(node, ast.ClassDef))


def rows(sections: dict[str, Section], name: str, prefix: str) -> Iterator[str]:
    """A row for each setting of a section, those of the sections within it too."""
    definition, comments = sections[name]
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        key, kind = f"{prefix}{node.target.id}", node.annotation
        if isinstance(kind, ast.Name) and kind.id in sections:
            yield from rows(sections, kind.id, f"{key}.")
            continue
        assert isinstance(kind, ast.Subscript), f"{key} has no mark"
        meaning = comments[node.end_lineno or 0].replace("|", "\\|")
        choices = ", ".join(choices_of(kind.slice))
        mark = ON_RESUME[ast.unparse(kind.value)]
        yield f"| `{key}` | {default(node.value)} | {mark} | {meaning}{f' ({choices})' if choices else ''} |\n"


def choices_of(kind: ast.expr) -> list[str]:
    """The values of a Literal."""
    if not (isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Literal"):
        return []
    values = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
    return [str(ast.literal_eval(value)) for value in values]


def default(value: ast.expr | None) -> str:
    """A default as YAML writes it; that of a source of text is the part of WMT14 it names."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("Field", "Path"):
        value = value.args[0]
    if isinstance(value, ast.Constant):
        if isinstance(value.value, bool):
            return "yes" if value.value else "no"
        return "none" if value.value is None else number(value.value)
    if isinstance(value, ast.Tuple | ast.Dict):
        calls = [node for node in ast.walk(value) if isinstance(node, ast.Call)]
        splits = [ast.literal_eval(word.value) for call in calls for word in call.keywords if word.arg == "split"]
        return f"WMT14 {splits[0]}" if splits else "none"
    raise ValueError(f"no default can be shown for {ast.unparse(value) if value else value}")


def number(value: object) -> str:
    if isinstance(value, float) and 0 < value < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}{table()}{END}{after}"
    if "--check" in sys.argv[1:]:
        sys.exit(wanted != page and "configs/README.md does not match the settings: run scripts/settings_table.py")
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
