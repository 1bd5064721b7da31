"""A CPU that has AVX2 and no more computes all that newer ones do. Any x86 machine can stand in for one.

The limits are read when torch is loaded, so everything here runs in processes of its own.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86 CPUs")

TESTS = Path(__file__).parents[1]
LIMITED = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
# What decodes, packs weights and trains, as far as it multiplies matrices.
FILES = (
    "unit/test_inference.py",
    "unit/test_loss.py",
    "unit/test_teacher_forcing.py",
    "unit/test_transformer.py",
    "system/test_training_path.py",
    "system/test_translator.py",
)

CHOICES = """
import torch
from mt.device import choose_precision, onednn_takes_bfloat16, warning_of

assert torch.backends.cpu.get_cpu_capability() == "AVX2"
assert not onednn_takes_bfloat16()
cpu = torch.device("cpu")
assert choose_precision("auto", cpu) == torch.float32
assert choose_precision("bfloat16", cpu) == torch.bfloat16
assert warning_of("bfloat16", cpu)
"""


def test_training_takes_float32_by_itself_there_and_bfloat16_when_told() -> None:
    subprocess.run([sys.executable, "-c", CHOICES], env=LIMITED, check=True)


def test_translating_in_bfloat16_is_slow_there_but_works(toy_run: Path, toy_text: Path) -> None:
    command = [sys.executable, "-m", "mt", "translate", "--ckpt", str(toy_run), "--precision", "bfloat16"]
    lines = (toy_text / "test.en").read_text(encoding="utf-8").splitlines()[:4]
    result = subprocess.run(
        command, input="".join(f"{line}\n" for line in lines), env=LIMITED, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(lines)
    assert "bfloat16 is slower than precision float32 on this CPU" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "AVX2", reason="all tests run with AVX2 here")
def test_the_tests_of_decoding_packing_and_training_pass_there() -> None:
    pytest_again = [sys.executable, "-m", "pytest", "-q", "-m", "not slow and not gpu", "-p", "no:cacheprovider"]
    files = [str(TESTS / file) for file in FILES]
    result = subprocess.run([*pytest_again, *files], env=LIMITED, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
