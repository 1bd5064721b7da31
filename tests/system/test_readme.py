"""The pages of documentation keep their word: their commands run, and what they name and link is there."""

import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml
from helpers import forked_mt, free_port

from mt.config import Config
from mt.evaluate.bleu import bleu
from mt.files import read_lines

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# In the order in which a newcomer reads them: what one page trains or translates, a later one goes on with.
FOLDERS = ("configs", "mt", "mt/data", "mt/train", "mt/translate", "mt/evaluate", "mt/*", "scripts", "tests", ".github")
PAGES = list(dict.fromkeys([README, *(page for folder in FOLDERS for page in sorted(ROOT.glob(f"{folder}/*.md")))]))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

# Put after the settings of the pages: their commands then take seconds on a toy language.
SMALL = (
    "data.vocab_size=320 model.d_model=16 model.heads=2 model.d_ff=32 model.encoder_layers=1 model.decoder_layers=1 "
    "batch.tokens=200 train.updates=4 train.checkpoint_every=2 train.average=2 train.keep=2"
)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The blocks of code in these languages, in their order: language and text."""
    pattern = rf"^```({'|'.join(languages)})\n(.*?)^```$"
    return re.findall(pattern, page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path, toy_text: Path) -> Path:
    """A folder as the pages suppose it: configs, two corpora, and an mt that works on a small scale."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for corpus in ("multi30k", "corpus"):
        shutil.copytree(toy_text, tmp_path / corpus)
    for language in ("en", "de"):
        (tmp_path / "multi30k" / f"test.{language}").rename(tmp_path / "multi30k" / f"test_2016_flickr.{language}")
    shutil.copy(toy_text / "train.de", tmp_path / "mono.de")  # text of the target language alone
    for page in reversed(PAGES):  # of two of one name the first page's, which is README
        for _, text in blocks(page, "yaml"):
            if name := re.match(r"# (\w+\.yaml)\n", text):
                (tmp_path / name[1]).write_text(text, encoding="utf-8")
    mt = tmp_path / "bin" / "mt"
    mt.parent.mkdir()
    mt.write_text(
        "#!/usr/bin/env bash\n"
        f'case "$1" in prepare|train) set -- "$@" {SMALL};; serve) set -- "$@" --port "$PORT";; esac\n'
        f'exec {shlex.join(forked_mt())} "$@"\n'
    )
    mt.chmod(0o755)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_every_page_runs(workplace: Path) -> None:
    port = str(free_port())  # the one that the pages name may be taken here
    ray = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of its sockets must be short
    quiet = {"RAY_TMPDIR": ray, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    environment = {**os.environ, **quiet, "PATH": f"{workplace / 'bin'}:{os.environ['PATH']}", "PORT": port}
    programs = {"bash": ["bash", "-euxo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    for page in PAGES:
        for language, text in blocks(page, "bash", "python"):
            if importlib.util.find_spec("ray") is None and re.search("--cluster|import ray", text):
                continue
            command = [*programs[language], text.replace("localhost:5000", f"localhost:{port}")]
            done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page}:\n{done.stderr[-3000:]}"
    shutil.rmtree(ray)
    translations, sources = workplace / "translations.de", workplace / "multi30k" / "test_2016_flickr.en"
    assert translations.read_bytes().count(b"\n") == sources.read_bytes().count(b"\n")


@every_page
def test_the_settings_that_a_page_shows_are_settings(page: Path) -> None:
    """Whole config files, or a line for each way to say one setting of `data`."""
    for _, text in blocks(page, "yaml"):
        lines = [{"data": yaml.safe_load(line)} for line in text.splitlines()]
        for settings in [yaml.safe_load(text)] if text.startswith("#") else lines:
            assert Config.model_validate({**settings, "data": {"valid": "some/valid", **settings["data"]}}).data.train


@every_page
def test_what_a_page_links_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@cache
def sources() -> list[str]:
    """The paths of all files beside the pages; not of what lies in an environment, which are many."""
    folders = (ROOT / name for name in ("mt", "scripts", "configs", "tests", ".github"))
    return [str(path) for folder in folders for path in folder.rglob("*.*")]


@every_page
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    """Paths from the root anywhere in the text; between backticks also sources by a shorter name."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/.-])((?:mt|scripts|configs|tests)/[\w/.*-]*\w)", text):
        assert list(ROOT.glob(path)), path
    for path in re.findall(r"`([\w/-]+\.(?:py|css|js))`", text):
        assert any(source.endswith(f"/{path}") for source in sources()), path


def test_the_first_page_is_read_to_its_end() -> None:
    assert len(README.read_text(encoding="utf-8")) <= 9_000


def test_the_page_of_settings_matches_their_definitions() -> None:
    script = ROOT / "scripts" / "settings_table.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_file_of_output_lines_has_a_row_with_the_score_that_it_gives() -> None:
    """Where the references lie beside it, it is scored again."""
    page = ROOT / "scripts" / "README.md"
    row = r"^\| \[(results/.*?)\].*?\| ([\d.]+) [^|]*\| `nrefs:.*version:[\d.]+` \|"
    rows = re.findall(row, page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    files = [path for path in (page.parent / "results").glob("*/*") if path.stem not in ("source", "reference")]
    assert sorted(name for name, _ in rows) == sorted(str(path.relative_to(page.parent)) for path in files)
    for name, score in rows:
        lines, references = page.parent / name, (page.parent / name).with_stem("reference")
        if references.exists():
            assert f"{bleu(read_lines(lines), read_lines(references)).value:.2f}" == score


def test_the_count_of_gpus_is_what_its_script_counts(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "scripts" / "benchmarks" / "gpus.py"), run_name="__main__")
    page = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8").splitlines()
    assert set(capsys.readouterr().out.splitlines()) <= set(page)


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
    assert scores["BLEU"] >= 97
