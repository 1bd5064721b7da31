"""The house keeps its floors: imports go down only, each library has one door, nothing heavy is imported early."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers import mt

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mt"

# Each entry is a room: imports go to lower floors, or stay within a room.
FLOORS = [
    ["mt.errors", "mt.patterns", "mt.setting_types"],
    ["mt.data_config", "mt.noise"],
    ["mt.config", "mt.console", "mt.files", "mt.remote", "mt.streams", "mt.device", "mt.distributed"],
    ["mt.config_file", "mt.config_changes", "mt.run_files", "mt.demo", "mt.pages", "mt.model"],
    ["mt.data"],
    ["mt.checkpoint"],
    ["mt.run_folder"],
    ["mt.translate"],
    ["mt.evaluate", "mt.serve"],
    ["mt.train", "mt.interop"],
    ["mt.cli"],
]

DOORS = {
    "yaml": "mt.config_file",
    "regex": "mt.patterns",
    "rich": "mt.console",
    "torch.distributed": "mt.distributed",
    "sentencepiece": "mt.data.tokenizer",
    "datasets": "mt.data.arrow",
    "fsspec": "mt.remote",
    "ray": "mt.translate.cluster",
    "aiohttp": "mt.remote",
    "safetensors": "mt.checkpoint",
    "sacrebleu": "mt.evaluate",
    "ctranslate2": "mt.interop",
    "transformers": "mt.interop",
    "typer": "mt.cli",
}

FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save"}
MOST_PARAMETERS = 7


@cache
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
    """The floor and the room of a module; None for the package itself and what is not ours."""
    rooms = [(floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms if within(name, room)]
    return rooms[0] if rooms else None


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_down_and_never_sideways(name: str, tree: ast.Module) -> None:
    here = home(name)
    if here is None:
        assert name in ("mt", "mt.__main__"), f"{name} lives on no floor"
        return
    for target in imports(tree):
        there = home(target)
        if there is None or there == here:
            continue
        assert there[0] < here[0], f"{name} (floor {here[0]}) imports {target} (floor {there[0]})"


def test_each_library_has_one_door() -> None:
    for name, tree in modules():
        for target in imports(tree):
            for library, door in DOORS.items():
                assert not within(target, library) or within(name, door), f"{name} imports {target}"


def test_no_two_files_have_one_name() -> None:
    assert len(modules()) > 40
    names = Counter(name.rsplit(".", 1)[-1] for name, _ in modules() if name != "mt.__main__")
    # A folder is named by its __init__, and no file may be called as a folder either.
    twice = {name for name, count in names.items() if count > 1}
    assert not twice


def test_no_function_takes_more_than_seven_parameters() -> None:
    found = set()
    for module, tree in modules():
        for node in ast.walk(tree):
            if module != "mt.cli" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([argument for argument in given if argument.arg not in ("self", "cls")]) > MOST_PARAMETERS:
                    found.add(f"{module}.{node.name}")
    assert not found


def test_no_pickle_and_no_code_from_strings() -> None:
    for name, tree in modules():
        assert not any(within(target, library) for target in imports(tree) for library in ("pickle", "dill", "marshal"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in FORBIDDEN_CALLS, f"{name} calls {called}"


def test_the_lowest_floors_import_no_torch() -> None:
    rooms = [room for room in (*FLOORS[0], *FLOORS[1]) if room != "mt.distributed"]
    code = f"import sys, {', '.join(rooms)}\nassert not {{'torch', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['mt', '--help']\n"
        "from mt.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'datasets', 'sentencepiece', 'sacrebleu', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_training_from_prepared_data_never_imports_datasets(toy_yaml: Path) -> None:
    assert mt("prepare", toy_yaml).returncode == 0
    code = (
        f"import sys; sys.argv = ['mt', 'train', {str(toy_yaml)!r}, 'train.updates=1', '--quiet']\n"
        "from mt.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_translating_imports_what_it_needs_alone(toy_run: Path) -> None:
    """Most of the time until the first translation goes into imports."""
    command = [sys.executable, "-X", "importtime", "-m", "mt", "translate", "--ckpt", str(toy_run)]
    done = subprocess.run(command, input="a man\n", capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "torch.nn" in imported
    needless = {
        *("torch._dynamo", "torch._inductor", "torch.onnx", "sympy"),
        *("datasets", "pyarrow", "pandas", "sacrebleu", "rich", "transformers", "ctranslate2", "tensorboard", "ray"),
        *("mt.train", "mt.evaluate", "mt.interop", "mt.serve", "mt.demo"),
    }
    assert not needless & imported
