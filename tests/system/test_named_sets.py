"""Several validation and test sets by name: each is treated as it would be alone, and the one named decides."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from helpers import fork_world, statuses, with_settings

from mt.__main__ import main
from mt.checkpoint import load_checkpoint, read_state, resumable_checkpoints
from mt.config import Config
from mt.config_file import load_config
from mt.console import Console
from mt.data.changed import why_prepare
from mt.data.prepare import prepare
from mt.errors import CheckpointError
from mt.evaluate.report import write_report
from mt.run_files import METRICS, read_metrics
from mt.run_folder import choose_checkpoint, find_checkpoint
from mt.train.loop import train

Record = dict[str, Any]


@pytest.fixture(scope="module")
def texts(toy_text: Path) -> dict[str, str]:
    """Two sets that do not overlap."""
    return {"news": str(toy_text / "valid"), "captions": str(toy_text / "test")}


def config_of(toy_yaml: Path, name: str, valid: object, *overrides: str) -> Config:
    """The toy config with another data.valid, and folders of its own."""
    folders = [f"{section}.dir={toy_yaml.parent / name / section}" for section in ("data", "train")]
    return load_config(toy_yaml, [f"data.valid={json.dumps(valid)}", *folders, *overrides])


def records(config: Config) -> list[Record]:
    return read_metrics(config.train.dir / METRICS)


def validations(config: Config) -> list[Record]:
    """Those of the checkpoints, without the average."""
    return [record for record in records(config) if "valid_loss" in record and "averaged" not in record]


def without_seconds(config: Config) -> list[Record]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records(config)]


def weights_of(config: Config) -> dict[str, Any]:
    return load_checkpoint(resumable_checkpoints(config.train.dir)[0]).weights


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- Prepared data -----------------------------------------------------------------------------------------------


def test_each_set_is_prepared_as_it_would_be_alone(toy_yaml: Path, texts: dict[str, str], quiet: Console) -> None:
    several = prepare(config_of(toy_yaml, "both", texts), quiet)
    assert list(several.valid) == ["valid/news", "valid/captions"]
    for name, text in texts.items():
        alone = prepare(config_of(toy_yaml, name, text), quiet)
        assert files(several.dir / "valid" / name) == files(alone.dir / "valid")
        assert several.text(f"valid/{name}") == alone.text("valid")
        assert isinstance(alone.manifest["settings"]["valid"], list), "as earlier versions wrote it"


def test_the_order_of_sets_prepares_nothing_again_and_another_set_does(
    toy_yaml: Path, texts: dict[str, str], quiet: Console
) -> None:
    prepare(config_of(toy_yaml, "both", texts), quiet)
    assert not why_prepare(config_of(toy_yaml, "both", dict(reversed(texts.items()))))
    assert "data.valid" in why_prepare(config_of(toy_yaml, "both", texts["news"]))
    assert "data.valid" in why_prepare(config_of(toy_yaml, "both", {"news": texts["captions"]}))


# --- Training ----------------------------------------------------------------------------------------------------


def test_named_sets_give_the_figures_that_each_set_alone_gives(
    toy_yaml: Path, texts: dict[str, str], quiet: Console
) -> None:
    both = config_of(toy_yaml, "both", texts)
    train(both, quiet)
    for name, text in texts.items():
        alone = config_of(toy_yaml, name, text)
        train(alone, quiet)
        assert [{"update": one["update"], **one["sets"][name]} for one in validations(both)] == validations(alone)
        assert all(value.equal(weights_of(both)[key]) for key, value in weights_of(alone).items())
        if name == "news":  # the first, which decides where train.best names none
            assert [{key: one[key] for key in one if key != "sets"} for one in validations(both)] == validations(alone)


@pytest.mark.parametrize(("best", "figure"), [("captions", "bleu"), ("captions.loss", "loss")])
def test_the_set_that_is_named_decides_what_is_best(
    toy_yaml: Path, texts: dict[str, str], quiet: Console, best: str, figure: str
) -> None:
    several, alone = (
        config_of(toy_yaml, name, valid, f"train.best={value}", "train.keep=3", "train.patience=2", "train.updates=40")
        for name, valid, value in (("both", texts, best), ("alone", texts["captions"], figure))
    )
    for config in (several, alone):
        train(config, quiet)
    ends = [read_state(resumable_checkpoints(config.train.dir)[0]) for config in (several, alone)]
    for key in ("update", "best_update", "best_bleu", "best_loss", "stale", "alignment_layer"):
        assert ends[0][key] == ends[1][key], key
    choices = [choose_checkpoint(config.train.dir) for config in (several, alone)]
    assert [choices[0].path.name, choices[0].reason] == [choices[1].path.name, choices[1].reason]
    assert find_checkpoint(several.train.dir / "best").name == find_checkpoint(alone.train.dir / "best").name


def test_a_run_that_stopped_goes_on_to_the_same_figures_on_every_set(
    toy_yaml: Path, texts: dict[str, str], quiet: Console
) -> None:
    straight, halting = (config_of(toy_yaml, name, texts, "train.best=captions") for name in ("straight", "halting"))
    train(straight, quiet)
    train(with_settings(halting, train={"updates": 5, "average": 1}), quiet)
    train(halting, quiet)
    left, right = ([one for one in without_seconds(run) if one["update"] != 5] for run in (straight, halting))
    assert left == right
    assert all(value.equal(weights_of(halting)[key]) for key, value in weights_of(straight).items())


def test_two_processes_validate_as_one_does(toy_yaml: Path, texts: dict[str, str], quiet: Console) -> None:
    one, two = (
        config_of(toy_yaml, name, texts, "model.dropout=0", "train.updates=4", "train.average=1")
        for name in ("one", "two")
    )
    train(one, quiet)
    assert statuses(fork_world(2, lambda: train(two, quiet))) == [0, 0]
    for name in texts:
        (left,), (right,) = ([record["sets"][name] for record in validations(config)] for config in (one, two))
        assert left["valid_loss"] == pytest.approx(right["valid_loss"], rel=1e-4)
        assert left["samples"] == right["samples"]


def test_another_order_of_sets_is_another_run_as_another_one_would_decide(
    toy_yaml: Path, texts: dict[str, str], quiet: Console
) -> None:
    train(config_of(toy_yaml, "both", texts, "train.updates=4", "train.average=1"), quiet)
    with pytest.raises(CheckpointError, match=r"data\.valid: other sources"):
        train(config_of(toy_yaml, "both", dict(reversed(texts.items())), "train.average=1"), quiet)


def test_each_set_is_said_on_the_console_and_drawn_in_the_report(
    toy_yaml: Path, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(toy_yaml, "both", texts, "train.best=captions", "train.tensorboard=no")
    train(config, Console())
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("update 4: ")]
    assert len(said) == 1
    for words in ("valid news loss ", "valid captions loss ", "best on captions "):
        assert words in said[0]
    page = write_report(config.train.dir).read_text(encoding="utf-8")
    last = validations(config)[-1]
    for name in texts:
        assert f"{name} {last['sets'][name]['valid_loss']:.2f}" in page
        assert f"valid/{name}" in page, "the sources of the data"
    assert "best by captions BLEU" in page


# --- Scoring -----------------------------------------------------------------------------------------------------


Mt = Callable[..., CompletedProcess[str]]
Scored = Callable[..., dict[str, Any]]


@pytest.fixture
def mt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mt:
    """A command within this process, which saves loading torch each time."""

    def run(*arguments: object) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["mt", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return CompletedProcess([*map(str, arguments)], int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def scored(mt: Mt) -> Scored:
    def run(*arguments: object) -> dict[str, Any]:
        done = mt("evaluate", *arguments, "--beam", "1", "--json", "--quiet")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return run


@pytest.fixture(scope="module")
def tuned(toy_run: Path, texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that began with the toy run's weights, with named sets of both kinds."""
    folder = tmp_path_factory.mktemp("tuned")
    config = folder / "tuned.yaml"
    data = {"dir": str(folder / "data"), "train": texts["news"], "valid": texts, "test": texts}
    train_settings = {"dir": str(folder / "run"), "updates": 30, "checkpoint_every": 15, "average": 1, "keep": 2}
    sections = {
        "data": data,
        "batch": {"tokens": 400},
        "optim": {"rate": 0.002},
        "train": {**train_settings, "device": "cpu", "precision": "float32", "best": "captions"},
    }
    config.write_text(json.dumps(sections))
    train(load_config(config), Console(quiet=True), init_from=toy_run)
    return folder / "run"


