"""The benchmark that waits for a GPU works: at toy scale, on the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_prints_a_table_of_each_part() -> None:
    command = [sys.executable, "scripts/benchmarks/gpu.py", "--toy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"^\| mt \|( [\d,.x%h ]+ \|){7}$", result.stdout, flags=re.MULTILINE)
    assert re.search(r"^\| mt \| 4 \| 4 \| [\d,]+ \|$", result.stdout, flags=re.MULTILINE)
    assert "TFLOP/s" in result.stdout
    assert "Self CPU" in result.stdout
