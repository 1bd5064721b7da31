"""What `mt evaluate` is asked for; a request that cannot be carried out is refused in a sentence."""

import re
from dataclasses import dataclass
from pathlib import Path

from mt.errors import UsageError

_LANGUAGES = re.compile(r"([a-zA-Z]{2,3})-([a-zA-Z]{2,3})")


@dataclass(frozen=True)
class Request:
    """Systems to score, the test set to score them on, and what else to say about them.

    Raises UsageError when these do not go together.
    """

    checkpoints: tuple[Path, ...] = ()  # runs or checkpoints
    hypotheses: tuple[Path, ...] = ()  # files of translations
    source: Path | None = None
    references: tuple[Path, ...] = ()
    testset: str | None = None
    data: Path | None = None
    languages: str | None = None  # such as en-de
    output_file: Path | None = None
    beam: int | None = None
    alpha: float | None = None
    precision: str | None = None  # float32 or bfloat16
    average: int | None = None
    device: str = "auto"
    paper_bleu: bool = False
    multi30k_bleu: bool = False
    analysis: bool = False
    all_checkpoints: bool = False

    def __post_init__(self) -> None:
        self._check_systems()
        self._check_testset()
        if self.all_checkpoints:
            self._check_curve()

    def _check_systems(self) -> None:
        systems = [*self.checkpoints, *self.hypotheses]
        if not systems:
            raise UsageError("nothing to score: give --ckpt, a model, or --hyp, a file of translations")
        if twice := [path for path in systems if systems.count(path) > 1]:
            raise UsageError(f"{twice[0]} is given twice; to compare settings, keep each output and give it as --hyp")
        if not self.checkpoints:
            decoding = {
                "--beam": self.beam,
                "--alpha": self.alpha,
                "--precision": self.precision,
                "--average": self.average,
            }
            if given := [option for option, value in decoding.items() if value is not None]:
                raise UsageError(f"{given[0]} is about translating, but there is no --ckpt to translate with")
        if self.output_file is not None and (self.hypotheses or len(self.checkpoints) > 1):
            raise UsageError("--output keeps the translations of one --ckpt; score several models one at a time")

    def _check_testset(self) -> None:
        if self.testset is not None and (self.source or self.references):
            raise UsageError("give either --testset or --src and --ref")
        if self.data is not None and self.testset is None:
            raise UsageError("--data is the folder of a --testset, which is missing")
        if self.testset is None and not self.references and (self.source or not self.checkpoints):
            raise UsageError("--ref is missing: the translations to score against; or name a --testset")
        if self.references and self.checkpoints and self.source is None:
            raise UsageError("--ref needs --src beside it: the sentences to translate")
        if self.languages is not None and not _LANGUAGES.fullmatch(self.languages):
            raise UsageError(f"--langs {self.languages}: give source and target language, such as en-de")

    def _check_curve(self) -> None:
        others = {
            "--hyp": self.hypotheses,
            "--average": self.average,
            "--output": self.output_file,
            "--paper-bleu": self.paper_bleu,
            "--multi30k-bleu": self.multi30k_bleu,
            "--analysis": self.analysis,
        }
        if len(self.checkpoints) != 1:
            raise UsageError("--all-checkpoints is about one run: give one --ckpt")
        if given := [option for option, value in others.items() if value]:
            raise UsageError(f"--all-checkpoints does not go with {given[0]}")
