"""The house keeps its floors: imports go down only, each library has one door, nothing heavy is imported early."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mt"

FLOORS = [
    ["mt.errors"],
    ["mt.config", "mt.console", "mt.device", "mt.distributed", "mt.files"],
    ["mt.demo", "mt.data", "mt.model"],
    ["mt.checkpoint", "mt.evaluate.bleu"],
    ["mt.translate"],
    ["mt.train", "mt.evaluate"],
    ["mt.cli"],
]
APART = {"mt.data", "mt.model"}  # on one floor, but neither knows the other

DOORS = {
    "yaml": {"mt.config"},
    "typer": {"mt.cli"},
    "safetensors": {"mt.checkpoint"},
    "sentencepiece": {"mt.data.tokenizer"},
    "torch.distributed": {"mt.distributed"},
}
FOLDER_DOORS = {"sacrebleu": "mt.evaluate", "rich": "mt.console"}

FORBIDDEN_CALLS = {"eval", "exec"}


def modules() -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def home(name: str) -> tuple[int, str] | None:
    """The floor and the room of a module: the longest entry that holds it."""
    rooms = [(len(room), floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms if within(name, room)]
    return max(rooms)[1:] if rooms else None


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_down_only(name: str, tree: ast.Module) -> None:
    here = home(name)
    if here is None:
        assert name in ("mt", "mt.__main__"), f"{name} lives on no floor"
        return
    for target in imports(tree):
        there = home(target)
        if there is None:
            continue
        assert there[0] <= here[0], f"{name} (floor {here[0]}) imports {target} (floor {there[0]})"
        assert {here[1], there[1]} != APART, f"{name} imports {target}"


def test_each_library_has_one_door() -> None:
    for name, tree in modules():
        for target in imports(tree):
            for library, doors in DOORS.items():
                assert not within(target, library) or name in doors, f"{name} imports {target}"
            for library, folder in FOLDER_DOORS.items():
                assert not within(target, library) or within(name, folder), f"{name} imports {target}"


def test_no_pickle_and_no_code_from_strings() -> None:
    for name, tree in modules():
        assert not any(within(target, library) for target in imports(tree) for library in ("pickle", "dill", "marshal"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in FORBIDDEN_CALLS | {"torch.load", "torch.save"}, f"{name} calls {called}"


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['mt', '--help']\n"
        "from mt.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'datasets', 'sentencepiece', 'sacrebleu', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_training_from_prepared_data_never_imports_datasets(toy_yaml: Path) -> None:
    prepare = [sys.executable, "-m", "mt", "prepare", str(toy_yaml), "--quiet"]
    subprocess.run(prepare, check=True)
    code = (
        f"import sys; sys.argv = ['mt', 'train', {str(toy_yaml)!r}, 'train.updates=1', '--quiet']\n"
        "from mt.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
