"""The README keeps its word: its commands run, its map and reference are complete, quickstart reaches its score."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mt.config import Config, Section

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Put after the README's own settings: its commands then take seconds on a toy language.
SMALL = (
    "data.vocab_size=320 model.d_model=16 model.heads=2 model.d_ff=32 model.encoder_layers=1 model.decoder_layers=1 "
    "batch.tokens=200 train.updates=4 train.checkpoint_every=2 train.average=2 train.keep=2"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path, toy_text: Path) -> Path:
    """A folder as the README supposes it: configs, two corpora, and an mt that works on a small scale."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for corpus in ("multi30k", "corpus"):
        shutil.copytree(toy_text, tmp_path / corpus)
    for language in ("en", "de"):
        (tmp_path / "multi30k" / f"test.{language}").rename(tmp_path / "multi30k" / f"test_2016_flickr.{language}")
    (my_yaml,) = (block for block in blocks("yaml") if block.startswith("# my.yaml"))
    (tmp_path / "my.yaml").write_text(my_yaml, encoding="utf-8")
    mt = tmp_path / "bin" / "mt"
    mt.parent.mkdir()
    mt.write_text(
        "#!/usr/bin/env bash\n"
        f'case "$1" in prepare|train) set -- "$@" {SMALL};; esac\n'
        f'exec {sys.executable} -m mt "$@"\n'
    )
    mt.chmod(0o755)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_readme_runs(workplace: Path) -> None:
    environment = {**os.environ, "PATH": f"{workplace / 'bin'}:{os.environ['PATH']}"}
    script = "set -euxo pipefail\n" + "\n".join(blocks("bash"))
    result = subprocess.run(
        ["bash", "-c", script], cwd=workplace, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    source = (workplace / "multi30k" / "test_2016_flickr.en").read_text(encoding="utf-8")
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=workplace, check=True)
    assert (workplace / "translations.de").read_text(encoding="utf-8").count("\n") == source.count("\n")


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.default


@pytest.mark.parametrize(
    ("key", "default"), list(leaves(Config)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_reference_lists_every_setting_with_its_default(key: str, default: object) -> None:
    row = re.search(rf"^\| `{re.escape(key)}` \| (.*?) \| (.+?) \|$", README, flags=re.MULTILINE)
    assert row is not None, f"the configuration reference lacks {key}"
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        assert row[1].replace(",", "") == str(default).replace("1e-09", "1e-9"), key


def test_the_map_names_no_file_that_is_not_there() -> None:
    named = set(re.findall(r"`((?:mt|scripts|configs|tests)/[\w./]*)`", README))
    assert len(named) > 10
    for path in named:
        assert (ROOT / path).exists(), f"README names {path}"


def test_the_map_leaves_out_no_part_of_the_package() -> None:
    for path in (ROOT / "mt").iterdir():
        if path.suffix == ".py" and not path.name.startswith("__"):
            assert f"`mt/{path.name}`" in README, path.name
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"`mt/{path.name}/`" in README, path.name


@pytest.mark.slow
def test_quickstart_reaches_its_score() -> None:
    """In the checkout itself, as a newcomer would; what it trained is found again the next time."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    first = subprocess.run(
        [ROOT / "scripts" / "quickstart"], env=environment, capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr[-3000:]
    assert "exactly right" in first.stdout
    command = [sys.executable, "-m", "mt", "evaluate", "--ckpt", "runs/demo", "--json", "--quiet"]
    scored = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    scores = {score["name"]: score["value"] for score in json.loads(scored.stdout)["results"][0]["scores"]}
    assert scores["BLEU"] >= 95