def test_gains_and_losses_on_all_sets_are_those_of_each_set_alone(
    toy_run: Path, tuned: Path, texts: dict[str, str], scored: Scored
) -> None:
    found = scored("--ckpt", toy_run, "--ckpt", tuned, "--all-sets")["sets"]
    assert list(found) == list(texts)
    for name, text in texts.items():
        alone = scored("--ckpt", toy_run, "--ckpt", tuned, "--src", f"{text}.en", "--ref", f"{text}.de")
        for key in ("sentences", "results", "comparisons", "contrasts"):
            assert found[name][key] == alone[key]
        assert found[name] == scored("--ckpt", toy_run, "--ckpt", tuned, "--testset", name)


def test_people_see_a_table_of_what_was_gained_and_lost(toy_run: Path, tuned: Path, mt: Mt, scored: Scored) -> None:
    shown = mt("evaluate", "--ckpt", toy_run, "--ckpt", tuned, "--all-sets", "--beam", "1").stdout
    found = scored("--ckpt", toy_run, "--ckpt", tuned, "--all-sets")["sets"]
    rows = [line.split() for line in shown.splitlines() if line.startswith(("news  ", "captions  "))]
    assert [(row[0], row[1]) for row in rows] == [(name, metric) for name in found for metric in ("BLEU", "chrF2")]
    for name, metric, before, after, change, *tests in rows:
        (systems,) = (one["systems"] for one in found[name]["comparisons"] if one["metric"] == metric)
        assert [before, after] == [f"{system['value']:.2f}" for system in systems]
        assert float(change) == pytest.approx(float(after) - float(before), abs=0.011)
        assert [float(p.rstrip("*")) for p in tests] == pytest.approx(
            [systems[1]["p_bootstrap"], systems[1]["p_randomization"]], abs=1e-4
        )
    assert f"{toy_run} (" in shown
    assert "seed:12345" in shown, "the signature"


