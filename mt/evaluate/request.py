"""The options of `mt evaluate`, checked for combinations that make no sense."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mt.errors import UsageError
from mt.files import check_target

_LANGUAGES = re.compile(r"([a-zA-Z]{2,3})-([a-zA-Z]{2,3})")


@dataclass(frozen=True)
class Request:
    """Systems to score, the test set to score them on, and the other results wanted.

    Raises UsageError when these do not go together.
    """

    ckpt: tuple[Path, ...] = ()  # runs or checkpoints
    hyp: tuple[Path, ...] = ()  # files of translations
    src: Path | None = None
    ref: tuple[Path, ...] = ()
    testset: str | None = None
    data: Path | None = None
    langs: str | None = None  # such as en-de
    output: Path | None = None
    tag: str | None = None  # a symbol put before each source; None: those that data.test names
    decode: Mapping[str, object] = field(default_factory=dict)  # keys that go over the run's decode section
    average: int | None = None
    device: str = "auto"
    paper_bleu: bool = False
    multi30k_bleu: bool = False
    analysis: bool = False
    all_checkpoints: bool = False
    all_sets: bool = False
    stress: bool = False

    def __post_init__(self) -> None:
        self._check_systems()
        self._check_testset()
        if self.all_checkpoints:
            self._check_curve()
        if self.stress:
            self._check_alone("--stress")
        if self.all_sets:
            others = {"--hyp": self.hyp, "--src": self.src, "--ref": self.ref, "--testset": self.testset}
            if given := [option for option, value in {**others, "--output": self.output}.items() if value]:
                raise UsageError(f"--all-sets does not go with {given[0]}: it scores models on the sets of their data")

    def _check_systems(self) -> None:
        systems = [*self.ckpt, *self.hyp]
        if not systems:
            raise UsageError("nothing to score: give --ckpt, a model, or --hyp, a file of translations")
        if twice := [path for path in systems if systems.count(path) > 1]:
            raise UsageError(f"{twice[0]} is given twice; to compare settings, keep each output and give it as --hyp")
        if not self.ckpt:
            options = {"--average": self.average, "--tag": self.tag}
            given = [f"decode.{key}" for key in self.decode] + [name for name, value in options.items() if value]
            if given:
                raise UsageError(f"{given[0]} is about translating, but there is no --ckpt to translate with")
        if self.output is not None:
            if self.hyp or len(self.ckpt) > 1:
                raise UsageError("--output keeps the translations of one --ckpt; score several models one at a time")
            check_target(self.output)

    def _check_testset(self) -> None:
        if self.testset is not None and (self.src or self.ref):
            raise UsageError("give either --testset or --src and --ref")
        if self.data is not None and self.testset is None:
            raise UsageError("--data is the folder of a --testset, which is missing")
        if self.testset is None and not self.ref and (self.src or not self.ckpt):
            raise UsageError("--ref is missing: the translations to score against; or name a --testset")
        if self.ref and self.ckpt and self.src is None:
            raise UsageError("--ref needs --src beside it: the sentences to translate")
        if self.langs is not None and not _LANGUAGES.fullmatch(self.langs):
            raise UsageError(f"--langs {self.langs}: give source and target language, such as en-de")

    def _check_curve(self) -> None:
        if len(self.ckpt) != 1:
            raise UsageError("--all-checkpoints is for one run: give one --ckpt")
        if self.average:
            raise UsageError("--all-checkpoints does not go with --average")
        self._check_alone("--all-checkpoints")

    def _check_alone(self, option: str) -> None:
        """Raise UsageError for what asks for results of another kind."""
        others = {
            "--hyp": self.hyp,
            "--output": self.output,
            "--paper-bleu": self.paper_bleu,
            "--multi30k-bleu": self.multi30k_bleu,
            "--analysis": self.analysis,
            "--all-checkpoints": self.all_checkpoints,
            "--all-sets": self.all_sets,
            "--stress": self.stress,
        }
        if given := [name for name, value in others.items() if value and name != option]:
            raise UsageError(f"{option} does not go with {given[0]}")
