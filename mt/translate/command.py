"""`mt translate`, in each process that takes part in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mt.console import Console
from mt.device import choose_device
from mt.distributed import LostContactError, joined
from mt.translate.job import Job, run_job
from mt.translate.translator import Translator


def translate(
    checkpoints: Sequence[Path],
    job: Job,
    device: str,
    average: int | None,
    decode: Mapping[str, object],
    quiet: bool = False,
) -> None:
    """Open the model and run the job, alone or as one process of several.

    Raises what Translator and run_job raise.
    """
    with joined(choose_device(device)) as world:
        console = Console(quiet or not world.is_main)
        try:
            with world.main_first():
                translator = Translator(*checkpoints, device=device, average=average, decode=decode)
            console.say(f"model: {translator.name}")
            run_job(translator, job, console, world)
        except LostContactError as error:
            if world.is_main:
                raise
            raise SystemExit(error.exit_status) from None  # what was lost has said why, or whoever started it says it