def test_one_model_is_scored_on_all_its_sets_and_its_report_has_them(tuned: Path, scored: Scored) -> None:
    found = scored("--ckpt", tuned, "--all-sets")["sets"]
    recorded = json.loads((tuned / "scores.json").read_text())
    for evaluation in found.values():
        values = [score["value"] for score in recorded if score["testset"] == evaluation["testset"]]
        assert values == [score["value"] for score in evaluation["results"][0]["scores"]]


def test_validation_sets_are_scored_by_name_where_there_is_no_test_set_of_that_name(
    tuned: Path, scored: Scored
) -> None:
    title = scored("--ckpt", tuned, "--testset", "valid/captions")["testset"]
    assert title.startswith("valid/captions en-de, 10 sentences, from ")
    curve = scored("--ckpt", tuned, "--all-checkpoints", "--testset", "captions")
    assert curve["testset"].startswith("captions en-de, 10 sentences")
    assert len(curve["points"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "its data.test has the sets news, captions: name one (--testset), or --all-sets"),
        (["--testset", "captons"], "unknown test set 'captons'"),
        (["--all-sets", "--testset", "news"], "--all-sets does not go with --testset"),
        (["--all-sets", "--all-checkpoints"], "--all-checkpoints does not go with --all-sets"),
    ],
)
def test_a_set_that_is_not_clear_is_asked_for_in_a_sentence(tuned: Path, options: list[str], said: str, mt: Mt) -> None:
    done = mt("evaluate", "--ckpt", tuned, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
